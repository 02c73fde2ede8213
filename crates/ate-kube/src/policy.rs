//! Admission policies: what a schema cannot say. Which assets and settings a class takes is made from what its herder says
//! of it, so it is the same rule as on one machine; the rest are rules over keys of maps.

use ate_sandbox::{ClassDescriptor, ConfigField, FieldType, Isolation};
use serde_json::{Value, json};

use crate::crd::{GROUP, Kind, LABEL, VERSION};

/// `PREFIX/NAME`, both as Kubernetes has them.
const LABEL_KEY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// Where assets can be fetched from: a file, or a host or bucket and something in it. No user, no password.
const URL: &str = r"^(?i:file:///.+|(https?|s3|gs)://[^/@?#]+/[^?#].*)$";
const DEFAULT_CLASS: &str = "object.metadata.?annotations[?'ate.dev/is-default-class'].orValue('')";

/// One rule: an expression that must be true, and what to say when it is not.
type Rule = (String, String);

/// All policies with their bindings, for an installation with these classes.
pub fn all<'a>(classes: impl IntoIterator<Item = &'a ClassDescriptor>) -> Vec<Value> {
    let mut policies = vec![templates(), architectures()];
    policies.extend(classes.into_iter().map(class));
    policies.into_iter().flatten().collect()
}

/// The same as YAML, as `ate crd --policies` prints it.
pub fn manifests<'a>(classes: impl IntoIterator<Item = &'a ClassDescriptor>) -> String {
    crate::yaml::documents(&all(classes))
}

fn templates() -> [Value; 2] {
    let key = |k: &str| format!("{k}.matches(r'{LABEL_KEY}') && size({k}.split('/')[size({k}.split('/')) - 1]) <= 63");
    let rules = vec![
        (
            format!("object.spec.?workerSelector.?matchLabels.orValue({{}}).all(k, {})", key("k")),
            "spec.workerSelector.matchLabels: a key is not a label key".to_owned(),
        ),
        (
            format!("object.spec.?workerSelector.?matchExpressions.orValue([]).all(e, {})", key("e.key")),
            "spec.workerSelector.matchExpressions: a key is not a label key".to_owned(),
        ),
        (
            "object.spec.?workerSelector.?matchExpressions.orValue([]).all(e, \
             (size(e.?values.orValue([])) > 0) == (e.operator in ['In', 'NotIn']))"
                .to_owned(),
            "spec.workerSelector.matchExpressions: In and NotIn need a value, Exists and DoesNotExist take none"
                .to_owned(),
        ),
    ];
    policy("ate-actortemplates", Kind::ActorTemplate, &[], rules)
}

fn architectures() -> [Value; 2] {
    let rule = format!("object.spec.?assets.orValue({{}}).all(a, a.matches('{LABEL}') && size(a) <= 63)");
    let rules = vec![(rule, "spec.assets: a key is not an architecture, such as amd64 or arm64".to_owned())];
    policy("ate-sandboxconfigs", Kind::SandboxConfig, &[], rules)
}

