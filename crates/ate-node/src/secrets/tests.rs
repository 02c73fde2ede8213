//! What becomes of each secret that a template names: found, left out, or refused with what to do.

use std::sync::Mutex;

use ate_api::id::{Digest, ObjectName, Uid};
use serde_json::{Value, json};

use super::*;

/// Secrets by `namespace/name`, and which of them were read.
#[derive(Debug, Default)]
struct Held {
    secrets: HashMap<String, SecretData>,
    read: Mutex<Vec<String>>,
}

impl Held {
    fn with(mut self, secret: &str, key: &str, value: &[u8]) -> Held {
        self.secrets.entry(secret.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }
}

#[async_trait::async_trait]
impl Secrets for Held {
    async fn read(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, Error> {
        let of = format!("{namespace}/{name}");
        self.read.lock().unwrap().push(of.clone());
        if name == "locked" {
            return Err(Error::new(Reason::SecretUnavailable, "nobody may read it").hint("let the node read it"));
        }
        Ok(self.secrets.get(&of).cloned())
    }
}

fn template(env: Value) -> Template {
    let spec = json!({
        "containers": [{"name": "main", "image": "i", "env": env}],
        "snapshotsConfig": {"location": "default"},
    });
    Template {
        name: ObjectName::new("team-a", "t"),
        uid: Uid::generate(),
        spec_digest: Digest::of(b"spec"),
        spec: serde_json::from_value(spec).unwrap(),
        images: BTreeMap::default(),
    }
}

fn from(name: &str, key: &str, optional: bool) -> Value {
    json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": optional}}})
}

fn key(name: &str, key: &str) -> SecretKeyRef {
    SecretKeyRef { name: name.to_owned(), key: key.to_owned(), optional: None }
}

async fn found(held: &Held, env: Value) -> Found {
    match read(held, &template(env)).await.unwrap() {
        Values::Read(found) => found,
        Values::Nowhere | Values::Unread => panic!("not read"),
    }
}

async fn refused(held: &Held, env: Value) -> Error {
    let e = read(held, &template(env)).await.err().expect("an error");
    assert_eq!((e.reason, e.object.as_str()), (Reason::SecretUnavailable, "template/team-a/t"), "{e:?}");
    assert!(e.message.contains("`V`") && e.message.contains("`team-a/t`") && !e.hint.is_empty(), "{e:?}");
    e
}

#[tokio::test]
async fn a_variable_has_the_value_of_the_templates_namespace_and_each_secret_is_read_once() {
    let held = Held::default().with("team-a/db", "user", b"me").with("team-a/db", "password", b"pa=ss");
    let held = held.with("team-b/db", "user", b"somebody else");
    let values = found(&held, json!([from("db", "user", false), from("db", "password", true)])).await;
    assert_eq!(values.get(&key("db", "user")), Some("me"));
    assert_eq!(values.get(&key("db", "password")), Some("pa=ss"));
    assert_eq!(*held.read.lock().unwrap(), ["team-a/db"]);
}

#[tokio::test]
async fn what_is_optional_and_missing_is_left_out() {
    let held = Held::default().with("team-a/db", "user", b"me");
    let values = found(&held, json!([from("none", "user", true), from("db", "none", true)])).await;
    assert_eq!(values.get(&key("none", "user")), None);
    assert_eq!(values.get(&key("db", "none")), None);
}

#[tokio::test]
async fn what_is_required_and_missing_is_refused_with_what_to_do() {
    let held = Held::default().with("team-a/db", "user", b"me");
    let e = refused(&held, json!([from("none", "user", false)])).await;
    assert!(e.message.contains("secret `none`: there is no such secret in namespace `team-a`"), "{e:?}");
    assert!(e.hint.contains("kubectl -n team-a create secret generic none --from-file=user=FILE"), "{e:?}");
    let e = refused(&held, json!([from("db", "none", false)])).await;
    assert!(e.message.contains("key `none` of secret `db`: the secret has no such key"), "{e:?}");
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_refused_also_when_it_is_optional() {
    let e = refused(&Held::default(), json!([from("locked", "k", true)])).await;
    assert!(e.message.ends_with("nobody may read it") && e.hint == "let the node read it", "{e:?}");
}

#[tokio::test]
async fn what_cannot_be_a_variable_is_refused_and_not_told() {
    // `V=` and the zero behind it take three bytes.
    let (most, more) = (vec![b'x'; MAX_VARIABLE - 3], vec![b'x'; MAX_VARIABLE - 2]);
    let held = Held::default().with("team-a/db", "k", &most);
    assert!(found(&held, json!([from("db", "k", false)])).await.get(&key("db", "k")).is_some());
    for (value, why) in [(&more[..], "has 131070 bytes"), (b"xx\xff", "not UTF-8"), (b"xx\0", "zero byte")] {
        let e = refused(&Held::default().with("team-a/db", "k", value), json!([from("db", "k", true)])).await;
        assert!(e.message.contains(why) && !format!("{e:?}").contains("xx"), "{e:?}");
    }
}

#[tokio::test]
async fn the_values_of_a_template_are_bounded_together() {
    let held = Held::default().with("team-a/db", "k", &[b'x'; 100 << 10]);
    let vars = |n| Value::from(vec![from("db", "k", false); n]);
    found(&held, vars(10)).await;
    let e = refused(&held, vars(11)).await;
    assert!(e.message.contains("more than 1048576 bytes"), "{e:?}");
}

#[tokio::test]
async fn templates_that_name_no_secret_ask_for_none() {
    let held = Held::default();
    let template = template(json!([{"name": "V", "value": "v"}, {"name": "W"}]));
    assert!(!are_named_by(&template));
    read(&held, &template).await.unwrap();
    assert_eq!(held.read.lock().unwrap().len(), 0);
}
