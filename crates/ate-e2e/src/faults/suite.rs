//! All cases, on several nodes at once.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    cases::Case,
    check,
    stories::{self, Trigger},
    world::World,
};
use crate::{Footprint, Kit, kit};

/// Lines of a node's log that explain a violation.
const LOG_LINES: usize = 60;

/// Cases for nodes of one class.
pub struct Suite {
    pub kit: &'static Kit,
    pub nodes: usize,
    pub cases: Vec<Case>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub cases: usize,
    pub restarts: u32,
    pub violations: Vec<String>,
}

impl Report {
    pub fn add(&mut self, other: Report) {
        self.cases += other.cases;
        self.restarts += other.restarts;
        self.violations.extend(other.violations);
    }
}

impl Suite {
    /// Divides cases among classes: what does not depend on the sandbox goes to the lightest one.
    pub fn of(cases: Vec<Case>, nodes: usize) -> [Suite; 2] {
        let (gvisor, process): (Vec<_>, Vec<_>) =
            cases.into_iter().partition(|case| stories::needs_sandbox(&case.step.name));
        [Suite { kit: &kit::PROCESS, nodes, cases: process }, Suite { kit: &kit::GVISOR, nodes: 1, cases: gvisor }]
    }

    pub fn run(self, limit: Duration) -> Report {
        let Suite { kit, nodes, cases } = self;
        let until = Instant::now() + limit;
        let queue = Mutex::new(VecDeque::from(cases));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut report = std::thread::scope(|s| {
            let lanes: Vec<_> = (0..nodes).map(|_| s.spawn(|| lane(kit, &next, until))).collect();
            let mut all = Report::default();
            lanes.into_iter().for_each(|lane| all.add(lane.join().expect("a lane")));
            all
        });
        let left = queue.into_inner().unwrap_or_else(PoisonError::into_inner).len();
        if left > 0 {
            report.violations.push(format!("{left} cases of class {} were not reached within {limit:?}", kit.class));
        }
        report
    }
}

fn lane(kit: &'static Kit, next: &dyn Fn() -> Option<Case>, until: Instant) -> Report {
    let mut report = Report::default();
    let mut world = None;
    while Instant::now() < until
        && let Some(case) = next()
    {
        let mut here = world.take().unwrap_or_else(|| World::start(kit, 2));
        let began = Instant::now();
        report.cases += 1;
        match catch_unwind(AssertUnwindSafe(|| run(&mut here, &case))) {
            Ok(()) => {
                println!("{} {case}: {:.1?}", kit.class, began.elapsed());
                world = Some(here);
            }
            Err(panic) => report.violations.push(violation(here, &case.to_string(), &*panic)),
        }
        report.restarts += world.as_mut().map_or(0, |w| std::mem::take(&mut w.restarts));
    }
    if let Some(mut world) = world
        && let Err(panic) = catch_unwind(AssertUnwindSafe(|| nothing_left(&mut world)))
    {
        report.violations.push(violation(world, "the end of a node", &*panic));
    }
    report
}

/// The node is given up: what it is like now would spoil what comes.
fn violation(mut world: World, what: &str, panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let log = world.log_text();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    world.node().crash();
    let text = format!("{} {what}: {}", world.kit.class, said.unwrap_or("a panic"));
    println!("VIOLATION {text}\n{tail}");
    text
}

pub fn run(world: &mut World, case: &Case) {
    world.disarm();
    world.heal();
    let workers = world.workers;
    world.workers_ready(workers);
    let tell = stories::of(&case.step.name).unwrap_or_else(|| panic!("no story reaches {}", case.step.name));
    let (trigger, over) = (Trigger::new(case), AtomicBool::new(false));
    let (fired, root) = (world.fired(&case.point()), world.machine().pid());
    std::thread::scope(|s| {
        if case.kills_from_outside() {
            s.spawn(|| trigger.watch(fired, root, &over));
        }
        let told = catch_unwind(AssertUnwindSafe(|| tell(world, &trigger)));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
    });
    world.disarm();
}

/// No file, process, mount, link or record is there that nobody needs.
fn nothing_left(world: &mut World) {
    world.disarm();
    world.heal();
    let left = check::leftovers(world);
    assert!(left.is_empty(), "left behind: {left:#?}");
    let footprint = Footprint::of(world.machine());
    world.node().stop();
    let left = footprint.remains();
    assert!(left.is_empty(), "left on the machine: {left:#?}");
    for prefix in ["garbage/", "busy/"] {
        let rows = check::rows(&world.machine().data(), prefix);
        assert!(rows.is_empty(), "left in the store: {rows:?}");
    }
}
