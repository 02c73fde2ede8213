//! What the router costs: requests straight to a server, and through the router, in turns on one machine.
//!
//! `router_bench` runs everything: the server and the router are processes of their own, the load comes from here.
//! `router_bench server` and `router_bench router ADDRESS` run one of them alone, for other load generators
//! (the actor's host name is `a.default.localhost`).

use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_api::{
    Error,
    id::{Activation, ActorName},
};
use ate_router::{Route, RouteTable, Router, RouterOptions, Waker};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_millis(700);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a.default.localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server"] => server().await,
        ["router", actor] => router(actor.parse()?).await,
        _ => compare().await,
    }
}

async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

async fn server() -> Result<()> {
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let hello = service_fn(|_| async {
                Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"hello\n"))))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hello).await;
        });
    }
}

struct Fixed(Route);

#[async_trait]
impl Waker for Fixed {
    async fn wake(&self, _: &ActorName, _: Instant) -> std::result::Result<Route, Error> {
        Ok(self.0)
    }
}

async fn router(actor: SocketAddr) -> Result<()> {
    let route = Route { addr: actor.ip(), activation: Activation(1), default_port: actor.port() };
    let router = Router::new(Arc::new(RouteTable::new()), Arc::new(Fixed(route)), RouterOptions::default());
    router.serve(listen().await?, Default::default()).await;
    Ok(())
}

/// A child process that prints its address first, and is ended with this one.
struct Part(Child, SocketAddr);

impl Part {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Part(child, address.trim().parse()?))
    }
}

impl Part {
    /// Processor time used so far, which other load on the machine changes less than it does the wall clock.
    fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn compare() -> Result<()> {
    let server = Part::start(&["server"])?;
    let router = Part::start(&["router", &server.1.to_string()])?;
    println!(
        "connections | p50 µs direct, router | requests/s direct, router, ratio | CPU µs per request: server, router"
    );
    for connections in [1, 8, 64] {
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        let mut cpu = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let before = server.cpu()?;
            direct.extend(load(server.1, connections).await?);
            cpu.0 += server.cpu()? - before;
            let before = router.cpu()?;
            through.extend(load(router.1, connections).await?);
            cpu.1 += router.cpu()? - before;
        }
        let seconds = ROUND.as_secs_f64() * ROUNDS as f64;
        let (direct_rate, through_rate) = (direct.len() as f64 / seconds, through.len() as f64 / seconds);
        println!(
            "{connections:>11} | {:>5} {:>5} | {direct_rate:>6.0} {through_rate:>6.0} {:.2} | {:.1} {:.1}",
            median(&mut direct),
            median(&mut through),
            through_rate / direct_rate,
            cpu.0.as_secs_f64() * 1e6 / direct.len() as f64,
            cpu.1.as_secs_f64() * 1e6 / through.len() as f64,
        );
    }
    Ok(())
}

fn median(latencies: &mut [Duration]) -> u128 {
    latencies.sort_unstable();
    latencies[latencies.len() / 2].as_micros()
}

/// Latencies of all requests of one round.
async fn load(address: SocketAddr, connections: usize) -> Result<Vec<Duration>> {
    let until = Instant::now() + ROUND;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut latencies, mut answer) = (Vec::new(), vec![0; 4096]);
            while Instant::now() < until {
                let started = Instant::now();
                stream.write_all(REQUEST).await?;
                let mut length = 0;
                while !answer[..length].ends_with(b"hello\n") {
                    length += match stream.read(&mut answer[length..]).await? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        read => read,
                    };
                }
                latencies.push(started.elapsed());
            }
            Ok::<_, std::io::Error>(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}
