//! Every step of every workflow under every fault; see `ate_e2e::faults`.

use std::{fs, io::Write as _, time::Duration};

use ate_e2e::faults::{Fault, Report, Suite, cases, points, stories};

/// In every run the process dies at every point. Of errors and repetitions every eighth is in a run, of what is killed from
/// outside meanwhile every thirty-second: others each day, or as `SEED` says. `script/soak` has all of them.
const TURNS: [(&[Fault], u64); 3] = [
    (&[Fault::DiesBefore, Fault::DiesAfter], 1),
    (&[Fault::ErrorBefore, Fault::ErrorAfter, Fault::Twice], 8),
    (&[Fault::HerderKilled, Fault::SandboxKilled], 32),
];
/// All of it, on two cores.
const LIMIT: Duration = Duration::from_secs(600);
const NODES: usize = 6;

/// Calls that change something elsewhere: in the store, on the node, in the herder.
const EFFECTS: &[(&str, &[&str])] = &[
    (
        "ate-control/src/",
        &[
            "node.resolve_image(",
            "node.prepare(",
            "node.activate(",
            "node.capture(",
            "node.thaw(",
            "node.release(",
            "node.delete_snapshot(",
            "node.collect(",
        ],
    ),
    ("ate-control/src/workflow/", &[".commit(", ".write(name", "core.write(", "update_template(", "traffic.close("]),
    ("ate-control/src/rollout/", &["core.write(", "record_golden(", "enter_step(rollout", "delete_actor("]),
    ("ate-control/src/reconcile/garbage", &[".commit("]),
    (
        "ate-node/src/capture.rs",
        &[
            "workers.ask(",
            "repository.upload(",
            "repository.delete(",
            "local.adopt(",
            "local.remove(",
            "client.checkpoint(",
        ],
    ),
    ("ate-node/src/activate.rs", &["workers.ask(", "held.ask("]),
    (
        "ate-node/src/agent.rs",
        &["repository.delete(", "repository.collect(", "local.remove(", "images.collect(", "local.collect("],
    ),
    ("ate-node/src/workers/worker.rs", &["client.start(", "client.thaw(", "client.reset(", "client.prepare("]),
    (
        "ateom/src/worker.rs",
        &["driver.start(", "driver.checkpoint(", "driver.thaw(", "driver.reset(", "driver.prepare("],
    ),
];

/// What need not be a step: definitions, and what a step consists of.
const NO_STEP: &[&str] = &["fn ", "//"];

#[test]
fn whatever_has_an_effect_is_a_step_and_so_has_failpoints() {
    let mut bare = Vec::new();
    for file in points::sources() {
        let path = file.display().to_string();
        let text = fs::read_to_string(&file).expect("a source file");
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        let steps = points::sites(&file, shipped);
        let effects = EFFECTS.iter().filter(|(prefix, _)| path.contains(prefix)).flat_map(|(_, calls)| *calls);
        for call in effects {
            for (at, _) in shipped.match_indices(call) {
                let begin = shipped[..at].rfind('\n').map_or(0, |n| n + 1);
                let line = shipped[begin..].lines().next().unwrap_or_default();
                let excused = NO_STEP.iter().any(|word| line.contains(word));
                if !excused && !steps.iter().any(|s| s.span.contains(&at)) {
                    bare.push(format!("{path}: {}", line.trim()));
                }
            }
        }
    }
    assert!(bare.is_empty(), "not in a step!(…):\n{}", bare.join("\n"));
}

#[test]
fn every_step_has_a_story_that_reaches_it() {
    let elsewhere = |name: &str| stories::ELSEWHERE.iter().any(|(step, _)| *step == name);
    let steps = points::all();
    let untold: Vec<_> = steps.keys().filter(|name| stories::of(name).is_none() && !elsewhere(name)).collect();
    assert!(untold.is_empty(), "{untold:?}");
    let gone: Vec<_> = stories::ELSEWHERE.iter().filter(|(step, _)| !steps.contains_key(*step)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn a_node_survives_every_fault_at_every_step() {
    stories::provisions();
    let filter = std::env::var("FAULTS").unwrap_or_default();
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(today);
    let mut all = cases::all(&points::all());
    all.retain(|case| stories::of(&case.step.name).is_some() && case.to_string().contains(&filter));
    let total = all.len();
    if filter.is_empty() {
        let mut turns = TURNS.map(|_| seed);
        all.retain(|case| {
            let kind =
                TURNS.iter().position(|(faults, _)| faults.contains(&case.fault)).expect("every fault has its turn");
            turns[kind] += 1;
            turns[kind].is_multiple_of(TURNS[kind].1)
        });
    }
    say(&format!("SEED={seed}: {} of {total} points × faults", all.len()));
    let mut report = Report::default();
    let suites = Suite::of(all, NODES);
    std::thread::scope(|s| {
        let running: Vec<_> = suites.into_iter().map(|suite| s.spawn(|| suite.run(LIMIT))).collect();
        running.into_iter().for_each(|suite| report.add(suite.join().expect("a suite")));
    });
    say(&format!("crash.points_x_faults {}", report.cases));
    say(&format!("crash.restarts {}", report.restarts));
    say(&format!("crash.violations {}", report.violations.len()));
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}

/// Also where the test harness keeps what tests print.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Another subset each day.
fn today() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400)
}
