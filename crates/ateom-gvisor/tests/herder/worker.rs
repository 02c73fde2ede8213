//! Workers, sandboxes and workloads of these tests.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
};

use ateom::driver as pb;
use ateom_harness::app;
pub(crate) use ateom_harness::{LIMIT, Worker};
use sha2::{Digest, Sha256};

pub(crate) const NEW: &str = "20240729-bookworm";
pub(crate) const OLD: &str = "20221219";

/// A worker of class gvisor.
pub(crate) async fn worker() -> Worker {
    Worker::start(Path::new(env!("CARGO_BIN_EXE_ateom-gvisor"))).await
}

/// The configuration `config` with one of the real binaries.
pub(crate) fn sandbox(runsc: &str, config: &str) -> pb::Sandbox {
    let path = app::provided(&format!("runsc/{runsc}/runsc"));
    pb::Sandbox {
        config_name: "test".into(),
        config_revision: 1,
        config_digest: hex::encode(Sha256::digest(config)),
        config_json: config.into(),
        asset_paths: [("runsc".to_owned(), path.to_string_lossy().into_owned())].into(),
        asset_digests: [("runsc".to_owned(), digest_of(&path))].into(),
    }
}

/// Hashed once for each binary.
pub(crate) fn digest_of(path: &Path) -> String {
    static KNOWN: LazyLock<Mutex<HashMap<PathBuf, String>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    let hash = || hex::encode(Sha256::digest(std::fs::read(path).unwrap()));
    known.entry(path.to_owned()).or_insert_with(hash).clone()
}

pub(crate) fn container(name: &str, port: u16) -> pb::Container {
    pb::Container {
        name: name.into(),
        layers: vec![app::layer().to_string_lossy().into_owned()],
        args: vec!["/app".into(), port.to_string()],
        env: vec!["COLOUR=green".into()],
        cwd: "/".into(),
        readyz: Some(pb::Readyz { path: "/readyz".into(), port: port.into() }),
        ..pb::Container::default()
    }
}

pub(crate) fn workload(containers: Vec<pb::Container>) -> pb::Workload {
    pb::Workload { containers, volumes: vec![], key: "test".into() }
}
