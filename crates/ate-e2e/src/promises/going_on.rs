//! An actor goes on where it was, whenever and wherever it is brought back.

use crate::{
    Kit, Site,
    class::skipped,
    http,
    user::{ANSWER, counted},
};

use super::{current_snapshot, word, worker};

pub fn an_actor_suspended_and_paused_by_command_goes_on_where_it_was(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    for (verb, phase, expected) in [("suspend", "Suspended", 2), ("pause", "Paused", 3), ("suspend", "Suspended", 4)] {
        site.ate(&[verb, "actor", "a"]).ok();
        assert_eq!(site.get("actor", "a")["status"]["phase"], phase);
        site.workers_ready(1);
        site.ate(&["resume", "actor", "a"]).ok();
        assert_eq!(site.get("actor", "a")["status"]["phase"], "Running");
        assert_eq!(site.count("a"), expected);
    }
}

pub fn ten_rounds_of_suspend_and_resume_lose_no_byte(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    let file: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(site.put("a", "/file", &file).status, 200);
    assert_eq!(site.request("a", "/fill/16").status, 200);
    let memory = || (word(&site.request("a", "/").body, "boot"), site.request("a", "/sum").body);
    let before = memory();
    for round in 1..=10 {
        site.ate(&["suspend", "actor", "a"]).ok();
        assert_eq!(site.request("a", "/file").body, file, "round {round}");
        let now = memory();
        assert!(now == before || !site.can("snapshot.full"), "{now:?} is not {before:?} in round {round}");
    }
    assert_eq!(site.count("a"), 12);
}

pub fn an_actor_goes_on_at_another_worker(kit: &'static Kit) {
    let site = Site::start(kit, 2).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    let first = worker(&site, "a");
    site.ate(&["suspend", "actor", "a"]).ok();
    // Somebody else takes that seat: the first of the two others, or the second.
    let mut others = Vec::new();
    for name in ["b", "c"] {
        site.actor(name, "counter");
        assert_eq!(site.count(name), 1);
        others.push(name);
        if worker(&site, name) == first {
            break;
        }
    }
    for name in others.into_iter().filter(|name| worker(&site, name) != first) {
        site.ate(&["suspend", "actor", name]).ok();
    }
    assert_eq!(site.count("a"), 2);
    assert_ne!(worker(&site, "a"), first);
}

pub fn six_actors_share_two_workers_and_each_goes_on_counting(kit: &'static Kit) {
    let site = Site::start(kit, 2).with_counter();
    let names: Vec<String> = (1..=6).map(|n| format!("a{n}")).collect();
    for name in &names {
        site.actor(name, "counter");
    }
    for round in 1..=3 {
        for name in &names {
            assert_eq!(site.count(name), round, "{name} in round {round}");
        }
    }
}

pub fn an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    site.ready("sleepy", &site.counter().line("idleTimeout: 1s"));
    site.actor("a", "sleepy");
    assert_eq!(site.count("a"), 1);
    site.phase("a", "Suspended");
    assert_eq!(site.count("a"), 2);
}

pub fn only_durable_directories_survive_when_the_template_says_data(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    if !site.has("snapshot.data") {
        return;
    }
    site.ready("keeper", &site.plain().data().line("idleTimeout: \"0\""));
    site.actor("a", "keeper");
    assert_eq!(site.count("a"), 1);
    assert_eq!(site.put("a", "/file", "kept").status, 200);
    for verb in ["suspend", "pause"] {
        site.ate(&[verb, "actor", "a"]).ok();
        assert_eq!(site.request("a", "/file").body, "kept");
        assert_eq!(site.count("a"), 1, "memory starts anew");
    }
}

pub fn two_containers_share_an_actor_and_survive_together(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    if !site.has("snapshot.multi-container") {
        return;
    }
    site.ready("pair", &site.counter().second(8081).line("idleTimeout: \"0\""));
    site.actor("a", "pair");
    let second = || {
        let answer = http::get(site.router(), &site.host("8081-a"), "/", ANSWER).expect("an answer");
        counted(&answer.body).unwrap_or_else(|| panic!("{}", answer.body))
    };
    assert_eq!(site.count("a"), 1);
    assert_eq!(second(), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    // The second keeps its count in memory.
    assert_eq!(second(), if site.can("snapshot.full") { 2 } else { 1 });
}

pub fn a_snapshot_stays_with_the_binaries_it_was_made_under(kit: &'static Kit) {
    let Some(next) = kit.versions.get(1) else {
        skipped(&format!("there is one version of class {} only", kit.class));
        return;
    };
    let site = Site::start(kit, 2);
    site.ready("before", &site.counter());
    site.actor("old", "before");
    assert_eq!(site.count("old"), 1);
    site.ate(&["suspend", "actor", "old"]).ok();

    site.import(next);
    site.ready("after", &site.counter());
    site.actor("new", "after");
    assert_eq!(site.count("old"), 2);
    assert_eq!(site.count("new"), 1);
    let made_with = ["old", "new"].map(|name| {
        site.ate(&["suspend", "actor", name]).ok();
        let snapshot = current_snapshot(&site, name);
        (snapshot["spec"]["sandboxConfig"].to_string(), snapshot["spec"]["assets"].to_string())
    });
    assert_eq!(made_with[0].0, format!("\"{}@1\"", kit.class));
    assert_eq!(made_with[1].0, format!("\"{}@2\"", kit.class));
    assert_ne!(made_with[0].1, made_with[1].1, "the binaries differ");
    assert_eq!((site.count("old"), site.count("new")), (3, 2));
}
