//! Waking and suspending an actor in gVisor, beside the floor: the same actor restored by hand.

use anyhow::Context as _;
use ate_e2e::{Node, RUNSC_A, node, runsc};

use crate::{
    client::{Api, Http},
    floor::Floor,
    report::{Figure, Goal, Samples},
};

/// Memory the actor has touched; the floor was measured with the same.
const HEAP_MB: u32 = 10;
const ACTOR: &str = "bench";
const HOST: &str = "bench.default.localhost";

/// Wakes and suspends one actor on one worker, with one sample of the floor between any two wakes.
pub(crate) async fn run(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let node = Node::with_pool(1);
    let heap = format!("    env: [{{name: HEAP_MB, value: \"{HEAP_MB}\"}}]\n");
    node.template(&node::counter_with("bench", "  idleTimeout: \"0\"\n", &heap), "bench");
    node.actor(ACTOR, "bench");
    node.count(ACTOR);

    let dir = tempfile::tempdir()?;
    let app = ate_e2e::counter_program();
    let heap_mb = HEAP_MB.to_string();
    let mut floor = Floor::start([
        "floor-helper".as_ref(),
        runsc(RUNSC_A).as_os_str(),
        app.as_os_str(),
        heap_mb.as_ref(),
        dir.path().as_os_str(),
    ])?;
    let mut api = Api::connect(node.api()).await?;

    let (mut floors, mut wakes, mut suspends) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..samples {
        suspends.push(api.suspend(ACTOR).await.context("suspend")?);
        floors.push(floor.sample()?);
        node.worker_warm(false);
        let mut http = Http::connect(node.router(), HOST).await?;
        wakes.push(http.get("/").await.context("wake")?);
    }

    let ratio = wakes.p50() / floors.p50();
    Ok(vec![
        Figure::new("gvisor.floor.p50_ms", floors.p50(), "ms", Goal::None, floors.len())
            .spread(&floors)
            .note("bare runsc, four commands, nothing prepared"),
        Figure::new("gvisor.wakeup.p50_ms", wakes.p50(), "ms", Goal::None, wakes.len()).spread(&wakes),
        Figure::new("gvisor.wakeup.p50_over_floor", ratio, "", Goal::AtMost(0.5), wakes.len()).note("stretch 0.3"),
        Figure::new("gvisor.wakeup.p95_ms", wakes.quantile(0.95), "ms", Goal::AtMost(150.0), wakes.len())
            .spread(&wakes)
            .note("stretch 100"),
        Figure::new("gvisor.suspend.p50_ms", suspends.p50(), "ms", Goal::AtMost(250.0), suspends.len())
            .spread(&suspends),
    ])
}
