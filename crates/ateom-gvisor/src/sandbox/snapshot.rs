//! Freezing a sandbox, writing its state, letting it run on.
//!
//! In two phases: the sandbox is paused and saved, and stays alive until somebody ends it. Nothing that happens after
//! the snapshot can leak out, and an attempt that fails costs nothing.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{Error, Reason};
use ate_failpoint::step;
use ateom::{
    data,
    driver::{Scope, SnapshotFile},
    failed, network,
};

use super::{IMAGE, Sandbox};
use crate::config::Compression;

/// Freezing and thawing take 20 ms.
const PAUSE: Duration = Duration::from_secs(30);
/// Connections that are being closed right now get this long.
const SETTLE: Duration = Duration::from_millis(300);
const SETTLE_POLL: Duration = Duration::from_millis(5);

impl Sandbox {
    pub(crate) async fn checkpoint(&mut self, dir: &Path, scope: Scope) -> Result<Vec<SnapshotFile>, Error> {
        let root = self.members[0].id.clone();
        if scope == Scope::Full && !self.runsc.binary.is_modern() {
            self.check_one_chance(dir).await?;
        }
        step!("gvisor.pause", self.runsc.call(["pause", &root], None, PAUSE), held)?;
        let saved = self.save(dir, scope, &root).await;
        if saved.is_err() {
            // As if nothing had happened: the actor runs on, and the directory is empty for the next attempt.
            empty(dir);
            if let Err(e) = self.runsc.call(["resume", &root], None, PAUSE).await {
                tracing::error!("cannot resume the actor after a failed snapshot: {e}");
            }
        }
        saved
    }

    /// Binaries of the older generation end the actor when they fail to save it: what can be known to fail is refused.
    async fn check_one_chance(&self, dir: &Path) -> Result<(), Error> {
        let version = &self.runsc.binary.version;
        let settled = tokio::time::Instant::now() + SETTLE;
        let open = loop {
            let open = network::open_connections().map_err(failed("list the actor's connections"))?;
            if open.is_empty() || tokio::time::Instant::now() > settled {
                break open;
            }
            tokio::time::sleep(SETTLE_POLL).await;
        };
        if let Some(first) = open.first() {
            let message =
                format!("runsc {version} cannot save open connections, of which there are {}: {first}", open.len());
            return Err(Error::new(Reason::SandboxFailed, message)
                .hint("try again when they are closed (up to a minute after), or use a newer runsc"));
        }
        let free = rustix::fs::statvfs(dir).map_err(|e| failed("ask for free space")(e.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        let memory = self.pid().map_or(0, |pid| ateom::stats::memory_bytes(pid.as_raw_nonzero().get().cast_unsigned()));
        if free < memory {
            let message = format!("{free} bytes are free, the actor has {memory} bytes of memory");
            return Err(Error::new(Reason::DiskFull, message));
        }
        Ok(())
    }

    async fn save(&mut self, dir: &Path, scope: Scope, root: &str) -> Result<Vec<SnapshotFile>, Error> {
        if scope == Scope::Full {
            let mut args: Vec<OsString> = vec!["checkpoint".into(), "--image-path".into(), dir.into()];
            if self.runsc.binary.is_modern() {
                let compression = match self.runsc.compression {
                    Compression::None => "none",
                    Compression::FlateBestSpeed => "flate-best-speed",
                };
                args.extend(["--leave-running".into(), "--compression".into(), compression.into()]);
            }
            args.push(root.into());
            step!("gvisor.checkpoint", self.runsc.call(args, None, IMAGE))?;
            if !self.runsc.binary.is_modern() {
                // The sandbox has ended with it, as it should.
                self.process = None;
                self.ended_in = Some(dir.to_owned());
            }
        }
        step!("gvisor.archive", data::save(&self.volumes, dir))?;
        list(dir)
    }

    pub(crate) async fn thaw(&self) -> Result<(), Error> {
        self.runsc.call(["resume", &self.members[0].id], None, PAUSE).await
    }

    /// The snapshot with which the sandbox ended, if it did: to thaw it means to restore it.
    pub(crate) fn ended_in(&self) -> Option<PathBuf> {
        self.ended_in.clone()
    }
}

/// The files of a snapshot, readable for nobody else: they hold the actor's memory.
fn list(dir: &Path) -> Result<Vec<SnapshotFile>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list the snapshot"))? {
        let entry = entry.map_err(failed("list the snapshot"))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(entry.path(), private).map_err(failed("protect the snapshot"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let media_type = if name == data::ARCHIVE { data::MEDIA_TYPE } else { "application/vnd.gvisor.image" };
        files.push(SnapshotFile { name, media_type: media_type.to_owned() });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
}
