//! The examples of docs/sandbox-classes.md are what the code reads, so the page cannot grow old.

use ate_api::Reason;
use ate_sandbox::{Check, ClassDescriptor, FieldType, Registry, capability, registry::Herder};

const PAGE: &str = include_str!("../../../docs/sandbox-classes.md");

fn examples() -> Vec<&'static str> {
    PAGE.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_descriptor_shown_is_one() {
    let descriptor: ClassDescriptor = serde_json::from_str(examples()[0]).unwrap();
    assert!(Registry::of([Herder { descriptor, program: "/none".into() }], 2).is_ok());
}

#[test]
fn the_checks_shown_are_checks() {
    let checks: Vec<Check> = serde_json::from_str(examples()[1]).unwrap();
    assert!(checks[0].ok && checks[1].optional);
}

#[test]
fn every_type_of_setting_is_written_as_the_page_says() {
    let json = |t: FieldType| serde_json::to_value(t).unwrap();
    assert_eq!(json(FieldType::Text { max_bytes: 3 }), serde_json::json!({ "type": "text", "maxBytes": 3 }));
    assert_eq!(
        json(FieldType::Integer { min: 1, max: 2 }),
        serde_json::json!({ "type": "integer", "min": 1, "max": 2 })
    );
    for word in ["`boolean`", "`integer`", "`choice`", "`text`", "`maxBytes`"] {
        assert!(PAGE.contains(word), "{word}");
    }
}

#[test]
fn every_reason_and_capability_on_the_page_exists() {
    let words = PAGE.split('`').skip(1).step_by(2);
    let reasons: Vec<_> = words
        .filter(|w| w.len() > 5 && *w != "SIGTERM" && w.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    assert!(reasons.len() > 15, "{reasons:?}");
    for word in reasons {
        assert!(word.parse::<Reason>().is_ok(), "{word} is no reason");
    }
    use capability::*;
    for word in [SNAPSHOT_FULL, SNAPSHOT_DATA, SNAPSHOT_MULTI_CONTAINER, PREPARE, CHECKPOINT_LEAVE_RUNNING] {
        assert!(PAGE.contains(&format!("| `{word}` |")), "{word}");
    }
}
