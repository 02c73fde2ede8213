//! Two control planes over one PostgreSQL: one leads, the other waits, and takes over when the first dies or stands still.
//! The node here follows a script; the server is real.

mod support;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ate_api::{ateapi, ateapi::actor::Status as Phase, id::Digest};
use postgres_harness::{Proxy, Server, Tuning};
use support::{
    node::Script,
    world::{World, eventually, options},
};
use tokio::task::JoinHandle;

/// A lease that runs out, and some.
const TAKEOVER: Duration = Duration::from_secs(14);
const ACTORS: usize = 8;
const WORKERS: u32 = 4;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Tuning::Test))
}

/// The leader with actors that come and go, and another that waits to take over.
struct Two {
    first: Arc<World>,
    second: JoinHandle<World>,
    callers: Vec<JoinHandle<(String, u64)>>,
}

impl Two {
    /// Each reaches the database in its own way.
    async fn at_work(first: String, second: String) -> Two {
        let first = Arc::new(World::leading(options(), first, "first", Script::new()).await);
        first.set_up(WORKERS).await;
        let second = tokio::spawn(World::leading(options(), second, "second", Script::new()));
        let mut callers = Vec::new();
        for i in 0..ACTORS {
            let name = format!("a{i}");
            first.create(&name).await.unwrap();
            callers.push(tokio::spawn(cycle(first.clone(), name)));
        }
        for i in 0..ACTORS {
            let name = format!("a{i}");
            eventually("it was suspended more than once", async || generation(&first.actor(&name).await.unwrap()) > 1)
                .await;
        }
        assert!(!second.is_finished(), "two lead");
        Two { first, second, callers }
    }

    /// The second leads; what the first had acknowledged is there, and everybody can go on. The workers of the first are
    /// not there any more, what its node had stored is.
    async fn taken_over(self) -> World {
        let second = tokio::time::timeout(TAKEOVER, self.second).await.expect("taken over in time").unwrap();
        eventually("the first one has ended", async || self.first.has_ended()).await;
        second.node.take_storage(&self.first.node);
        for caller in self.callers {
            let (name, acknowledged) = caller.await.unwrap();
            second.phase_becomes(&name, Phase::Suspended).await;
            let actor = second.actor(&name).await.unwrap();
            assert!(generation(&actor) >= acknowledged, "{name} lost a generation that was acknowledged");
            let manifest = Digest::parse(&actor.latest_snapshot_info.unwrap().manifest_digest).unwrap();
            let there = second.node.with(|s| s.snapshots.contains(&manifest));
            assert!(there, "{name} points to a snapshot that is nowhere (I2)");
            second.resume(&name).await.unwrap();
            second.suspend(&name).await.unwrap();
        }
        second.all_workers_free().await;
        for node in [&second.node, &self.first.node] {
            assert_eq!(node.with(|s| s.doubles), 0, "an actor was on two workers (I1)");
        }
        second
    }
}

/// Resumes and suspends until the control plane answers no more; the last generation it acknowledged.
async fn cycle(world: Arc<World>, name: String) -> (String, u64) {
    let mut acknowledged = 0;
    loop {
        let Ok(_) = world.resume(&name).await else { return (name, acknowledged) };
        let Ok(actor) = world.suspend(&name).await else { return (name, acknowledged) };
        acknowledged = generation(&actor);
    }
}

fn generation(actor: &ateapi::Actor) -> u64 {
    actor.latest_snapshot_info.as_ref().map_or(0, |s| s.generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_the_other_takes_over_and_nothing_acknowledged_is_lost() {
    let url = server().database();
    let two = Two::at_work(url.clone(), url).await;
    two.first.kill();
    two.taken_over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_is_replaced_ends_itself_and_commits_nothing_any_more() {
    let url = server().database();
    let proxy = Proxy::to(server().port());
    let first = format!("{}?application_name=first", server().through(&url, &proxy));
    let two = Two::at_work(first, url.clone()).await;
    proxy.stall();
    let second = two.taken_over().await;
    let before = versions(&second).await;
    // What the first one had sent arrives now.
    proxy.release();
    let name = url.rsplit_once('/').unwrap().1;
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'first' AND datname = '{name}'");
    eventually("all that was sent has been read", async || server().sql("postgres", &left).trim() == "0").await;
    assert_eq!(versions(&second).await, before, "the former leader wrote (I1)");
    second.create("more").await.expect("the new one goes on");
}

async fn versions(world: &World) -> Vec<i64> {
    let mut versions = Vec::new();
    for i in 0..ACTORS {
        versions.push(world.actor(&format!("a{i}")).await.unwrap().version);
    }
    versions
}
