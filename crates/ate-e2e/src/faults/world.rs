//! A node under faults: it may be dead at any moment, and is started again.

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    Kit, Node, Output, Site,
    footprint::{below, command_line, is_frozen},
    kit,
    node::signal,
};
use rustix::process::Signal;

/// Everything that was begun is over, and what died works again, within this.
pub const RECOVERY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// What was armed and not met before can end a node while it starts. Each point does so once.
const STARTS: u32 = 8;

pub struct World {
    site: Site,
    pub kit: &'static Kit,
    pub workers: usize,
    names: u32,
    /// How often the node was started again.
    pub restarts: u32,
}

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

impl World {
    pub fn start(kit: &'static Kit, workers: u32) -> World {
        let site = Site::on(Node::with_failpoints(), kit, workers);
        let template = site.counter().line("idleTimeout: \"0\"");
        let template = if site.can("snapshot.full") { template.durable() } else { template };
        site.ready("counter", &template);
        World { site, kit, workers: workers as usize, names: 0, restarts: 0 }
    }

    /// Never given before.
    pub fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    pub fn arm(&self, point: &str, word: &str) {
        let dir = self.machine().failpoints();
        let _ = fs::remove_file(dir.join("fired").join(point));
        fs::write(dir.join("armed").join(point), word).expect("arm a failpoint");
    }

    /// Nothing is armed from now on.
    pub fn disarm(&self) {
        for dir in ["armed", "fired"] {
            for entry in fs::read_dir(self.machine().failpoints().join(dir)).expect("the failpoints").flatten() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub fn fired(&self, point: &str) -> PathBuf {
        self.machine().failpoints().join("fired").join(point)
    }

    /// Starts the node again if it has died. True: it had.
    pub fn heal(&mut self) -> bool {
        let died = self.site.node().has_died();
        if died {
            for left in (0..STARTS).rev() {
                self.restarts += 1;
                match self.site.node().try_up() {
                    Ok(()) => break,
                    Err(e) => assert!(left > 0, "{e}"),
                }
            }
        }
        died
    }

    /// A command, as often as it takes. What it says when it fails must be typed.
    #[track_caller]
    pub fn insist(&mut self, args: &[&str]) -> Output {
        self.insist_or(args, &[])
    }

    /// The same; it has also succeeded when it fails for one of these reasons.
    #[track_caller]
    pub fn insist_or(&mut self, args: &[&str], fine: &[&str]) -> Output {
        let began = Instant::now();
        loop {
            let out = self.ate(args);
            if out.code == 0 || fine.iter().any(|reason| out.stderr.contains(reason)) {
                return out;
            }
            if !self.heal() {
                assert!(out.stderr.contains("reason: "), "{args:?} failed without a reason: {}", out.stderr);
            }
            assert!(began.elapsed() < RECOVERY, "{args:?} fails after {RECOVERY:?}: {}", out.stderr);
            std::thread::park_timeout(PAUSE);
        }
    }

    /// The same for a document.
    #[track_caller]
    pub fn insist_on(&mut self, yaml: &str) {
        let began = Instant::now();
        loop {
            let out = self.apply(yaml);
            if out.code == 0 {
                return;
            }
            self.heal();
            assert!(began.elapsed() < RECOVERY, "apply fails after {RECOVERY:?}: {}\n{yaml}", out.stderr);
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Looks until `check` holds, healing meanwhile.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, limit: Duration, mut check: impl FnMut(&World) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            self.heal();
            if let Some(found) = check(self) {
                return found;
            }
            assert!(began.elapsed() < limit, "still waiting after {limit:?}: {what}");
            std::thread::park_timeout(PAUSE);
        }
    }

    /// JSON of an object, if the node answers.
    pub fn look(&self, kind: &str, name: &str) -> Option<serde_json::Value> {
        let out = self.ate(&["get", kind, name, "-o", "json"]);
        if out.code == 0 { serde_json::from_str(&out.stdout).ok() } else { None }
    }

    pub fn look_all(&self, kind: &str) -> Option<Vec<serde_json::Value>> {
        let out = self.ate(&["get", kind, "-A", "-o", "json"]);
        let list: serde_json::Value =
            if out.code == 0 { serde_json::from_str(&out.stdout).ok()? } else { return None };
        list["items"].as_array().cloned()
    }

    /// Processes of actors that are alive: one that is frozen until it is taken away is not. Only for classes that show them.
    pub fn copies(&self) -> Option<usize> {
        let alive = |pid: &u32| !is_frozen(*pid);
        (self.kit.class == kit::PROCESS.class)
            .then(|| programs(self.machine().pid()).iter().filter(|pid| alive(pid)).count())
    }
}

/// The example actor's processes below another.
pub fn programs(root: u32) -> Vec<u32> {
    below(root).into_iter().filter(|pid| command_line(*pid).starts_with("/counter")).collect()
}

/// Sandboxes below a node: what an actor is inside of.
pub fn sandboxes(root: u32) -> Vec<u32> {
    let is_one = |line: &str| line.starts_with("/counter") || line.contains("runsc-sandbox");
    below(root).into_iter().filter(|pid| is_one(&command_line(*pid))).collect()
}

/// Herders inside their namespaces; those that hold a sandbox, if any do.
pub fn herders(root: u32) -> Vec<u32> {
    let all = all_herders(root);
    let holding: Vec<u32> = all.iter().copied().filter(|pid| !sandboxes(*pid).is_empty()).collect();
    if holding.is_empty() { all } else { holding }
}

pub fn all_herders(root: u32) -> Vec<u32> {
    below(root).into_iter().filter(|pid| command_line(*pid).contains("--inside")).collect()
}

/// The herder of the worker that has an actor.
pub fn herder_of(world: &World, actor: &str) -> Option<u32> {
    let worker = world.look("actor", actor)?["status"]["worker"].as_str()?.to_owned();
    all_herders(world.machine().pid()).into_iter().find(|pid| command_line(*pid).contains(&worker))
}

pub fn kill(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
}
