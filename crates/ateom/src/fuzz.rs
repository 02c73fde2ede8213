//! What a node agent may ask of a herder, and what lies about it: the messages of the contract, archives, tables of the kernel.

use std::collections::BTreeMap;

use ate_api::{Error, Reason};
use ate_fuzz::Target;
use prost::Message;

use crate::{
    config, data,
    driver::{
        Activation, CheckpointRequest, CheckpointResponse, Container, Identity, Mount, PrepareRequest, RestoreRequest,
        RunRequest, Sandbox, Snapshot, SnapshotFile, StatsResponse, Volume, Workload,
    },
    network, worker, workload,
};

fn sandbox() -> Sandbox {
    Sandbox {
        config_name: "c".into(),
        config_revision: 1,
        asset_paths: [("runsc".to_owned(), "/bin/sh".to_owned())].into(),
        asset_digests: [("runsc".to_owned(), "0".repeat(64))].into(),
        ..Sandbox::with_config("{}")
    }
}

fn work() -> Workload {
    let mounts = vec![Mount { volume: "data".into(), path: "/data".into() }];
    let args = vec!["/app".to_owned()];
    let main = Container {
        name: "main".into(),
        layers: vec!["/".into()],
        args,
        cwd: "/".into(),
        mounts,
        ..Container::default()
    };
    Workload { containers: vec![main], volumes: vec![Volume { name: "data".into() }], key: "k".into() }
}

fn run() -> RunRequest {
    let identity = Identity { atespace: "default".into(), name: "a".into(), ..Identity::default() };
    let activation = Activation { number: 3, identity: Some(identity), timeout_ms: 1000, ..Activation::default() };
    RunRequest { activation: Some(activation), sandbox: Some(sandbox()), workload: Some(work()) }
}

/// Reads a message; what is written of it reads the same.
fn message<M: Message + Default + PartialEq>(bytes: &[u8]) -> Result<M, Error> {
    let message = M::decode(bytes).map_err(|e| Error::new(Reason::Invalid, e.to_string()))?;
    let again = M::decode(&message.encode_to_vec()[..]).expect("what was written is a message");
    assert!(again == message);
    Ok(message)
}

#[test]
fn requests_of_a_node() {
    Target::named("ateom.requests")
        .sample("run", || run().encode_to_vec())
        .sample("restore", || {
            let RunRequest { activation, sandbox, workload } = run();
            let snapshot = Some(Snapshot { digest: "0".repeat(64), dir: "/".into() });
            RestoreRequest { activation, sandbox, workload, base: snapshot.clone(), snapshot }.encode_to_vec()
        })
        .run(|bytes| {
            let _ = (message::<PrepareRequest>(bytes), message::<CheckpointRequest>(bytes));
            let restore: RestoreRequest = message(bytes)?;
            if let Some(activation) = restore.activation {
                let _ = tokio::time::Instant::now() + worker::start_limit(activation.timeout_ms);
            }
            if let Some(snapshot) = restore.snapshot {
                worker::snapshot(snapshot)?;
            }
            let (sandbox, work) = worker::parts(restore.sandbox, restore.workload)?;
            workload::check(&work)?;
            for container in &work.containers {
                assert!(workload::environment(container).iter().any(|e| e.starts_with("PATH=")));
            }
            config::of::<config::NoSettings>(&sandbox)?;
            config::asset(&sandbox, "runsc").map(drop)
        });
}

#[test]
fn answers_of_a_herder() {
    Target::named("ateom.answers")
        .sample("checkpoint", || {
            let file = SnapshotFile { name: "pages.img".into(), media_type: "application/octet-stream".into() };
            CheckpointResponse { files: vec![file], needs_base: true }.encode_to_vec()
        })
        .sample("stats", || {
            StatsResponse { state: 4, activation: 9, memory_bytes: 1, ..Default::default() }.encode_to_vec()
        })
        .run(|bytes| {
            let stats = message::<StatsResponse>(bytes).map(|stats| assert!(!stats.state().as_str_name().is_empty()));
            message::<CheckpointResponse>(bytes).map(drop).or(stats)
        });
}

#[test]
fn archives_in_snapshots() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join(data::ARCHIVE);
    Target::named("ateom.data-archive")
        .sample("volume", || {
            let dir = tempfile::tempdir().unwrap();
            let volume = dir.path().join("data");
            std::fs::create_dir(&volume).unwrap();
            std::fs::write(volume.join("file"), "hello").unwrap();
            let archive = dir.path().join("archive");
            data::pack(&BTreeMap::from([("data".to_owned(), volume)]), &archive).unwrap();
            std::fs::read(archive).unwrap()
        })
        .run(|bytes| {
            std::fs::write(&path, bytes).unwrap();
            let to = tempfile::tempdir_in("/dev/shm").unwrap();
            let volume = to.path().join("data");
            std::fs::create_dir(&volume).unwrap();
            data::unpack(&path, &BTreeMap::from([("data".to_owned(), volume)]))
        });
}

#[test]
fn connections_in_the_kernels_table() {
    Target::named("ateom.conntrack")
        .sample("open", || {
            let line = format!(
                "ipv4     2 tcp      6 431999 ESTABLISHED src=10.88.0.1 dst={0} sport=41000 dport=80 src={0} dst=10.88.0.1 sport=80 \
                 dport=41000 [ASSURED] mark=1 use=2\n",
                network::ACTOR_ADDRESS
            );
            line.into_bytes()
        })
        .run(|bytes| match network::parse_conntrack(&String::from_utf8_lossy(bytes)).len() {
            0 => Err("none is open"),
            _ => Ok(()),
        });
}
