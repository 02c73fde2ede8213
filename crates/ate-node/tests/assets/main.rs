//! What the asset cache promises: exactly the bytes that were pinned, fetched once, or a clear reason why not.

#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod archives;
mod fetch;
mod import;
mod keep;
mod signed;

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use ate_agent::AssetUpload;
use ate_api::id::Digest;
use ate_node::assets::{AssetCache, AssetError, Imported};
use ate_sandbox::PinnedAsset;
use support::names;
use tempfile::TempDir;
use tokio::sync::mpsc;

struct Bed {
    dir: TempDir,
    cache: AssetCache,
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = AssetCache::open(dir.path().join("assets")).await.unwrap();
        Bed { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file outside the cache, as a URL.
    fn source(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        format!("file://{}", self.path(name).display())
    }

    async fn import(&self, media_type: &str, bytes: &[u8]) -> Result<Imported, AssetError> {
        self.import_as(media_type, bytes.len() as u64, bytes).await
    }

    async fn import_as(&self, media_type: &str, size: u64, bytes: &[u8]) -> Result<Imported, AssetError> {
        let (send, chunks) = mpsc::channel(64);
        for chunk in bytes.chunks(bytes.len().div_ceil(8).max(1)) {
            send.send(chunk.to_vec()).await.unwrap();
        }
        drop(send);
        self.cache.import(AssetUpload { media_type: media_type.into(), size, chunks }).await
    }

    async fn reopen(self) -> Self {
        let Bed { dir, cache } = self;
        drop(cache);
        let cache = AssetCache::open(dir.path().join("assets")).await.unwrap();
        Bed { dir, cache }
    }

    /// Nothing half done is left, and nothing unverified is executable.
    fn assert_clean(&self) {
        assert_eq!(names(&self.path("assets/tmp")), Vec::<String>::new());
        for name in names(&self.path("assets/partial")) {
            let mode = fs::metadata(self.path("assets/partial").join(name)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

const PROGRAM: &[u8] = b"#!/bin/sh\necho program\n";

fn pinned(bytes: &[u8], urls: &[&str]) -> PinnedAsset {
    PinnedAsset {
        name: "runsc".into(),
        sha256: Digest::of(bytes),
        size: Some(bytes.len() as u64),
        media_type: "application/octet-stream".into(),
        urls: urls.iter().map(|u| (*u).to_owned()).collect(),
    }
}

fn archive(bytes: &[u8], url: &str) -> PinnedAsset {
    PinnedAsset { media_type: "application/x-tar".into(), ..pinned(bytes, &[url]) }
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}
