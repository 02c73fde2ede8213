//! What trust costs and what it is worth: the attack suite, and the part of a wake-up that is verification.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use ate_e2e::{Node, attacks, node, until, user};

use crate::{
    client::{Api, Http},
    report::{Figure, Goal, Samples},
};

const ACTOR: &str = "bench";
const HOST: &str = "bench.default.localhost";
/// The node says how long each step of an activation took.
const LOG: &str = "info,ate_node::activate=debug";
/// Steps that look whether binaries, images and snapshot are still what was verified. They look them up too, so this is
/// more than verification alone.
const VERIFYING: [&str; 3] = ["node.assets", "node.images", "node.snapshot"];

pub(crate) fn attacks() -> Figure {
    let mut outcomes = Vec::new();
    for suite in attacks::SUITES {
        outcomes.extend(suite.run(|outcome| match &outcome.stopped {
            Ok(stopped) => eprintln!("  {}: stopped: {} ({stopped})", suite.class, outcome.name),
            Err(why) => eprintln!("  {}: NOT STOPPED: {}: {why}", suite.class, outcome.name),
        }));
    }
    let tried = outcomes.len();
    let through: Vec<_> = outcomes.iter().filter(|o| o.stopped.is_err()).map(|o| o.name).collect();
    let unit = format!("of {tried}");
    let stopped = (tried - through.len()) as f64;
    Figure::new("trust.attacks_stopped", stopped, &unit, Goal::AtLeast(tried as f64), tried).note(
        match through.as_slice() {
            [] => "each is named above".to_owned(),
            through => format!("not stopped: {}", through.join("; ")),
        },
    )
}

/// Nothing can switch verification off, so what it costs is taken from the node's own clock.
pub(crate) async fn wakeup(samples: usize) -> anyhow::Result<Figure> {
    let node = Node::start_with(&["--log", LOG]);
    node.set_up(1);
    node.template(&node::counter("bench", "  idleTimeout: \"0\"\n"), "bench");
    node.actor(ACTOR, "bench");
    node.count(ACTOR);
    let mut api = Api::connect(node.api()).await?;
    let (mut with, mut without, mut verifying) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..samples {
        api.suspend(ACTOR).await.context("suspend")?;
        node.worker_warm(false);
        let before = activations(&node.log_text()).len();
        let wake = Http::connect(node.router(), HOST).await?.get("/").await.context("wake")?;
        let steps = until("the node to say how long it took", user::ANSWER, || {
            activations(&node.log_text()).into_iter().nth(before)
        });
        let us: u64 = VERIFYING.iter().map(|step| steps.get(*step).copied().unwrap_or_default()).sum();
        ensure!(us > 0, "the node does not say how long verification took: {steps:?}");
        let ms = us as f64 / 1000.0;
        with.push(wake);
        without.push(wake - ms);
        verifying.push(ms);
    }
    let note = format!(
        "a wake took {:.1} ms, of which {:.2} ms were verification, by the node's clock; without is the difference",
        with.p50(),
        verifying.p50()
    );
    Ok(Figure::new("trust.wakeup_ratio", with.p50() / without.p50(), "", Goal::AtMost(1.03), with.len())
        .spread(&with)
        .note(note))
}

/// The steps of every activation the node has told of, in microseconds.
fn activations(log: &str) -> Vec<BTreeMap<String, u64>> {
    log.lines().filter_map(|line| steps(line.split_once("node.steps_us=")?.1)).collect()
}

/// A map as it is logged: `{"a.b": 12, "c": 3}`.
fn steps(text: &str) -> Option<BTreeMap<String, u64>> {
    serde_json::from_str(text.split_inclusive('}').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_the_log() {
        let log = "x started\n… DEBUG activated node.steps_us={\"node.assets\": 12, \"herder.ready\": 3}\n";
        assert_eq!(activations(log), [BTreeMap::from([("node.assets".into(), 12), ("herder.ready".into(), 3)])]);
    }
}
