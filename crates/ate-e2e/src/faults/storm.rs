//! Load and bad luck together: requests come when they come, to many actors on few workers, and every few seconds
//! something dies or fails. Whoever asks is answered or told, with a reason, to try again; no actor loses what was
//! committed, and none is alive twice.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::process::Signal;

use super::{
    check,
    ledger::{self, Account, Ledger, Losses, Wrong},
    points, stories,
    world::{self, RECOVERY, World},
};
use crate::{Footprint, Kit, http, node::signal, user::host};

/// Whoever asks waits as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// A death is seen within this.
const NOTICE: Duration = Duration::from_millis(500);
/// A process is gone this long after its first connection, at the latest.
const DYING: Duration = Duration::from_secs(3);
/// A herder that hangs does so for this long.
const HANG: Duration = Duration::from_secs(2);
/// Reasons that say: the same call may succeed later.
const RETRYABLE: &[&str] = &[
    "CONFLICT",
    "NO_FREE_WORKER",
    "QUEUE_FULL",
    "DEADLINE_EXCEEDED",
    "WORKER_LOST",
    "ASSET_UNAVAILABLE",
    "STORAGE_UNAVAILABLE",
    "UNAVAILABLE",
    "TEMPLATE_NOT_READY",
];
/// Of each kind of trouble.
const SHOWN: usize = 20;
/// Steps on the way of a request: what is armed at others would not be met.
const ON_THE_WAY: &[&str] =
    &["resume.", "suspend.", "capture.", "activate.", "upload.", "local.", "worker.", "clean.", "garbage.", "driver."];

pub struct Plan {
    pub kit: &'static Kit,
    pub actors: usize,
    pub workers: u32,
    /// Requests per second.
    pub rate: f64,
    pub time: Duration,
    pub fault_every: Duration,
    pub seed: u64,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub asked: usize,
    pub answered: Vec<Duration>,
    /// Refused by reason.
    pub refused: BTreeMap<String, usize>,
    /// Nobody was there, or who was there was killed over it.
    pub cut: usize,
    /// Neither.
    pub failed: Vec<String>,
    pub lost: Vec<String>,
    pub double: Vec<String>,
    pub faults: BTreeMap<String, usize>,
    pub left: Vec<String>,
}

impl Tally {
    /// Of those that reached a running node, the share that was answered or told to try again.
    pub fn success_rate(&self) -> f64 {
        let told: usize = self.refused.values().sum();
        let reached = self.answered.len() + told + self.failed.len();
        (self.answered.len() + told) as f64 / reached.max(1) as f64
    }

    fn quantile(&self, q: f64) -> Duration {
        let at = (q * self.answered.len().saturating_sub(1) as f64).round();
        self.answered.get(at as usize).copied().unwrap_or_default()
    }

    pub fn is_good(&self) -> bool {
        let bad = [&self.failed, &self.lost, &self.double, &self.left];
        bad.iter().all(|list| list.is_empty()) && !self.answered.is_empty()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "soak.requests {}", self.asked)?;
        writeln!(f, "soak.answered {}", self.answered.len())?;
        writeln!(f, "soak.told_to_try_again {} {:?}", self.refused.values().sum::<usize>(), self.refused)?;
        writeln!(f, "soak.cut_by_a_kill {}", self.cut)?;
        writeln!(f, "soak.success_rate {:.4}", self.success_rate())?;
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            writeln!(f, "soak.{name}_ms {}", self.quantile(q).as_millis())?;
        }
        writeln!(f, "soak.faults {} {:?}", self.faults.values().sum::<usize>(), self.faults)?;
        writeln!(f, "soak.lost {}", self.lost.len())?;
        writeln!(f, "soak.doubly_live {}", self.double.len())?;
        for (what, bad) in
            [("lost", &self.lost), ("doubly live", &self.double), ("left", &self.left), ("failed", &self.failed)]
        {
            bad.iter().take(SHOWN).try_for_each(|bad| writeln!(f, "  {what}: {bad}"))?;
        }
        Ok(())
    }
}

