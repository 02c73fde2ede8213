//! What the format promises to its readers.

use ate_api::{
    Reason,
    id::{Digest, Uid},
    resource::template::Scope,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Base, MAX_BYTES, Manifest};
use crate::{
    Error,
    sample::{self, ACTOR, TEMPLATE, file, manifest},
};

fn read(value: &Value) -> Result<Manifest, Error> {
    let bytes = serde_json::to_vec(value).unwrap();
    Manifest::parse_verified(&bytes, &Digest::of(&bytes))
}

/// The example with one thing changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = sample::json();
    if pointer == "/base" {
        json["base"] = Value::Null;
    }
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    json
}

#[test]
fn a_manifest_survives_being_written_and_read() {
    let written = manifest();
    let bytes = written.to_bytes();
    let read = Manifest::parse_verified(&bytes, &written.digest()).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.to_bytes(), bytes);
}

#[test]
fn the_example_in_the_documentation_is_a_manifest_with_every_field() {
    let json = sample::json();
    assert_eq!(serde_json::to_value(read(&json).unwrap()).unwrap(), json);
}

#[test]
fn the_encoding_sorts_keys_at_every_level_and_has_no_space() {
    let text = String::from_utf8(manifest().to_bytes()).unwrap();
    assert!(text.starts_with(r#"{"activation":9,"actor":{"atespace":"#), "{text}");
    assert!(text.contains(r#""platform":{"arch":"amd64","cpuFeatures":["#), "{text}");
    assert!(!text.contains(": ") && !text.contains('\n'), "{text}");
}

#[test]
fn fields_of_a_later_minor_format_are_kept() {
    let mut json = sample::json();
    json["fromTheFuture"] = json!({"a": [1, 2]});
    let read = read(&json).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap()["fromTheFuture"], json["fromTheFuture"]);
}

#[test]
fn a_later_major_format_is_refused_as_such_whatever_else_it_holds() {
    let bytes = br#"{"formatVersion":2,"everything":"else"}"#;
    let e = Manifest::parse_verified(bytes, &Digest::of(bytes)).unwrap_err();
    assert_eq!(e, Error::ManifestVersion { found: 2, known: 1 });
    assert_eq!(e.reason(), Reason::ManifestVersionUnknown);
}

#[test]
fn an_oversized_manifest_is_refused_before_it_is_hashed_or_parsed() {
    let bytes = vec![b' '; MAX_BYTES + 1];
    let e = Manifest::parse_verified(&bytes, &Digest::of(b"")).unwrap_err();
    assert_eq!(e, Error::ManifestTooLarge { limit: MAX_BYTES });
}

#[test]
fn a_manifest_with_a_hostile_value_is_refused() {
    let long = "x".repeat(5000);
    let cases = [
        ("/files/0/name", json!("../../etc/passwd")),
        ("/files/0/name", json!("/etc/passwd")),
        ("/files/0/name", json!("a/b")),
        ("/files/0/name", json!("a\\b")),
        ("/files/0/name", json!(".")),
        ("/files/0/name", json!("..")),
        ("/files/0/name", json!("")),
        ("/files/0/name", json!("manifest.json")),
        ("/files/0/name", json!("a\u{0}b")),
        ("/files/0/name", json!("a\nb")),
        ("/files/0/name", json!("x".repeat(256))),
        ("/files/0/name", json!("pages.img")), // twice
        ("/files/0/size", json!(u64::MAX)),
        ("/files/0/size", json!(-1)),
        ("/files/0/sha256", json!("00")),
        ("/files/0/sha256", json!("A".repeat(64))),
        ("/files/0/encoding", json!("xz")),
        ("/mediaType", json!("application/json")),
        ("/actor/uid", json!("../../x")),
        ("/actor/name", json!("")),
        ("/actor/name", json!(long)),
        ("/template/uid", json!("x")),
        ("/generation", json!(0)),
        ("/activation", json!(0)),
        ("/platform/arch", json!("x86_64")),
        ("/platform/os", json!("plan9")),
        ("/platform/cpuFeatures", json!(vec!["sse"; 2000])),
        ("/sandbox/class", json!("gvisor\u{1b}[2J")),
        ("/sandbox/assets/0/urls", json!(vec!["file:///x"; 17])),
        ("/sandbox/assets/0/mediaType", json!(long)),
        ("/images/0/reference", json!(long)),
        ("/scope", json!("full")),
        ("/createdAt", json!("yesterday")),
        ("/base", json!({"manifest": "00"})),
        ("/base", json!({"manifest": Digest::of(b"x"), "location": long})),
        ("/base", json!({"manifest": Digest::of(b"x"), "location": "file:///a\nb"})),
    ];
    for (pointer, value) in cases {
        let e = read(&with(pointer, value.clone())).expect_err(&format!("{pointer} = {value}"));
        assert_eq!(e.reason(), Reason::ManifestInvalid, "{pointer} = {value}: {e}");
        assert!(e.to_string().len() < 500, "{pointer}: the message repeats the hostile text");
    }
}

#[test]
fn memory_is_restored_only_where_all_its_cpu_features_are() {
    let m = manifest();
    let mut host = m.platform.clone();
    host.kernel_release = "6.99".to_owned();
    host.cpu_features.push("zzz".to_owned());
    m.check_platform(&host).unwrap();

    host.cpu_features.retain(|f| f != "avx2");
    let e = m.check_platform(&host).unwrap_err();
    assert_eq!(e.reason(), Reason::ArchMismatch);
    assert!(e.to_string().contains("avx2"), "{e}");

    host = m.platform.clone();
    host.arch = "arm64".to_owned();
    assert_eq!(m.check_platform(&host).unwrap_err().reason(), Reason::ArchMismatch);
    // Files know no CPU.
    Manifest { scope: Scope::Data, ..m }.check_platform(&host).unwrap();
}

#[test]
fn memory_is_restored_only_under_the_sandbox_recorded_for_it() {
    let m = manifest();
    let recorded = m.sandbox.sandbox.clone();
    m.check_sandbox(&recorded).unwrap();

    let mut other = recorded.clone();
    other.class = "microvm".to_owned();
    assert_eq!(m.check_sandbox(&other).unwrap_err().reason(), Reason::ClassMismatch);

    let mut other = recorded.clone();
    other.config.digest = Digest::of(b"other values");
    assert_eq!(m.check_sandbox(&other).unwrap_err().reason(), Reason::ManifestInvalid);

    let mut other = recorded.clone();
    other.assets[0].sha256 = Digest::of(b"another runsc");
    assert_eq!(m.check_sandbox(&other).unwrap_err().reason(), Reason::ManifestInvalid);

    let mut other = recorded.clone();
    other.assets.clear();
    assert!(m.check_sandbox(&other).is_err());
    // Where the same bytes may be had from is no difference.
    let mut other = recorded;
    other.assets[0].urls.clear();
    m.check_sandbox(&other).unwrap();
}

#[test]
fn a_snapshot_of_another_actor_or_template_is_refused_and_the_golden_is_not() {
    let mut m = manifest();
    let uid = |s| Uid::parse(s).unwrap();
    let spec = m.template.spec_digest.clone();
    let other = Uid::generate();
    m.check_owner(&uid(ACTOR), &uid(TEMPLATE), &spec).unwrap();
    for (actor, template, spec) in [
        (&other, &uid(TEMPLATE), &spec),
        (&uid(ACTOR), &other, &spec),
        (&uid(ACTOR), &uid(TEMPLATE), &Digest::of(b"another spec")),
    ] {
        assert!(matches!(m.check_owner(actor, template, spec), Err(Error::Owner(_))));
    }
    m.actor.atespace = "ate-golden".to_owned();
    m.check_owner(&other, &uid(TEMPLATE), &spec).unwrap();
    assert!(m.check_owner(&other, &other, &spec).is_err());
}

/// The golden snapshot of the example's template, and the example as one that rests on it.
fn based() -> (Manifest, Manifest) {
    let mut golden = Manifest { parent: None, generation: 1, ..manifest() };
    golden.actor.atespace = "ate-golden".to_owned();
    golden.actor.uid = Uid::generate();
    let base = Base { manifest: golden.digest(), location: Some("file:///objects/golden".to_owned()) };
    (golden, Manifest { base: Some(base), ..manifest() })
}

#[test]
fn a_snapshot_that_rests_on_another_says_so_and_one_that_does_not_says_nothing() {
    let (golden, based) = based();
    let bytes = based.to_bytes();
    assert_eq!(Manifest::parse_verified(&bytes, &based.digest()).unwrap(), based);
    assert_eq!(serde_json::to_value(&based).unwrap()["base"]["manifest"], golden.digest().as_str());
    assert!(serde_json::to_value(manifest()).unwrap().get("base").is_none());
}

#[test]
fn only_memory_that_was_restored_can_rest_on_a_base() {
    let (_, based) = based();
    based.check().unwrap();
    for wrong in [Manifest { scope: Scope::Data, ..based.clone() }, Manifest { parent: None, ..based }] {
        assert_eq!(wrong.check().unwrap_err().reason(), Reason::ManifestInvalid);
    }
}

#[test]
fn a_base_must_be_the_recorded_one_whole_and_made_alike() {
    let (golden, based) = based();
    let digest = golden.digest();
    based.check_base(Some((&digest, &golden))).unwrap();
    manifest().check_base(None).unwrap();

    let refused = |snapshot: &Manifest, recorded: Option<(&Digest, &Manifest)>, word: &str| {
        let e = snapshot.check_base(recorded).unwrap_err();
        assert_eq!(e.reason(), Reason::ManifestInvalid);
        assert!(e.to_string().contains(word), "{e}");
    };
    refused(&based, None, "none is recorded");
    refused(&manifest(), Some((&digest, &golden)), "needs none");
    refused(&based, Some((&Digest::of(b"other"), &golden)), "another");
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut changed = golden.clone();
        change(&mut changed);
        changed
    };
    let cases: [(&str, Manifest); 7] = [
        ("not whole", with(&|m| m.base.clone_from(&based.base))),
        ("no memory", with(&|m| m.scope = Scope::Data)),
        ("other images", with(&|m| m.images[0].digest = Digest::of(b"other"))),
        ("template", with(&|m| m.template.uid = Uid::generate())),
        ("of actor", with(&|m| m.actor.atespace = "default".to_owned())),
        ("class", with(&|m| m.sandbox.sandbox.class = "other".to_owned())),
        ("CPU", with(&|m| m.platform.cpu_features.push("zzz".to_owned()))),
    ];
    for (word, wrong) in cases {
        refused(&based, Some((&digest, &wrong)), word);
    }
}

#[test]
fn two_files_of_one_name_are_refused_when_written() {
    let m = sample::manifest_of(vec![file("a", b"1"), file("a", b"2")]);
    assert_eq!(m.check().unwrap_err().reason(), Reason::ManifestInvalid);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Manifest::parse_verified(&bytes, &Digest::of(&bytes)).is_err());
    }

    #[test]
    fn no_damaged_manifest_makes_the_reader_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = manifest().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // Its own digest is given, so that every later check is reached; what is accepted must keep the rules.
        if let Ok(read) = Manifest::parse_verified(&bytes, &Digest::of(&bytes)) {
            prop_assert!(read.check().is_ok());
        }
    }

    #[test]
    fn a_manifest_with_any_byte_changed_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let digest = manifest().digest();
        let mut bytes = manifest().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let e = Manifest::parse_verified(&bytes, &digest).unwrap_err();
        prop_assert_eq!(e.reason(), Reason::ManifestDigestMismatch);
    }
}
