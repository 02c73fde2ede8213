//! Actors come from one real version of their sandbox's binaries to another while they are asked for things.

use std::time::Duration;

use ate_e2e::{
    Kit, Site, User,
    kit::{GVISOR, MICROVM},
    load::Load,
};
use serde_json::Value;

fn usage(user: &User) -> Value {
    serde_json::from_str(&user.ate(&["sandbox", "usage", "-o", "json"]).ok()).expect("JSON")
}

fn of(usage: &Value, revision: u64) -> &Value {
    let all = usage["revisions"].as_array().expect("revisions");
    all.iter().find(|r| r["revision"] == revision).expect("the revision")
}

/// Actors with memory and a durable directory, of which half are asked now and then while all are moved. Those who are asked are
/// moved between two requests, so they need a pause that is long enough for them to be suspended in.
fn come_over_under_load(kit: &'static Kit, workers: u32, count: usize, pause: Duration) {
    let site = Site::start(kit, workers);
    site.ready("files", &site.counter().durable().env("KEEP_COUNT", "1").line("idleTimeout: 1s"));
    let actors: Vec<(String, u64)> = (0..count).map(|i| (format!("a{i}"), 1)).collect();
    for (actor, _) in &actors {
        site.actor(actor, "files");
        assert_eq!(site.count(actor), 1);
    }
    for (actor, _) in &actors {
        site.phase(actor, "Suspended");
    }
    site.import(&kit.versions[1]);
    let before = usage(&site);
    assert_eq!((&of(&before, 1)["suspended"], &of(&before, 2)["suspended"]), (&count.into(), &0.into()));

    let load = Load::begin(site.router(), &actors[..count / 2], 2, pause);
    let rollout = ["sandbox", "rollout", "start", "--class", kit.class, "--to", kit.class, "--policy", "reboot"];
    let said = site.ate(&[&rollout[..], &["--max-unavailable", "2", "--wait", "--timeout", "5m"]].concat());
    let tally = load.end();
    said.ok();
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    assert!(tally.requests >= count / 2, "{} requests", tally.requests);

    let told = site.ate(&["sandbox", "rollout", "status"]).ok();
    assert!(told.contains("done") && told.contains(&format!("{count}/{count}")), "{told}");
    for (actor, _) in &actors {
        site.phase(actor, "Suspended");
    }
    let after = usage(&site);
    assert_eq!((&of(&after, 1)["suspended"], &of(&after, 2)["suspended"]), (&0.into(), &count.into()));
    assert_ne!(of(&after, 1)["assets"], of(&after, 2)["assets"]);
    assert_eq!(site.count(&actors[count - 1].0), 2, "its files came along");
}

#[test]
fn actors_come_to_another_runsc_under_load_and_no_request_fails() {
    come_over_under_load(&GVISOR, 3, 8, Duration::from_millis(300));
}

#[test]
fn actors_come_to_another_qemu_under_load_and_no_request_fails() {
    come_over_under_load(&MICROVM, 2, 4, Duration::from_secs(5));
}