/// What the threads share.
struct Shared {
    router: RwLock<SocketAddr>,
    /// Odd while the node is down.
    life: AtomicU64,
    /// How often a herder or a sandbox was killed or stopped.
    kills: AtomicU64,
    over: AtomicBool,
    ledger: Mutex<Ledger>,
    tally: Mutex<Tally>,
    memory: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn run(plan: &Plan) -> Tally {
    let world = World::start(plan.kit, plan.workers);
    let template = world.counter().line("idleTimeout: 2s");
    let template = if world.can("snapshot.full") { template.durable() } else { template };
    world.ready("storm", &template);
    let names: Vec<String> = (0..plan.actors).map(|n| format!("s{n}")).collect();
    names.iter().for_each(|name| world.actor(name, "storm"));
    let footprint_at_start = census(&world);
    let shared = Shared {
        router: RwLock::new(world.router()),
        life: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        over: AtomicBool::new(false),
        ledger: Mutex::default(),
        tally: Mutex::default(),
        memory: world.can("snapshot.full"),
    };
    let world = Mutex::new(world);
    thread::scope(|s| {
        s.spawn(|| misfortune(plan, &world, &shared));
        arrivals(plan, s, &names, &world, &shared);
        shared.over.store(true, Ordering::SeqCst);
    });
    let mut world = world.into_inner().unwrap_or_else(PoisonError::into_inner);
    world.disarm();
    world.heal();
    for name in &names {
        ask_at_last(name, &mut world, &shared);
    }
    let mut tally = shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.answered.sort();
    tally.left = end(world, &names, &footprint_at_start);
    tally
}

/// Poisson: the time to the next request does not depend on what the ones before it are doing.
fn arrivals<'s, 'e>(
    plan: &Plan,
    scope: &'s thread::Scope<'s, 'e>,
    names: &'e [String],
    world: &'e Mutex<World>,
    shared: &'e Shared,
) {
    let mut random = Rng::with_seed(plan.seed);
    let busy: &'static Mutex<std::collections::HashSet<String>> = Box::leak(Box::default());
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    while due < plan.time {
        thread::park_timeout(due.saturating_sub(begun.elapsed()));
        if begun.elapsed() < due {
            continue;
        }
        let name = random.choice(names).expect("actors");
        // One at a time of each actor, or nobody could say what it must answer next.
        if lock(busy).insert(name.clone()) {
            scope.spawn(move || {
                ask(name, world, shared);
                lock(busy).remove(name);
            });
        }
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / plan.rate);
    }
}

fn ask(name: &str, world: &Mutex<World>, shared: &Shared) {
    let router = *shared.router.read().unwrap_or_else(PoisonError::into_inner);
    let (life, kills) = (shared.life.load(Ordering::SeqCst), shared.kills.load(Ordering::SeqCst));
    let began = Instant::now();
    let answer = http::get(router, &host(name), "/", PATIENCE);
    let took = began.elapsed();
    lock(&shared.tally).asked += 1;
    match answer {
        Ok(answer) if answer.status == 200 => {
            lock(&shared.tally).answered.push(took);
            enter(name, &answer.body, world, shared);
        }
        answer => {
            lock(&shared.ledger).entry(name.to_owned()).or_default().unanswered();
            let reason = answer.as_ref().ok().and_then(|a| {
                let said: serde_json::Value = serde_json::from_str(&a.body).ok()?;
                Some(said["reason"].as_str()?.to_owned())
            });
            // Time to notice that the node is down, or that it was a kill. A dying process closes its connections first. Who
            // starts it again holds the world meanwhile: either it is seen dead here, or counted as dead.
            let told = Instant::now();
            let is_down =
                || life % 2 == 1 || shared.life.load(Ordering::SeqCst) != life || lock(world).node().has_died();
            let mut down = is_down();
            while !down && told.elapsed() < if reason.is_some() { NOTICE } else { DYING } {
                thread::park_timeout(Duration::from_millis(100));
                down = is_down();
            }
            let killed = shared.kills.load(Ordering::SeqCst) != kills;
            let mut tally = lock(&shared.tally);
            match reason {
                Some(reason) if RETRYABLE.contains(&reason.as_str()) => *tally.refused.entry(reason).or_default() += 1,
                // It was under way in what was killed, and may have been done or not: a reason says so.
                Some(_) if down || killed => tally.cut += 1,
                None if down => tally.cut += 1,
                _ => tally.failed.push(format!("{name} after {took:.1?}: {}", said(&answer))),
            }
        }
    }
}

fn said(answer: &anyhow::Result<http::Answer>) -> String {
    match answer {
        Ok(answer) => format!("{} {}", answer.status, answer.body.trim()),
        Err(e) => format!("{e:#}"),
    }
}

fn enter(name: &str, body: &str, world: &Mutex<World>, shared: &Shared) {
    if !body.contains(&format!(" name={name} ")) {
        lock(&shared.tally).double.push(format!("{name} was answered by another: {body}"));
        return;
    }
    let follows = lock(&shared.ledger).entry(name.to_owned()).or_default().follows(body);
    let lost = if follows { None } else { losses(name, body, &mut lock(world)) };
    let entered = lock(&shared.ledger).entry(name.to_owned()).or_default().enter(body, lost, shared.memory);
    match entered {
        Ok(()) => {}
        Err(Wrong::Lost(what)) => lock(&shared.tally).lost.push(format!("{name}: {what}")),
        Err(Wrong::Double(what)) => lock(&shared.tally).double.push(format!("{name}: {what}")),
    }
}

fn losses(name: &str, body: &str, world: &mut World) -> Option<Losses> {
    let actor = world.until("the losses of an actor", RECOVERY, |w| w.look("actor", name));
    Losses::of(&actor["status"], ledger::activation(body)?)
}

