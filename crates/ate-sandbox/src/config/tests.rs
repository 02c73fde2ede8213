//! What a configuration of a class may and may not say.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{AssetRequirement, HostNeeds, ImageFormat, Isolation};

/// A class with one field of each type and two assets.
pub(crate) fn toy() -> ClassDescriptor {
    let field = |r#type, default| ConfigField { r#type, default, description: String::new() };
    let asset = |name: &str, media_types: &[&str]| AssetRequirement {
        name: name.into(),
        media_types: media_types.iter().map(|m| (*m).to_owned()).collect(),
        description: String::new(),
        found_on_path_as: String::new(),
    };
    ClassDescriptor {
        name: "toy".into(),
        driver_name: "ateom-toy".into(),
        driver_version: "1".into(),
        contract_version: 1,
        required_assets: vec![asset("kernel", &[asset::PLAIN]), asset("vmm", &[asset::PLAIN, asset::TAR])],
        config: BTreeMap::from([
            ("debug".to_owned(), field(FieldType::Boolean, json!(false))),
            ("memoryMiB".to_owned(), field(FieldType::Integer { min: 16, max: 4096 }, json!(128))),
            ("mode".to_owned(), field(FieldType::Choice { values: vec!["fast".into(), "safe".into()] }, json!("safe"))),
            ("note".to_owned(), field(FieldType::Text { max_bytes: 8 }, json!(""))),
        ]),
        host_needs: HostNeeds::default(),
        image_format: ImageFormat::default(),
        isolation: Isolation::default(),
    }
}

pub(crate) fn spec(json: Value) -> SandboxConfigSpec {
    serde_json::from_value(json).unwrap()
}

fn asset(url: &str) -> Value {
    json!({ "url": url, "sha256": "0".repeat(64) })
}

fn complete() -> Value {
    let assets = json!({ "kernel": asset("file:///k"), "vmm": asset("https://h/v") });
    json!({ "sandboxClass": "toy", "assets": { "amd64": assets } })
}

fn fields(spec: &SandboxConfigSpec) -> Vec<(String, Reason)> {
    check(&toy(), spec).into_iter().map(|v| (v.field, v.reason)).collect()
}

#[test]
fn every_wrong_setting_is_reported_with_what_it_may_be() {
    let mut value = complete();
    value["config"] = json!({ "debug": "yes", "memoryMiB": 8, "mode": "slow", "note": "much too long", "colour": 1 });
    let found = fields(&spec(value));
    let invalid = |key: &str| (format!("spec.config.{key}"), Reason::Invalid);
    let expected = [invalid("debug"), invalid("memoryMiB"), invalid("mode"), invalid("note")];
    assert!(expected.iter().all(|e| found.contains(e)), "{found:?}");
    assert!(found.contains(&("spec.config.colour".into(), Reason::UnknownField)), "{found:?}");
    assert_eq!(found.len(), 5);
}

#[test]
fn settings_of_every_type_are_accepted_and_defaults_fill_the_rest() {
    let mut value = complete();
    value["config"] = json!({ "memoryMiB": 4096, "note": "ok" });
    let spec = spec(value);
    assert_eq!(fields(&spec), []);
    let values = effective(&toy(), spec.config.as_ref());
    assert_eq!(Value::Object(values), json!({ "debug": false, "memoryMiB": 4096, "mode": "safe", "note": "ok" }));
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let given = json!({ "mode": "safe" });
    assert_eq!(digest(&effective(&toy(), given.as_object())), digest(&effective(&toy(), None)));
    let other = json!({ "mode": "fast" });
    assert_ne!(digest(&effective(&toy(), other.as_object())), digest(&effective(&toy(), None)));
}

#[test]
fn assets_are_exactly_those_the_class_needs_in_a_form_it_takes() {
    let mut value = complete();
    value["assets"]["arm64"] = json!({ "vmm": asset("ftp://h/v"), "initrd": asset("file:///i") });
    value["assets"]["amd64"]["kernel"]["mediaType"] = json!(asset::TAR);
    let found = fields(&spec(value));
    assert_eq!(
        found,
        [
            ("spec.assets.amd64.kernel.mediaType".into(), Reason::Invalid),
            ("spec.assets.arm64.kernel".into(), Reason::Invalid),
            ("spec.assets.arm64.initrd".into(), Reason::UnknownField),
            ("spec.assets.arm64.vmm.url".into(), Reason::Invalid),
        ]
    );
}

#[test]
fn a_pin_holds_the_assets_of_one_architecture_and_complete_settings() {
    let pinned = pin(&toy(), "c", 3, &spec(complete()), "amd64").unwrap();
    assert_eq!(pinned.config_label(), "c@3");
    assert_eq!(pinned.assets.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["kernel", "vmm"]);
    assert_eq!(pinned.assets[1].media_type, asset::PLAIN);
    assert_eq!(pinned.config.values.len(), 4);
    assert_eq!(pinned.config.digest, digest(&pinned.config.values));
}

#[test]
fn without_assets_for_this_architecture_the_error_says_which_there_are() {
    let e = pin(&toy(), "c", 1, &spec(complete()), "riscv64").unwrap_err();
    assert_eq!((e.reason, e.object.as_str()), (Reason::NoSandboxConfig, "sandboxconfig/c"));
    assert!(e.message.contains("amd64") && e.hint.contains("spec.assets.riscv64"), "{e:?}");
}

#[test]
fn a_configuration_of_another_class_is_not_pinned() {
    let mut value = complete();
    value["sandboxClass"] = json!("other");
    assert_eq!(pin(&toy(), "c", 1, &spec(value), "amd64").unwrap_err().reason, Reason::NoSandboxConfig);
}

proptest! {
    #[test]
    fn settings_that_pass_stay_what_they_were(n in any::<i64>(), text in "\\PC{0,9}", debug in any::<bool>()) {
        let given = json!({ "memoryMiB": n, "note": text, "debug": debug });
        let mut value = complete();
        value["config"] = given.clone();
        let ok = check(&toy(), &spec(value)).is_empty();
        prop_assert_eq!(ok, (16..=4096).contains(&n) && text.len() <= 8);
        let values = effective(&toy(), given.as_object());
        prop_assert!(given.as_object().unwrap().iter().all(|(k, v)| values[k] == *v));
    }
}
