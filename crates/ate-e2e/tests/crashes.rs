//! Interrupts, and commands at once. What a class must stand (whatever is killed, a full disk) is in `lifecycle.rs`.

use std::time::Duration;

use ate_e2e::{Node, eventually, node};

/// What was begun ends within this.
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn ctrl_c_in_a_terminal_suspends_what_runs() {
    let mut node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.interrupt();
    node.up();
    assert_eq!(node.count("a"), 2);
    assert_eq!(node.get("actor", "a")["status"]["lostActivations"], 0);
}

#[test]
fn resume_suspend_and_delete_at_once_end_in_one_of_the_states_they_name() {
    let node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    for round in 0..5 {
        let name = format!("a{round}");
        node.actor(&name, "counter");
        std::thread::scope(|s| {
            for verb in ["resume", "suspend", "resume", "pause", "delete", "resume"] {
                let (node, name) = (&node, &name);
                s.spawn(move || node.ate(&[verb, "actor", name]));
            }
        });
        eventually("the actor to be gone", RECOVERY, || {
            let out = node.ate(&["get", "actor", &name, "-o", "name"]);
            if out.code == 0 {
                node.ate(&["delete", "actor", &name]);
            }
            out.code != 0
        });
    }
    node.workers_ready(2);
}
