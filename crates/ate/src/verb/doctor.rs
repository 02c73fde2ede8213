//! `ate doctor`: whether this machine is able, which sandboxes work on it, and what to install.

use std::{path::PathBuf, process::Command};

use ate_sandbox::{Check, Registry, registry::Herder};
use clap::Args;

use crate::{
    connection::DEFAULT_DATA_DIR,
    failure::{Failure, Outcome},
    programs,
    show::{human, print, render, table::Table},
    up::settings::own_dir,
};

/// Snapshots, images and binaries of a few small actors.
const LEAST_SPACE: u64 = 2 << 30;

/// Check whether this machine can run actors, which sandboxes work here, and what to install.
///
/// Ends with 1 if something is missing that is needed. Needs no server.
#[derive(Args)]
#[command(after_help = "Examples:
  ate doctor
  ate doctor --data-dir /srv/ate
  ate doctor -o json")]
pub(crate) struct Doctor {
    /// Where `ate up` will keep its data.
    #[arg(long, env = "ATE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the herders (programs ateom-CLASS) are [default: beside this program].
    #[arg(long, env = "ATE_HERDER_DIR", value_name = "DIR")]
    herder_dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Json,
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let mut groups = vec![("machine".to_owned(), machine(&self.data_dir))];
        let (classes, unusable) =
            Registry::discover(&[self.herder_dir.unwrap_or_else(own_dir)], ateom::CONTRACT_VERSION);
        let broken = unusable.iter().map(|e| check("herder", false, e.to_string(), "install it anew"));
        let mut sandboxes: Vec<Check> = broken.collect();
        if classes.classes().next().is_none() && sandboxes.is_empty() {
            sandboxes.push(check(
                "herder",
                false,
                "no program ateom-CLASS was found",
                "put one beside the ate program, for example ateom-gvisor",
            ));
        }
        groups.push(("sandboxes".to_owned(), sandboxes));
        groups.extend(classes.classes().map(|herder| (herder.descriptor.name.clone(), ask(herder))));

        match self.output {
            Form::Json => {
                let all: serde_json::Map<_, _> =
                    groups.iter().map(|(g, checks)| (g.clone(), serde_json::json!(checks))).collect();
                print(&render(&all.into(), crate::show::Output::Json));
            }
            Form::Table => print(&table(&groups)),
        }
        let able = groups.iter().flat_map(|(_, checks)| checks).all(|c| c.ok || c.optional);
        if able { Ok(()) } else { Err(Failure::Silent(1)) }
    }
}

fn table(groups: &[(String, Vec<Check>)]) -> String {
    let word = |c: &Check| match (c.ok, c.optional) {
        (true, _) => "ok",
        (false, true) => "warning",
        (false, false) => "FAILED",
    };
    let rows: Vec<Vec<String>> = groups
        .iter()
        .flat_map(|(group, checks)| checks.iter().map(move |c| (group, c)))
        .map(|(group, c)| vec![group.clone(), c.name.clone(), word(c).to_owned(), c.detail.clone()])
        .collect();
    let mut text = Table::new(vec!["ABOUT", "CHECK", "RESULT", "DETAIL"]).print(&rows);
    let all = groups.iter().flat_map(|(group, checks)| checks.iter().map(move |c| (group, c)));
    let to_do: Vec<_> = all.filter(|(_, c)| !c.ok && !c.fix.is_empty()).collect();
    if !to_do.is_empty() {
        text += "\nWhat to do:\n";
        to_do.iter().for_each(|(group, c)| text += &format!("  {group}, {}: {}\n", c.name, c.fix));
    }
    text
}

fn check(name: &str, ok: bool, detail: impl Into<String>, fix: &str) -> Check {
    let fix = if ok { String::new() } else { fix.to_owned() };
    Check { name: name.to_owned(), ok, optional: false, detail: detail.into(), fix }
}

