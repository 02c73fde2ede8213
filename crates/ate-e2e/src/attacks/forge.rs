//! Manifests that the control plane's own record vouches for: as if whoever wrote the record was deceived, or another build
//! wrote it. What a manifest says must not be believed even then.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ate_store::{EmbeddedStore, Store as _, Transaction};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Range, bucket::replace, records::FORGERIES};

/// Records read at once.
const PAGE: usize = 200;

/// An actor whose snapshot is to be forged.
pub(super) struct Forgery {
    pub(super) actor: &'static str,
    pub(super) template: &'static str,
    pub(super) change: fn(&mut Forged),
}

/// A snapshot in the bucket, being forged.
pub(super) struct Forged {
    pub(super) manifest: Value,
    pub(super) dir: PathBuf,
    /// Where archives try to write.
    pub(super) marks: PathBuf,
}

impl Forged {
    /// Adds a file to the snapshot and gives it in the place of the manifest's first one.
    pub(super) fn replace_file(&mut self, bytes: &[u8]) {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(self.dir.join(&digest), bytes).expect("a file of the snapshot");
        let file = &mut self.manifest["files"][0];
        file["sha256"] = digest.into();
        file["size"] = bytes.len().into();
    }
}

/// Makes the actors of all forgeries, stops the node, changes manifests and records, and starts it again.
pub(super) fn all(range: &mut Range) {
    for Forgery { actor, template, .. } in FORGERIES {
        range.asleep(actor, template);
    }
    let mut snapshots = Vec::new();
    for forgery in FORGERIES {
        let before = range.snapshot_of(forgery.actor);
        range.forget(&before);
        snapshots.push((forgery, before, range.snapshot_dir(forgery.actor)));
    }
    range.stop();
    let mut renamed = Vec::new();
    for (forgery, before, dir) in snapshots {
        let path = dir.join("manifest.json");
        let manifest = serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("JSON");
        let mut forged = Forged { manifest, dir, marks: range.marks_dir().to_owned() };
        (forgery.change)(&mut forged);
        let text = forged.manifest.to_string();
        replace(&path, text.as_bytes());
        renamed.push((before, hex::encode(Sha256::digest(&text))));
    }
    rename(&range.data().join("control"), &renamed);
    range.up();
    range.workers_ready(2);
}

/// Changes one digest into another wherever it stands in the store. Both are as long, so any form of record stays valid.
fn rename(store: &Path, names: &[(String, String)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = EmbeddedStore::open(store).expect("the store of a node that is down");
    runtime.block_on(async {
        let (mut after, mut changed) = (None::<String>, 0);
        loop {
            let page = store.list("", after.as_deref(), PAGE).await.expect("a page of records");
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, record) in page {
                let (new_key, value) = names.iter().fold((key.clone(), record.value.to_vec()), |(k, v), (from, to)| {
                    (k.replace(from, to), replaced(v, from.as_bytes(), to.as_bytes()))
                });
                if new_key == key && value == record.value {
                    continue;
                }
                let mut tx = Transaction::new();
                if new_key != key {
                    tx = tx.delete(key);
                }
                store.commit(tx.put(new_key, value)).await.expect("a commit");
                changed += 1;
            }
        }
        assert!(changed >= 2 * names.len(), "an actor and its snapshot each have a record");
    });
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    while let Some(at) = bytes.windows(from.len()).position(|w| w == from) {
        bytes[at..at + from.len()].copy_from_slice(to);
    }
    bytes
}
