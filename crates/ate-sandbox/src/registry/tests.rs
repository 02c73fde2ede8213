//! Herders that are found, and programs that only look like herders.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::json;

use super::*;
use crate::{FieldType, asset, config::tests::toy};

/// A directory with herders that are shell scripts.
fn herders(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, script) in scripts {
        // Written by another process: a descriptor of ours, open for writing, could live on in a child that a test
        // beside this one is just starting, and the kernel starts no program that anybody may write to.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(dir.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
        assert!(writer.wait().unwrap().success());
    }
    dir
}

fn prints(descriptor: &ClassDescriptor) -> String {
    format!("[ \"$1\" = describe ] && cat <<'E'\n{}\nE", serde_json::to_string(descriptor).unwrap())
}

fn named(name: &str) -> ClassDescriptor {
    ClassDescriptor { name: name.into(), ..toy() }
}

fn herder(descriptor: ClassDescriptor) -> Herder {
    Herder { descriptor, program: "/none".into() }
}

#[test]
fn every_herder_that_describes_itself_is_registered_and_earlier_directories_win() {
    let (mut newer, older) = (named("one"), named("one"));
    newer.driver_version = "2".into();
    let first = herders(&[("ateom-one", &prints(&newer)), ("ateom-one.d", "exit 1"), ("other", "exit 1")]);
    let second = herders(&[("ateom-one", &prints(&older)), ("ateom-two", &prints(&named("two")))]);
    fs::write(second.path().join("ateom-plain"), "not executable").unwrap();
    let dirs = [first.path().to_owned(), second.path().to_owned(), "/no/such/directory".into()];
    let (registry, errors) = Registry::discover(&dirs, 1);
    assert_eq!(errors, []);
    assert_eq!(registry.classes().map(|h| h.descriptor.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let one = registry.get("one").unwrap();
    assert_eq!((one.descriptor.driver_version.as_str(), one.program.parent()), ("2", Some(first.path())));
}

#[test]
fn a_broken_herder_is_told_and_does_not_hide_the_others() {
    let dir = herders(&[
        ("ateom-good", &prints(&named("good"))),
        ("ateom-liar", &prints(&named("other"))),
        ("ateom-mute", "echo broken >&2; exit 3"),
        ("ateom-loud", "exec cat /dev/zero"),
    ]);
    fs::write(dir.path().join("ateom-noexec"), "\u{7f}ELFnot really").unwrap();
    fs::set_permissions(dir.path().join("ateom-noexec"), fs::Permissions::from_mode(0o755)).unwrap();
    let (registry, errors) = Registry::discover(&[dir.path().to_owned()], 1);
    assert_eq!(registry.classes().count(), 1);
    let told = |is: fn(&RegistryError) -> bool| assert!(errors.iter().any(is), "{errors:?}");
    told(|e| matches!(e, RegistryError::WrongName { says, .. } if says == "other"));
    told(|e| matches!(e, RegistryError::Malformed { message, .. } if message.contains("broken")));
    told(|e| matches!(e, RegistryError::TooLong { .. }));
    told(|e| matches!(e, RegistryError::Start { .. }));
    assert_eq!(errors.len(), 4);
}

#[test]
fn a_herder_that_hangs_is_ended() {
    let dir = herders(&[("ateom-slow", "exec sleep 600")]);
    let limit = Duration::from_millis(100);
    let started = std::time::Instant::now();
    let e = describe::describe("slow", &dir.path().join("ateom-slow"), limit).unwrap_err();
    assert!(matches!(e, RegistryError::TimedOut { .. }), "{e}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn descriptors_nobody_could_rely_on_are_refused() {
    let broken = |change: fn(&mut ClassDescriptor), says: &str| {
        let mut descriptor = toy();
        change(&mut descriptor);
        let e = Registry::of([herder(descriptor)], 1).unwrap_err().to_string();
        assert!(e.contains(says), "{says} is not in {e}");
    };
    assert!(Registry::of([herder(toy())], 1).is_ok());
    assert!(Registry::of([herder(toy())], 2).unwrap_err().to_string().contains("contract 1"));
    broken(|d| d.name = "../toy".into(), "DNS label");
    broken(|d| d.driver_version.clear(), "driver version");
    broken(|d| d.required_assets[0].name = "a/b".into(), "name of an asset");
    broken(|d| d.required_assets[1].name = "kernel".into(), "twice");
    broken(|d| d.required_assets[0].media_types = vec!["text/html".into()], "media types");
    broken(|d| d.required_assets[0].media_types.clear(), asset::TAR);
    broken(|d| d.config.get_mut("mode").unwrap().default = json!("other"), "default of setting mode");
    broken(|d| d.config.get_mut("memoryMiB").unwrap().r#type = FieldType::Integer { min: 2, max: 1 }, "impossible");
    broken(|d| d.config.get_mut("note").unwrap().r#type = FieldType::Text { max_bytes: u32::MAX }, "too large");
    broken(|d| d.host_needs.programs = vec![String::new(); 65], "more than");
}

#[test]
fn an_unknown_class_names_the_known_ones() {
    let registry = Registry::of([herder(toy())], 1).unwrap();
    let e = registry.get("gvisor").unwrap_err();
    assert_eq!(e.reason, Reason::UnknownSandboxClass);
    assert!(e.message.contains("toy") && e.hint.contains("ateom-gvisor"), "{e:?}");
    assert!(Registry::default().get("x").unwrap_err().message.contains("none"));
}