/// What every sandbox class needs.
fn machine(data_dir: &std::path::Path) -> Vec<Check> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let root = rustix::process::geteuid().is_root();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let overlay = filesystems.lines().any(|l| l.ends_with("\toverlay"))
        || std::path::Path::new(&format!("/lib/modules/{release}/kernel/fs/overlayfs")).exists();
    let spaces: Vec<&str> = ["pid", "mnt", "net", "ipc", "uts"]
        .into_iter()
        .filter(|n| !PathBuf::from(format!("/proc/self/ns/{n}")).exists())
        .collect();
    let cgroup = match () {
        () if PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists() => "version 2",
        () if PathBuf::from("/sys/fs/cgroup/memory").exists() => "version 1",
        () => "",
    };
    vec![
        check("root", root, if root { "yes" } else { "no" }, "run as root: namespaces and mounts need it"),
        check("kernel", at_least(&release, 5, 10), release.as_str(), "Linux 5.10 or newer is needed"),
        check(
            "overlayfs",
            overlay,
            if overlay { "available" } else { "not known to the kernel" },
            "load it: modprobe overlay",
        ),
        check(
            "namespaces",
            spaces.is_empty(),
            if spaces.is_empty() {
                "pid, mnt, net, ipc, uts".to_owned()
            } else {
                format!("missing: {}", spaces.join(", "))
            },
            "a kernel with these namespaces is needed",
        ),
        Check {
            optional: true,
            ..check(
                "cgroups",
                !cgroup.is_empty(),
                if cgroup.is_empty() { "not mounted" } else { cgroup },
                "mount /sys/fs/cgroup; without it memory and CPU of actors are not limited",
            )
        },
        program("nft", "apt-get install nftables"),
        space(data_dir),
    ]
}

/// `6.18.5-1-cloud` is at least 5.10.
fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

fn program(name: &str, fix: &str) -> Check {
    match programs::on_path(name) {
        Some(path) => check(name, true, path.display().to_string(), ""),
        None => check(name, false, "not on the PATH", fix),
    }
}

/// Space where the data directory is or will be.
fn space(data_dir: &std::path::Path) -> Check {
    let there = data_dir.ancestors().find(|p| p.exists()).unwrap_or(std::path::Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(s) => {
            let free = s.f_bavail * s.f_frsize;
            let detail = format!("{} free for {}", human::size(free), data_dir.display());
            check("disk", free >= LEAST_SPACE, detail, "free at least 2 GiB, or choose another --data-dir")
        }
        Err(e) => check("disk", false, format!("{}: {e}", there.display()), "choose another --data-dir"),
    }
}

/// The herder itself, and what it says of its own needs.
fn ask(herder: &Herder) -> Vec<Check> {
    let program = herder.program.display();
    let failed = |detail: String| vec![check("herder", false, detail, "install it anew")];
    let output = match Command::new(&herder.program).arg("doctor").output() {
        Ok(output) => output,
        Err(e) => return failed(format!("{program}: {e}")),
    };
    // It may end with 1 when a check fails; what it printed counts.
    match serde_json::from_slice::<Vec<Check>>(&output.stdout) {
        Ok(checks) => {
            let found = check("herder", true, program.to_string(), "");
            std::iter::once(found).chain(checks).collect()
        }
        Err(e) => failed(format!("{program} doctor: {e}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(at_least("6.1.0-42-amd64", 5, 10) && at_least("5.10", 5, 10));
        assert!(!at_least("5.9.16", 5, 10) && !at_least("weird", 5, 10));
    }

    #[test]
    fn a_failed_check_is_told_with_what_to_do() {
        let checks =
            vec![check("root", true, "yes", "x"), check("nft", false, "not on the PATH", "apt-get install nftables")];
        let text = table(&[("machine".into(), checks)]);
        assert!(text.contains("machine   nft     FAILED   not on the PATH"), "{text}");
        assert!(text.ends_with("What to do:\n  machine, nft: apt-get install nftables\n"), "{text}");
    }
}
