//! What the router costs: one running actor, asked through the router and directly.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ate_e2e::{Node, node};
use futures::future::try_join_all;

use crate::{
    client::Http,
    report::{Figure, Goal, Samples},
};

const HOST: &str = "bench.default.localhost";
/// Connections of the throughput measurement.
const CONNECTIONS: usize = 16;
/// Length of one throughput sample.
const BURST: Duration = Duration::from_secs(1);
/// Single requests per sample of the overhead, so that one interruption does not decide.
const REQUESTS: usize = 20;

pub(crate) async fn run(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let node = Node::with_pool(1);
    node.template(&node::counter("bench", "  idleTimeout: \"0\"\n"), "bench");
    node.actor("bench", "bench");
    node.count("bench");
    let address = node.get("actor", "bench")["status"]["address"].as_str().context("no address")?.to_owned();
    let direct: SocketAddr = format!("{address}:80").parse()?;

    let mut one = (Http::connect(node.router(), HOST).await?, Http::connect(direct, HOST).await?);
    let (mut routed, mut bare) = (Samples::default(), Samples::default());
    for _ in 0..samples * REQUESTS {
        routed.push(one.0.get("/").await?);
        bare.push(one.1.get("/").await?);
    }
    let mut ratios = Samples::default();
    for _ in 0..samples.div_ceil(3) {
        let through = requests_per_second(node.router()).await?;
        ratios.push(through / requests_per_second(direct).await?);
    }
    Ok(vec![
        Figure::new("router.overhead.p50_ms", routed.p50() - bare.p50(), "ms", Goal::AtMost(0.5), routed.len())
            .spread(&routed)
            .note(format!("direct p50 {:.3} ms", bare.p50())),
        Figure::new("router.throughput_ratio", ratios.p50(), "", Goal::AtLeast(0.6), ratios.len()).spread(&ratios),
    ])
}

async fn requests_per_second(address: SocketAddr) -> anyhow::Result<f64> {
    let connections = try_join_all((0..CONNECTIONS).map(|_| Http::connect(address, HOST))).await?;
    let began = Instant::now();
    let done = try_join_all(connections.into_iter().map(|mut http| async move {
        let mut done = 0_u64;
        while began.elapsed() < BURST {
            http.get("/").await?;
            done += 1;
        }
        anyhow::Ok(done)
    }))
    .await?;
    Ok(done.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}
