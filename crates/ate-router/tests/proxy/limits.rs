//! Hostile and odd clients.

use std::time::{Duration, Instant};

use ate_api::id::{Activation, ActorName};
use ate_router::{Route, RouterOptions};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    actor::Actor,
    fixture::{Fixture, request, within},
};

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_closed() {
    let options = RouterOptions { head_timeout: Duration::from_millis(300), ..Default::default() };
    let router = Fixture::with(options).await;
    for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: a.default.loc"] {
        let started = Instant::now();
        let _ = router.raw(beginning.as_bytes()).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{beginning:?} was let wait");
    }
    // Also one that sends a little now and then.
    let mut slow = TcpStream::connect(router.address).await.unwrap();
    within(async {
        while slow.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn hosts_that_name_no_actor_are_told_so() {
    let router = Fixture::start().await;
    let cases = [
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nconnection: close\r\nhost: a.default.localhost\r\nhost: b.default.localhost\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: 99999-a.default.localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: example.org\r\n\r\n", "404"),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: localhost:8080\r\n\r\n", "404"),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: a.default.localhost\r\n\r\n", "404"),
        ("GET / HTTP/1.1\r\nconnection: close\r\nhost: a.ate-golden.localhost\r\n\r\n", "404"),
        ("CONNECT a.default.localhost:80 HTTP/1.1\r\nconnection: close\r\nhost: a.default.localhost\r\n\r\n", "405"),
    ];
    for (request, status) in cases {
        let answer = router.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} got {answer:?}");
        assert!(answer.contains("x-ate-reason: "), "{answer:?}");
    }
}

#[tokio::test]
async fn a_golden_actor_takes_no_requests_even_while_it_runs() {
    let (router, actor) = (Fixture::start().await, Actor::start("golden").await);
    let route = Route { addr: actor.address.ip(), activation: Activation(1), default_port: actor.address.port() };
    router.table.open(&ActorName::new("ate-golden", "a"), route);
    assert_eq!(router.get("a.ate-golden.localhost", "/").await.status(), 404);
    assert_eq!(actor.connections(), 0);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let router = Fixture::start().await;
    let huge = format!("GET / HTTP/1.1\r\nhost: a.default.localhost\r\nx: {}\r\n\r\n", "x".repeat(128 << 10));
    let answer = router.raw(huge.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    let many = "x: y\r\n".repeat(1000);
    let answer = router.raw(format!("GET / HTTP/1.1\r\nhost: a.default.localhost\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_then_ends() {
    let options = RouterOptions { drain_timeout: Duration::from_millis(300), ..Default::default() };
    let mut router = Fixture::with(options).await;
    let actor = Actor::start("alice").await;
    router.control.place("a", 1, actor.address);
    let hanging = within(router.begin(request("a.default.localhost", "/hangs"))).await;
    router.drain.cancel();
    let started = Instant::now();
    within(&mut router.serving).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(250), "the request in flight was given no time");
    assert!(TcpStream::connect(router.address).await.is_err(), "nobody listens any more");
    drop(hanging);
}

#[tokio::test]
async fn a_client_beyond_the_limit_waits_its_turn() {
    let options = RouterOptions { max_connections: 1, ..Default::default() };
    let router = Fixture::with(options).await;
    let actor = Actor::start("alice").await;
    router.control.place("a", 1, actor.address);
    let hanging = within(router.begin(request("a.default.localhost", "/hangs"))).await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), router.get("a.default.localhost", "/")).await;
    assert!(waiting.is_err(), "let in beyond the limit");
    drop(hanging);
    assert_eq!(router.get("a.default.localhost", "/").await.body(), "alice");
}
