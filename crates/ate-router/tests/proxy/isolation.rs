//! An actor never gets another actor's traffic, though they share addresses one after the other.

use std::time::{Duration, Instant};

use ate_api::id::Activation;
use futures::future::join_all;
use http_body_util::BodyExt;

use crate::{
    actor::Actor,
    fixture::{Fixture, name, request, within},
};

#[tokio::test]
async fn a_connection_of_an_old_activation_is_never_used_again() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    router.control.place("b", 1, worker.address);
    // a's requests leave idle connections to the worker behind.
    let first = join_all((0..8).map(|_| router.get("a.default.localhost", "/"))).await;
    assert!(first.iter().all(|r| r.status() == 200));
    let before = worker.connections();
    assert!(before >= 1);
    router.table.close(&name("a"), Activation(1), Duration::ZERO).await;
    // b gets the same address, then a again: each makes its own connection.
    assert_eq!(router.get("b.default.localhost", "/").await.status(), 200);
    assert_eq!(worker.connections(), before + 1);
    router.table.close(&name("b"), Activation(1), Duration::ZERO).await;
    router.control.place("a", 2, worker.address);
    assert_eq!(router.get("a.default.localhost", "/").await.status(), 200);
    assert_eq!(worker.connections(), before + 2);
}

#[tokio::test]
async fn connections_are_used_again_within_an_activation() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    for _ in 0..20 {
        assert_eq!(router.get("a.default.localhost", "/").await.status(), 200);
    }
    assert_eq!(worker.connections(), 1);
}

#[tokio::test]
async fn closing_waits_for_requests_in_flight_and_then_cuts_them() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    let mut hanging = within(router.begin(request("a.default.localhost", "/hangs"))).await.into_body();
    assert_eq!(within(hanging.frame()).await.unwrap().unwrap().into_data().unwrap(), "some");
    assert_eq!(router.table.idle_for(&name("a")), None, "in flight");
    assert!(!router.table.close_if_idle(&name("a"), Activation(1), Duration::ZERO), "in flight");

    let started = Instant::now();
    within(router.table.close(&name("a"), Activation(1), Duration::from_millis(200))).await;
    assert!(started.elapsed() >= Duration::from_millis(200), "the drain time was not given");
    let cut = within(hanging.frame()).await;
    assert!(matches!(cut, Some(Err(_))), "the client must not take what it has for the whole: {cut:?}");
}

#[tokio::test]
async fn a_close_that_nobody_waits_for_any_more_cuts_all_the_same() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    let hanging = within(router.begin(request("a.default.localhost", "/hangs"))).await;
    let actor = name("a");
    let closing = router.table.close(&actor, Activation(1), Duration::from_secs(60));
    assert!(tokio::time::timeout(Duration::from_millis(50), closing).await.is_err());
    assert!(within(hanging.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn closing_returns_when_the_last_request_ends() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    let hanging = within(router.begin(request("a.default.localhost", "/hangs"))).await;
    let closing = tokio::spawn({
        let table = router.table.clone();
        async move { table.close(&name("a"), Activation(1), Duration::from_secs(60)).await }
    });
    drop(hanging);
    within(closing).await.unwrap();
}

#[tokio::test]
async fn an_idle_actor_is_closed_only_after_its_time() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 1, worker.address);
    router.get("a.default.localhost", "/").await;
    let idle = within(async {
        loop {
            match router.table.idle_for(&name("a")) {
                Some(idle) if idle > Duration::from_millis(20) => return idle,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    assert!(!router.table.close_if_idle(&name("a"), Activation(1), idle + Duration::from_secs(60)));
    assert_eq!(router.get("a.default.localhost", "/").await.status(), 200);
    assert_eq!(router.control.wakes(), 1, "it was open all the while");
    within(async {
        while !router.table.close_if_idle(&name("a"), Activation(1), Duration::ZERO) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(router.table.is_empty());
    assert_eq!(router.get("a.default.localhost", "/").await.status(), 200);
    assert_eq!(router.control.wakes(), 2);
}

#[tokio::test]
async fn an_answer_that_was_overtaken_by_a_close_opens_nothing() {
    let (router, worker) = (Fixture::start().await, Actor::start("the worker").await);
    router.control.place("a", 7, worker.address);
    router.control.slow.store(true, std::sync::atomic::Ordering::SeqCst);
    let closed_meanwhile = async {
        while router.control.wakes() == 0 {
            tokio::task::yield_now().await;
        }
        // Activation 7 ended before the answer that names it arrives; 8 is the next.
        router.table.close(&name("a"), Activation(7), Duration::ZERO).await;
        router.control.gate.notify_one();
        while router.control.wakes() == 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(worker.connections(), 0, "a closed activation was routed to");
        router.control.place("a", 8, worker.address);
        router.control.gate.notify_one();
    };
    let (response, ()) = within(async { tokio::join!(router.get("a.default.localhost", "/"), closed_meanwhile) }).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn actors_of_one_name_in_two_atespaces_are_two() {
    let (router, alice, bob) = (Fixture::start().await, Actor::start("alice").await, Actor::start("bob").await);
    for (atespace, actor) in [("one", &alice), ("two", &bob)] {
        let route = ate_router::Route {
            addr: actor.address.ip(),
            activation: Activation(1),
            default_port: actor.address.port(),
        };
        router.table.open(&ate_api::id::ActorName::new(atespace, "a"), route);
    }
    assert_eq!(router.get("a.one.localhost", "/").await.body(), "alice");
    assert_eq!(router.get("a.two.localhost", "/").await.body(), "bob");
    assert_eq!(router.get("a.three.localhost", "/").await.status(), 404);
}
