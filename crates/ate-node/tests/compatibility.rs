//! What `docs/compatibility.md` promises of snapshots that earlier builds made, held against some that they did make.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason, canonical, id::Digest, resource::template::Scope};
use ate_snapshot::{LocalSnapshots, Manifest, Prefix, Repository, manifest::Platform};
use serde_json::{Value, json};

/// One snapshot of an earlier build.
struct Fixture {
    build: PathBuf,
    prefix: String,
    recorded: Digest,
    bytes: Vec<u8>,
}

impl Fixture {
    fn manifest(&self) -> Manifest {
        Manifest::parse_verified(&self.bytes, &self.recorded).expect("a manifest of an earlier build")
    }

    /// What it lies in, copied: whoever reads it must not change it.
    fn objects(&self, to: &Path) -> (Repository, Prefix) {
        let source = self.build.join("objects").join(&self.prefix);
        let target = to.join(&self.prefix);
        fs::create_dir_all(&target).expect("a folder");
        for entry in fs::read_dir(source).expect("the fixture") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), target.join(entry.file_name())).expect("copy");
        }
        let prefix = format!("file://{}/{}", to.display(), self.prefix).parse().expect("a prefix");
        (Repository::new(to).expect("a repository"), prefix)
    }
}

fn fixtures() -> Vec<Fixture> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().map(|e| e.expect("an entry").path());
        entries.filter(|p| p.is_dir()).collect()
    };
    let mut found = Vec::new();
    for build in below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")) {
        for dir in below(&build.join("objects/actors")).iter().flat_map(|actor| below(actor)) {
            let recorded = fs::read_to_string(dir.join("recorded")).expect("the recorded digest");
            found.push(Fixture {
                prefix: dir.strip_prefix(build.join("objects")).expect("it is below").display().to_string(),
                recorded: Digest::parse(recorded.trim()).expect("a digest"),
                bytes: fs::read(dir.join("manifest.json")).expect("a manifest"),
                build: build.clone(),
            });
        }
    }
    found
}

fn of_scope(scope: Scope) -> Vec<Fixture> {
    let found: Vec<_> = fixtures().into_iter().filter(|f| f.manifest().scope == scope).collect();
    assert!(!found.is_empty(), "there is no fixture of scope {scope:?}");
    found
}

/// The manifest with one thing changed, and the digest that a control plane would then have recorded.
fn changed(f: &Fixture, change: impl FnOnce(&mut Value)) -> (Vec<u8>, Digest) {
    let mut value: Value = serde_json::from_slice(&f.bytes).expect("JSON");
    change(&mut value);
    let bytes = canonical::to_vec(&value);
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

#[test]
fn every_manifest_of_format_1_is_read_and_nothing_of_it_is_lost() {
    for f in fixtures() {
        let manifest = f.manifest();
        assert_eq!(manifest.format_version, 1);
        assert_eq!(manifest.to_bytes(), f.bytes, "{}", f.prefix);
    }
}

#[test]
fn what_a_later_build_adds_is_read_past_and_a_later_format_is_refused_with_the_reason() {
    for f in fixtures() {
        let (bytes, digest) = changed(&f, |m| m["later"] = json!({ "field": 1 }));
        assert_eq!(Manifest::parse_verified(&bytes, &digest).expect("an optional field").to_bytes(), bytes);
        let (bytes, digest) = changed(&f, |m| *m = json!({ "formatVersion": 2, "everythingElse": "is different" }));
        let e = Error::from(Manifest::parse_verified(&bytes, &digest).unwrap_err());
        assert_eq!(e.reason, Reason::ManifestVersionUnknown);
        assert!(e.message.contains('2') && e.message.contains('1') && !e.hint.is_empty(), "{e:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_earlier_build_are_restored_whatever_the_machine_and_the_binaries() {
    for f in of_scope(Scope::Data) {
        let dir = tempfile::tempdir().expect("a directory");
        let (repository, prefix) = f.objects(&dir.path().join("objects"));
        let local = LocalSnapshots::open(dir.path().join("snapshots")).await.expect("local snapshots");
        let snapshot = repository.fetch(&prefix, &f.recorded, &local).await.expect("the files");

        let manifest = &snapshot.manifest;
        let nowhere = Platform { arch: "arm64".into(), cpu_features: Vec::new(), ..manifest.platform.clone() };
        manifest.check_platform(&nowhere).expect("files fit every machine");
        let mut other = manifest.sandbox.sandbox.clone();
        (other.class, other.config.digest) = ("other".into(), Digest::of(b"other"));
        other.assets.clear();
        manifest.check_sandbox(&other).expect("files fit every sandbox");

        let data = dir.path().join("data");
        fs::create_dir(&data).expect("a directory");
        let archive = snapshot.files_dir().join(ateom::data::ARCHIVE);
        ateom::data::unpack(&archive, &BTreeMap::from([("data".to_owned(), data.clone())])).expect("the archive");
        assert_eq!(fs::read_to_string(data.join("file")).expect("the file"), "written by an earlier build");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_what_the_earlier_build_wrote_are_refused() {
    for f in of_scope(Scope::Data) {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = dir.path().join("objects");
        let (repository, prefix) = f.objects(&objects);
        let path = objects.join(&f.prefix).join(f.manifest().files[0].sha256.as_str());
        let mut bytes = fs::read(&path).expect("the archive");
        bytes[40] ^= 1;
        fs::write(&path, bytes).expect("write");
        let local = LocalSnapshots::open(dir.path().join("snapshots")).await.expect("local snapshots");
        let e = Error::from(repository.fetch(&prefix, &f.recorded, &local).await.map(drop).unwrap_err());
        assert_eq!(e.reason, Reason::SnapshotCorrupt, "{e}");
    }
}

#[test]
fn memory_of_an_earlier_build_wants_its_machine_and_its_binaries() {
    for f in of_scope(Scope::Full) {
        let manifest = f.manifest();
        let own = &manifest.platform;
        let with = |features: Vec<String>| Platform { cpu_features: features, ..own.clone() };
        let mut more = own.cpu_features.clone();
        more.push("a_feature_of_tomorrow".into());
        manifest.check_platform(&with(more)).expect("a superset");
        let fewer = own.cpu_features[1..].to_vec();
        let elsewhere = Platform { arch: "arm64".into(), ..own.clone() };
        for platform in [with(fewer), elsewhere] {
            assert_eq!(Error::from(manifest.check_platform(&platform).unwrap_err()).reason, Reason::ArchMismatch);
        }
        let later = Platform { kernel_release: "99".into(), ..own.clone() };
        manifest.check_platform(&later).expect("the kernel does not matter");

        let recorded = &manifest.sandbox.sandbox;
        manifest.check_sandbox(recorded).expect("its own");
        let (mut class, mut config, mut binary) = (recorded.clone(), recorded.clone(), recorded.clone());
        class.class = "other".into();
        config.config.digest = Digest::of(b"other");
        binary.assets[0].sha256 = Digest::of(b"another build");
        for (sandbox, reason) in
            [(class, Reason::ClassMismatch), (config, Reason::ManifestInvalid), (binary, Reason::ManifestInvalid)]
        {
            assert_eq!(Error::from(manifest.check_sandbox(&sandbox).unwrap_err()).reason, reason);
        }
        let mut renamed = recorded.clone();
        (renamed.config.name, renamed.config.revision) = ("renamed".into(), 9);
        manifest.check_sandbox(&renamed).expect("names do not matter");
    }
}
