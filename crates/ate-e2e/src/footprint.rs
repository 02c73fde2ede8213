//! What a node has on the machine while it runs: processes, mounts, network namespaces, links. Taken while it runs and
//! looked at again when it has ended, whatever class its workers are of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Node;

/// A process by pid and start time: pids come again.
type Process = (u32, u64);

#[derive(Debug)]
pub struct Footprint {
    data: PathBuf,
    processes: BTreeMap<Process, String>,
    /// Network namespaces as the kernel names them: `net:[4026532000]`. They end with the processes in them, unless
    /// somebody has mounted them.
    namespaces: BTreeSet<PathBuf>,
    /// Host ends of the workers' links, by name and index: another node may take a name, an index never comes again.
    links: BTreeSet<(String, String)>,
}

impl Footprint {
    /// Of a running node.
    pub fn of(node: &Node) -> Self {
        let processes: BTreeMap<_, _> =
            below(node.pid()).into_iter().filter_map(|pid| Some(((pid, started(pid)?), command_line(pid)))).collect();
        let own = namespace("self");
        let namespaces = processes.keys().filter_map(|(pid, _)| namespace(&pid.to_string()));
        let namespaces = namespaces.filter(|n| Some(n) != own.as_ref()).collect();
        let workers = node.list("workers");
        let addresses = workers.iter().filter_map(|w| w["status"]["address"].as_str());
        Footprint { data: node.data(), processes, namespaces, links: addresses.filter_map(link_to).collect() }
    }

    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Everything that is still there, one line each.
    pub fn remains(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let alive = |(pid, since): &Process| started(*pid) == Some(*since);
        found.extend(self.processes.iter().filter(|(p, _)| alive(p)).map(|((pid, _), line)| format!("{pid}: {line}")));
        let data = self.data.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = |line: &&str| {
            line.contains(&data) || self.namespaces.iter().any(|n| line.contains(&n.display().to_string()))
        };
        let left = self.links.iter().filter(|(name, index)| link_index(name).as_ref() == Some(index));
        found.extend(left.map(|(name, _)| format!("link {name}")));
        found.extend(mounts.lines().filter(ours).map(|l| format!("mount {l}")));
        found
    }
}

/// Every process below one.
pub fn below(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let parents: BTreeMap<u32, u32> = pids.iter().filter_map(|&pid| Some((pid, stat(pid)?.0))).collect();
    let is_below = |pid: &u32| {
        let mut at = *pid;
        while let Some(&parent) = parents.get(&at).filter(|p| **p != 0) {
            if parent == root {
                return true;
            }
            at = parent;
        }
        false
    };
    pids.into_iter().filter(is_below).collect()
}

/// Processes that run a program, by the file itself: its name may be covered where they are.
pub fn running(program: &Path) -> Vec<u32> {
    let file = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let Some(wanted) = file(program) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| file(&PathBuf::from(format!("/proc/{pid}/exe"))) == Some(wanted)).collect()
}

/// Processes of sandboxes below a node, whatever file they were started from.
pub fn sandboxes(node: &Node) -> BTreeSet<(u32, u64)> {
    let words = ["runsc-sandbox", "runsc-gofer", "qemu-system"];
    let is_one = |pid: &u32| words.iter().any(|word| command_line(*pid).contains(word));
    below(node.pid()).into_iter().filter(is_one).filter_map(|pid| Some((pid, started(pid)?))).collect()
}

/// Stopped by a signal.
pub fn is_frozen(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, _, state)| state == 'T')
}

pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn started(pid: u32) -> Option<u64> {
    stat(pid).filter(|(_, _, state)| *state != 'Z').map(|(_, since, _)| since)
}

/// Parent, start time and state: `PID (NAME) STATE PPID …`, the start being the 20th word after the name.
fn stat(pid: u32) -> Option<(u32, u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let words: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    Some((words.get(1)?.parse().ok()?, words.get(19)?.parse().ok()?, words.first()?.chars().next()?))
}

fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

/// The interface that leads to an address.
fn link_to(address: &str) -> Option<(String, String)> {
    let out = Command::new("ip").args(["-o", "route", "get", address]).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|w| *w != "dev");
    let name = words.nth(1)?;
    Some((name.to_owned(), link_index(name)?))
}

fn link_index(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex")).ok()
}
