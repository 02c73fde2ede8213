//! The main job, end to end: templates without a word about sandboxes, many actors on few workers.

use std::time::Duration;

use ate_e2e::{Node, RUNSC_A, RUNSC_B, eventually, node};

#[test]
fn six_actors_share_two_workers_and_each_goes_on_counting() {
    let node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    let names: Vec<String> = (1..=6).map(|n| format!("a{n}")).collect();
    for name in &names {
        node.actor(name, "counter");
    }
    for round in 1..=3 {
        for name in &names {
            assert_eq!(node.count(name), round, "{name} in round {round}");
        }
    }
}

#[test]
fn an_actor_suspended_and_paused_by_command_goes_on_where_it_was() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    for (verb, phase, expected) in [("suspend", "Suspended", 2), ("pause", "Paused", 3), ("suspend", "Suspended", 4)] {
        node.ate(&[verb, "actor", "a"]).ok();
        assert_eq!(node.get("actor", "a")["status"]["phase"], phase);
        node.workers_ready(1);
        node.ate(&["resume", "actor", "a"]).ok();
        assert_eq!(node.get("actor", "a")["status"]["phase"], "Running");
        assert_eq!(node.count("a"), expected);
    }
}

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
fn an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request() {
    let node = Node::with_pool(1);
    node.template(&node::counter("sleepy", "  idleTimeout: 1s\n"), "sleepy");
    node.actor("a", "sleepy");
    assert_eq!(node.count("a"), 1);
    node.phase("a", "Suspended");
    assert_eq!(node.count("a"), 2);
}

#[test]
fn actors_of_one_name_in_two_atespaces_are_two_actors() {
    let node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    node.ate(&["create", "atespace", "other"]).ok();
    node.actor("same", "counter");
    node.ate(&["create", "actor", "same", "-a", "other", "--template", "counter"]).ok();
    assert_eq!(node.count("same"), 1);
    assert_eq!(node.count("same"), 2);
    let other = ate_e2e::http::get(node.router(), "same.other.localhost", "/", node::ANSWER).expect("an answer");
    assert_eq!(node::counted(&other.body), Some(1), "{}", other.body);
    node.ate(&["delete", "actor", "same", "-a", "other"]).ok();
    assert_eq!(node.count("same"), 3);
}

#[test]
fn only_durable_directories_survive_when_the_template_says_data() {
    let node = Node::with_pool(1);
    let spec = "  volumes: [{name: data, durableDir: {}}]\n  idleTimeout: \"0\"\n";
    let yaml = node::counter_with("keeper", spec, "    volumeMounts: [{name: data, mountPath: /data}]\n")
        .replace("{location: default}", "{location: default, onPause: Data, onCommit: Data}");
    node.template(&yaml, "keeper");
    node.actor("a", "keeper");
    assert_eq!(node.count("a"), 1);
    assert_eq!(node.put("a", "/file", "kept").status, 200);
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.request("a", "/file").body.trim(), "kept");
    assert_eq!(node.count("a"), 1, "memory starts anew");
}

#[test]
fn two_containers_share_an_actor_and_survive_together() {
    let node = Node::with_pool(1);
    let yaml = node::counter("pair", "").replace(
        "  snapshotsConfig",
        &format!(
            "  - name: side\n    image: {}\n    env: [{{name: PORT, value: \"8081\"}}]\n    readyz: {{httpGet: {{path: /readyz, port: 8081}}}}\n  snapshotsConfig",
            ate_e2e::counter_image()
        ),
    );
    node.template(&yaml, "pair");
    node.actor("a", "pair");
    let side = |n: u64| {
        let answer =
            ate_e2e::http::get(node.router(), "8081-a.default.localhost", "/", node::ANSWER).expect("an answer");
        assert_eq!(node::counted(&answer.body), Some(n), "{}", answer.body);
    };
    assert_eq!(node.count("a"), 1);
    side(1);
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 2);
    side(2);
}

#[test]
fn what_an_actor_prints_can_be_read_by_its_name() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    node.count("a");
    eventually("a line of the actor's log", Duration::from_secs(10), || {
        node.ate(&["logs", "actor", "a"]).ok().contains("request 1")
    });
}

#[test]
fn an_image_runs_with_one_command() {
    let node = Node::with_pool(1);
    let out = node.ate(&["run", &ate_e2e::counter_image(), "--name", "quick"]).ok();
    assert!(out.contains("http://quick.default.localhost:"), "{out}");
    assert_eq!(node.count("quick"), 1);
}
