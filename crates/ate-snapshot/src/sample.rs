//! A manifest and snapshots for tests.

use ate_api::id::Digest;

use crate::{DriverFile, LocalSnapshot, LocalSnapshots, Manifest, Staging, manifest::File};

pub(crate) const ACTOR: &str = "0190a6f4-7e3c-7c3e-8a55-3f1f3a3c5b11";
pub(crate) const TEMPLATE: &str = "0190a6f4-1111-7c3e-8a55-3f1f3a3c5b12";

/// The example of `docs/snapshot-manifest.md`, which so stays true.
pub(crate) fn json() -> serde_json::Value {
    let docs = include_str!("../../../docs/snapshot-manifest.md");
    let example = docs.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
    serde_json::from_str(example.expect("the document has a JSON example")).expect("the example is JSON")
}

pub(crate) fn manifest() -> Manifest {
    serde_json::from_value(json()).expect("the example is a manifest")
}

/// A manifest of these files.
pub(crate) fn manifest_of(files: Vec<File>) -> Manifest {
    Manifest { files, ..manifest() }
}

pub(crate) fn file(name: &str, bytes: &[u8]) -> File {
    File {
        name: name.to_owned(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        media_type: "application/octet-stream".to_owned(),
        encoding: None,
    }
}

/// What a driver does: writes files into a staging directory, and says so.
pub(crate) async fn written(local: &LocalSnapshots, files: &[(&str, &[u8])]) -> (Staging, Vec<DriverFile>) {
    let staging = local.staging().await.unwrap();
    let write = |&(name, bytes): &(&str, &[u8])| {
        std::fs::write(staging.dir().join(name), bytes).unwrap();
        DriverFile { name: name.to_owned(), media_type: "application/octet-stream".to_owned() }
    };
    let described = files.iter().map(write).collect();
    (staging, described)
}

/// A snapshot of these files on the node, sealed for a folder (`None`) or a bucket (`Some("zstd")`).
pub(crate) async fn snapshot(local: &LocalSnapshots, files: &[(&str, &[u8])], encoding: Option<&str>) -> LocalSnapshot {
    let (mut staging, described) = written(local, files).await;
    let files = staging.seal(&described, encoding).await.unwrap();
    local.adopt(staging, &manifest_of(files)).await.unwrap()
}

/// Reads what a driver would restore from.
pub(crate) fn contents(snapshot: &LocalSnapshot) -> Vec<(String, Vec<u8>)> {
    let read = |f: &File| (f.name.clone(), std::fs::read(snapshot.files_dir().join(&f.name)).unwrap());
    snapshot.manifest.files.iter().map(read).collect()
}
