//! A small HTTP file server whose connections can be made to break: the network as it is, not as one likes it.
#![allow(dead_code)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub struct Server {
    pub url: String,
    pub state: Arc<State>,
}

pub struct State {
    body: Vec<u8>,
    /// Requests answered so far.
    pub requests: AtomicU32,
    /// Bytes of the body sent so far.
    pub sent: AtomicU64,
    /// This many connections break after half of what was asked for.
    pub breaks: AtomicU32,
    /// Whether ranges are understood.
    pub ranges: bool,
    /// Before each body.
    pub delay: Duration,
}

impl Server {
    pub async fn start(body: Vec<u8>, breaks: u32, ranges: bool, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/files/asset", listener.local_addr().unwrap());
        let (requests, sent, breaks) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU32::new(breaks));
        let state = Arc::new(State { body, requests, sent, breaks, ranges, delay });
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                // A client that goes away is its own business.
                tokio::spawn(async move { drop(answer(stream, &state).await) });
            }
        });
        Server { url, state }
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    state.requests.fetch_add(1, SeqCst);
    tokio::time::sleep(state.delay).await;
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let from = head.split_once("range: bytes=").and_then(|(_, r)| r.split_once('-')?.0.parse().ok());
    let total = state.body.len();
    let (status, start, extra) = match from.filter(|_| state.ranges) {
        Some(from) => ("206 Partial Content", from, format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1)),
        None => ("200 OK", 0, String::new()),
    };
    let body = &state.body[start..];
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    let broken = state.breaks.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
    let body = if broken { &body[..body.len() / 2] } else { body };
    stream.write_all(body).await?;
    state.sent.fetch_add(body.len() as u64, SeqCst);
    stream.shutdown().await
}
