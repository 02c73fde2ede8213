//! What a worker has, and that nothing of it is left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{LIMIT, Worker};

/// Everything a worker could leak.
#[derive(Debug, PartialEq)]
pub struct Inventory {
    pub processes: usize,
    pub mounts: Vec<String>,
    pub links: Vec<String>,
    pub run: BTreeSet<String>,
    pub disk: BTreeSet<String>,
    pub open_files: usize,
}

pub fn inventory(worker: &Worker) -> Inventory {
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

/// Removal of what is slow goes on after the answer: waits until the inventory is `wanted`, or until it rests.
pub async fn settled(worker: &Worker, wanted: Option<&Inventory>) -> Inventory {
    let deadline = Instant::now() + LIMIT;
    let mut last = inventory(worker);
    loop {
        let now = inventory(worker);
        if wanted.is_none_or(|w| *w == now) && now == last {
            return now;
        }
        assert!(Instant::now() < deadline, "left over: {now:#?}, wanted {wanted:#?}");
        last = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Those of a process, as the kernel names them.
pub fn namespaces(pid: u32) -> Vec<PathBuf> {
    ["pid", "net", "mnt"].iter().map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap()).collect()
}

/// Waits until no process is in any of these namespaces: then the kernel has removed them and all that was in them.
pub async fn empty(namespaces: &[PathBuf]) {
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
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// After its end: nothing is in what were its namespaces, and its directories are empty.
pub async fn nothing_left(worker: &Worker, namespaces: &[PathBuf]) {
    empty(namespaces).await;
    assert!(!worker.dir.path().join("herder.sock").exists());
    assert_eq!(tree(&worker.dir.path().join("work")), BTreeSet::new());
}
