//! The image of the tests: one layer with one static program, compiled once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use sha2::{Digest, Sha256};

/// Directory with `/app` in it.
pub(crate) fn layer() -> &'static Path {
    static LAYER: LazyLock<PathBuf> = LazyLock::new(build);
    &LAYER
}

/// Named after its source, so that a change makes a new one; renamed into place, so that nobody sees half of it.
fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/app/app.rs");
    let digest = hex::encode(Sha256::digest(std::fs::read(&source).unwrap()));
    let done = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layer-{}", &digest[..16]));
    if !done.exists() {
        let mine = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let layer = mine.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2021", "-O", "-C", "target-feature=+crt-static", "-o"]);
        let status = rustc.arg(layer.join("app")).arg(source).status().unwrap();
        assert!(status.success());
        let _ = std::fs::rename(layer, &done);
    }
    assert!(done.join("app").exists());
    done
}

/// The binary `.cache/runsc/NAME/runsc` of the repository.
pub(crate) fn runsc(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/runsc").join(name).join("runsc");
    path.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run script/setup", path.display()))
}