/// Every actor serves once the storm is over, and goes on where it may.
fn ask_at_last(name: &str, world: &mut World, shared: &Shared) {
    let began = Instant::now();
    loop {
        match http::get(world.router(), &host(name), "/", PATIENCE) {
            Ok(answer) if answer.status == 200 => {
                let lost = losses(name, &answer.body, world);
                let mut ledger = lock(&shared.ledger);
                let account: &mut Account = ledger.entry(name.to_owned()).or_default();
                if let Err(wrong) = account.enter(&answer.body, lost, shared.memory) {
                    lock(&shared.tally).lost.push(format!("{name} at last: {wrong:?}"));
                }
                return;
            }
            answer => {
                lock(&shared.ledger).entry(name.to_owned()).or_default().unanswered();
                if began.elapsed() > RECOVERY {
                    let last = said(&answer);
                    lock(&shared.tally).lost.push(format!("{name} does not serve any more: {last}"));
                    return;
                }
                world.heal();
                thread::park_timeout(Duration::from_millis(100));
            }
        }
    }
}

/// Every few seconds something dies, hangs, or fails; the node is started again when it was it.
fn misfortune(plan: &Plan, world: &Mutex<World>, shared: &Shared) {
    let mut random = Rng::with_seed(plan.seed ^ 0xfa17);
    let steps: Vec<_> = points::all()
        .into_values()
        .filter(|s| ON_THE_WAY.iter().any(|p| s.name.starts_with(p)) && stories::of(&s.name).is_some())
        .collect();
    let mut next = Instant::now() + plan.fault_every;
    while !shared.over.load(Ordering::SeqCst) {
        // Held until the fault is done: whoever looks for a dead node must not find it dead in between.
        let mut world = lock(world);
        if world.node().has_died() {
            revive(&mut world, shared);
        }
        if Instant::now() < next {
            drop(world);
            thread::park_timeout(Duration::from_millis(20));
            continue;
        }
        next += plan.fault_every;
        let step = random.choice(&steps).expect("steps").name.clone();
        let fault = random
            .choice([
                "herder killed",
                "sandbox killed",
                "herder hangs",
                "node killed",
                "dies at a point",
                "error at a point",
                "error at a point",
            ])
            .expect("faults");
        *lock(&shared.tally).faults.entry(fault.to_owned()).or_default() += 1;
        let root = world.machine().pid();
        shared.kills.fetch_add(1, Ordering::SeqCst);
        match fault {
            "herder killed" => one(&mut random, world::herders(root), Signal::KILL),
            "sandbox killed" => one(&mut random, world::sandboxes(root), Signal::KILL),
            "herder hangs" => {
                let herders = world::herders(root);
                if let Some(pid) = herders.first().copied() {
                    drop(world);
                    signal(pid, Signal::STOP);
                    thread::park_timeout(HANG);
                    signal(pid, Signal::CONT);
                }
            }
            "node killed" => {
                shared.life.fetch_add(1, Ordering::SeqCst);
                world.node().crash();
                up(&mut world, shared);
            }
            "dies at a point" => world.arm(&format!("{step}.before"), "abort"),
            _ => world.arm(&format!("{step}.{}", random.choice(["before", "after"]).expect("one of two")), "error"),
        }
    }
}

fn one(random: &mut Rng, pids: Vec<u32>, with: Signal) {
    if let Some(pid) = random.choice(pids) {
        signal(pid, with);
    }
}

/// It died at a point.
fn revive(world: &mut World, shared: &Shared) {
    shared.life.fetch_add(1, Ordering::SeqCst);
    up(world, shared);
}

fn up(world: &mut World, shared: &Shared) {
    world.node().up();
    *shared.router.write().unwrap_or_else(PoisonError::into_inner) = world.router();
    shared.life.fetch_add(1, Ordering::SeqCst);
}

/// What a node has: processes, host mounts, namespaces, links, open files.
pub fn census(world: &World) -> BTreeMap<&'static str, usize> {
    let pids = crate::footprint::below(world.machine().pid());
    let data = world.machine().data().display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let namespaces: std::collections::BTreeSet<_> =
        pids.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect();
    let inside: usize = world::all_herders(world.machine().pid())
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default().lines().count())
        .sum();
    BTreeMap::from([
        ("processes", pids.len()),
        ("mounts", mounts.lines().filter(|l| l.contains(&data)).count()),
        ("mounts inside", inside),
        ("network namespaces", namespaces.len()),
        ("links", Footprint::of(world.machine()).links()),
    ])
}

/// Suspends and deletes all, and tells what is there that was not there at the start.
fn end(mut world: World, names: &[String], start: &BTreeMap<&'static str, usize>) -> Vec<String> {
    for name in names {
        world.insist_or(&["delete", "actor", name], &["NOT_FOUND"]);
    }
    let mut left = difference(&mut world, start);
    left.extend(check::leftovers(&mut world));
    let footprint = Footprint::of(world.machine());
    world.node().stop();
    left.extend(footprint.remains());
    for prefix in ["garbage/", "busy/", "actor/default/"] {
        left.extend(check::rows(&world.machine().data(), prefix));
    }
    left
}

/// Until it is as at the start, or for so long as recovery may take.
pub fn difference(world: &mut World, start: &BTreeMap<&'static str, usize>) -> Vec<String> {
    let began = Instant::now();
    loop {
        let now = census(world);
        if now == *start {
            return Vec::new();
        }
        if began.elapsed() > RECOVERY {
            return vec![format!("at the start {start:?}, now {now:?}")];
        }
        thread::park_timeout(Duration::from_millis(200));
    }
}
