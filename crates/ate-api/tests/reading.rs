//! Reading hostile or unusual text.

use ate_api::{
    Reason,
    resource::{documents, from_json, from_value, parse, read::MAX_OBJECT},
};
use proptest::prelude::*;

const POOL: &str =
    "{apiVersion: ate.dev/v1alpha1, kind: WorkerPool, metadata: {name: p}, spec: {replicas: 1, ateomImage: x}}";

#[test]
fn several_documents_and_lists_are_read_in_order() {
    let text =
        format!("# first\n{POOL}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {POOL}\n- {POOL}\n---\nkind: List\n");
    assert_eq!(parse(text.as_bytes()).unwrap().len(), 3);
    assert_eq!(parse(b"").unwrap().len(), 0);
}

#[test]
fn json_with_escapes_beyond_the_basic_plane_is_read() {
    let json = br#"{"apiVersion":"ate.dev\/v1alpha1","kind":"WorkerPool","metadata":{"name":"p","annotations":{"a":"\ud83d\ude00"}},"spec":{"replicas":1,"ateomImage":"x"}}"#;
    assert_eq!(from_json(json).unwrap().metadata().annotations["a"], "😀");
}

#[test]
fn exactly_one_object_is_one_object() {
    let two = format!("{POOL}\n---\n{POOL}");
    assert!(from_json(two.as_bytes()).unwrap_err().message.contains("exactly one"));
    assert!(from_json(b"").is_err());
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..8 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    let long = "x".repeat(MAX_OBJECT / 2);
    let copies = format!("a: &a \"{long}\\n\"\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n");
    let doubled = format!("{POOL}\n").replace("replicas: 1", "replicas: 1, replicas: 2");
    for (what, text) in [
        ("flow nesting", nested(10_000)),
        ("block nesting", (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("billion laughs", laughs),
        ("copies of a long text", copies),
        ("large object", format!("a: {}", "x".repeat(MAX_OBJECT + 1))),
        ("duplicate key", doubled),
        ("control character", String::from("a: b\u{0}")),
    ] {
        let error = documents(text.as_bytes()).expect_err(what);
        assert_eq!(error.reason, Reason::Invalid, "{what}");
        assert!(error.message.len() < 1000, "{what}: {}", error.message.len());
    }
    assert!(documents(&[0xff, 0xfe, 0x00]).is_err());
}

#[test]
fn a_long_unknown_field_does_not_make_a_long_message() {
    let text = POOL.replace("replicas: 1", &format!("replicas: 1, ? {} : 1", "x".repeat(5000)));
    let error = parse(text.as_bytes()).unwrap_err();
    assert_eq!(error.reason, Reason::UnknownField);
    assert!(error.message.len() < 1000, "{}", error.message.len());
    let error = parse(POOL.replace("replicas: 1", &format!("replicas: {}", "x".repeat(5000))).as_bytes()).unwrap_err();
    assert!(error.message.len() < 1000, "{}", error.message.len());
    let many: String = (0..500).map(|i| format!(", f{i}: 1")).collect();
    let error = parse(POOL.replace("replicas: 1", &format!("replicas: 1{many}")).as_bytes()).unwrap_err();
    assert!(error.message.contains("more") && error.message.len() < 4000, "{}", error.message);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-a-z0-9:{}\\[\\]&*!|>'\" \\n#,?@`%~.<]{0,120}") {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn any_object_is_typed_or_refused(at in 0..4usize, key in "[a-zA-Z`.\\[]{1,12}", value in "[a-z0-9{}\\[\\],:\"]{0,12}") {
        let kind = ["Atespace", "SandboxConfig", "WorkerPool", "ActorTemplate"][at];
        let text = format!("{{apiVersion: ate.dev/v1alpha1, kind: {kind}, metadata: {{name: a}}, spec: {{\"{key}\": {value}}}}}");
        if let Ok(values) = documents(text.as_bytes()) {
            for value in values {
                let _ = from_value(value);
            }
        }
    }
}
