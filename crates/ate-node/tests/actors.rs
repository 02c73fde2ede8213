//! Actors on real workers: they boot, freeze, move and go on where they were.

#[path = "support/node.rs"]
mod support;

use ate_agent::{CaptureTarget, NodeAgent, NodeEvent, SnapshotLocation, Source};
use ate_api::{Reason, id::Activation};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_actor_goes_on_counting_on_another_worker() {
    let machine = Machine::with_workers(2).await;
    let (workers, counter) = (machine.ready(), actor("counter"));
    let address = machine.boot(&workers[0], &counter, 1).await.address;
    let (first, boot) = count(address);
    assert_eq!(count(address), (first + 1, boot.clone()));

    let captured = machine.node.capture(capture(&workers[0], &counter, 1, external())).await.unwrap();
    assert!(matches!(captured.location, SnapshotLocation::External { .. }));
    // The same call gives the same snapshot, not a second one.
    let again = machine.node.capture(capture(&workers[0], &counter, 1, external())).await.unwrap();
    assert_eq!(again.manifest, captured.manifest);
    machine.release(&workers[0], &counter, 1).await;

    let activate = machine.activate(&workers[1], &counter, 2, restored(&captured));
    let activated = machine.node.activate(activate.clone()).await.unwrap();
    println!("restored in {:?}", activated.steps_us);
    assert_eq!(count(activated.address), (first + 2, boot.clone()));
    // A lost answer is asked for again; the actor does not start twice.
    assert_eq!(machine.node.activate(activate).await.unwrap().address, activated.address);
    assert_eq!(count(activated.address), (first + 3, boot));

    machine.node.shutdown().await;
    assert_eq!(traces(machine.dir.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_is_used_and_a_thawed_actor_goes_on_and_can_be_captured_again() {
    let machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.node.prepare(machine.prepare(&worker)).await.unwrap();
    machine.node.prepare(machine.prepare(&worker)).await.unwrap();
    let activated = machine.boot(&worker, &counter, 1).await;
    assert!(activated.prepared, "{:?}", activated.steps_us);
    let (first, boot) = count(activated.address);

    let void = machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    assert_eq!(
        reason(machine.node.thaw(&worker, &counter.uid, Activation(1), 0).await),
        Reason::Fenced,
        "of a capture before this one"
    );
    machine.node.thaw(&worker, &counter.uid, Activation(1), 1).await.unwrap();
    assert_eq!(count(activated.address), (first + 1, boot.clone()));
    // The void snapshot is gone, so that the same generation can be taken again.
    let taken = machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    assert_ne!(taken.manifest, void.manifest);
    machine.release(&worker, &counter, 1).await;
    let activated = machine.node.activate(machine.activate(&worker, &counter, 2, restored(&taken))).await.unwrap();
    assert_eq!(count(activated.address), (first + 2, boot));
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_obeys_only_the_activation_it_holds() {
    let machine = Machine::with_workers(1).await;
    let (worker, owner, stranger) = (machine.ready().remove(0), actor("owner"), actor("stranger"));
    let node = &machine.node;
    machine.boot(&worker, &owner, 5).await;

    assert_eq!(reason(node.activate(machine.activate(&worker, &owner, 4, Source::Boot)).await), Reason::Fenced);
    assert_eq!(reason(node.activate(machine.activate(&worker, &stranger, 1, Source::Boot)).await), Reason::Fenced);
    assert_eq!(reason(node.capture(capture(&worker, &owner, 4, CaptureTarget::Local)).await), Reason::Fenced);
    assert_eq!(reason(node.capture(capture(&worker, &stranger, 1, CaptureTarget::Local)).await), Reason::Fenced);
    assert_eq!(reason(node.thaw(&worker, &owner.uid, Activation(4), 1).await), Reason::Fenced);
    assert_eq!(reason(node.thaw(&worker, &stranger.uid, Activation(5), 1).await), Reason::Fenced);
    assert_eq!(reason(node.release(&worker, &stranger.uid, Activation(9)).await), Reason::Fenced);
    assert_eq!(reason(node.release(&worker, &owner.uid, Activation(4)).await), Reason::Fenced);

    machine.release(&worker, &owner, 5).await;
    machine.release(&worker, &owner, 5).await;
    // A start that comes late must not take the seat again.
    assert_eq!(reason(node.activate(machine.activate(&worker, &owner, 5, Source::Boot)).await), Reason::Fenced);
    // Whoever was released as 9 comes back as more than that.
    machine.boot(&worker, &stranger, 10).await;
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_ends_by_itself_is_reported_and_its_worker_is_usable_again() {
    let mut machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    let address = machine.boot(&worker, &counter, 1).await.address;
    let _ = get(address, "/exit/3");
    let event = machine.until_event(|e| matches!(e, NodeEvent::ActorEnded { .. })).await;
    assert!(
        matches!(&event, NodeEvent::ActorEnded { worker: w, actor, activation, .. }
            if *w == worker && *actor == counter.uid && *activation == Activation(1)),
        "{event:?}"
    );
    machine.release(&worker, &counter, 1).await;
    count(machine.boot(&worker, &counter, 2).await.address);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_actor_writes_can_be_read_and_followed() {
    let machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.boot(&worker, &counter, 1).await;
    let mut lines = machine.node.logs(&counter.uid, "app", 0, true).await.unwrap();
    let line = tokio::time::timeout(LONG, lines.recv()).await.unwrap().unwrap();
    assert!(line.text.starts_with("listening on port 80"), "{line:?}");
    assert_eq!((line.activation, line.container.as_str(), line.stream.as_str()), (Activation(1), "app", "stdout"));
    assert_eq!(reason(machine.node.logs(&counter.uid, "../app", 0, false).await), Reason::Invalid);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_are_asked_what_they_can_do_without_a_worker() {
    let machine = Machine::start(tempfile::tempdir().unwrap()).await;
    let probed = machine.node.probe(&machine.sandbox).await.unwrap();
    assert!(probed.capabilities.iter().any(|c| c == "snapshot.full"), "{probed:?}");
    assert!(probed.versions["runsc"].contains("20240729"), "{probed:?}");
    machine.node.shutdown().await;
}
