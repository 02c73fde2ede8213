//! What every sandbox class promises, asked of each class by the same tests: through the command line and plain HTTP,
//! on a node of its own each. Classes differ only in the capabilities they report; what one does not report it must
//! refuse.
//!
//! The list of classes and of promises is at the end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ate_e2e::{
    Class, Footprint, Kit, Node, Site, Template,
    class::skipped,
    disk::SmallDisk,
    eventually,
    footprint::{below, command_line},
    http, image, kit, node,
    node::signal,
    until,
};
use rustix::process::Signal;
use serde_json::Value;

/// A loss is noticed and made good within this.
const RECOVERY: Duration = Duration::from_secs(60);
/// Longer than a clock that was set right may be off.
const OUT_OF_TIME: Duration = Duration::from_secs(3);
/// What a clock inside may differ from ours, the way there and back included.
const CLOCK: Duration = Duration::from_millis(1500);

// --- beginning ---

fn actors_begin_from_the_golden_snapshot_of_their_template(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    let snapshots = site.list("snapshots");
    let golden = snapshots.iter().find(|s| s["spec"]["golden"] == true).unwrap_or_else(|| panic!("{snapshots:#?}"));
    assert_eq!(golden["spec"]["sandboxClass"], kit.class, "{golden:#}");
    assert_eq!(golden["spec"]["sandboxConfig"], format!("{}@1", kit.class), "{golden:#}");
    let full = site.can("snapshot.full");
    assert_eq!(golden["spec"]["scope"], if full { "Full" } else { "Data" }, "{golden:#}");
    let boots = ["a", "b"].map(|name| {
        site.actor(name, "counter");
        let answer = site.request(name, "/").body;
        assert_eq!(node::counted(&answer), Some(1), "{answer}");
        word(&answer, "boot")
    });
    assert_eq!(boots[0] == boots[1], full, "with memory, all began as the same process: {boots:?}");
}

fn the_image_says_what_runs_as_whom_and_where(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    let image = image::configured(&site.dir().join("image"), |config| {
        config["Entrypoint"] = serde_json::json!(["/counter", "from-the-image"]);
        config["Cmd"] = serde_json::json!(["its", "command"]);
        config["User"] = "1234:5678".into();
        config["WorkingDir"] = "/tmp".into();
        config["Env"] = serde_json::json!(["OF_THE_IMAGE=1", "CHANGED=by the image"]);
    });
    let template = site.counter().image(image).env("PORT", "8080").env("CHANGED", "by the template");
    site.ready("image", &template);
    site.actor("a", "image");
    let about = site.request("a", "/about").body;
    for line in [
        "arg /counter",
        "arg from-the-image",
        "arg its",
        "arg command",
        "cwd /tmp",
        "uid: 1234",
        "gid: 5678",
        "env OF_THE_IMAGE=1",
        "env CHANGED=by the template",
    ] {
        assert!(about.lines().any(|l| l == line), "`{line}` is not in\n{about}");
    }
}

fn what_a_class_does_not_report_it_refuses_before_anything_starts(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    let plain = Template::default().class(kit.class);
    let templates = [
        ("snapshot.full", plain.clone()),
        ("snapshot.data", plain.clone().data()),
        ("snapshot.multi-container", site.counter().second(8081)),
    ];
    for (word, template) in templates {
        if site.can(word) {
            continue;
        }
        let said = site.apply(&template.yaml("greedy")).refused();
        assert!(said.contains("MISSING_CAPABILITY") && said.contains(word), "{word}: {said}");
        assert!(site.list("templates").is_empty());
    }
}

fn an_actor_never_lands_on_a_pool_of_another_class(kit: &'static Kit) {
    let other = if kit.class == kit::PROCESS.class { &kit::GVISOR } else { &kit::PROCESS };
    let site = Site::start(other, 1);
    let class = Class::admitted(&site, kit);
    site.apply(&class.counter().yaml("counter")).ok();
    let why = until("the template to say what it waits for", node::ANSWER, || {
        let conditions = site.get("template", "counter")["status"]["conditions"].to_string();
        conditions.contains("NoSuitableWorker").then_some(conditions)
    });
    assert!(why.contains(&format!("its sandbox class is {}", other.class)), "{why}");
    site.workers_ready(1);

    class.add_pool(&site, 1);
    site.template_ready("counter");
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    let workers = site.list("workers");
    let seat = workers.iter().find(|w| w["status"]["actor"] == "default/a").unwrap_or_else(|| panic!("{workers:#?}"));
    assert_eq!(seat["spec"]["sandboxClass"], kit.class, "{seat:#}");
}

// --- going on where one was ---

