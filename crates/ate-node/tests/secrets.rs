//! Variables from secrets, on a real worker: an actor that starts from its images finds them, and nobody else does.

#[path = "support/node.rs"]
mod support;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use ate_agent::{NodeAgent, Source};
use ate_api::{Error, Reason};
use ate_node::{Options, SecretData, Secrets};
use support::*;

/// The one secret there is, as long as it is there.
#[derive(Debug)]
struct Vault(Mutex<Option<&'static str>>);

#[async_trait::async_trait]
impl Secrets for Vault {
    async fn read(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, Error> {
        assert_eq!((namespace, name), ("default", "db"));
        let value = self.0.lock().unwrap();
        Ok(value.map(|value| SecretData::from([("password".to_owned(), value.as_bytes().to_owned())])))
    }
}

impl Vault {
    fn set(&self, value: Option<&'static str>) {
        *self.0.lock().unwrap() = value;
    }
}

fn names_password(about: &str) -> Option<&str> {
    about.lines().find_map(|line| line.split_once("DB_PASSWORD=")).map(|(_, value)| value)
}

/// Files below a directory that contain this.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let found = std::process::Command::new("grep").args(["-rlF", "--devices=skip", text]).arg(dir).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_finds_a_secret_as_it_was_when_it_started_and_no_file_of_the_node_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Arc::new(Vault(Mutex::new(None)));
    let options = Options { secrets: Some(vault.clone()), ..options(dir.path()) };
    let env = serde_json::json!([
        {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    ]);
    let machine = Machine::start_with(dir, options, env).await.workers_ready(1).await;
    let (worker, a) = (machine.ready().remove(0), actor("a"));

    // It is prepared without its secret, and started only with it.
    machine.node.prepare(machine.prepare(&worker)).await.unwrap();
    let refused = machine.node.activate(machine.activate(&worker, &a, 1, Source::Boot)).await;
    assert_eq!(reason(refused), Reason::SecretUnavailable);

    vault.set(Some("first-of-all"));
    let address = machine.boot(&worker, &a, 2).await.address;
    assert_eq!(names_password(&get(address, "/about").unwrap()), Some("first-of-all"));
    assert_eq!(holding(machine.dir.path(), "first-of-all"), Vec::<String>::new());
    let planted = machine.dir.path().join("node/planted");
    std::fs::write(&planted, "first-of-all").unwrap();
    assert_eq!(
        holding(machine.dir.path(), "first-of-all"),
        [planted.to_str().unwrap()],
        "the search finds what is there"
    );
    let captured = machine.node.capture(capture(&worker, &a, 2, external())).await.unwrap();
    machine.release(&worker, &a, 2).await;

    // Its memory has it, so it needs no secret to go on.
    vault.set(None);
    let activate = machine.activate(&worker, &a, 3, restored(&captured));
    let address = machine.node.activate(activate).await.unwrap().address;
    assert_eq!(names_password(&get(address, "/about").unwrap()), Some("first-of-all"));
    machine.release(&worker, &a, 3).await;

    // What was read is not kept for whoever starts next.
    vault.set(Some("second"));
    let b = actor("b");
    let address = machine.boot(&worker, &b, 1).await.address;
    assert_eq!(names_password(&get(address, "/about").unwrap()), Some("second"));
    machine.release(&worker, &b, 1).await;
    machine.node.shutdown().await;
}
