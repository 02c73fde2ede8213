//! A rollout under load: actors at rest come from one real build of runsc to another, while some of them are asked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ate_e2e::{Node, RUNSC_B, Template, load::Load};

use crate::report::{Figure, Goal};

const MANY: usize = 200;
/// For a quick look.
const FEWER: usize = 20;
const WORKERS: u32 = 4;

pub(crate) fn run(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let count = if quick { FEWER } else { MANY };
    let node = Node::with_pool(WORKERS);
    let files = Template::default().durable().env("KEEP_COUNT", "1").line("idleTimeout: 1s");
    node.template(&files.yaml("bench"), "bench");
    let actors: Vec<(String, u64)> = (0..count).map(|i| (format!("a{i}"), 1)).collect();
    for (actor, _) in &actors {
        node.actor(actor, "bench");
        ensure!(node.count(actor) == 1, "a new actor has counted before");
    }
    node.workers_ready(WORKERS as usize);
    node.import("gvisor-default", RUNSC_B, true).ok();
    // Every tenth is asked again and again.
    let asked: Vec<_> = actors.iter().step_by(10).cloned().collect();
    // Each once in three seconds: with a pause that is long enough to be suspended in, and so to be moved.
    let pause = Duration::from_secs(6) / u32::try_from(asked.len())?;
    let load = Load::begin(node.router(), &asked, 2, pause);
    let began = Instant::now();
    let done = node.ate(
        &["sandbox", "rollout", "start", "--to", "gvisor-default", "--policy", "reboot", "--max-unavailable", "2"]
            .into_iter()
            .chain(["--wait", "--timeout", "30m"])
            .collect::<Vec<_>>(),
    );
    let took = began.elapsed();
    let tally = load.end();
    ensure!(done.code == 0, "{}{}", done.stdout, done.stderr);
    let usage: serde_json::Value = serde_json::from_str(&node.ate(&["sandbox", "usage", "-o", "json"]).ok())?;
    let old = &usage["revisions"][0];
    let left = old["running"].as_u64().zip(old["suspended"].as_u64()).context("no usage")?;
    ensure!(left == (0, 0), "{left:?} are left under the old build");
    for failed in &tally.failed {
        eprintln!("failed: {failed}");
    }
    let failed = u32::try_from(tally.failed.len()).unwrap_or(u32::MAX);
    Ok(vec![
        Figure::new("rollout.failed_requests", f64::from(failed), "", Goal::AtMost(0.0), tally.requests)
            .note(format!("{count} actors from one build to another in {:.0} s, two at a time", took.as_secs_f64())),
    ])
}
