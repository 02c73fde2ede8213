//! The actor of the tests: one layer with one static program, compiled once per target directory.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use ate_api::id::Digest;

/// Directory with `/app` in it.
pub fn layer() -> &'static Path {
    static LAYER: LazyLock<PathBuf> = LazyLock::new(|| build().expect("rustc can compile the actor of the tests"));
    &LAYER
}

/// Named after its source, so that a change makes a new one; renamed into place, so that nobody sees half of it.
fn build() -> std::io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("app/app.rs");
    let digest = Digest::of(&std::fs::read(&source)?);
    let home = crate::target_dir();
    let done = home.join(format!("test-layer-{}", digest.short()));
    if !done.exists() {
        let mine = tempfile::tempdir_in(&home)?;
        let layer = mine.path().join("layer");
        std::fs::create_dir(&layer)?;
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2021", "-O", "-C", "target-feature=+crt-static", "-o"]);
        let status = rustc.arg(layer.join("app")).arg(source).status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("rustc: {status}")));
        }
        let _ = std::fs::rename(layer, &done);
    }
    Ok(done)
}

/// Something that `script/setup` lays out under `.cache` of the repository.
pub fn provided(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache").join(path);
    path.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run script/setup", path.display()))
}
