//! Whatever dies, every actor comes back from its last committed generation and nothing stays behind.

use std::{process::Command, time::Duration};

use ate_e2e::{Node, eventually, leftovers, node, node::signal};
use rustix::process::Signal;

/// A lost worker is noticed and replaced within this.
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn a_node_killed_and_started_again_keeps_every_committed_generation() {
    let mut node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("kept", "counter");
    node.actor("lost", "counter");
    assert_eq!(node.count("kept"), 1);
    node.ate(&["suspend", "actor", "kept"]).ok();
    assert_eq!(node.count("lost"), 1);
    node.ate(&["suspend", "actor", "lost"]).ok();
    assert_eq!(node.count("lost"), 2);

    node.crash();
    eventually("the sandboxes to be gone with the node", RECOVERY, || leftovers::of(&node.data()).is_empty());
    node.up();
    assert_eq!(node.count("kept"), 2);
    assert_eq!(node.count("lost"), 2, "what came after the last commit is lost, nothing else");
    let actor = node.get("actor", "lost");
    assert_eq!(actor["status"]["lostActivations"], 1, "{actor:#}");
}

#[test]
fn a_herder_that_dies_is_replaced_and_its_actor_served_again() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 2);
    for pid in pids(&node, "ateom-gvisor") {
        signal(pid, Signal::KILL);
    }
    eventually("the loss to be seen", RECOVERY, || node.get("actor", "a")["status"]["phase"] == "Suspended");
    assert_eq!(node.count("a"), 2);
}

#[test]
fn a_sandbox_that_dies_is_started_again_by_the_next_request() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 2);
    node.request("a", "/exit");
    eventually("the end to be seen", RECOVERY, || node.get("actor", "a")["status"]["phase"] == "Suspended");
    assert_eq!(node.count("a"), 2);
}

#[test]
fn a_node_that_stops_leaves_nothing_behind_and_loses_nothing() {
    let before = leftovers::network();
    let mut node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    for name in ["a", "b", "c"] {
        node.actor(name, "counter");
        assert_eq!(node.count(name), 1);
    }
    let links: Vec<_> = leftovers::network().difference(&before).cloned().collect();
    assert!(!links.is_empty());
    node.stop();
    assert_eq!(leftovers::of(&node.data()), Default::default());
    // Other tests make links of their own meanwhile; those of this node must be gone.
    node.up();
    for name in ["a", "b", "c"] {
        assert_eq!(node.count(name), 2, "a stop suspends what runs");
    }
}

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
fn a_disk_that_fills_up_during_a_suspend_leaves_the_actor_running() {
    let disk = SmallDisk::new(600);
    let mut node = Node::on(disk.path());
    node.set_up(1);
    let heap = "    env: [{name: HEAP_MB, value: \"120\"}]\n";
    node.template(&node::counter_with("fat", "  idleTimeout: \"0\"\n", heap), "fat");
    node.actor("a", "fat");
    assert_eq!(node.count("a"), 1);
    // Room for the node to go on, but not for the actor's memory.
    let filler = disk.fill_but(90);
    let said = node.ate(&["suspend", "actor", "a"]).refused();
    assert!(said.contains("DISK_FULL"), "{said}");
    assert_eq!(node.count("a"), 2, "the actor goes on");
    std::fs::remove_file(filler).expect("remove the filler");
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 3);
    node.stop();
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

/// Host pids of processes of this node whose command line has this word.
fn pids(node: &Node, word: &str) -> Vec<u32> {
    leftovers::of(&node.data())
        .iter()
        .filter(|l| l.contains(word))
        .filter_map(|l| l.strip_prefix("process ")?.split(':').next()?.parse().ok())
        .collect()
}

/// A tmpfs of a few megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mb: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mb}m"), "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("mount");
        assert!(status.success());
        SmallDisk(dir)
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Takes all but so many megabytes of what is left.
    fn fill_but(&self, mb: u64) -> std::path::PathBuf {
        let stat = rustix::fs::statvfs(self.path()).expect("statvfs");
        let take = (stat.f_bavail * stat.f_frsize).saturating_sub(mb << 20);
        let path = self.path().join("filler");
        let file = std::fs::File::create(&path).expect("a filler");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take).expect("fallocate");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
