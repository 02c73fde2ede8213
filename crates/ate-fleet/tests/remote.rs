//! A node over a real connection: who may call it, what becomes of calls when the connection breaks, and certificates that are
//! replaced while it is used.

mod support;

use std::{sync::Arc, time::Duration};

use ate_agent::{NodeAgent, NodeEvent};
use ate_api::{Reason, id::Digest};
use ate_fleet::RemoteNode;
use support::{Authority, Quiet, Served, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_errors_events_and_uploads_cross_the_wire() {
    let authority = Authority::new();
    let node = Arc::new(Quiet::default());
    let served = Served::start(node.clone(), authority.issue("node")).await;
    let remote = RemoteNode::new("one".into(), served.address.clone(), authority.open("control"));

    assert_eq!(remote.resolve_image("app:1").await.unwrap().digest, Digest::of(b"app:1"));
    let refused = remote.delete_asset(&Digest::of(b"asset")).await.unwrap_err();
    assert_eq!((refused.reason, refused.object.as_str()), (Reason::InUse, "asset/x"));
    assert_eq!(refused.hint, "wait");

    let mut events = remote.events();
    assert_eq!(events.recv().await, Some(NodeEvent::Listed));
    node.lose("w");
    let lost = events.recv().await.unwrap();
    assert!(matches!(&lost, NodeEvent::WorkerLost { id, .. } if id.0 == "w"), "{lost:?}");

    let (sender, chunks) = tokio::sync::mpsc::channel(4);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let whole = bytes.clone();
    tokio::spawn(async move {
        for chunk in whole.chunks(1 << 20) {
            sender.send(chunk.to_vec()).await.unwrap();
        }
    });
    let upload = ate_agent::AssetUpload { media_type: "x/y".into(), size: bytes.len() as u64, chunks };
    let (digest, size, ..) = remote.import_asset(upload).await.unwrap();
    assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));

    let live = ate_agent::LiveSet {
        manifests: (0..40_000u32).map(|n| Digest::of(&n.to_le_bytes())).collect(),
        ..Default::default()
    };
    remote.collect(live.clone()).await.unwrap();
    assert_eq!(node.collected().manifests, live.manifests, "more than one piece");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_control_plane_calls_a_node_and_nobody_but_a_node_is_called() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let served = Served::start(Arc::new(Quiet::default()), authority.issue("node")).await;
    let call = |certificates| {
        let remote = RemoteNode::new("one".into(), served.address.clone(), certificates);
        async move { tokio::time::timeout(Duration::from_secs(2), remote.assets()).await.ok().and_then(Result::ok) }
    };
    assert!(call(authority.open("control")).await.is_some());
    assert!(call(authority.open("node")).await.is_none(), "a node calls a node");
    assert!(call(stranger.open("control")).await.is_none(), "another authority");

    let impostor = Served::start(Arc::new(Quiet::default()), authority.issue("control")).await;
    let remote = RemoteNode::new("one".into(), impostor.address.clone(), authority.open("control"));
    assert!(tokio::time::timeout(Duration::from_secs(2), remote.assets()).await.ok().and_then(Result::ok).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_when_the_node_is_replaced_in_the_middle_of_it() {
    let authority = Authority::new();
    let node = Arc::new(Quiet::default());
    let served = Served::start(node.clone(), authority.issue("node")).await;
    let remote = Arc::new(RemoteNode::new("one".into(), served.address.clone(), authority.open("control")));
    node.hold();
    let calling = tokio::spawn({
        let remote = remote.clone();
        async move { remote.resolve_image("app:1").await }
    });
    eventually("the call is there", || node.calls() == 1).await;
    let again = served.replace(Arc::new(Quiet::default())).await;
    assert_eq!(calling.await.unwrap().unwrap().digest, Digest::of(b"app:1"));
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_both_ends_run() {
    let mut authority = Authority::new();
    let (nodes, controls) = (authority.issue("node"), authority.issue("control"));
    let served = Served::start(Arc::new(Quiet::default()), nodes.clone()).await;
    let remote = || RemoteNode::new("one".into(), served.address.clone(), support::open(&controls));
    let first = remote();
    first.assets().await.unwrap();

    // The authority itself is replaced: both trust both for a while, then only the new one.
    let former = authority.renew();
    authority.trust_also(&former, &[&nodes, &controls]);
    remote().assets().await.unwrap();
    authority.reissue("node", &nodes);
    authority.reissue("control", &controls);
    remote().assets().await.unwrap();
    let outdated = RemoteNode::new("one".into(), served.address.clone(), former.open("control"));
    let refused = tokio::time::timeout(Duration::from_secs(2), outdated.assets()).await;
    assert!(refused.ok().and_then(Result::ok).is_none(), "the former authority counts no more");
    first.assets().await.unwrap();

    // Half of a new one: what was good stays in use.
    std::fs::write(nodes.join("tls.crt"), "-----BEGIN").unwrap();
    remote().assets().await.unwrap();
}
