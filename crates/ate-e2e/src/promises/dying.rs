//! What dies, or fills up, on a machine of the test's own.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::{
    Footprint, Kit, Node, Site,
    disk::SmallDisk,
    eventually,
    footprint::{below, command_line},
    node::signal,
};

use super::{RECOVERY, phase};

pub fn a_herder_that_dies_is_replaced_and_its_actor_served_again(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    herders(site.machine(), kit).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    eventually("the loss to be seen", RECOVERY, || phase(&site, "a") == "Suspended");
    assert_eq!(site.count("a"), 2);
    assert_eq!(site.get("actor", "a")["status"]["lostActivations"], 1);
}

pub fn a_sandbox_killed_under_its_actor_is_started_again_by_the_next_request(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    let inside: Vec<u32> =
        herders(site.machine(), kit).into_iter().filter(|pid| command_line(*pid).contains("--inside")).collect();
    let sandbox: Vec<u32> = inside.iter().flat_map(|pid| below(*pid)).collect();
    assert!(!sandbox.is_empty(), "the actor must be somewhere");
    sandbox.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    eventually("the end to be seen", RECOVERY, || phase(&site, "a") == "Suspended");
    assert_eq!(site.count("a"), 2);
}

pub fn a_node_that_stops_leaves_nothing_behind_and_loses_nothing(kit: &'static Kit) {
    let mut site = Site::start(kit, 2).with_counter();
    for name in ["a", "b", "c"] {
        site.actor(name, "counter");
        assert_eq!(site.count(name), 1);
    }
    let footprint = Footprint::of(site.machine());
    assert!(footprint.links() == 2 && !footprint.remains().is_empty(), "{footprint:?}");
    site.node().stop();
    assert_eq!(footprint.remains(), BTreeSet::new());
    site.node().up();
    for name in ["a", "b", "c"] {
        assert_eq!(site.count(name), 2, "a stop suspends what runs");
    }
}

pub fn a_node_killed_and_started_again_keeps_every_committed_generation(kit: &'static Kit) {
    let mut site = Site::start(kit, 2).with_counter();
    for name in ["kept", "lost"] {
        site.actor(name, "counter");
        assert_eq!(site.count(name), 1);
        site.ate(&["suspend", "actor", name]).ok();
    }
    assert_eq!(site.count("lost"), 2);
    let footprint = Footprint::of(site.machine());
    site.node().crash();
    let workers_gone = || footprint.remains().iter().all(|l| l.starts_with("link ") || l.starts_with("mount "));
    eventually("the workers to be gone with the node", RECOVERY, workers_gone);
    site.node().up();
    assert_eq!(site.count("kept"), 2);
    assert_eq!(site.count("lost"), 2, "what came after the last commit is lost, nothing else");
    assert_eq!(site.get("actor", "lost")["status"]["lostActivations"], 1);
    assert_eq!(footprint.remains(), BTreeSet::new(), "what the killed one left is cleaned up");
}

pub fn a_disk_that_fills_up_during_a_suspend_leaves_the_actor_running(kit: &'static Kit) {
    // Room for the binaries, the golden snapshot and the actor's state twice.
    let disk = SmallDisk::new(1200);
    let mut site = Site::on(Node::on(disk.path()), kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.request("a", "/grow/100").status, 200);
    assert_eq!(site.count("a"), 1);
    // Room for the node to go on, but not for the actor's state.
    let filler = disk.fill_but(70);
    let said = site.ate(&["suspend", "actor", "a"]).refused();
    assert!(said.contains("DISK_FULL"), "{said}");
    assert_eq!(site.count("a"), 2, "the actor goes on");
    std::fs::remove_file(filler).expect("remove the filler");
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 3);
    site.node().stop();
}

/// The processes of the class's program.
fn herders(node: &Node, kit: &Kit) -> Vec<u32> {
    let program = format!("ateom-{}", kit.class);
    let herders = below(node.pid()).into_iter();
    herders.filter(|pid| command_line(*pid).contains("--socket") && program_of(*pid).ends_with(&program)).collect()
}

fn program_of(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default().display().to_string()
}
