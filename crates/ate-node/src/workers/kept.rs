//! What a node agent has to know again of a herder that outlives it: who is on it, and what it was given to use. It lies
//! beside the herder's socket, and goes with it.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use ate_api::id::Digest;
use serde::{Deserialize, Serialize};

use super::seat::{Seat, Started};

const FILE: &str = "worker.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The herder process this is about.
    pub(crate) instance: String,
    /// Binaries it was ever told to use.
    pub(crate) used: BTreeSet<Digest>,
    /// Whose start succeeded, and what the node must not collect meanwhile.
    pub(crate) seated: Option<Seated>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seated {
    pub(crate) seat: Seat,
    pub(crate) started: Started,
    pub(crate) pins: Vec<Digest>,
}

/// The file of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    dir: PathBuf,
    instance: String,
}

impl Keep {
    pub(crate) fn new(dir: PathBuf, instance: String) -> Self {
        Keep { dir, instance }
    }

    /// What was kept of this very herder; nothing is known of another.
    pub(crate) fn read(&self) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&fs::read(self.dir.join(FILE)).ok()?).ok()?;
        (kept.instance == self.instance).then_some(kept)
    }

    /// Replaces it as a whole. Not synced: after a power cut there is no herder either.
    pub(crate) fn write(&self, used: &BTreeSet<Digest>, seated: Option<Seated>) -> io::Result<()> {
        let kept = Kept { instance: self.instance.clone(), used: used.clone(), seated };
        let new = self.dir.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_vec(&kept)?)?;
        fs::rename(new, self.dir.join(FILE))
    }
}
