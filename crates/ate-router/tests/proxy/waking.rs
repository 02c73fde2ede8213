//! Who wakes an actor, how often, and what clients hear when it does not wake.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ate_api::{Reason, id::Activation};
use ate_router::{Route, RouterOptions};
use futures::future::join_all;

use crate::{
    actor::Actor,
    fixture::{Fixture, name, within},
};

#[tokio::test]
async fn fifty_first_requests_wake_an_actor_once() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    router.control.slow.store(true, Ordering::SeqCst);
    let requests = join_all((0..50).map(|_| router.get("a.default.localhost", "/")));
    let release = async {
        while router.control.wakes() == 0 {
            tokio::task::yield_now().await;
        }
        router.control.slow.store(false, Ordering::SeqCst);
        router.control.gate.notify_one();
    };
    let (responses, ()) = within(async { tokio::join!(requests, release) }).await;
    assert!(responses.iter().all(|r| r.status() == 200 && r.body() == "alice"));
    assert_eq!(router.control.wakes(), 1);
}

#[tokio::test]
async fn a_running_actor_is_not_asked_for_again() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    let route = Route { addr: actor.address.ip(), activation: Activation(1), default_port: actor.address.port() };
    router.table.open(&name("a"), route);
    for _ in 0..10 {
        assert_eq!(router.get("a.default.localhost:8080", "/").await.body(), "alice");
    }
    assert_eq!(router.control.wakes(), 0);
}

#[tokio::test]
async fn a_wake_goes_on_when_its_clients_leave() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    router.control.slow.store(true, Ordering::SeqCst);
    let impatient = tokio::time::timeout(Duration::from_millis(50), router.get("a.default.localhost", "/"));
    assert!(impatient.await.is_err());
    router.control.gate.notify_one();
    within(async {
        while router.table.idle_for(&name("a")).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(router.get("a.default.localhost", "/").await.body(), "alice");
    assert_eq!(router.control.wakes(), 1);
}

#[tokio::test]
async fn each_reason_not_to_wake_has_its_status() {
    let router = Fixture::start().await;
    let cases = [
        (Reason::NotFound, 404, false),
        (Reason::NoFreeWorker, 503, true),
        (Reason::QueueFull, 503, true),
        (Reason::TemplateNotReady, 503, true),
        (Reason::Unavailable, 503, true),
        (Reason::NotReady, 504, false),
        (Reason::SnapshotCorrupt, 500, false),
    ];
    for (reason, status, retry) in cases {
        router.control.fail("a", reason);
        let response = router.get("a.default.localhost", "/").await;
        assert_eq!(response.status(), status, "{reason}");
        assert_eq!(response.headers()["x-ate-reason"], reason.as_str());
        assert_eq!(response.headers().contains_key("retry-after"), retry, "{reason}");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["reason"], reason.as_str());
        assert_eq!(body["hint"], "do this");
    }
    assert!(router.table.is_empty(), "an actor that did not wake leaves nothing behind");
}

#[tokio::test]
async fn nobody_waits_longer_than_the_wake_timeout() {
    let options = RouterOptions { wake_timeout: Duration::from_millis(200), ..Default::default() };
    let router = Fixture::with(options).await;
    router.control.slow.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let response = router.get("a.default.localhost", "/").await;
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-ate-reason"], "DEADLINE_EXCEEDED");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_actor_whose_port_opens_late_gets_its_first_request() {
    let router = Fixture::start().await;
    // A port that was free a moment ago.
    let address = Actor::start("nobody").await.address;
    router.control.place("a", 1, address);
    let late = async {
        while router.control.wakes() == 0 {
            tokio::task::yield_now().await;
        }
        // Time for refused attempts, which is what this is about.
        tokio::time::sleep(Duration::from_millis(60)).await;
        Actor::start_on("alice", address).await
    };
    let (response, _actor) = within(async { tokio::join!(router.get("a.default.localhost", "/"), late) }).await;
    assert_eq!(response.body(), "alice");
}

#[tokio::test]
async fn a_port_in_the_host_name_is_used() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    // The default port leads nowhere.
    router.control.place("a", 1, std::net::SocketAddr::new(actor.address.ip(), 1));
    let host = format!("{}-a.default.actors.resources.substrate.ate.dev", actor.address.port());
    assert_eq!(router.get(&host, "/").await.body(), "alice");
}
