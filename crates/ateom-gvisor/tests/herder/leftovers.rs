//! Nothing is left: after each activation, after the end, after a crash.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Instant};

use ateom::driver::Scope;

use crate::worker::{LIMIT, NEW, OLD, Worker, container, sandbox, worker, workload};

/// Everything a worker could leak.
#[derive(Debug, PartialEq)]
struct Inventory {
    processes: usize,
    mounts: Vec<String>,
    links: Vec<String>,
    run: BTreeSet<String>,
    disk: BTreeSet<String>,
    open_files: usize,
}

fn inventory(worker: &Worker) -> Inventory {
    let proc = format!("/proc/{}", worker.pid);
    let mounts = fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
    let links =
        Command::new("nsenter").args(["-n", "-t", &worker.pid.to_string(), "ip", "-o", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    Inventory {
        processes: worker.processes().len(),
        mounts: mounts.lines().map(|l| strip_numbers(l.split(' ').nth(4).unwrap())).collect(),
        links: links.lines().map(|l| strip_numbers(l.split(' ').nth(1).unwrap().split('@').next().unwrap())).collect(),
        run: tree(&Path::new(&proc).join("root/run")),
        disk: tree(&worker.dir.path().join("work")),
        open_files: fs::read_dir(format!("{proc}/fd")).unwrap().count(),
    }
}

/// Names are numbered; kinds are what counts.
fn strip_numbers(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn tree(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        found.insert(strip_numbers(&entry.path().to_string_lossy()));
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

#[tokio::test]
async fn many_activations_leave_as_little_as_one() {
    for binary in [NEW, OLD] {
        let mut main = container("main", 8080);
        main.mounts = vec![ateom::driver::Mount { volume: "data".into(), path: "/data".into() }];
        let mut work = workload(vec![main]);
        work.volumes = vec![ateom::driver::Volume { name: "data".into() }];
        let with = (&sandbox(binary, "{}"), &work);
        let mut worker = worker().await;
        let mut first = None;
        for cycle in 0..6u64 {
            worker.prepare(with).await.unwrap();
            worker.run("a", cycle * 2 + 1, with).await.unwrap();
            assert_eq!(worker.get("/write/data/note/x"), "written");
            let snapshot = worker.snapshot_dir(&format!("s{cycle}"));
            worker.checkpoint(cycle * 2 + 1, &snapshot, Scope::Full).await.unwrap();
            worker.reset().await;
            worker.restore("a", cycle * 2 + 2, with, &snapshot).await.unwrap();
            worker.reset().await;
            let settled = settled(&mut worker, first.as_ref()).await;
            first.get_or_insert(settled);
        }
    }
}

/// Removal of what is slow goes on after the answer: waits until the worker is idle, and then until the inventory is `wanted`, or until it rests.
async fn settled(worker: &mut Worker, wanted: Option<&Inventory>) -> Inventory {
    let deadline = Instant::now() + LIMIT;
    worker.probe(sandbox(NEW, "{}")).await.unwrap(); // waits its turn
    let mut last = inventory(worker);
    loop {
        let now = inventory(worker);
        if wanted.is_none_or(|w| *w == now) && now == last && now.processes == 1 {
            return now;
        }
        assert!(Instant::now() < deadline, "left over: {now:#?}, wanted {wanted:#?}");
        last = now;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_the_node_agent_a_worker_ends_and_leaves_nothing() {
    let mut worker = running().await;
    worker.cut_lifeline();
    assert!(worker.ended().await.success());
    nothing_left(&worker).await;
}

#[tokio::test]
async fn asked_to_end_a_worker_leaves_nothing() {
    let mut worker = running().await;
    kill("-TERM", worker.shim_pid());
    assert!(worker.ended().await.success());
    nothing_left(&worker).await;
}

#[tokio::test]
async fn a_killed_herder_takes_everything_with_it() {
    let mut worker = running().await;
    kill("-KILL", worker.pid);
    assert!(!worker.ended().await.success());
    nothing_left(&worker).await;
}

#[tokio::test]
async fn a_killed_shim_takes_the_herder_with_it() {
    let mut worker = running().await;
    let namespaces = namespaces(worker.pid);
    kill("-KILL", worker.shim_pid());
    worker.ended().await;
    empty(&namespaces).await;
}

async fn running() -> Worker {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080), container("side", 8081)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert!(worker.processes().len() > 3);
    worker.remember(namespaces(worker.pid));
    worker
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn namespaces(pid: u32) -> Vec<std::path::PathBuf> {
    ["pid", "net", "mnt"].iter().map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap()).collect()
}

/// Waits until no process is in any of these namespaces: then the kernel has removed them and all that was in them.
async fn empty(namespaces: &[std::path::PathBuf]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
        let inside = all.filter(|pid| {
            let is_one = |n: &&str| fs::read_link(format!("/proc/{pid}/ns/{n}")).is_ok_and(|l| namespaces.contains(&l));
            ["pid", "net", "mnt"].iter().any(is_one)
        });
        let left: Vec<u32> = inside.collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "processes left: {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn nothing_left(worker: &Worker) {
    empty(worker.remembered()).await;
    assert!(!worker.dir.path().join("herder.sock").exists());
    assert_eq!(tree(&worker.dir.path().join("work")), BTreeSet::new());
}
