//! Hostile clients, and hostile actors: whatever either sends, the router answers the next one.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ate_fuzz::Target;
use ate_router::RouterOptions;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::fixture::{Fixture, within};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
/// A router that says nothing for so long waits for more.
const SILENCE: Duration = Duration::from_millis(20);
/// Tries between two looks at whether an honest client is served.
const LOOK: u64 = 64;

/// An actor that answers each request with the same bytes and closes.
async fn actor(answer: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.lock().unwrap().clone();
            tokio::spawn(async move {
                // The head of a request is one segment here.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

struct Bed {
    runtime: Runtime,
    router: Fixture,
}

impl Bed {
    /// With an actor `bad` that answers like this, and an honest one.
    fn new(answer: Arc<Mutex<Vec<u8>>>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let router = runtime.block_on(async {
            let timeout = Duration::from_millis(500);
            let options = RouterOptions { head_timeout: timeout, wake_timeout: timeout, ..Default::default() };
            let router = Fixture::with(options).await;
            router.control.place("bad", 1, actor(answer).await);
            router.control.place("good", 1, actor(Arc::new(Mutex::new(GOOD.to_vec()))).await);
            router
        });
        Bed { runtime, router }
    }

    /// Sends the bytes and hears until the router closes, or waits for more.
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.runtime.block_on(within(async {
            let (mut read, mut write) = TcpStream::connect(self.router.address).await.unwrap().into_split();
            let says = write.write_all(bytes);
            let mut heard = Vec::new();
            let hears =
                async { while let Ok(Ok(1..)) = tokio::time::timeout(SILENCE, read.read_buf(&mut heard)).await {} };
            let _ = tokio::join!(says, hears);
            heard
        }))
    }

    fn serves(&self) {
        let answer = self.runtime.block_on(self.router.get("good.default.localhost", "/"));
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"hello"[..]));
    }
}

fn status(answer: &[u8]) -> Result<(), String> {
    if answer.starts_with(b"HTTP/1.1 200") || answer.windows(5).any(|w| w == b"hello") {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&answer[..answer.len().min(200)]).replace('"', ""))
}

/// Calls the target, and every so often an honest actor.
fn looking<'a>(
    bed: &'a Bed,
    each: impl Fn(&[u8]) -> Result<(), String> + 'a,
) -> impl Fn(&[u8]) -> Result<(), String> + 'a {
    let tries = std::cell::Cell::new(0u64);
    move |bytes| {
        let answer = each(bytes);
        tries.set(tries.get() + 1);
        if tries.get().is_multiple_of(LOOK) {
            bed.serves();
        }
        answer
    }
}

#[test]
fn what_a_client_sends() {
    let bed = Bed::new(Arc::new(Mutex::new(GOOD.to_vec())));
    let target = Target::named("router.client")
        .sample("get", || {
            let head = "GET /a?b=c HTTP/1.1\r\nhost: good.default.localhost\r\nx-forwarded-for: 1.2.3.4\r\nconnection: close, te\r\nte: \
                        trailers\r\n\r\n";
            head.as_bytes().to_vec()
        })
        .sample("post", || {
            let head = "POST / HTTP/1.1\r\nhost: good.default.localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            head.as_bytes().to_vec()
        })
        .other("upgrade", || {
            let head = "GET / HTTP/1.1\r\nhost: 80-good.default.localhost.:8080\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nGET / \
                        HTTP/1.1\r\nhost: good.default.localhost\r\n\r\n";
            head.as_bytes().to_vec()
        })
        .sample("http2", || {
            // Preface, empty settings, a HEADERS frame with :method GET, :path /, :scheme http and a literal :authority.
            let authority = b"good.default.localhost";
            let fields = [&[0x82, 0x84, 0x86, 0x41, authority.len() as u8][..], authority].concat();
            let frame = [&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1][..], &fields].concat();
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &frame].concat()
        });
    target.run(looking(&bed, |bytes| status(&bed.ask(bytes))));
}

#[test]
fn what_an_actor_answers() {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let bed = Bed::new(answer.clone());
    let target = Target::named("router.actor")
        .sample("whole", || GOOD.to_vec())
        .sample("chunked", || {
            let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\nset-cookie: a=b\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            text.as_bytes().to_vec()
        })
        .sample("early-hints", || {
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec()
        });
    target.run(looking(&bed, |bytes| {
        *answer.lock().unwrap() = bytes.to_vec();
        status(&bed.ask(b"GET / HTTP/1.1\r\nhost: bad.default.localhost\r\nconnection: close\r\n\r\n"))
    }));
}
