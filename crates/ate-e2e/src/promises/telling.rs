//! What is told of an actor: what it prints, and that it ended.

use crate::{Kit, Site, eventually, user::ANSWER};

use super::{RECOVERY, phase};

pub fn what_an_actor_prints_can_be_read_by_its_name(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    for n in 1..=2 {
        assert_eq!(site.count("a"), n);
        let line = format!("request {n}");
        eventually("a line of the actor's log", ANSWER, || site.ate(&["logs", "actor", "a"]).ok().contains(&line));
        site.ate(&["suspend", "actor", "a"]).ok();
    }
}

pub fn an_actor_that_ends_is_reported_and_comes_back_from_its_last_snapshot(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    site.request("a", "/exit/3");
    eventually("the end to be seen", RECOVERY, || phase(&site, "a") == "Suspended");
    let actor = site.get("actor", "a");
    assert!(actor["status"]["events"].to_string().contains("ACTOR_EXITED"), "{actor:#}");
    assert_eq!(site.count("a"), 2);
}
