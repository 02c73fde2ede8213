//! A disk that breaks under a running node: nothing is acknowledged any more, and what was is there after the repair. Alone in
//! its program, because herders of other nodes would keep the broken file system mounted where they are.

use std::time::{Duration, Instant};

use ate_e2e::{Footprint, Node, RUNSC_B, Site, disk::LoopDisk, kit, runsc, until};

/// Room for the binaries, the image and the actors' state several times.
const DISK_MB: u64 = 1500;
/// Workers end with their node within this.
const GONE: Duration = Duration::from_secs(60);
/// What a node may answer when its disk takes no writes.
const BROKEN: [&str; 2] = ["STORAGE_UNAVAILABLE", "UNAVAILABLE"];

#[test]
fn when_the_disk_breaks_nothing_is_acknowledged_any_more_and_what_was_is_there_after_the_repair() {
    let mut disk = LoopDisk::new(DISK_MB);
    let mut site = Site::on(Node::on(&disk.path()), &kit::GVISOR, 2).with_counter();
    for actor in ["runs", "sleeps"] {
        site.actor(actor, "counter");
        assert_eq!(site.count(actor), 1);
        site.ate(&["suspend", "actor", actor]).ok();
    }
    assert_eq!((site.count("runs"), site.count("runs")), (2, 3));
    let asset = format!("runsc={}", runsc(RUNSC_B).display());
    let steps: [&[&str]; 4] = [
        &["suspend", "actor", "runs"],
        &["create", "actor", "new", "--template", "counter"],
        &["token", "create", "new", "--role", "viewer"],
        &["sandbox", "import", "--class", "gvisor", "--name", "other", &asset],
    ];

    disk.fail();
    for step in steps {
        let begun = Instant::now();
        let said = site.ate(step).refused();
        assert!(BROKEN.iter().any(|reason| said.contains(&format!("reason: {reason}\n"))), "{step:?}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(90), "{step:?} took {:?}", begun.elapsed());
    }
    assert_eq!(site.count("runs"), 4, "what is in memory goes on");

    let footprint = Footprint::of(site.machine());
    site.node().crash();
    until("the workers to be gone with the node", GONE, || {
        footprint.remains().iter().all(|left| left.starts_with("link ") || left.starts_with("mount ")).then_some(())
    });
    disk.repair();
    site.node().up();
    assert_eq!(site.count("runs"), 2, "the last committed generation");
    assert_eq!(site.count("sleeps"), 2);
    assert!(site.ate(&["get", "actor", "new"]).code != 0, "what was refused did not happen");
    for step in steps {
        site.ate(step).ok();
    }
    site.node().stop();
}
