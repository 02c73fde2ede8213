//! How long a revocation takes until it is in force everywhere: the call returns, and then nothing resumes under the binary
//! and no worker holds anything it started under it.

use anyhow::{Context as _, ensure};
use ate_api::{
    Error, Reason,
    v1::{RevokeRequest, UnrevokeRequest, revocations_client::RevocationsClient},
};
use ate_e2e::{Node, footprint::running, node};
use tokio::time::Instant;
use tonic::transport::Endpoint;

use crate::report::{Figure, Goal, Samples};

const ACTOR: &str = "bench";

pub(crate) async fn run(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let node = Node::with_pool(2);
    node.template(&node::counter("bench", "  idleTimeout: \"0\"\n"), "bench");
    node.actor(ACTOR, "bench");
    node.count(ACTOR);
    node.ate(&["suspend", "actor", ACTOR]).ok();
    let assets = node.list("assets");
    let digest = assets[0]["metadata"]["name"].as_str().context("no asset")?.to_owned();
    let program = node.data().join(format!("node/assets/files/sha256-{digest}"));
    let mut api = RevocationsClient::new(Endpoint::from_shared(node.api().to_owned())?.connect().await?);
    let mut times = Samples::default();
    for _ in 0..samples {
        node.worker_warm(false);
        ensure!(!running(&program).is_empty(), "a warm worker holds no sandbox of the binary");
        let request = RevokeRequest { digest: digest.clone(), reason: "measured".to_owned(), stop: false };
        let began = Instant::now();
        api.revoke(request).await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let left = running(&program);
        ensure!(left.is_empty(), "{left:?} still run the binary");
        let out = node.ate(&["resume", "actor", ACTOR]);
        ensure!(out.code != 0 && out.stderr.contains(Reason::AssetRevoked.as_str()), "{}", out.stderr);
        api.unrevoke(UnrevokeRequest { digest: digest.clone() }).await.map_err(|s| Error::from(&s))?;
        node.workers_ready(2);
        // Shows that it may run again, and has a worker made warm for the next round.
        node.count(ACTOR);
        node.ate(&["suspend", "actor", ACTOR]).ok();
    }
    Ok(vec![
        Figure::new("revoke.effective_ms", times.quantile(1.0), "ms", Goal::AtMost(1000.0), times.len())
            .spread(&times)
            .note("the slowest; each time a resume was refused and the warm sandbox was gone"),
    ])
}
