//! Assets, images and workloads of these tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
};

use ate_api::id::Digest;
use ateom::driver::{self as pb, Scope};
use ateom_harness::{Worker, app, run_dir};
use tokio::sync::OnceCell;

/// The two QEMUs, by the directory they were fetched into.
pub(crate) const OLD: &str = "7.2";
pub(crate) const NEW: &str = "10.0";

/// A worker of class microvm.
pub(crate) async fn worker() -> Worker {
    Worker::start(Path::new(env!("CARGO_BIN_EXE_ateom-microvm"))).await
}

/// The assets of one QEMU, made once per test run: asset name → path.
fn assets(version: &str) -> BTreeMap<String, PathBuf> {
    static MADE: LazyLock<Mutex<BTreeMap<String, BTreeMap<String, PathBuf>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap();
    let assets = made.entry(version.to_owned()).or_insert_with(|| {
        let dir = run_dir().join(version);
        std::fs::create_dir(&dir).unwrap();
        let mut collect = Command::new(env!("CARGO_BIN_EXE_ateom-microvm"));
        collect.arg("collect").arg("--from").arg(app::provided(&format!("microvm/{version}")));
        let output = collect.arg("--out").arg(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut assets: BTreeMap<String, PathBuf> = serde_json::from_slice(&output.stdout).unwrap();
        // As the node agent does with an archive.
        let bundle = dir.join("bundle");
        std::fs::create_dir(&bundle).unwrap();
        let status = Command::new("tar").arg("-C").arg(&bundle).arg("-xf").arg(&assets["vmm"]).status().unwrap();
        assert!(status.success());
        assets.insert("vmm".to_owned(), bundle);
        assets
    });
    assets.clone()
}

/// The configuration `config` with one of the QEMUs.
pub(crate) fn sandbox(version: &str, config: &str) -> pb::Sandbox {
    let assets = assets(version);
    pb::Sandbox {
        config_name: "test".into(),
        config_revision: 1,
        config_digest: Digest::of(config.as_bytes()).to_string(),
        config_json: config.into(),
        asset_paths: assets.iter().map(|(n, p)| (n.clone(), p.to_string_lossy().into_owned())).collect(),
        asset_digests: assets.keys().map(|n| (n.clone(), format!("digest of {n} {version}"))).collect(),
    }
}

/// The tests' one layer as the node agent would hand it over.
fn image() -> pb::ImageFile {
    static IMAGE: LazyLock<pb::ImageFile> = LazyLock::new(|| {
        let path = run_dir().join("image.erofs");
        let status = Command::new("mkfs.erofs").arg("--quiet").arg(&path).arg(app::layer()).status().unwrap();
        assert!(status.success());
        let sha256 = Digest::of(&std::fs::read(&path).unwrap()).to_string();
        pb::ImageFile { path: path.to_string_lossy().into_owned(), sha256 }
    });
    IMAGE.clone()
}

pub(crate) fn container(name: &str, port: u16) -> pb::Container {
    pb::Container {
        name: name.into(),
        image: Some(image()),
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

/// What most tests run: one container under the newer QEMU.
pub(crate) fn usual() -> (pb::Sandbox, pb::Workload) {
    (sandbox(NEW, "{}"), workload(vec![container("main", 8080)]))
}

/// A snapshot of [`usual`] that was just started, made once per test run.
pub(crate) async fn golden() -> &'static Path {
    static GOLDEN: OnceCell<PathBuf> = OnceCell::const_new();
    let made = GOLDEN.get_or_init(|| async {
        let (sandbox, workload) = usual();
        let dir = run_dir().join("golden");
        std::fs::create_dir(&dir).unwrap();
        let mut worker = worker().await;
        worker.run("golden", 1, (&sandbox, &workload)).await.unwrap();
        worker.checkpoint(1, &dir, Scope::Full).await.unwrap();
        dir
    });
    made.await
}

/// A copy of a snapshot, which is another one.
pub(crate) fn copy(snapshot: &Path, to: PathBuf) -> PathBuf {
    let status = Command::new("cp").args(["-r", "--sparse=always", "-T"]).arg(snapshot).arg(&to).status().unwrap();
    assert!(status.success());
    to
}
