//! Reads the objects of `ate apply -f`: files, directories and standard input, YAML or JSON, several documents
//! in one file. Everything is read and checked before anything is sent.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use ate_api::{
    Error, Reason,
    resource::{self, Resource},
};
use serde_json::Value;

use crate::{
    failure::{Outcome, Trying as _},
    kind::Kind,
};

/// One byte more than is read of a text, so that one that is too long is seen to be.
const MAX_FILE: u64 = resource::read::MAX_TEXT as u64 + 1;
/// Deeper than anybody sorts their files; a link that leads back up ends here.
const MAX_DEPTH: usize = 16;

/// One object to apply, and where it was written.
#[derive(Debug)]
pub(crate) struct Document {
    pub kind: Kind,
    pub source: String,
    pub value: Value,
}

/// Reads every source, in the order in which the objects must be applied.
pub(crate) fn read(sources: &[PathBuf], default_namespace: &str) -> Outcome<Vec<Document>> {
    let mut documents = Vec::new();
    for source in sources {
        if source.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(MAX_FILE)
                .read_to_string(&mut text)
                .trying(|| "cannot read standard input".to_owned())?;
            let here = std::env::current_dir().unwrap_or_default();
            documents.extend(parse(&text, "standard input", &here, default_namespace)?);
            continue;
        }
        let mut files = Vec::new();
        collect(source, 0, &mut files)?;
        for file in files {
            documents.extend(read_file(&file, default_namespace)?);
        }
    }
    if documents.is_empty() {
        return Err(Error::new(Reason::Invalid, "no objects in what was given")).trying(|| "cannot apply".to_owned());
    }
    // Stable: objects of one kind stay in the order written.
    documents.sort_by_key(|d| Kind::ALL.iter().position(|k| *k == d.kind));
    Ok(documents)
}

/// The file itself, or every YAML and JSON file below the directory, by name.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Outcome {
    let what = || format!("cannot read {}", path.display());
    if !std::fs::metadata(path).trying(what)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).trying(what)?.filter_map(|e| Some(e.ok()?.path())).collect();
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let ours = matches!(entry.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        if !hidden && (entry.is_dir() || ours) {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

fn read_file(file: &Path, default_namespace: &str) -> Outcome<Vec<Document>> {
    let what = || format!("cannot read {}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).trying(what)?;
    opened.take(MAX_FILE).read_to_string(&mut text).trying(what)?;
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::path::absolute(directory).trying(what)?;
    parse(&text, &file.display().to_string(), &directory, default_namespace)
}

fn parse(text: &str, source: &str, directory: &Path, default_namespace: &str) -> Outcome<Vec<Document>> {
    let what = || format!("cannot apply {source}");
    let values = resource::documents(text.as_bytes()).trying(what)?;
    values.into_iter().map(|value| document(value, source, directory, default_namespace).trying(what)).collect()
}

fn document(mut value: Value, source: &str, directory: &Path, default_namespace: &str) -> Result<Document, Error> {
    if let Some(kind) = value["kind"].as_str().and_then(|word| Kind::parse(word).ok())
        && !kind.is_applicable()
    {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let error =
            Error::new(Reason::Invalid, format!("{} cannot be applied", kind.plural())).on(format!("{kind}/{name}"));
        return Err(error.hint(match kind {
            Kind::Actor => "`ate create actor` makes them",
            _ => "they report what is; they cannot be written",
        }));
    }
    // Where the file is and which namespace is meant only this side knows.
    let containers = value.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        if let Some(image) = container.get("image").and_then(Value::as_str).and_then(|i| absolute_image(i, directory)) {
            container["image"] = image.into();
        }
    }
    let is_namespaced = value["kind"].as_str().is_some_and(|kind| !Resource::is_cluster_scoped(kind));
    if is_namespaced
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("namespace").is_none_or(|n| n.is_null() || n == "")
    {
        metadata.insert("namespace".to_owned(), default_namespace.into());
    }
    let typed = resource::from_value(value.clone())?;
    resource::check(&typed)?;
    Ok(Document { kind: Kind::parse(typed.kind())?, source: source.to_owned(), value })
}

/// `oci:DIR`, `oci-archive:FILE` and `docker-archive:FILE` with a relative path: it counts from the file that says so, and the
/// server does not know where that is.
fn absolute_image(image: &str, directory: &Path) -> Option<String> {
    let (scheme, rest) = image.split_once(':')?;
    if !matches!(scheme, "oci" | "oci-archive" | "docker-archive") || rest.starts_with('/') {
        return None;
    }
    let mut path = directory.to_owned();
    for part in Path::new(rest).components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    Some(format!("{scheme}:{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "{apiVersion: ate.dev/v1alpha1, kind: ActorTemplate, metadata: {name: t}, spec: {\
        containers: [{name: app, image: 'oci:../img:v1'}], snapshotsConfig: {location: default}}}\n";
    const POOL: &str =
        "{apiVersion: ate.dev/v1alpha1, kind: WorkerPool, metadata: {name: p}, spec: {replicas: 1, ateomImage: x}}\n";
    const ATESPACE: &str = r#"{"apiVersion":"ate.dev/v1alpha1","kind":"Atespace","metadata":{"name":"team"}}"#;

    #[test]
    fn documents_come_in_the_order_in_which_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a.yaml"), format!("{TEMPLATE}---\n{POOL}")).unwrap();
        std::fs::write(dir.path().join("sub/z.json"), ATESPACE).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not yaml: [").unwrap();
        let kinds: Vec<Kind> = read(&[dir.path().to_owned()], "default").unwrap().iter().map(|d| d.kind).collect();
        assert_eq!(kinds, [Kind::Atespace, Kind::WorkerPool, Kind::ActorTemplate]);
    }

    #[test]
    fn a_relative_image_counts_from_its_file_and_the_namespace_is_filled_in() {
        let documents = parse(TEMPLATE, "t.yaml", Path::new("/srv/app/deploy"), "prod").unwrap();
        assert_eq!(documents[0].value["spec"]["containers"][0]["image"], "oci:/srv/app/img:v1");
        assert_eq!(documents[0].value["metadata"]["namespace"], "prod");
        let pool = &parse(POOL, "p.yaml", Path::new("/"), "prod").unwrap()[0].value;
        assert_eq!(pool["spec"], serde_json::json!({"replicas": 1, "ateomImage": "x"}), "nothing else is added");
    }

    #[test]
    fn images_elsewhere_stay_as_written() {
        for image in ["registry.example/x@sha256:ab", "oci:/abs/dir:v1", "busybox:latest"] {
            assert_eq!(absolute_image(image, Path::new("/srv")), None);
        }
    }

    #[test]
    fn bad_documents_are_refused_with_the_place() {
        let with_binary = TEMPLATE.replace("spec: {", "spec: {runsc: x, ");
        for (text, expected, reason) in [
            ("kind: [", "x.yaml", Reason::Invalid),
            ("metadata: {name: a}", "kind", Reason::Invalid),
            ("kind: Actor\nmetadata: {name: a}", "cannot be applied", Reason::Invalid),
            ("kind: Pod\nmetadata: {name: a}", "unknown kind", Reason::Invalid),
            (&with_binary, "runsc", Reason::UnknownField),
        ] {
            let failure = parse(text, "x.yaml", Path::new("/"), "default").unwrap_err();
            assert!(format!("{failure:?}").contains(expected), "{text}: {failure:?}");
            assert_eq!((failure.code(), failure.reason()), (2, Some(reason)));
        }
    }
}
