//! Objects that must be accepted and objects that must be refused, from `testdata`. The same files can be applied
//! to a Kubernetes API server with the CRDs; those whose first line says "ours" differ there.

use std::{fs, path::PathBuf};

use ate_api::{
    Reason,
    resource::{Resource, Violation, documents, from_value, parse, validate, validate_update},
};

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let entries = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(p).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder:?} is empty");
    files
}

fn violations(text: &str) -> Vec<Violation> {
    let value = documents(text.as_bytes()).unwrap().pop().unwrap();
    from_value(value).map_or_else(|invalid| invalid.violations, |resource| validate(&resource))
}

fn good(name: &str) -> Resource {
    let (_, text) = files("good").into_iter().find(|(file, _)| file == name).unwrap();
    parse(text.as_bytes()).unwrap().pop().unwrap()
}

#[test]
fn good_objects_are_accepted() {
    for (file, text) in files("good") {
        assert_eq!(violations(&text), [], "{file}");
    }
}

#[test]
fn bad_objects_are_refused_for_the_field_and_reason_they_name() {
    for (file, text) in files("bad") {
        let expected =
            text.lines().next().and_then(|l| l.strip_prefix("# expect: ")).expect("a first line that says what");
        let mut words = expected.split(' ');
        let (field, reason) = (words.next().unwrap(), words.next().unwrap().parse::<Reason>().unwrap());
        let found = violations(&text);
        assert!(
            found.iter().any(|v| v.field == field && v.reason == reason && !v.message.is_empty()),
            "{file}: expected {field} {reason}, found {found:?}"
        );
    }
}

#[test]
fn a_template_that_names_a_binary_is_told_where_binaries_live() {
    for (file, text) in files("bad").into_iter().filter(|(file, _)| file.contains("names-a-binary")) {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.reason, Reason::UnknownField, "{file}");
        assert!(error.message.contains("SandboxConfig"), "{file}: {error}");
        assert!(error.object.starts_with("actortemplate/default/counter"), "{file}: {error:?}");
    }
}

#[test]
fn every_violation_is_reported_at_once() {
    let text = "{apiVersion: ate.dev/v1alpha1, kind: ActorTemplate, metadata: {name: t, x: 1}, spec: {runsc: 1, foo: 2, \
                snapshotsConfig: {location: l, bar: 3}, containers: [{name: a, image: 'x:y', baz: 4}]}}";
    let fields: Vec<_> = violations(text).into_iter().map(|v| v.field).collect();
    for field in ["metadata.x", "spec.runsc", "spec.foo", "spec.snapshotsConfig.bar", "spec.containers[0].baz"] {
        assert!(fields.iter().any(|f| f == field), "{field} is not in {fields:?}");
    }
    let text =
        text.replace("x: 1", "").replace("runsc: 1, foo: 2,", "").replace(", bar: 3", "").replace(", baz: 4", "");
    let text = text.replace("'x:y'", "x").replace("name: a", "name: A").replace("location: l", "location: ''");
    assert_eq!(violations(&text).len(), 3);
}

#[test]
fn what_was_read_is_written_so_that_it_reads_the_same() {
    for (file, text) in files("good") {
        let value = documents(text.as_bytes()).unwrap().pop().unwrap();
        let first = from_value(value).unwrap();
        let json = match &first {
            Resource::Atespace(o) => serde_json::to_vec(o),
            Resource::SandboxConfig(o) => serde_json::to_vec(o),
            Resource::WorkerPool(o) => serde_json::to_vec(o),
            Resource::ActorTemplate(o) => serde_json::to_vec(o),
        };
        assert_eq!(ate_api::resource::from_json(&json.unwrap()).unwrap(), first, "{file}");
    }
}

#[test]
fn what_the_server_sets_is_left_out_on_the_way_in() {
    let template = good("template-as-kubectl-writes-it.yaml");
    assert_eq!((&template.metadata().uid, template.metadata().generation), (&None, 0));
    let Resource::ActorTemplate(template) = template else { panic!("not a template") };
    assert_eq!(template.status, None);
}

#[test]
fn the_spec_of_a_template_cannot_change_but_its_labels_can() {
    let old = good("template-full.yaml");
    let mut new = old.clone();
    new.metadata_mut().labels.insert("a".into(), "b".into());
    assert_eq!(validate_update(&old, &new), []);
    let Resource::ActorTemplate(template) = &mut new else { panic!("not a template") };
    template.spec.containers[0].command.push("--more".into());
    let found = validate_update(&old, &new);
    assert_eq!((found[0].field.as_str(), found[0].reason), ("spec", Reason::Immutable));
}

#[test]
fn the_digest_of_a_spec_depends_on_its_content_alone() {
    let digest = |r: &Resource| match r {
        Resource::ActorTemplate(t) => t.spec.digest(),
        _ => panic!("not a template"),
    };
    let minimal = good("template-minimal.yaml");
    assert_eq!(digest(&minimal), digest(&good("template-as-kubectl-writes-it.yaml")));
    assert_ne!(digest(&minimal), digest(&good("template-full.yaml")));
}
