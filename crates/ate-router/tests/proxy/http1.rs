//! HTTP/1.1: what passes, what is changed, what breaks.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::{
    actor::Actor,
    fixture::{Fixture, request, within},
};

async fn one_actor() -> (Fixture, Actor) {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    (router, actor)
}

#[tokio::test]
async fn headers_for_one_hop_stay_there_and_the_client_is_named() {
    let (router, _actor) = one_actor().await;
    let request = Request::get("/echo-head?q=1")
        .header("host", "a.default.localhost:8080")
        .header("connection", "keep-alive, x-secret-of-the-hop")
        .header("x-secret-of-the-hop", "1")
        .header("proxy-authorization", "basic x")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-mine", "kept")
        .body(Full::default())
        .unwrap();
    let response = router.send(request).await;
    assert_eq!(response.headers()["x-public"], "yes");
    assert!(!response.headers().contains_key("x-private"));
    let seen = std::str::from_utf8(response.body()).unwrap();
    assert!(seen.starts_with("GET /echo-head?q=1 HTTP/1.1\n"), "{seen}");
    for expected in [
        "host: a.default.localhost:8080\n",
        "x-forwarded-for: 10.0.0.1, 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: a.default.localhost:8080\n",
        "x-mine: kept\n",
    ] {
        assert!(seen.contains(expected), "{expected} is missing in {seen}");
    }
    assert!(!seen.contains("secret") && !seen.contains("proxy-authorization"), "{seen}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let (router, _actor) = one_actor().await;
    let large: Bytes = (0..32u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let request = Request::post("/echo").header("host", "a.default.localhost").body(Full::new(large.clone())).unwrap();
    let response = router.send(request).await;
    assert!(*response.body() == large);
}

#[tokio::test]
async fn an_actor_that_dies_midway_is_not_taken_for_one_that_ended() {
    let (router, _actor) = one_actor().await;
    let broken = within(async {
        // The head may not even have been sent when the end comes.
        let Ok(response) = router.try_begin(request("a.default.localhost", "/dies-midway")).await else { return true };
        response.into_body().collect().await.is_err()
    })
    .await;
    assert!(broken);
}

#[tokio::test]
async fn an_actor_that_closes_without_an_answer_is_a_bad_gateway() {
    let router = Fixture::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    router.control.place("a", 1, listener.local_addr().unwrap());
    let closes = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 1];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some).await.unwrap();
    });
    let response = router.get("a.default.localhost", "/").await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["x-ate-reason"], "ACTOR_EXITED");
    closes.await.unwrap();
}

#[tokio::test]
async fn a_connection_the_actor_closed_while_idle_costs_no_request() {
    let router = Fixture::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    router.control.place("a", 1, listener.local_addr().unwrap());
    // Says it keeps the connection and closes it after each answer.
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    for _ in 0..20 {
        assert_eq!(router.get("a.default.localhost", "/").await.status(), 200);
        // Long enough for the close to arrive: what is tested is that it is noticed.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.abort();
}
