//! Snapshots of each class, damaged in every way: never read as something else than what was saved, never a hang.

mod ward;

use std::{fs, io::Write as _, os::unix::fs::FileExt as _, path::PathBuf, time::Instant};

use ate_e2e::{Kit, Site, kit, until, user};

use ward::{Tally, Ward};

/// An actor that counted to two is suspended and the node stopped; then what it stored is damaged.
fn sweep(kit: &'static Kit) {
    let mut site = Site::start(kit, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!((site.count("a"), site.count("a")), (1, 2));
    site.ate(&["suspend", "actor", "a"]).ok();
    site.node().stop();

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let tally = runtime.block_on(async {
        let ward = Ward::admit(&site.machine().data().join("objects")).await;
        assert!(ward.snapshots.len() >= 2, "the golden snapshot and the actor's");
        let mut tally = Tally::default();
        for case in &ward.snapshots {
            tally = tally.and(ward.stored(case).await).and(ward.kept(case).await);
        }
        tally
    });
    // Not captured: how many there were is part of the promise.
    let _ = writeln!(
        std::io::stderr(),
        "{}: corruption.cases {} corruption.silent {} (harmless {}, slowest {:.1?}) {:?}",
        kit.class,
        tally.cases,
        tally.silent.len(),
        tally.harmless,
        tally.slowest,
        tally.refused
    );
    assert_eq!(tally.silent, Vec::<String>::new(), "read, although bytes differ");
    site.node().up();
    assert_eq!(site.count("a"), 3, "the one that was not damaged goes on");
}

#[test]
fn no_damage_to_a_snapshot_of_gvisor_goes_unseen() {
    sweep(&kit::GVISOR);
}

#[test]
fn no_damage_to_a_snapshot_of_a_machine_goes_unseen() {
    sweep(&kit::MICROVM);
}

#[test]
fn no_damage_to_files_of_a_process_goes_unseen() {
    sweep(&kit::PROCESS);
}

/// Name of an actor, what is done to a file of its snapshot, and the reasons it may be refused for.
type Case = (&'static str, fn(&[PathBuf]), &'static [&'static str]);

const CASES: [Case; 6] = [
    ("flipped", |files| flip(largest(files)), &["SNAPSHOT_CORRUPT"]),
    ("cut", |files| cut(largest(files), 2), &["SNAPSHOT_CORRUPT"]),
    ("emptied", |files| cut(largest(files), u64::MAX), &["SNAPSHOT_CORRUPT"]),
    ("lacks-a-file", |files| fs::remove_file(largest(files)).expect("remove"), &["SNAPSHOT_CORRUPT"]),
    ("other-manifest", |files| flip(manifest(files)), &["MANIFEST_DIGEST_MISMATCH"]),
    ("no-manifest", |files| fs::remove_file(manifest(files)).expect("remove"), &["SNAPSHOT_NOT_FOUND"]),
];

fn flip(path: &PathBuf) {
    let file = fs::File::options().read(true).write(true).open(path).expect("open");
    let (at, mut byte) = (file.metadata().expect("metadata").len() / 2, [0]);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("write");
}

fn cut(path: &PathBuf, by: u64) {
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_len(file.metadata().expect("metadata").len() / by).expect("cut");
}

fn manifest(files: &[PathBuf]) -> &PathBuf {
    files.iter().find(|p| p.ends_with("manifest.json")).expect("a manifest")
}

fn largest(files: &[PathBuf]) -> &PathBuf {
    let others = files.iter().filter(|p| !p.ends_with("manifest.json"));
    others.max_by_key(|p| fs::metadata(p).map_or(0, |m| m.len())).expect("a file")
}

/// What a running node does about it: a typed error, at once; the worker is free, and nobody else is affected.
fn on_a_running_node(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    site.actor("healthy", "counter");
    assert_eq!(site.count("healthy"), 1);
    for (n, (actor, damage, reasons)) in CASES.into_iter().enumerate() {
        site.actor(actor, "counter");
        assert_eq!((site.count(actor), site.count(actor)), (1, 2));
        site.ate(&["suspend", "actor", actor]).ok();
        let shown = site.get("actor", actor);
        let (uid, digest) = (&shown["metadata"]["uid"], shown["status"]["snapshot"].as_str().expect("a snapshot"));
        site.machine().forget_snapshot(digest);
        let stored = site.machine().data().join("objects/actors").join(uid.as_str().expect("a uid"));
        let dirs = fs::read_dir(stored).expect("its snapshots").map(|e| e.expect("an entry").path());
        let last = dirs.max().expect("a snapshot");
        let files: Vec<_> = fs::read_dir(last).expect("its files").map(|e| e.expect("an entry").path()).collect();
        damage(&files);

        let begun = Instant::now();
        let said = site.ate(&["resume", "actor", actor]).refused();
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{actor}: {said}");
        assert!(begun.elapsed() < user::ANSWER, "{actor}");
        site.workers_ready(1);
        // Over HTTP it is an answer as well.
        assert!(site.request(actor, "/").status >= 500);
        assert_eq!(site.count("healthy"), n as u64 + 2, "another one, after {actor}");
        site.ate(&["suspend", "actor", "healthy"]).ok();
        site.ate(&["delete", "actor", actor]).ok();
    }
}

#[test]
fn a_running_node_refuses_damaged_snapshots_of_gvisor_and_serves_the_others() {
    on_a_running_node(&kit::GVISOR);
}

#[test]
fn a_running_node_refuses_damaged_files_of_a_process_and_serves_the_others() {
    on_a_running_node(&kit::PROCESS);
}

/// A paused actor is on this node only, with the last suspended generation behind it.
#[test]
fn a_damaged_pause_falls_back_to_the_last_suspended_generation_and_says_what_is_lost() {
    let site = Site::start(&kit::GVISOR, 1).with_counter();
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    site.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!((site.count("a"), site.count("a")), (2, 3));
    site.ate(&["pause", "actor", "a"]).ok();
    let digest = site.get("actor", "a")["status"]["snapshot"].as_str().expect("a snapshot").to_owned();
    let files =
        fs::read_dir(site.machine().data().join("node/snapshots").join(digest).join("files")).expect("its files");
    flip(largest(&files.map(|e| e.expect("an entry").path()).collect::<Vec<_>>()));
    let count = until("the actor to be back", user::ANSWER, || {
        let answer = site.request("a", "/");
        (answer.status == 200).then(|| user::counted(&answer.body))
    });
    assert_eq!(count, Some(2), "what was counted since the suspension is lost");
    let shown = site.get("actor", "a");
    assert_eq!(shown["status"]["lostActivations"], 1, "{shown:#}");
    assert!(shown.to_string().contains("what happened since is lost"), "{shown:#}");
}
