//! The embedded store is killed with -9 in the middle of its work, again and again, and reopened.
//!
//! The test starts itself as a child process that writes and says what was acknowledged.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ate_store::{EmbeddedStore, Store, Transaction};

const CHILD: &str = "ATE_STORE_CRASH_DIRECTORY";
const ROUNDS: u32 = 5;
const WRITERS: u32 = 16;
/// Each transaction writes these keys, with its own number in each.
const PARTS: [&str; 3] = ["a", "b", "c"];

#[test]
fn acknowledged_commits_survive_kill_9_and_none_is_torn() {
    if let Ok(directory) = std::env::var(CHILD) {
        write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let before = acknowledged.len();
        // Another moment each time, from the first commits to well into the flushing of tables.
        let life = Duration::from_millis(u64::from(std::process::id().wrapping_mul(round + 1) % 97 + 20 + 120 * round));
        kill_after(life, directory.path(), &mut acknowledged);
        assert!(acknowledged.len() > before, "round {round} acknowledged nothing");
        verify(directory.path(), &acknowledged);
    }
}

/// Runs the child for a while after its first commit, kills it, and takes down what it said.
fn kill_after(life: Duration, directory: &Path, acknowledged: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acknowledged_commits_survive_kill_9_and_none_is_torn", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ack ") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the child ended before its first commit");
    }
    let killer = std::thread::spawn(move || {
        std::thread::sleep(life);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    loop {
        // A line cut short by the kill was never said.
        if let Some(("ack", rest)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) {
            let (name, version) = rest.split_once(' ').unwrap();
            acknowledged.insert(name.to_owned(), version.parse().unwrap());
        }
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            break;
        }
    }
    killer.join().unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn verify(directory: &Path, acknowledged: &BTreeMap<String, u64>) {
    let store = EmbeddedStore::open(directory).expect("the store opens after a crash");
    let mut parts = Vec::new();
    for part in PARTS {
        let listed = store.list(&format!("{part}/"), None, usize::MAX).await.unwrap();
        let versions: BTreeMap<String, u64> =
            listed.into_iter().map(|(key, found)| (key[part.len() + 1..].to_owned(), found.version)).collect();
        parts.push(versions);
    }
    assert!(parts.iter().all(|versions| *versions == parts[0]), "a transaction is torn");
    for (name, version) in acknowledged {
        assert_eq!(parts[0].get(name), Some(version), "{name} was acknowledged and is lost");
    }
    let mut versions: Vec<_> = parts[0].values().collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), parts[0].len(), "a version was used twice");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn write_until_killed(directory: &Path) -> ! {
    let store = Arc::new(EmbeddedStore::open(directory).unwrap());
    for writer in 0..WRITERS {
        let store = store.clone();
        tokio::spawn(async move {
            // Some small, some large enough that the memory table is written out while the test lasts.
            let value = vec![b'x'; if writer % 4 == 0 { 100_000 } else { 100 }];
            for i in 0.. {
                let name = format!("{}-{writer}-{i}", std::process::id());
                let tx =
                    PARTS.iter().fold(Transaction::new(), |tx, part| tx.put(format!("{part}/{name}"), value.clone()));
                let version = store.commit(tx).await.unwrap();
                // One write, so that lines do not mix.
                std::io::stdout().write_all(format!("ack {name} {version}\n").as_bytes()).unwrap();
            }
        });
    }
    std::future::pending().await
}
