//! HTTP/2 without TLS, as gRPC clients speak it.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::{
    actor::Actor,
    fixture::{Fixture, within},
};

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    let mut client = router.http2::<Full<Bytes>>().await;
    for i in 0..10 {
        let request = Request::post("http://a.default.localhost/trailers")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(format!("message {i}"))))
            .unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        let collected = within(response.into_body().collect()).await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), format!("message {i}"));
    }
    assert_eq!(actor.connections(), 1);
}

#[tokio::test]
async fn many_streams_of_one_connection_reach_their_actors() {
    let (router, alice, bob) = (Fixture::start().await, Actor::start("alice").await, Actor::start("bob").await);
    router.control.place("a", 1, alice.address);
    router.control.place("b", 1, bob.address);
    let client = router.http2::<Full<Bytes>>().await;
    let answers = futures::future::join_all((0..100).map(|i| {
        let mut client = client.clone();
        async move {
            let (actor, expected) = if i % 2 == 0 { ("a", "alice") } else { ("b", "bob") };
            let request =
                Request::get(format!("http://{actor}.default.localhost/")).body(Full::<Bytes>::default()).unwrap();
            let response = client.send_request(request).await.unwrap();
            (response.into_body().collect().await.unwrap().to_bytes(), expected)
        }
    }));
    for (answer, expected) in within(answers).await {
        assert_eq!(answer, expected);
    }
}

#[tokio::test]
async fn an_actor_that_speaks_http1_serves_http2_clients() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    let mut client = router.http2::<Full<Bytes>>().await;
    let request = Request::get("http://a.default.localhost/echo-head")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = within(client.send_request(request)).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&body).unwrap();
    assert!(seen.starts_with("GET /echo-head HTTP/1.1\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\n") && seen.contains("host: a.default.localhost\n"), "{seen}");
}
