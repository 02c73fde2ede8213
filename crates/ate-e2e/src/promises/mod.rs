//! What every sandbox class promises, to whoever has a command line and plain HTTP. Classes differ only in the capabilities they
//! report; what one does not report it must refuse.
//!
//! The tests `lifecycle` ask it of each class on a node of its own, the tests `given_cluster` in a cluster.

pub mod beginning;
pub mod dying;
pub mod going_on;
pub mod pods;
pub mod telling;
pub mod waking;

use std::time::Duration;

use serde_json::Value;

use crate::Site;

/// A loss is noticed and made good within this.
const RECOVERY: Duration = Duration::from_secs(60);

/// The value of ` name=value` in the example actor's answer.
fn word(answer: &str, name: &str) -> String {
    let value = answer.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

fn phase(site: &Site, actor: &str) -> Value {
    site.get("actor", actor)["status"]["phase"].clone()
}

fn worker(site: &Site, actor: &str) -> String {
    let actor = site.get("actor", actor);
    actor["status"]["worker"].as_str().unwrap_or_else(|| panic!("on no worker: {actor:#}")).to_owned()
}

fn current_snapshot(site: &Site, actor: &str) -> Value {
    let snapshots = site.list("snapshots");
    let owner = format!("{}/{actor}", site.space());
    let current = snapshots.iter().find(|s| s["spec"]["owner"] == owner && s["status"]["current"] == true);
    current.unwrap_or_else(|| panic!("no current snapshot of {actor} in {snapshots:#?}")).clone()
}
