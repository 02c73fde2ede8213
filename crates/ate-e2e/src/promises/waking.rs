//! What is not as it was for an actor that wakes, or begins as a clone: who it is, chance, the time.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Kit, Site, eventually, http,
    user::{ANSWER, counted},
};

use super::word;

/// Longer than a clock that was set right may be off.
const OUT_OF_TIME: Duration = Duration::from_secs(3);
/// What a clock inside may differ from ours, the way there and back included.
const CLOCK: Duration = Duration::from_millis(1500);

pub fn actors_of_one_name_in_two_atespaces_are_two_actors_and_know_it(kit: &'static Kit) {
    let site = Site::start(kit, 2).with_counter();
    let other = format!("{}-other", site.space());
    site.ate(&["create", "atespace", &other]).ok();
    site.actor("same", "counter");
    site.ate(&["create", "actor", "same", "-a", &other, "--template", "counter"]).ok();
    let ask = |space: &str| {
        let host = format!("same.{space}.localhost");
        http::get(site.router(), &host, "/", ANSWER).expect("an answer").body
    };
    let mut uids = BTreeSet::new();
    for round in 1..=2 {
        for space in [site.space(), &other] {
            let answer = ask(space);
            assert_eq!(counted(&answer), Some(round), "{answer}");
            assert_eq!((word(&answer, "atespace").as_str(), word(&answer, "name").as_str()), (space, "same"));
            assert_eq!(word(&answer, "template"), format!("{}/counter", site.space()));
            assert_eq!(word(&answer, "activation"), round.to_string(), "{answer}");
            uids.insert(word(&answer, "uid"));
            site.ate(&["suspend", "actor", "same", "-a", space]).ok();
        }
    }
    assert_eq!(uids.len(), 2, "{uids:?}");
    site.ate(&["delete", "actor", "same", "-a", &other]).ok();
    assert_eq!(site.count("same"), 3);
}

pub fn ten_clones_of_one_golden_draw_different_random_numbers(kit: &'static Kit) {
    let site = Site::start(kit, 2).with_counter();
    let drawn: BTreeSet<String> = (0..10)
        .map(|n| {
            let name = format!("clone{n}");
            site.actor(&name, "counter");
            site.request(&name, "/random").body
        })
        .collect();
    assert_eq!(drawn.len(), 10, "{drawn:?}");
}

pub fn an_actor_that_wakes_knows_what_time_it_is(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    site.count("a");
    site.ate(&["suspend", "actor", "a"]).ok();
    let suspended = Instant::now();
    eventually("time to pass", OUT_OF_TIME * 2, || suspended.elapsed() > OUT_OF_TIME);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    site.ate(&["resume", "actor", "a"]).ok();
    let before = now();
    let inside = Duration::from_millis(site.request("a", "/time").body.trim().parse().expect("milliseconds"));
    let after = now();
    assert!(inside + CLOCK > before && inside < after + CLOCK, "{before:?}, inside {inside:?}, {after:?}");
}
