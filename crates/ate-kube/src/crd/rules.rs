//! The rules of the values, beside the types. They are those of `ate_api::resource::validate`, in the words of a schema;
//! a table of good and bad objects is held against both.

use serde_json::{Value, json};

use super::Kind;

/// DNS label, at most 63.
pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// DNS name, at most 253.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// An absolute path of a URL, without query and fragment.
const URL_PATH: &str = r"^/([A-Za-z0-9/:@._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$";
/// A reference with a tag: `[HOST[:PORT]/]PATH:TAG`.
const TAGGED: &str = "^[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$";
/// One of the forms that are read from a machine's disk.
const LOCAL_FORM: &str = "^(oci|docker-archive|oci-archive):";

/// Path in the schema → what is added there.
pub(super) fn of(kind: Kind) -> Vec<(&'static str, Value)> {
    let mut rules = match kind {
        Kind::SandboxConfig => sandbox_config(),
        Kind::WorkerPool => worker_pool(),
        Kind::ActorTemplate => [template(), containers(), selector()].concat(),
    };
    let by_type = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]});
    rules.push(("status.conditions", by_type));
    rules
}

fn label() -> Value {
    json!({"maxLength": 63, "pattern": LABEL})
}

fn cel(rules: &[(&str, &str)]) -> Value {
    let rules = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message}));
    json!({"x-kubernetes-validations": rules.collect::<Vec<_>>()})
}

fn sandbox_config() -> Vec<(&'static str, Value)> {
    vec![
        ("spec.sandboxClass", label()),
        (
            "spec.sandboxClass",
            cel(&[(
                "self == oldSelf",
                "sandboxClass of a configuration cannot change; apply a configuration of another name",
            )]),
        ),
        ("spec.default", json!({"default": false})),
        ("spec.assets{}{}.url", json!({"minLength": 1, "maxLength": 4096})),
        ("spec.assets{}{}.size", json!({"minimum": 1})),
        ("spec.assets{}{}.signature", json!({"maxLength": 4096})),
        ("spec.verification.publicKeys", json!({"maxItems": 16, "x-kubernetes-list-type": "atomic"})),
        ("spec.verification.publicKeys[]", json!({"maxLength": 4096})),
        ("spec.config", json!({"x-kubernetes-preserve-unknown-fields": true})),
    ]
}

fn worker_pool() -> Vec<(&'static str, Value)> {
    let opaque = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    vec![
        ("spec.replicas", json!({"minimum": 0})),
        ("spec.ateomImage", json!({"minLength": 1})),
        ("spec.sandboxClass", label()),
        ("spec.template.tolerations", json!({"maxItems": 16, "x-kubernetes-list-type": "atomic"})),
        ("spec.template.tolerations[]", opaque()),
        ("spec.template.nodeAffinity", opaque()),
        ("spec.template.resources", opaque()),
        ("status.replicas", json!({"minimum": 0})),
    ]
}

fn template() -> Vec<(&'static str, Value)> {
    vec![
        (
            "spec",
            cel(&[
                ("self == oldSelf", "the spec of a template cannot change: snapshots were made from it"),
                (
                    "!has(self.volumes) || self.volumes.filter(v, has(v.durableDir)).size() <= 1",
                    "a template can have one durableDir only",
                ),
                (
                    "self.containers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, \
                     has(self.volumes) && self.volumes.exists(v, v.name == m.name)))",
                    "a volumeMount names a volume that there is not",
                ),
                (
                    "self.containers.all(c, !has(c.volumeMounts) || !has(self.volumes) || c.volumeMounts.filter(m, \
                     self.volumes.exists(v, v.name == m.name && has(v.durableDir))).size() <= 1)",
                    "a container can mount one durableDir only",
                ),
            ]),
        ),
        ("spec.pauseImage", json!({"pattern": "@"})),
        ("spec.sandboxClass", label()),
        ("spec.snapshotsConfig.location", json!({"minLength": 1})),
        (
            "spec.snapshotsConfig",
            cel(&[(
                "self.onPause != 'Data' || self.onCommit == 'Data'",
                "onCommit must be Data when onPause is Data: memory given up by a pause cannot be committed",
            )]),
        ),
        (
            "spec.idleTimeout",
            json!({"maxLength": 32, "pattern": r"^(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)$"}),
        ),
        ("spec.idleTimeout", cel(&[("duration(self) <= duration('8784h')", "longer than 366 days")])),
        (
            "spec.volumes",
            json!({"maxItems": 32, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("spec.volumes[].name", label()),
        ("spec.volumes[]", cel(&[("has(self.durableDir)", "needs exactly one source: durableDir")])),
    ]
}

fn containers() -> Vec<(&'static str, Value)> {
    let image = format!(
        "self.matches('{LOCAL_FORM}') ? self.matches('{LOCAL_FORM}/.') : (self.contains('@') || self.matches('{TAGGED}'))"
    );
    vec![
        (
            "spec.containers",
            json!({"minItems": 1, "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("spec.containers[].name", label()),
        ("spec.containers[].image", json!({"minLength": 1, "maxLength": 4096, "pattern": r"^[^\p{Z}\p{Cc}]+$"})),
        (
            "spec.containers[].image",
            cel(&[(
                &image,
                "says no version: end it with a digest (@sha256:…) or a tag (:v1); a local form needs an absolute path",
            )]),
        ),
        ("spec.containers[].command", json!({"maxItems": 64, "x-kubernetes-list-type": "atomic"})),
        ("spec.containers[].env", json!({"maxItems": 32, "x-kubernetes-list-type": "atomic"})),
        (
            "spec.containers[].env[]",
            cel(&[("has(self.value) != has(self.valueFrom)", "needs exactly one of value and valueFrom")]),
        ),
        ("spec.containers[].env[].name", json!({"pattern": "^[ -<>-~]+$"})),
        ("spec.containers[].env[].valueFrom.secretKeyRef.name", json!({"maxLength": 253, "pattern": SUBDOMAIN})),
        ("spec.containers[].env[].valueFrom.secretKeyRef.key", json!({"pattern": "^[-._a-zA-Z0-9]+$"})),
        ("spec.containers[].readyz.httpGet.path", json!({"maxLength": 1024, "pattern": URL_PATH})),
        ("spec.containers[].readyz.httpGet.port", json!({"minimum": 1, "maximum": 65535})),
        (
            "spec.containers[].volumeMounts",
            json!({"maxItems": 32, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["mountPath"]}),
        ),
        ("spec.containers[].volumeMounts[].name", label()),
        ("spec.containers[].volumeMounts[].mountPath", json!({"maxLength": 4096, "pattern": r"^(/[^/:\p{Cc}]+)+$"})),
        (
            "spec.containers[].volumeMounts[].mountPath",
            cel(&[("!self.matches('/[.][.]?(/|$)')", "is not a clean path below /")]),
        ),
    ]
}

fn selector() -> Vec<(&'static str, Value)> {
    vec![
        ("spec.workerSelector.matchLabels{}", json!({"maxLength": 63, "pattern": LABEL_VALUE})),
        ("spec.workerSelector.matchExpressions", json!({"x-kubernetes-list-type": "atomic"})),
        ("spec.workerSelector.matchExpressions[].operator", json!({"enum": ["In", "NotIn", "Exists", "DoesNotExist"]})),
        ("spec.workerSelector.matchExpressions[].values", json!({"x-kubernetes-list-type": "atomic"})),
        ("spec.workerSelector.matchExpressions[].values[]", json!({"maxLength": 63, "pattern": LABEL_VALUE})),
    ]
}
