//! A binary is revoked under running, suspended and prepared sandboxes, with two real builds of runsc.

use std::{fs, path::PathBuf, time::Duration};

use ate_e2e::{Node, RUNSC_A, RUNSC_B, Template, eventually, footprint::running, node, runsc};
use serde_json::Value;

/// Pools and templates follow a change of their configuration within this.
const SETTLED: Duration = Duration::from_secs(60);

/// The sha256 of a build, as the system names it.
fn digest(build: &str) -> String {
    let out = std::process::Command::new("sha256sum").arg(runsc(build)).output().expect("sha256sum");
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a digest").to_owned()
}

/// Templates `counter`, which keeps its count in memory, and `files`, which keeps it in a durable directory beside it.
fn site(workers: u32) -> Node {
    let node = Node::with_pool(workers);
    let never_idle = "idleTimeout: \"0\"";
    node.template(&Template::default().line(never_idle).yaml("counter"), "counter");
    let files = Template::default().durable().env("KEEP_COUNT", "1").line(never_idle);
    node.template(&files.yaml("files"), "files");
    node
}

/// Where the node has a binary.
fn asset(node: &Node, digest: &str) -> PathBuf {
    let path = node.data().join(format!("node/assets/files/sha256-{digest}"));
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

fn usage(node: &Node, args: &[&str]) -> Value {
    let all: Vec<&str> = ["sandbox", "usage", "-o", "json"].iter().chain(args).copied().collect();
    serde_json::from_str(&node.ate(&all).ok()).expect("JSON")
}

#[track_caller]
fn refused(node: &Node, actor: &str) {
    let out = node.ate(&["resume", "actor", actor]);
    assert_eq!(out.code, 5, "{}{}", out.stdout, out.stderr);
    assert!(out.stderr.contains("ASSET_REVOKED") && out.stderr.contains("CVE-2026-1"), "{}", out.stderr);
    assert!(out.stderr.contains("--boot"), "{}", out.stderr);
}

#[test]
fn nothing_resumes_under_a_revoked_runsc_not_even_after_a_crash_and_with_files_kept_it_boots_under_another() {
    let mut node = site(2);
    for (actor, template) in [("memory", "counter"), ("disk", "files")] {
        node.actor(actor, template);
        assert_eq!((node.count(actor), node.count(actor)), (1, 2));
        node.ate(&["suspend", "actor", actor]).ok();
    }
    let digest = digest(RUNSC_A);
    let before = usage(&node, &["--digest", &digest[..12]]);
    let revision = &before["revisions"][0];
    assert_eq!(
        (&revision["suspended"], &revision["goldens"], &revision["snapshots"]),
        (&2.into(), &2.into(), &4.into())
    );
    let names = node.ate(&["sandbox", "usage", "--config", "gvisor-default", "-o", "name"]).ok();
    for name in ["actor/default/memory", "actor/default/disk", "actortemplate/default/counter"] {
        assert!(names.contains(name), "{names}");
    }

    // A warm worker has started the binary ahead.
    let program = asset(&node, &digest);
    eventually("a worker to be warm", SETTLED, || !running(&program).is_empty());
    let said = node.ate(&["sandbox", "revoke", &digest[..12], "--reason", "CVE-2026-1"]).ok();
    assert!(said.contains("gvisor-default@1") && said.contains("nothing runs under it"), "{said}");
    assert_eq!(running(&program), Vec::<u32>::new(), "what was started ahead is gone when it returns");
    refused(&node, "memory");
    assert_eq!(node.request("memory", "/").status, 503, "nor does a request wake it");

    node.crash();
    node.up();
    refused(&node, "memory");
    refused(&node, "disk");
    let list = fs::read_to_string(node.data().join("node/revoked.json")).expect("the node's own list");
    assert!(list.contains(&digest), "{list}");
    let told = node.ate(&["describe", "sandboxconfig", "gvisor-default"]).ok();
    assert!(told.contains("Revoked") && told.contains("CVE-2026-1"), "{told}");

    node.import("gvisor-default", RUNSC_B, true).ok();
    node.workers_ready(2);
    refused(&node, "disk");
    eventually("the pool to run the other build", SETTLED, || {
        node.get("pool", "pool")["status"]["sandboxConfig"] == "gvisor-default@2"
    });
    node.ate(&["resume", "actor", "disk", "--boot"]).ok();
    assert_eq!(node.count("disk"), 3, "its directory is as it was");
    node.ate(&["suspend", "actor", "disk"]).ok();
    assert_eq!(node.count("disk"), 4, "and it is the other build's from now on");
    assert_eq!(running(&program), Vec::<u32>::new());

    node.ate(&["sandbox", "unrevoke", &digest[..8]]).ok();
    assert_eq!(node.count("memory"), 3, "nothing was lost meanwhile");
}

#[test]
fn stopping_what_runs_keeps_its_files_and_it_goes_on_under_another_build() {
    let node = site(2);
    node.actor("memory", "counter");
    node.actor("disk", "files");
    assert_eq!(node.count("memory"), 1);
    node.ate(&["suspend", "actor", "memory"]).ok();
    assert_eq!((node.count("memory"), node.count("disk"), node.count("disk")), (2, 1, 2));
    let digest = digest(RUNSC_A);
    let listed = node.ate(&["sandbox", "revoke", &digest, "--reason", "CVE-2026-1"]).ok();
    assert!(listed.contains("default/memory") && listed.contains("default/disk"), "{listed}");
    assert_eq!(node.count("memory"), 3, "who is only listed goes on");

    let program = asset(&node, &digest);
    let said = node.ate(&["sandbox", "revoke", &digest, "--reason", "CVE-2026-1", "--stop"]).ok();
    assert!(said.contains("suspended, files kept") && said.contains("stopped"), "{said}");
    assert_eq!(running(&program), Vec::<u32>::new());
    for actor in ["memory", "disk"] {
        assert_eq!(node.get("actor", actor)["status"]["phase"], "Suspended");
    }
    node.import("gvisor-default", RUNSC_B, true).ok();
    eventually("the pool to run the other build", SETTLED, || {
        node.get("pool", "pool")["status"]["sandboxConfig"] == "gvisor-default@2"
    });
    node.workers_ready(2);
    assert_eq!(node.count("disk"), 3, "a request is enough");
    refused(&node, "memory");
    node.ate(&["sandbox", "unrevoke", &digest]).ok();
    assert_eq!(node.count("memory"), 2, "as it was when it was suspended last");
}

#[test]
fn a_configuration_in_use_is_not_deleted_and_with_force_it_is_revoked() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    let out = node.ate(&["delete", "sandboxconfig", "gvisor-default"]);
    assert_eq!(out.code, 4);
    for word in ["IN_USE", "1 pool", "1 suspended actor", "actor/default/a", "--force"] {
        assert!(out.stderr.contains(word), "{word} is not in {}", out.stderr);
    }
    let said = node.ate(&["delete", "sandboxconfig", "gvisor-default", "--force"]).ok();
    assert!(said.contains("stays") && said.contains("revoked"), "{said}");
    let out = node.ate(&["resume", "actor", "a"]);
    assert_eq!(out.code, 5, "{}", out.stderr);
    assert!(out.stderr.contains("ASSET_REVOKED"), "{}", out.stderr);
    let revocations = node.ate(&["sandbox", "revocations"]).ok();
    assert!(revocations.contains("gvisor-default@1") && revocations.contains("--force"), "{revocations}");
}
