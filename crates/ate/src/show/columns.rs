//! What `ate get` shows of each kind: one list of columns for each, the place to add another.

use ate_api::{resource::choice::DEFAULT_CLASS_ANNOTATION, time::Timestamp};
use serde_json::Value;

use super::human::{age, age_of, short, size, version};
use crate::{client::Object, kind::Kind};

/// What a cell is made from.
struct Cell<'a> {
    object: &'a Object,
    now: Timestamp,
}

struct Column {
    title: &'static str,
    /// Only with `-o wide`.
    wide: bool,
    cell: fn(&Cell<'_>) -> String,
}

const fn always(title: &'static str, cell: fn(&Cell<'_>) -> String) -> Column {
    Column { title, wide: false, cell }
}

const fn wide(title: &'static str, cell: fn(&Cell<'_>) -> String) -> Column {
    Column { title, wide: true, cell }
}

impl Cell<'_> {
    fn text(&self, pointer: &str) -> String {
        text(&self.object.value, pointer)
    }
    fn number(&self, pointer: &str) -> u64 {
        self.object.value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }
    fn short(&self, pointer: &str) -> String {
        short(&self.text(pointer)).to_owned()
    }
    fn age(&self, pointer: &str) -> String {
        age_of(&self.text(pointer), self.now)
    }
    fn yes(&self, pointer: &str) -> String {
        let yes = self.object.value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        if yes { "yes".to_owned() } else { String::new() }
    }
    /// `yes`: the default of its class; `class`: it stands for the default class of the cluster.
    fn default_of(&self) -> String {
        let config = self.object.value.pointer("/spec/default") == Some(&Value::Bool(true));
        let annotations = self.object.value.pointer("/metadata/annotations");
        let class = annotations.is_some_and(|a| a[DEFAULT_CLASS_ANNOTATION] == "true");
        match (config, class) {
            (true, true) => "yes,class".to_owned(),
            (true, false) => "yes".to_owned(),
            (false, true) => "class".to_owned(),
            (false, false) => String::new(),
        }
    }
    /// `runsc 20240729.0, kernel 6.1` of a map.
    fn pairs(&self, pointer: &str, shorten: fn(&str) -> &str) -> String {
        let map = self.object.value.pointer(pointer).and_then(Value::as_object);
        let pair = |(k, v): (&String, &Value)| format!("{k} {}", shorten(v.as_str().unwrap_or_default()));
        map.map(|m| m.iter().map(pair).collect::<Vec<_>>().join(", ")).unwrap_or_default()
    }
    fn list(&self, pointer: &str) -> String {
        let list = self.object.value.pointer(pointer).and_then(Value::as_array);
        let words = list.into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(",")
    }
    /// The class a template's snapshot is of; before there is one, what the template asks for.
    fn class(&self) -> String {
        let made = self.text("/status/sandboxClass");
        if made.is_empty() { self.text("/spec/sandboxClass") } else { made }
    }
    /// For which template a worker is prepared, and whether all the way.
    fn prepared(&self) -> String {
        let standby = if self.yes("/status/standby").is_empty() { "" } else { " (standby)" };
        self.text("/status/prepared") + standby
    }
    /// In how long a token counts no more.
    fn expires(&self) -> String {
        match self.text("/spec/expires").parse::<Timestamp>() {
            Err(_) => "never".to_owned(),
            Ok(at) if at <= self.now => String::new(),
            Ok(at) => format!("in {}", age((at.as_millisecond() - self.now.as_millisecond()) / 1000)),
        }
    }
    /// Whether the condition Ready is true, and if not, why.
    fn ready(&self) -> String {
        let Some(condition) = condition(&self.object.value, "Ready") else { return "Unknown".to_owned() };
        match condition["status"].as_str() {
            Some("True") => "True".to_owned(),
            _ => text(condition, "/reason"),
        }
    }
}

/// A field as a plain word; empty if absent.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

pub(crate) fn condition<'a>(value: &'a Value, r#type: &str) -> Option<&'a Value> {
    value.pointer("/status/conditions")?.as_array()?.iter().find(|c| c["type"] == r#type)
}

const CREATED: &str = "/metadata/creationTimestamp";

