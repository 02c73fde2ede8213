//! What is sent arrives as it is sent, and nobody buffers what nobody reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::{
    actor::Actor,
    fixture::{Fixture, within},
};

type Line = Result<Frame<Bytes>, std::io::Error>;

fn channel(
    capacity: usize,
) -> (mpsc::Sender<Line>, impl http_body::Body<Data = Bytes, Error = std::io::Error> + Send + Unpin) {
    let (sender, mut lines) = mpsc::channel::<Line>(capacity);
    (sender, StreamBody::new(futures::stream::poll_fn(move |cx| lines.poll_recv(cx))))
}

#[tokio::test]
async fn each_line_arrives_before_the_next_is_sent() {
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    let (lines, body) = channel(1);
    let request = Request::post("/line-by-line").header("host", "a.default.localhost").body(body).unwrap();
    lines.send(Ok(Frame::data(Bytes::from_static(b"0")))).await.unwrap();
    let mut answer = within(router.begin(request)).await.into_body();
    for i in 0..50 {
        let frame = within(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), i.to_string());
        lines.send(Ok(Frame::data(Bytes::from((i + 1).to_string())))).await.unwrap();
    }
    drop(lines);
    while let Some(frame) = within(answer.frame()).await {
        frame.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_sender() {
    const CHUNK: usize = 64 << 10;
    /// Kernel buffers of three sockets, and those of HTTP, with a wide margin.
    const BOUND: usize = 64 << 20;
    let (router, actor) = (Fixture::start().await, Actor::start("alice").await);
    router.control.place("a", 1, actor.address);
    let sent = Arc::new(AtomicUsize::new(0));
    let endless = futures::stream::repeat(Bytes::from(vec![0; CHUNK])).map({
        let sent = sent.clone();
        move |chunk| {
            sent.fetch_add(CHUNK, Ordering::SeqCst);
            Line::Ok(Frame::data(chunk))
        }
    });
    let request = Request::post("/echo").header("host", "a.default.localhost").body(StreamBody::new(endless)).unwrap();
    let response = within(router.begin(request)).await;
    // Stopped: nothing moves for a while.
    let mut before = 0;
    within(async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = sent.load(Ordering::SeqCst);
            assert!(now < BOUND, "{now} bytes were taken in and nobody reads them");
            if now > 0 && now == before {
                return;
            }
            before = now;
        }
    })
    .await;
    drop(response);
}
