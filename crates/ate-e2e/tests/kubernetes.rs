//! A cluster from `kubectl apply` to an answer of an actor in real gVisor, and what becomes of the actor when things die: the
//! leader, the node agent, a worker's pod, the API server, the database, certificates. It is there afterwards, with its memory.

use std::{net::SocketAddr, time::Duration};

use ate_e2e::cluster::{Cluster, Count};
use kube::ResourceExt as _;

/// The actor is asked once more, and is who it was.
async fn goes_on(c: &Cluster, before: &Count, why: &str) -> Count {
    let now = c.count("a").await;
    assert_eq!(now.boot, before.boot, "{why}: another process\n{}", c.last_words());
    // A request whose answer was lost has counted too.
    assert!(now.count > before.count, "{why}: {before:?} {now:?}\n{}", c.last_words());
    now
}

async fn lost(c: &Cluster) -> u64 {
    c.actor("a").await["status"]["lostActivations"].as_u64().unwrap_or_default()
}

async fn activation(c: &Cluster) -> u64 {
    c.actor("a").await["status"]["activation"].as_u64().unwrap()
}

async fn phase_becomes(c: &Cluster, phase: &str) {
    c.eventually(&format!("a is {phase}"), async || c.actor("a").await["status"]["phase"] == phase).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_actor_outlives_whatever_dies_around_it() {
    let Some(mut c) = Cluster::start(1, 2).await else { return };
    c.ate(&["create", "actor", "a", "--template", "counter"]).await.unwrap();
    let first = c.count("a").await;

    let now = suspended_and_resumed(&c, first).await;
    let now = the_leader_is_killed(&mut c, now).await;
    let now = the_node_agent_is_killed(&mut c, now).await;
    let now = its_pod_is_evicted(&c, now).await;
    let now = its_pool_gets_other_pods(&c, now).await;
    let now = the_api_server_is_away(&c, now).await;
    let now = the_database_restarts_during_a_resume(&c, now).await;
    let now = certificates_are_rotated(&mut c, now).await;
    its_pool_is_scaled_to_zero_and_back(&c, now).await;
    assert_eq!(lost(&c).await, 0, "nothing was lost in all this");
}

async fn suspended_and_resumed(c: &Cluster, before: Count) -> Count {
    c.suspend("a").await;
    phase_becomes(c, "Suspended").await;
    goes_on(c, &before, "suspended and resumed").await
}

/// The other one leads, and goes on with whoever runs.
async fn the_leader_is_killed(c: &mut Cluster, before: Count) -> Count {
    let (leader, running) = (c.leader().await, activation(c).await);
    c.control(leader).kill();
    c.eventually("the other one leads", async || c.leader().await != leader).await;
    let now = goes_on(c, &before, "another leader").await;
    assert_eq!(activation(c).await, running, "the same activation");
    c.control(leader).start_again();
    now
}

async fn the_node_agent_is_killed(c: &mut Cluster, before: Count) -> Count {
    let running = activation(c).await;
    c.node("node-0").kill();
    // Whoever runs does not need it.
    let now = goes_on(c, &before, "no node agent").await;
    c.node("node-0").start_again();
    // And the next one finds it again: it can be suspended.
    c.suspend("a").await;
    assert_eq!(activation(c).await, running, "the same activation");
    goes_on(c, &now, "another node agent").await
}

async fn its_pod_is_evicted(c: &Cluster, before: Count) -> Count {
    let pod = c.pod_of("a").await;
    c.delete_pod(&pod.name_any()).await;
    phase_becomes(c, "Suspended").await;
    let now = goes_on(c, &before, "evicted").await;
    assert_ne!(c.pod_of("a").await.uid(), pod.uid());
    c.eventually("the pod is gone", async || !c.worker_pods().await.iter().any(|p| p.uid() == pod.uid())).await;
    now
}

/// What its pods are is changed: whoever is on one is suspended before it is replaced.
async fn its_pool_gets_other_pods(c: &Cluster, before: Count) -> Count {
    let pod = c.pod_of("a").await;
    c.edit_pods().await;
    phase_becomes(c, "Suspended").await;
    c.eventually("the pod is gone", async || !c.worker_pods().await.iter().any(|p| p.uid() == pod.uid())).await;
    let now = goes_on(c, &before, "other pods").await;
    let next = c.pod_of("a").await;
    let tolerations = next.spec.and_then(|s| s.tolerations).unwrap_or_default();
    assert!(tolerations.iter().any(|t| t.key.as_deref() == Some("spare")), "{tolerations:?}");
    now
}

/// Resumes go on from what the control plane knows.
async fn the_api_server_is_away(c: &Cluster, before: Count) -> Count {
    c.suspend("a").await;
    c.api_server.stop_api();
    let now = goes_on(c, &before, "no API server").await;
    c.api_server.start_api().await.unwrap();
    now
}

async fn the_database_restarts_during_a_resume(c: &Cluster, before: Count) -> Count {
    c.suspend("a").await;
    let restart = async {
        tokio::time::sleep(Duration::from_millis(20)).await; // in the middle of it
        tokio::task::block_in_place(|| c.postgres.restart());
    };
    let (now, ()) = tokio::join!(goes_on(c, &before, "the database restarted"), restart);
    now
}

/// Files are replaced and nobody is told; everybody who connects from then on uses the new ones.
async fn certificates_are_rotated(c: &mut Cluster, before: Count) -> Count {
    c.rotate().await;
    // The next leader dials the node anew, and the node registers with it anew.
    let leader = c.leader().await;
    c.control(leader).stop();
    c.eventually("the other one leads", async || c.leader().await != leader).await;
    let now = goes_on(c, &before, "new certificates").await;
    c.suspend("a").await;
    c.control(leader).start_again();
    goes_on(c, &now, "new certificates").await
}

async fn its_pool_is_scaled_to_zero_and_back(c: &Cluster, before: Count) {
    c.scale(0).await;
    phase_becomes(c, "Suspended").await;
    c.eventually("no pod is left", async || c.worker_pods().await.is_empty()).await;
    c.scale(1).await;
    goes_on(c, &before, "scaled to zero and back").await;
}

/// Its actors move as from a node that is gone. Whoever it still has can be asked for nothing, and is ended when it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_agent_that_hangs_and_wakes_up_neither_serves_nor_saves_an_actor_that_moved() {
    let Some(mut c) = Cluster::start(2, 2).await else { return };
    c.ate(&["create", "actor", "a", "--template", "counter"]).await.unwrap();
    assert_eq!(c.count("a").await.count, 1);
    c.suspend("a").await;
    assert_eq!(c.count("a").await.count, 2, "not saved");
    let pod = c.pod_of("a").await;
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap();
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap();
    let there = SocketAddr::new(address.parse().unwrap(), 80);

    c.node(&node).freeze();
    c.eventually("it is lost", async || lost(&c).await == 1).await;
    assert_eq!(c.count("a").await.count, 2, "from what was saved");
    let now = c.pod_of("a").await;
    assert_ne!(now.spec.as_ref().and_then(|s| s.node_name.clone()).as_ref(), Some(&node));
    let left = c.count_at(there, "a").await.expect("nobody could end it yet");
    assert_eq!(left.count, 3, "it has gone on by itself");

    c.node(&node).thaw();
    c.eventually("it is ended", async || c.count_at(there, "a").await.is_none()).await;
    c.eventually("its worker is free", async || {
        let worker = c.worker_in(&pod).await;
        worker.is_some_and(|w| w["status"]["phase"] == "Free")
    })
    .await;
    assert_eq!(c.count("a").await.count, 3);
    c.suspend("a").await;
    assert_eq!(c.count("a").await.count, 4);
    assert_eq!((lost(&c).await, c.actor("a").await["status"]["phase"].as_str()), (1, Some("Running")));
}
