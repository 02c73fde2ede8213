//! Hundreds of lives under faults, after which the node has what it had before them.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use fastrand::Rng;

use super::{
    actor::Actor,
    cases, check, points, stories,
    storm::{census, difference},
    world::World,
};
use crate::{Footprint, Kit};

/// One life in so many meets a fault.
const FAULT_EVERY: usize = 4;

/// What was left behind.
pub fn run(kit: &'static Kit, lives: usize, seed: u64) -> Vec<String> {
    let mut world = World::start(kit, 2);
    let mut random = Rng::with_seed(seed);
    // The first life makes what stays (logs, the first preparation).
    life(&mut world, &mut random);
    settle(&mut world);
    let (start, files) = (census(&world), files(&world));
    world.node().stop();
    let rows = rows(&world.machine().data());
    world.node().up();
    let workers = world.workers;
    world.workers_ready(workers);

    let mut all = cases::all(&points::all());
    all.retain(|case| {
        let name = &case.step.name;
        let fits = !stories::needs_sandbox(name) || kit.class != crate::kit::PROCESS.class;
        fits && !case.kills_from_outside() && stories::of(name).is_some_and(|tell| stories::is_life(tell))
    });
    for n in 0..lives {
        if n % FAULT_EVERY == 0 {
            let case = random.choice(&all).expect("cases");
            world.arm(&case.point(), case.word());
        }
        life(&mut world, &mut random);
    }
    world.disarm();
    world.heal();
    settle(&mut world);
    let mut left = difference(&mut world, &start);
    left.extend(check::leftovers(&mut world));
    let now = self::files(&world);
    if now != files {
        left.push(format!("files at the start {files:?}, now {now:?}"));
    }
    let footprint = Footprint::of(world.machine());
    world.node().stop();
    left.extend(footprint.remains());
    let now = self::rows(&world.machine().data());
    if now != rows {
        left.push(format!("rows at the start {rows:?}, now {now:?}"));
    }
    left
}

/// Some of what can be asked of an actor, in some order, and its end.
fn life(world: &mut World, random: &mut Rng) {
    let mut actor = Actor::new(world.name("l"));
    world.insist_or(&["create", "actor", &actor.name, "--template", "counter"], &["ALREADY_EXISTS"]);
    for _ in 0..random.usize(1..4) {
        match random.u32(..4) {
            0 => actor.suspend(world, "suspend"),
            1 => actor.suspend(world, "pause"),
            _ => actor.count(world),
        }
    }
    world.insist_or(&["delete", "actor", &actor.name], &["NOT_FOUND"]);
}

fn settle(world: &mut World) {
    let workers = world.workers;
    world.until("every worker to be free", super::world::RECOVERY, |w| {
        let free = w.look_all("workers")?.iter().filter(|w| w["status"]["phase"] == "Free").count();
        (free == workers).then_some(())
    });
    let left = check::leftovers(world);
    assert!(left.is_empty(), "left behind: {left:?}");
    std::thread::park_timeout(Duration::from_millis(1500));
}

/// Files by directory. Logs of actors that are gone stay for a while, for people to read.
fn files(world: &World) -> BTreeMap<String, usize> {
    let data = world.machine().data();
    let dirs = ["objects", "node/snapshots", "node/workers", "node/assets", "node/images/blobs", "node/images/tmp"];
    dirs.iter().map(|dir| ((*dir).to_owned(), count(&data.join(dir)))).collect()
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| 1 + if e.path().is_dir() { count(&e.path()) } else { 0 }).sum()
}

/// Rows of the store by kind, of a node that is down.
fn rows(data: &Path) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for key in check::rows(data, "") {
        *kinds.entry(key.split('/').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    kinds
}
