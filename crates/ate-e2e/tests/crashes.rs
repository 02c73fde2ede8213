//! Ends, full disks and commands at once. What a class must stand (herders, sandboxes and nodes that are killed) is in
//! `lifecycle.rs`.

use std::{process::Command, time::Duration};

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
