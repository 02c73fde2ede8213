//! What the node puts on the machine for outbound traffic, and takes away again.

#[path = "support/node.rs"]
mod support;

use std::process::Command;

use ate_api::id::Digest;
use ate_node::{Node, Options};
use support::*;

fn table_exists(dir: &std::path::Path) -> bool {
    let digest = Digest::of(dir.canonicalize().unwrap().join("node").as_os_str().as_encoded_bytes());
    let name = format!("ate_{}", digest.short());
    Command::new("nft").args(["list", "table", "ip", &name]).output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn address_translation_exists_while_the_node_does() {
    let dir = tempfile::tempdir().unwrap();
    let with_egress = || Options { egress: true, ..options(dir.path()) };
    let node = Node::start(with_egress()).await.unwrap();
    assert!(table_exists(dir.path()));
    node.shutdown().await;
    drop(node);
    assert!(!table_exists(dir.path()));

    // A table that a killed node left goes with the next start that wants none.
    let node = Node::start(with_egress()).await.unwrap();
    drop(node);
    assert!(table_exists(dir.path()));
    Node::start(options(dir.path())).await.unwrap().shutdown().await;
    assert!(!table_exists(dir.path()));
}