fn an_actor_suspended_and_paused_by_command_goes_on_where_it_was(kit: &'static Kit) {
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

fn ten_rounds_of_suspend_and_resume_lose_no_byte(kit: &'static Kit) {
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

fn an_actor_goes_on_at_another_worker(kit: &'static Kit) {
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

fn six_actors_share_two_workers_and_each_goes_on_counting(kit: &'static Kit) {
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

fn an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    site.ready("sleepy", &site.counter().line("idleTimeout: 1s"));
    site.actor("a", "sleepy");
    assert_eq!(site.count("a"), 1);
    site.phase("a", "Suspended");
    assert_eq!(site.count("a"), 2);
}

fn only_durable_directories_survive_when_the_template_says_data(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    if !site.has("snapshot.data") {
        return;
    }
    site.ready("keeper", &Template::default().class(kit.class).data().line("idleTimeout: \"0\""));
    site.actor("a", "keeper");
    assert_eq!(site.count("a"), 1);
    assert_eq!(site.put("a", "/file", "kept").status, 200);
    for verb in ["suspend", "pause"] {
        site.ate(&[verb, "actor", "a"]).ok();
        assert_eq!(site.request("a", "/file").body, "kept");
        assert_eq!(site.count("a"), 1, "memory starts anew");
    }
}

fn two_containers_share_an_actor_and_survive_together(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    if !site.has("snapshot.multi-container") {
        return;
    }
    site.ready("pair", &site.counter().second(8081).line("idleTimeout: \"0\""));
    site.actor("a", "pair");
    let second = || {
        let answer = http::get(site.router(), "8081-a.default.localhost", "/", node::ANSWER).expect("an answer");
        node::counted(&answer.body).unwrap_or_else(|| panic!("{}", answer.body))
    };
    assert_eq!(site.count("a"), 1);
    assert_eq!(second(), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    // The second keeps its count in memory.
    assert_eq!(second(), if site.can("snapshot.full") { 2 } else { 1 });
}

fn a_snapshot_stays_with_the_binaries_it_was_made_under(kit: &'static Kit) {
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

// --- what is not as it was ---

fn actors_of_one_name_in_two_atespaces_are_two_actors_and_know_it(kit: &'static Kit) {
    let site = Site::start(kit, 2).with_counter();
    site.ate(&["create", "atespace", "other"]).ok();
    site.actor("same", "counter");
    site.ate(&["create", "actor", "same", "-a", "other", "--template", "counter"]).ok();
    let ask = |space: &str| {
        let host = format!("same.{space}.localhost");
        http::get(site.router(), &host, "/", node::ANSWER).expect("an answer").body
    };
    let mut uids = BTreeSet::new();
    for round in 1..=2 {
        for space in ["default", "other"] {
            let answer = ask(space);
            assert_eq!(node::counted(&answer), Some(round), "{answer}");
            assert_eq!((word(&answer, "atespace").as_str(), word(&answer, "name").as_str()), (space, "same"));
            assert_eq!(word(&answer, "template"), "default/counter");
            assert_eq!(word(&answer, "activation"), round.to_string(), "{answer}");
            uids.insert(word(&answer, "uid"));
            site.ate(&["suspend", "actor", "same", "-a", space]).ok();
        }
    }
    assert_eq!(uids.len(), 2, "{uids:?}");
    site.ate(&["delete", "actor", "same", "-a", "other"]).ok();
    assert_eq!(site.count("same"), 3);
}

fn ten_clones_of_one_golden_draw_different_random_numbers(kit: &'static Kit) {
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

fn an_actor_that_wakes_knows_what_time_it_is(kit: &'static Kit) {
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

// --- what is told ---

fn what_an_actor_prints_can_be_read_by_its_name(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    for n in 1..=2 {
        assert_eq!(site.count("a"), n);
        let line = format!("request {n}");
        eventually("a line of the actor's log", node::ANSWER, || {
            site.ate(&["logs", "actor", "a"]).ok().contains(&line)
        });
        site.ate(&["suspend", "actor", "a"]).ok();
    }
}

fn an_actor_that_ends_is_reported_and_comes_back_from_its_last_snapshot(kit: &'static Kit) {
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

// --- when things die ---

fn a_herder_that_dies_is_replaced_and_its_actor_served_again(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    herders(&site, kit).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    eventually("the loss to be seen", RECOVERY, || phase(&site, "a") == "Suspended");
    assert_eq!(site.count("a"), 2);
    assert_eq!(site.get("actor", "a")["status"]["lostActivations"], 1);
}

fn a_sandbox_killed_under_its_actor_is_started_again_by_the_next_request(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 2);
    let inside: Vec<u32> =
        herders(&site, kit).into_iter().filter(|pid| command_line(*pid).contains("--inside")).collect();
    let sandbox: Vec<u32> = inside.iter().flat_map(|pid| below(*pid)).collect();
    assert!(!sandbox.is_empty(), "the actor must be somewhere");
    sandbox.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    eventually("the end to be seen", RECOVERY, || phase(&site, "a") == "Suspended");
    assert_eq!(site.count("a"), 2);
}

fn a_node_that_stops_leaves_nothing_behind_and_loses_nothing(kit: &'static Kit) {
    let mut site = Site::start(kit, 2).with_counter();
    for name in ["a", "b", "c"] {
        site.actor(name, "counter");
        assert_eq!(site.count(name), 1);
    }
    let footprint = Footprint::of(&site);
    assert!(footprint.links() == 2 && !footprint.remains().is_empty(), "{footprint:?}");
    site.node().stop();
    assert_eq!(footprint.remains(), BTreeSet::new());
    site.node().up();
    for name in ["a", "b", "c"] {
        assert_eq!(site.count(name), 2, "a stop suspends what runs");
    }
}

fn a_node_killed_and_started_again_keeps_every_committed_generation(kit: &'static Kit) {
    let mut site = Site::start(kit, 2).with_counter();
    for name in ["kept", "lost"] {
        site.actor(name, "counter");
        assert_eq!(site.count(name), 1);
        site.ate(&["suspend", "actor", name]).ok();
    }
    assert_eq!(site.count("lost"), 2);
    let footprint = Footprint::of(&site);
    site.node().crash();
    let workers_gone = || footprint.remains().iter().all(|l| l.starts_with("link ") || l.starts_with("mount "));
    eventually("the workers to be gone with the node", RECOVERY, workers_gone);
    site.node().up();
    assert_eq!(site.count("kept"), 2);
    assert_eq!(site.count("lost"), 2, "what came after the last commit is lost, nothing else");
    assert_eq!(site.get("actor", "lost")["status"]["lostActivations"], 1);
    assert_eq!(footprint.remains(), BTreeSet::new(), "what the killed one left is cleaned up");
}

fn a_disk_that_fills_up_during_a_suspend_leaves_the_actor_running(kit: &'static Kit) {
    // Room for the binaries, the golden snapshot and the actor's state twice.
    let disk = SmallDisk::new(1200);
    let mut site = Site::on(Node::on(disk.path()), kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.request("a", "/grow/100").status, 200);
    assert_eq!(site.count("a"), 1);
    // Room for the node to go on, but not for the actor's state.
    let filler = disk.fill_but(70);
    let said = site.ate(&["suspend", "actor", "a"]).refused();
    assert!(said.contains("DISK_FULL"), "{said}");
    assert_eq!(site.count("a"), 2, "the actor goes on");
    std::fs::remove_file(filler).expect("remove the filler");
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(site.count("a"), 3);
    site.node().stop();
}

// --- asking ---

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
    let owner = format!("default/{actor}");
    let current = snapshots.iter().find(|s| s["spec"]["owner"] == owner && s["status"]["current"] == true);
    current.unwrap_or_else(|| panic!("no current snapshot of {actor} in {snapshots:#?}")).clone()
}

/// The processes of the class's program.
fn herders(node: &Node, kit: &Kit) -> Vec<u32> {
    let program = format!("ateom-{}", kit.class);
    let herders = below(node.pid()).into_iter();
    herders.filter(|pid| command_line(*pid).contains("--socket") && program_of(*pid).ends_with(&program)).collect()
}

fn program_of(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default().display().to_string()
}

/// Each promise as a test of each class.
macro_rules! suite {
    (classes: { $($class:ident: $kit:expr,)+ } promises: $promises:tt) => { $(suite! { @class $class $kit; $promises })+ };
    (@class $class:ident $kit:expr; { $($promise:ident,)+ }) => {
        mod $class {
            $(
                #[test]
                fn $promise() {
                    super::$promise(&$kit);
                }
            )+
        }
    };
}

suite! {
    classes: {
        gvisor: ate_e2e::kit::GVISOR,
        microvm: ate_e2e::kit::MICROVM,
        process: ate_e2e::kit::PROCESS,
    }
    promises: {
        actors_begin_from_the_golden_snapshot_of_their_template,
        the_image_says_what_runs_as_whom_and_where,
        what_a_class_does_not_report_it_refuses_before_anything_starts,
        an_actor_never_lands_on_a_pool_of_another_class,
        an_actor_suspended_and_paused_by_command_goes_on_where_it_was,
        ten_rounds_of_suspend_and_resume_lose_no_byte,
        an_actor_goes_on_at_another_worker,
        six_actors_share_two_workers_and_each_goes_on_counting,
        an_idle_actor_is_suspended_by_itself_and_woken_by_the_next_request,
        only_durable_directories_survive_when_the_template_says_data,
        two_containers_share_an_actor_and_survive_together,
        a_snapshot_stays_with_the_binaries_it_was_made_under,
        actors_of_one_name_in_two_atespaces_are_two_actors_and_know_it,
        ten_clones_of_one_golden_draw_different_random_numbers,
        an_actor_that_wakes_knows_what_time_it_is,
        what_an_actor_prints_can_be_read_by_its_name,
        an_actor_that_ends_is_reported_and_comes_back_from_its_last_snapshot,
        a_herder_that_dies_is_replaced_and_its_actor_served_again,
        a_sandbox_killed_under_its_actor_is_started_again_by_the_next_request,
        a_node_that_stops_leaves_nothing_behind_and_loses_nothing,
        a_node_killed_and_started_again_keeps_every_committed_generation,
        a_disk_that_fills_up_during_a_suspend_leaves_the_actor_running,
    }
}