/// What one class takes.
fn class(d: &ClassDescriptor) -> [Value; 2] {
    let class = &d.name;
    let each = |test: &str| format!("variables.assets.all(a, variables.assets[a].all(n, {test}))");
    let of = |name: &str, test: &str| {
        let there = format!("'{name}' in variables.assets[a]");
        format!(
            "variables.assets.all(a, !({there}) || {})",
            test.replace('@', &format!("variables.assets[a]['{name}']"))
        )
    };
    let names: Vec<&str> = d.required_assets.iter().map(|r| r.name.as_str()).collect();
    let mut rules: Vec<Rule> = Vec::new();
    if !names.is_empty() {
        rules.push((
            "size(variables.assets) > 0".to_owned(),
            format!("spec.assets: class {class} needs {} for each architecture", names.join(", ")),
        ));
    }
    for r in &d.required_assets {
        rules.push((
            format!("variables.assets.all(a, '{}' in variables.assets[a])", r.name),
            format!("spec.assets: class {class} needs the asset {} for each architecture", r.name),
        ));
        rules.push((
            of(&r.name, &format!("(!has(@.mediaType) || @.mediaType in {})", list(&r.media_types))),
            format!("spec.assets: class {class} takes {} as {}", r.name, r.media_types.join(" or ")),
        ));
    }
    rules.push((
        each(&format!("n in {}", list(&names))),
        format!("spec.assets: class {class} has no assets but {}", names.join(", ")),
    ));
    rules.push((
        each(&format!("variables.assets[a][n].url.matches(r'{URL}')")),
        "spec.assets: a url must be file:///ABSOLUTE/PATH or begin with http://, https://, s3:// or gs://, \
         name a host or bucket and a file, and hold no user or password"
            .to_owned(),
    ));
    let settings: Vec<&str> = d.config.keys().map(String::as_str).collect();
    rules.push((
        format!("variables.config.all(k, k in {})", list(&settings)),
        format!("spec.config: class {class} has no settings but {}", settings.join(", ")),
    ));
    rules.extend(d.config.iter().map(|(key, field)| setting(key, field)));
    if d.isolation == Isolation::None {
        rules.push((
            format!("!object.spec.default && {DEFAULT_CLASS} != 'true'"),
            format!("class {class} is no sandbox (isolation: none) and never a default"),
        ));
    }
    let conditions = [("of-the-class", format!("object.spec.sandboxClass == '{class}'"))];
    policy(&format!("ate-sandboxconfigs-{class}"), Kind::SandboxConfig, &conditions, rules)
}

fn setting(key: &str, field: &ConfigField) -> Rule {
    let value = format!("variables.config['{key}']");
    let (test, what) = match &field.r#type {
        FieldType::Boolean => (format!("type({value}) == bool"), "true or false".to_owned()),
        FieldType::Integer { min, max } => (
            format!("type({value}) == int && {value} >= {min} && {value} <= {max}"),
            format!("a whole number between {min} and {max}"),
        ),
        FieldType::Choice { values } => {
            (format!("{value} in {}", list(values)), format!("one of {}", values.join(", ")))
        }
        FieldType::Text { max_bytes } => (
            format!(r"type({value}) == string && size(bytes({value})) <= {max_bytes} && !{value}.matches(r'\p{{Cc}}')"),
            format!("printable text of at most {max_bytes} bytes"),
        ),
    };
    (format!("!('{key}' in variables.config) || ({test})"), format!("spec.config.{key}: must be {what}"))
}

/// A list of words as CEL has it.
fn list<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| Value::from(w.as_ref()).to_string()).collect();
    format!("[{}]", quoted.join(", "))
}

/// The policy, and the binding that puts it in force.
fn policy(name: &str, kind: Kind, conditions: &[(&str, String)], rules: Vec<Rule>) -> [Value; 2] {
    // Whoever only takes a finalizer off, or a label, is not asked about what was there before the rule was.
    let changed = format!(
        "request.operation == 'CREATE' || object.spec != oldObject.spec || {DEFAULT_CLASS} != {}",
        DEFAULT_CLASS.replace("object", "oldObject")
    );
    let conditions =
        [("written-by-its-author", changed)].into_iter().chain(conditions.iter().map(|(n, c)| (*n, c.clone())));
    let mut spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [GROUP],
            "apiVersions": [VERSION],
            "operations": ["CREATE", "UPDATE"],
            "resources": [kind.api().plural],
        }]},
        "matchConditions": conditions.map(|(n, c)| json!({"name": n, "expression": c})).collect::<Vec<_>>(),
        "validations": rules.iter().map(|(e, m)| json!({"expression": e, "message": m})).collect::<Vec<_>>(),
    });
    if kind == Kind::SandboxConfig {
        spec["variables"] = json!([
            {"name": "assets", "expression": "object.spec.?assets.orValue({})"},
            {"name": "config", "expression": "object.spec.?config.orValue({})"},
        ]);
    }
    let of = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        })
    };
    [
        of("ValidatingAdmissionPolicy", spec),
        of("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"]})),
    ]
}
