//! The packages that `script/setup` unpacks become assets, and a guest runs in what they make.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ate_sandbox::Check;

const HERDER: &str = env!("CARGO_BIN_EXE_ateom-microvm");

fn packages(build: &str) -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/microvm").join(build);
    assert!(packages.exists(), "{} is missing: run script/setup", packages.display());
    packages
}

fn collect(build: &str, out: &Path) -> BTreeMap<String, PathBuf> {
    let guest = Path::new(HERDER).with_file_name("ate-guest");
    assert!(guest.exists(), "{} is missing: run script/guest", guest.display());
    let output = herder(&["collect", "--from", path(&packages(build)), "--out", path(out)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn doctor(vmm: &Path, kernel: &Path) -> Vec<Check> {
    let output = herder(&["doctor", &format!("vmm={}", path(vmm)), &format!("kernel={}", path(kernel))]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn herder(args: &[&str]) -> Output {
    Command::new(HERDER).args(args).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn guest(checks: &[Check]) -> &Check {
    checks.iter().find(|c| c.name == "guest").unwrap()
}

fn a_guest_runs(build: &str) {
    let out = tempfile::tempdir().unwrap();
    let assets = collect(build, out.path());
    let checks = doctor(&assets["vmm"], &assets["kernel"]);
    assert!(guest(&checks).ok, "{:?}", guest(&checks));
    let kvm = checks.iter().find(|c| c.name == "accelerator kvm").unwrap();
    assert!(kvm.optional && (kvm.ok || kvm.fix.contains("TCG")), "{kvm:?}");
}

#[test]
fn a_guest_runs_in_what_qemu_7_2_makes() {
    a_guest_runs("7.2");
}

#[test]
fn a_guest_runs_in_what_qemu_10_makes() {
    a_guest_runs("10.0");
}

#[test]
fn what_does_not_boot_fails_the_check_with_the_reason() {
    let out = tempfile::tempdir().unwrap();
    let assets = collect("10.0", out.path());
    let kernel = fs::read(&assets["kernel"]).unwrap();
    fs::write(&assets["kernel"], &kernel[..kernel.len() / 2]).unwrap();
    let checks = doctor(&assets["vmm"], &assets["kernel"]);
    assert!(!guest(&checks).ok && !guest(&checks).fix.is_empty(), "{:?}", guest(&checks));
    let checks = doctor(out.path(), &assets["kernel"]);
    assert!(guest(&checks).detail.contains("ld-linux"), "{:?}", guest(&checks));
}

#[test]
fn the_same_packages_make_the_same_digests() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (collect("7.2", one.path()), collect("7.2", two.path()));
    for (name, path) in one {
        assert!(fs::read(path).unwrap() == fs::read(&two[&name]).unwrap(), "{name}");
    }
}