fn columns(kind: Kind) -> &'static [Column] {
    const fn name() -> Column {
        always("NAME", |c| c.object.name.clone())
    }
    const fn age() -> Column {
        always("AGE", |c| c.age(CREATED))
    }
    match kind {
        Kind::Actor => {
            &const {
                [
                    name(),
                    always("STATUS", |c| c.text("/status/phase")),
                    always("TEMPLATE", |c| c.text("/spec/templateName")),
                    always("CLASS", |c| c.text("/status/sandboxClass")),
                    always("WORKER", |c| c.text("/status/worker")),
                    always("SNAPSHOT", |c| c.short("/status/snapshot")),
                    always("CONFIG", |c| c.text("/status/sandboxConfig")),
                    age(),
                    wide("GENERATION", |c| c.text("/status/generation")),
                    wide("ACTIVATION", |c| c.text("/status/activation")),
                    wide("LOST", |c| c.text("/status/lostActivations")),
                    wide("ADDRESS", |c| c.text("/status/address")),
                    wide("URL", |c| c.text("/status/url")),
                ]
            }
        }
        Kind::ActorTemplate => {
            &const {
                [
                    name(),
                    always("PHASE", |c| c.text("/status/phase")),
                    always("CLASS", |c| c.class()),
                    always("CONFIG", |c| c.text("/status/sandboxConfig")),
                    always("GOLDEN", |c| c.short("/status/goldenManifest")),
                    age(),
                    wide("IDLE", |c| c.text("/spec/idleTimeout")),
                    wide("IMAGES", |c| {
                        let list = c.object.value.pointer("/spec/containers").and_then(Value::as_array);
                        list.into_iter().flatten().map(|c| text(c, "/image")).collect::<Vec<_>>().join(",")
                    }),
                ]
            }
        }
        Kind::WorkerPool => {
            &const {
                [
                    name(),
                    always("CLASS", |c| c.text("/spec/sandboxClass")),
                    always("CONFIG", |c| c.text("/status/sandboxConfig")),
                    always("READY", |c| {
                        format!("{}/{}", c.number("/status/readyReplicas"), c.number("/spec/replicas"))
                    }),
                    age(),
                    wide("REPLICAS", |c| c.text("/status/replicas")),
                    wide("STATUS", |c| c.ready()),
                ]
            }
        }
        Kind::Worker => {
            &const {
                [
                    name(),
                    always("POOL", |c| c.text("/spec/pool")),
                    always("STATUS", |c| c.text("/status/phase")),
                    always("ACTOR", |c| c.text("/status/actor")),
                    always("CLASS", |c| c.text("/spec/sandboxClass")),
                    wide("CONFIGS", |c| c.list("/status/configs")),
                    wide("PREPARED", |c| c.prepared()),
                    wide("NODE", |c| c.text("/spec/node")),
                    wide("ADDRESS", |c| c.text("/status/address")),
                ]
            }
        }
        Kind::SandboxConfig => {
            &const {
                [
                    name(),
                    always("CLASS", |c| c.text("/spec/sandboxClass")),
                    always("DEFAULT", |c| c.default_of()),
                    always("REVISION", |c| c.text("/status/revision")),
                    always("VERSION", |c| c.pairs("/status/versions", version)),
                    always("READY", |c| c.ready()),
                    age(),
                    wide("DIGEST", |c| c.short("/status/digest")),
                    wide("CAPABILITIES", |c| c.list("/status/capabilities")),
                ]
            }
        }
        Kind::Snapshot => {
            &const {
                [
                    always("DIGEST", |c| short(&c.object.name).to_owned()),
                    always("OWNER", |c| c.text("/spec/owner")),
                    always("GOLDEN", |c| c.yes("/spec/golden")),
                    always("CLASS", |c| c.text("/spec/sandboxClass")),
                    always("CONFIG", |c| c.text("/spec/sandboxConfig")),
                    always("VERSION", |c| c.pairs("/spec/versions", version)),
                    always("SIZE", |c| size(c.number("/status/size"))),
                    always("BASE", |c| c.short("/spec/base")),
                    always("AGE", |c| c.age("/status/created")),
                    wide("CURRENT", |c| c.yes("/status/current")),
                    wide("BINARIES", |c| c.pairs("/spec/assets", short)),
                    wide("SCOPE", |c| c.text("/spec/scope")),
                    wide("GENERATION", |c| c.text("/spec/generation")),
                    wide("LOCATION", |c| c.text("/spec/location")),
                ]
            }
        }
        Kind::Asset => {
            &const {
                [
                    always("SHA256", |c| c.short("/spec/sha256")),
                    always("STATUS", |c| c.text("/status/phase")),
                    always("SIZE", |c| size(c.number("/spec/size"))),
                    always("USED-BY", |c| c.list("/status/usedBy")),
                    always("REVOKED", |c| c.text("/status/revoked")),
                    wide("TYPE", |c| c.text("/spec/mediaType")),
                    wide("FULL-SHA256", |c| c.text("/spec/sha256")),
                    wide("MESSAGE", |c| c.text("/status/message")),
                ]
            }
        }
        Kind::Atespace => {
            &const {
                [
                    name(),
                    always("DEFAULT-CLASS", |c| c.text("/spec/defaultSandboxClass")),
                    always("ACTORS", |c| c.text("/status/actors")),
                    age(),
                ]
            }
        }
        Kind::Token => {
            &const {
                [
                    name(),
                    always("ROLE", |c| c.text("/spec/role")),
                    always("ATESPACES", |c| c.list("/spec/atespaces")),
                    always("NAMESPACES", |c| c.list("/spec/namespaces")),
                    always("STATUS", |c| c.text("/status/phase")),
                    always("EXPIRES", |c| c.expires()),
                    age(),
                ]
            }
        }
    }
}

/// Whether objects of several spaces are shown, which then need a column for it.
fn shown(kind: Kind, is_wide: bool) -> impl Iterator<Item = &'static Column> {
    columns(kind).iter().filter(move |c| is_wide || !c.wide)
}

