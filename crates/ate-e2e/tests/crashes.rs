//! Interrupts, commands at once, and how long it takes until all is well after a death. What a class must stand (whatever is
//! killed, a full disk) is in `lifecycle.rs`, faults at every step in `steps.rs`.

use std::{
    io::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use ate_e2e::{
    Node, Site, binary, eventually,
    faults::{World, actor::Actor, world},
    http, kit, node,
    node::signal,
    user,
};
use rustix::process::Signal;

/// What was begun ends within this.
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn ctrl_c_in_a_terminal_suspends_what_runs() {
    let mut node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.interrupt();
    node.up();
    assert_eq!(node.count("a"), 2);
    assert_eq!(node.get("actor", "a")["status"]["lostActivations"], 0);
}

#[test]
fn resume_suspend_and_delete_at_once_end_in_one_of_the_states_they_name() {
    let node = Node::with_pool(2);
    node.template(&node::counter("counter", ""), "counter");
    for round in 0..5 {
        let name = format!("a{round}");
        node.actor(&name, "counter");
        std::thread::scope(|s| {
            for verb in ["resume", "suspend", "resume", "pause", "delete", "resume"] {
                let (node, name) = (&node, &name);
                s.spawn(move || node.ate(&[verb, "actor", name]));
            }
        });
        eventually("the actor to be gone", RECOVERY, || {
            let out = node.ate(&["get", "actor", &name, "-o", "name"]);
            if out.code == 0 {
                node.ate(&["delete", "actor", &name]);
            }
            out.code != 0
        });
    }
    node.workers_ready(2);
}

/// Whatever is lost, its actors serve again within this.
const SERVES_AGAIN: Duration = Duration::from_secs(15);

/// From the moment of a death until its actor has answered, as it must after it. What dies may still answer once.
fn until_it_serves(world: &mut World, actor: &mut Actor, die: impl FnOnce(&mut World)) -> Duration {
    let (began, before) = (Instant::now(), actor.activation);
    die(world);
    while actor.activation == before {
        assert!(began.elapsed() < RECOVERY, "{} goes on as if nothing had happened", actor.name);
        actor.count(world);
    }
    began.elapsed()
}

fn kill_herder_of(world: &World, actor: &str) {
    world::kill(&[world::herder_of(world, actor).expect("its herder")]);
}

#[test]
fn actors_of_a_lost_worker_and_of_a_lost_node_serve_again_in_time() {
    let mut world = World::start(&kit::GVISOR, 3);
    let mut actors: Vec<Actor> = (0..3).map(|n| Actor::new(format!("a{n}"))).collect();
    for actor in &mut actors {
        world.actor(&actor.name, "counter");
        actor.count(&mut world);
        actor.suspend(&mut world, "suspend");
        actor.count(&mut world);
    }
    let mut workers = Vec::new();
    for round in 0..4 {
        // Running, and on the way to be suspended.
        let actor = &mut actors[round % 3];
        let name = actor.name.clone();
        workers.push(until_it_serves(&mut world, actor, |w| kill_herder_of(w, &name)));
        workers.push(until_it_serves(&mut world, actor, |w| {
            w.arm("suspend.flip.before", "hold");
            let held = w.fired("suspend.flip.before");
            std::thread::scope(|s| {
                s.spawn(|| w.ate(&["suspend", "actor", &name]));
                eventually("the snapshot to be written", RECOVERY, || held.exists());
                kill_herder_of(w, &name);
                std::fs::remove_file(&held).expect("let it go on");
            });
        }));
        for actor in &mut actors {
            actor.count(&mut world);
        }
    }
    let mut nodes = Vec::new();
    for round in 0..3 {
        nodes.push(until_it_serves(&mut world, &mut actors[round], |w| {
            w.node().crash();
            w.node().up();
        }));
        for actor in &mut actors {
            actor.count(&mut world);
        }
    }
    for (what, times) in [("worker", &mut workers), ("node", &mut nodes)] {
        times.sort();
        let p95 = times[(times.len() * 95).div_ceil(100) - 1];
        let line = format!("recovery.lost_{what}_p95_s {:.2} ({} deaths)", p95.as_secs_f64(), times.len());
        let _ = writeln!(std::io::stderr(), "{line}");
        assert!(p95 <= SERVES_AGAIN, "{times:?}");
    }
}

#[test]
fn a_herder_that_hangs_is_ended_before_its_actor_lives_elsewhere() {
    let mut world = World::start(&kit::PROCESS, 2);
    let mut actor = Actor::new("a".to_owned());
    world.actor("a", "counter");
    actor.count(&mut world);
    actor.suspend(&mut world, "suspend");
    actor.count(&mut world);
    let hung = world::herders(world.machine().pid())[0];
    let copy = world::programs(world.machine().pid());
    signal(hung, Signal::STOP);
    // Neither a snapshot nor a thaw can be had of it: it is given up with its actor.
    world.arm("suspend.capture.before", "error");
    world.arm("suspend.thaw.before", "error");
    world.ate(&["suspend", "actor", "a"]);
    actor.count(&mut world);
    assert_eq!(
        copy.iter().filter(|pid| world::programs(world.machine().pid()).contains(pid)).count(),
        0,
        "the old copy is there"
    );
    assert!(!world::all_herders(world.machine().pid()).contains(&hung), "it could still wake up");
    assert_eq!(world.copies(), Some(1));
}

#[test]
fn a_node_that_was_stopped_and_wakes_up_is_still_the_only_one_on_its_data() {
    let site = Site::start(&kit::PROCESS, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    signal(site.machine().pid(), Signal::STOP);
    let second = Command::new(binary("ate"))
        .args(["up", "--empty", "--listen", "127.0.0.1:0", "--router-listen", "127.0.0.1:0", "--data-dir"])
        .arg(site.machine().data())
        .output()
        .expect("ate up");
    signal(site.machine().pid(), Signal::CONT);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("IN_USE"), "{said}");
    assert_eq!(site.count("a"), 2);
}

#[test]
fn a_stop_finishes_what_runs_and_takes_nothing_new() {
    let mut site = Site::start(&kit::PROCESS, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    let router = site.router();
    let ask = move |path: &str| http::get(router, &user::host("a"), path, user::ANSWER);
    let slow = std::thread::spawn(move || ask("/sleep/1500"));
    eventually("the request to be on its way", RECOVERY, || connections_to(router.port()) == 1);
    signal(site.machine().pid(), Signal::TERM);
    eventually("the router to take nothing new", RECOVERY, || ask("/").map_or(true, |answer| answer.status != 200));
    let slept = slow.join().expect("a thread").expect("an answer");
    assert_eq!((slept.status, slept.body.trim()), (200, "slept"));
    eventually("the node to have ended", RECOVERY, || site.node().has_died());
    site.node().up();
    let before = site.get("actor", "a")["status"].clone();
    assert_eq!((&before["lostActivations"], &before["phase"]), (&0.into(), &"Suspended".into()), "{before:#}");
    assert!(site.count("a") >= 2);
}

#[test]
fn a_herder_that_is_told_to_end_ends_with_its_actor_and_is_replaced() {
    let mut world = World::start(&kit::PROCESS, 1);
    let mut actor = Actor::new("a".to_owned());
    world.actor("a", "counter");
    actor.count(&mut world);
    actor.suspend(&mut world, "suspend");
    actor.count(&mut world);
    let (herder, copies) = (world::herders(world.machine().pid()), world::programs(world.machine().pid()));
    signal(herder[0], Signal::TERM);
    eventually("both to be gone", RECOVERY, || {
        let here = ate_e2e::footprint::below(world.machine().pid());
        !herder.iter().chain(&copies).any(|pid| here.contains(pid))
    });
    actor.count(&mut world);
    assert_eq!(world.get("actor", "a")["status"]["lostActivations"], 1);
}

/// Connections of this process that are open to a local port, as the kernel lists them: address, peer, state 01.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let peer = format!(":{port:04X}");
    let is_one = |words: &[&str]| words.get(2).is_some_and(|to| to.ends_with(&peer)) && words.get(3) == Some(&"01");
    table.lines().filter(|line| is_one(&line.split_whitespace().collect::<Vec<_>>())).count()
}
