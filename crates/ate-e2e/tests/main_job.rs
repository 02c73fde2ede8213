//! Templates without a word about sandboxes: the defaults, which are gVisor's. What every class promises is in
//! `lifecycle.rs`.

use ate_e2e::{Node, RUNSC_A, RUNSC_B, node};

#[test]
fn an_actor_resumes_under_the_binary_its_snapshot_names_when_the_default_has_moved_on() {
    let node = Node::with_pool(2);
    node.template(&node::counter("before", ""), "before");
    node.actor("old", "before");
    assert_eq!(node.count("old"), 1);
    node.ate(&["suspend", "actor", "old"]).ok();

    node.import("gvisor-default", RUNSC_B, true).ok();
    node.template(&node::counter("after", ""), "after");
    node.actor("new", "after");
    assert_eq!(node.count("old"), 2);
    assert_eq!(node.count("new"), 1);
    node.ate(&["suspend", "actor", "old"]).ok();
    node.ate(&["suspend", "actor", "new"]).ok();

    let digest_of = |owner: &str| {
        let snapshots = node.list("snapshots");
        let current = snapshots
            .iter()
            .find(|s| s["spec"]["owner"] == format!("default/{owner}") && s["status"]["current"] == true)
            .unwrap_or_else(|| panic!("no current snapshot of {owner} in {snapshots:#?}"));
        current["spec"]["assets"]["runsc"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest_of("old"), sha256(RUNSC_A));
    assert_eq!(digest_of("new"), sha256(RUNSC_B));
}

fn sha256(build: &str) -> String {
    let out = std::process::Command::new("sha256sum").arg(ate_e2e::runsc(build)).output().expect("sha256sum");
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a digest").to_owned()
}

#[test]
fn an_image_runs_with_one_command() {
    let node = Node::with_pool(1);
    let out = node.ate(&["run", &ate_e2e::counter_image(), "--name", "quick"]).ok();
    assert!(out.contains("http://quick.default.localhost:"), "{out}");
    assert_eq!(node.count("quick"), 1);
}