/// `spaces`: put the namespace or atespace first.
pub(crate) fn header(kind: Kind, is_wide: bool, spaces: bool) -> Vec<&'static str> {
    let space = spaces.then_some(if kind == Kind::Actor { "ATESPACE" } else { "NAMESPACE" });
    space.into_iter().chain(shown(kind, is_wide).map(|c| c.title)).collect()
}

pub(crate) fn row(object: &Object, is_wide: bool, spaces: bool, now: Timestamp) -> Vec<String> {
    let cell = Cell { object, now };
    let space = spaces.then(|| object.namespace.clone());
    space.into_iter().chain(shown(object.kind, is_wide).map(|c| (c.cell)(&cell))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ate_api::resource::{meta::ObjectMeta, view::*};

    use super::*;

    /// Built from the types the server sends, so that a renamed field is found here.
    fn shown_as(kind: Kind, view: impl serde::Serialize, name: &str) -> Vec<(&'static str, String)> {
        let value = serde_json::to_value(view).unwrap();
        let object = Object { kind, namespace: "default".into(), name: name.into(), uid: String::new(), value };
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        header(kind, true, false).into_iter().zip(row(&object, true, false, now)).collect()
    }

    fn meta() -> ObjectMeta {
        ObjectMeta { creation_timestamp: "2026-01-01T00:00:00Z".parse().ok(), ..Default::default() }
    }

    fn view<S, T>(spec: S, status: T) -> View<S, T> {
        View { api_version: String::new(), kind: String::new(), metadata: meta(), spec, status }
    }

    #[test]
    fn a_snapshot_shows_what_it_was_made_with() {
        let spec = SnapshotViewSpec {
            owner: "default/counter".into(),
            golden: true,
            scope: "Full".into(),
            generation: 1,
            sandbox_class: "gvisor".into(),
            sandbox_config: "gvisor-default@2".into(),
            versions: BTreeMap::from([("runsc".into(), "20240729.0 (Debian 0.0~20240729.0-5)".into())]),
            assets: BTreeMap::from([("runsc".into(), "ab".repeat(32))]),
            location: "file:///x".into(),
            base: Some("ef".repeat(32)),
        };
        let created = "2026-01-01T00:04:00Z".parse().ok();
        let status = SnapshotViewStatus { size: 12 << 20, current: true, created };
        let cells = shown_as(Kind::Snapshot, view(spec, status), &"cd".repeat(32));
        let expected = [
            ("DIGEST", "cdcdcdcdcdcd"),
            ("OWNER", "default/counter"),
            ("GOLDEN", "yes"),
            ("CLASS", "gvisor"),
            ("CONFIG", "gvisor-default@2"),
            ("VERSION", "runsc 20240729.0"),
            ("SIZE", "12MiB"),
            ("BASE", "efefefefefef"),
            ("AGE", "60s"),
            ("CURRENT", "yes"),
            ("BINARIES", "runsc abababababab"),
            ("SCOPE", "Full"),
            ("GENERATION", "1"),
            ("LOCATION", "file:///x"),
        ];
        assert_eq!(cells, expected.map(|(t, c)| (t, c.to_owned())));
    }

    #[test]
    fn every_column_of_a_filled_actor_and_worker_has_something_to_show() {
        let actor = view(
            ActorViewSpec { template_name: "t".into(), template_namespace: "n".into(), ..Default::default() },
            ActorViewStatus {
                phase: "Running".into(),
                worker: Some("w".into()),
                address: Some("10.0.0.1".into()),
                snapshot: ate_api::id::Digest::parse(&"ab".repeat(32)),
                sandbox_class: "gvisor".into(),
                sandbox_config: Some("c@1".into()),
                url: "http://a.default.localhost".into(),
                ..Default::default()
            },
        );
        let worker = view(
            WorkerViewSpec { pool: "p".into(), sandbox_class: "gvisor".into(), node: "n".into(), ..Default::default() },
            WorkerViewStatus {
                phase: "Free".into(),
                address: "10.0.0.1".into(),
                actor: Some("default/a".into()),
                configs: vec!["c@1".into()],
                prepared: Some("t".into()),
                standby: true,
            },
        );
        let asset = view(
            AssetViewSpec { sha256: "ab".repeat(32), size: 5, media_type: "m".into() },
            AssetViewStatus {
                phase: "Verified".into(),
                used_by: vec!["c@1/runsc".into()],
                revoked: "CVE".into(),
                message: "ok".into(),
            },
        );
        let space = AtespaceSpec { default_sandbox_class: Some("gvisor".into()) };
        for cells in [
            shown_as(Kind::Actor, actor, "a"),
            shown_as(Kind::Worker, worker, "w"),
            shown_as(Kind::Asset, asset, "x"),
            shown_as(Kind::Atespace, view(space, AtespaceStatus { actors: 3 }), "default"),
        ] {
            for (title, cell) in cells {
                assert!(!cell.is_empty(), "{title} is empty");
            }
        }
    }
}
