//! `doctor`: can this machine run the class, and how fast? Everything is tried rather than looked up.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ate_sandbox::Check;
use ateom::{
    doctor::{LIMIT, attempt, basics, check},
    process::Processes,
};

use crate::{
    accelerator::{Chosen, kvm_there, try_kvm},
    config::Config,
    describe::{KERNEL, VMM},
    trial::Trial,
};

const TUN: &str = "/dev/net/tun";
const EROFS: &str = "mount -t tmpfs t /mnt && mkdir /mnt/d && mkfs.erofs --quiet /mnt/i /mnt/d";
/// A software-emulated boot takes 2 to 3 seconds; a busy machine may need many times that.
const TCG_LIMIT: Duration = Duration::from_secs(40);
/// What it means to have no KVM, as measured.
const TCG_COSTS: &str = "nothing has to be done: software emulation (TCG) is used instead. It costs: a cold boot takes \
    2-3 s, the first request after a resume some 60 ms more, and an idle guest burns 3-4 % of a core";
const HOW_TO_TRY: &str =
    "try it: `ateom-microvm doctor vmm=FILE kernel=FILE`, with the assets `ateom-microvm collect` makes";

pub(crate) fn checks(assets: &BTreeMap<String, PathBuf>) -> Vec<Check> {
    let mut checks = basics();
    let tun = OpenOptions::new().read(true).write(true).open(TUN);
    let tun = tun.map(|_| format!("{TUN} can be opened")).map_err(|e| format!("{TUN}: {e}"));
    checks.push(check("tun", tun, "load the kernel module `tun` (in a container: pass the device in)"));
    let erofs = attempt(&["sh", "-c", EROFS], LIMIT);
    checks.push(check("mkfs.erofs", erofs, "install the Debian package `erofs-utils`"));
    match (assets.get(VMM), assets.get(KERNEL)) {
        (Some(vmm), Some(kernel)) => checks.extend(guests(vmm, kernel)),
        _ => checks.push(untried()),
    }
    checks
}

/// Without assets no guest can be started, and KVM be ruled out at most.
fn untried() -> Check {
    match kvm_there() {
        Ok(()) => kvm(Err("it is there, but whether a guest runs under it was not tried".to_owned()), HOW_TO_TRY),
        Err(why) => kvm(Err(why.to_string()), TCG_COSTS),
    }
}

fn kvm(result: Result<String, String>, fix: &str) -> Check {
    Check { optional: true, ..check("accelerator kvm", result, fix) }
}

/// Starts a guest in software, which must work anywhere, and one under KVM.
fn guests(vmm: &Path, kernel: &Path) -> Vec<Check> {
    let fix = "give the unpacked asset vmm or its archive, and the asset kernel, as `ateom-microvm collect` makes them";
    let guest = |result| check("guest", result, fix);
    let unpacked = match unpacked(vmm) {
        Ok(unpacked) => unpacked,
        Err(e) => return vec![guest(Err(format!("{}: {e}", vmm.display())))],
    };
    let vmm = unpacked.as_ref().map_or(vmm, |dir| dir.path());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return vec![guest(Err(e.to_string()))],
    };
    runtime.block_on(async {
        let processes = match Processes::start() {
            Ok(processes) => processes,
            Err(e) => return vec![guest(Err(e.to_string()))],
        };
        let cpu = Config::default().cpu;
        let trial = Trial { vmm, kernel, cpu: &cpu };
        let since = Instant::now();
        let tcg = trial.run(&processes, Chosen::Tcg, TCG_LIMIT).await;
        let tcg = tcg.map(|()| format!("one ran, emulated, in {:.1} s", since.elapsed().as_secs_f64()));
        let result = try_kvm(&processes, &trial).await;
        let result = result.map(|took| format!("a guest ran under it in {} ms", took.as_millis()));
        vec![guest(tcg.map_err(|e| e.to_string())), kvm(result.map_err(|e| e.to_string()), TCG_COSTS)]
    })
}

/// The directory with an archive's contents; none if it is a directory already.
fn unpacked(vmm: &Path) -> std::io::Result<Option<tempfile::TempDir>> {
    if vmm.is_dir() {
        return Ok(None);
    }
    let file = File::open(vmm)?;
    let dir = tempfile::tempdir()?;
    tar::Archive::new(file).unpack(dir.path())?;
    Ok(Some(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_have_no_kvm_is_a_warning_that_says_what_it_costs() {
        let check = kvm(Err("no".into()), TCG_COSTS);
        assert!(check.optional && !check.ok && check.fix.contains("2-3 s"));
    }

    #[test]
    fn assets_that_are_none_fail_with_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.tar");
        let checks = guests(&missing, &missing);
        assert!(!checks[0].ok && checks[0].detail.contains("missing.tar"), "{:?}", checks[0]);
    }
}
