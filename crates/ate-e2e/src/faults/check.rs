//! What must hold when all is quiet again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::world::{RECOVERY, World};

/// An actor at rest: its reference names the one generation in storage, complete and with right digests (I2), nothing of it is
/// alive (I1), every worker is free (I3), the deletion queue is empty. All of that within a bound (I5).
#[track_caller]
pub fn at_rest(world: &mut World, actor: &str) {
    let wanted = world.workers;
    world.until("every worker to be free", RECOVERY, |w| {
        let workers = w.look_all("workers")?;
        let free = workers.iter().filter(|w| w["status"]["phase"] == "Free").count();
        (free == wanted && workers.len() == wanted).then_some(())
    });
    world.until("nothing of the actor to be alive", RECOVERY, |w| w.copies().is_none_or(|n| n == 0).then_some(()));
    let actor = world.until("the actor", RECOVERY, |w| w.look("actor", actor));
    let (uid, digest) = (text(&actor["metadata"]["uid"]), text(&actor["status"]["snapshot"]));
    let stored = world.machine().data().join("objects/actors").join(&uid);
    let one = world.until(&format!("one generation in {}", stored.display()), RECOVERY, |_| {
        let generations = entries(&stored);
        (generations.len() == 1).then(|| stored.join(&generations[0]))
    });
    complete(&one, &digest);
}

/// A folder of object storage holds a whole snapshot.
#[track_caller]
fn complete(dir: &Path, digest: &str) {
    let bytes = fs::read(dir.join("manifest.json")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    assert_eq!(hex::encode(Sha256::digest(&bytes)), digest, "another manifest than recorded: {}", dir.display());
    let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    let mut named = BTreeSet::from(["manifest.json".to_owned()]);
    for file in manifest["files"].as_array().expect("files") {
        let sha256 = text(&file["sha256"]);
        let found = fs::read(dir.join(&sha256)).unwrap_or_else(|e| panic!("{}: {e}", file["name"]));
        assert_eq!(Some(found.len() as u64), file["size"].as_u64(), "{}", file["name"]);
        assert_eq!(hex::encode(Sha256::digest(&found)), sha256, "{}", file["name"]);
        named.insert(sha256);
    }
    let here: BTreeSet<String> = entries(dir).into_iter().collect();
    assert_eq!(here, named, "{}", dir.display());
}

/// What a world still has that nobody refers to, once all is quiet.
pub fn leftovers(world: &mut World) -> Vec<String> {
    let referred = world.until("what is referred to", RECOVERY, |w| {
        let snapshots = w.look_all("snapshots")?;
        Some(snapshots.iter().map(|s| text(&s["metadata"]["name"])).collect::<BTreeSet<String>>())
    });
    let data = world.machine().data();
    let snapshots = || {
        let kept = entries(&data.join("node/snapshots")).into_iter().filter(|n| !n.starts_with('.'));
        kept.filter(|n| !referred.contains(n)).map(|n| format!("node/snapshots/{n}"))
    };
    let stored = || {
        let actors = data.join("objects/actors");
        let generations = entries(&actors).into_iter().flat_map(|uid| {
            let dir = actors.join(&uid);
            let below = entries(&dir);
            if below.is_empty() { vec![dir] } else { below.into_iter().map(|g| dir.join(g)).collect::<Vec<PathBuf>>() }
        });
        let is_whole = |dir: &Path| {
            let manifest = fs::read(dir.join("manifest.json")).unwrap_or_default();
            referred.contains(&hex::encode(Sha256::digest(manifest)))
        };
        generations.filter(|dir| !is_whole(dir)).map(|dir| dir.display().to_string()).collect::<Vec<_>>()
    };
    let began = std::time::Instant::now();
    loop {
        let mut found: Vec<String> = snapshots().collect();
        found.extend(stored());
        for dir in [".staging", ".trash"] {
            let left = entries(&data.join("node/snapshots").join(dir));
            found.extend(left.into_iter().map(|n| format!("node/snapshots/{dir}/{n}")));
        }
        if found.is_empty() || began.elapsed() > RECOVERY {
            return found;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
}

pub fn entries(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim_start_matches("sha256:").to_owned()
}

/// Keys of the store of a node that is down.
pub fn rows(data: &Path, prefix: &str) -> Vec<String> {
    use ate_store::{EmbeddedStore, Store as _};
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = EmbeddedStore::open(data.join("control")).expect("the store of a node that is down");
        let rows = store.list(prefix, None, 1000).await.expect("a list");
        rows.into_iter().map(|(key, _)| key).collect()
    })
}
