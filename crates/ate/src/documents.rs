//! Reads the objects of `ate apply -f`: files, directories and standard input, YAML or JSON, several documents
//! in one file. Everything is read and checked before anything is sent.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
use serde_json::Value;

use crate::{
    failure::{Outcome, Trying as _},
    kind::{Kind, Scope},
};

/// An object is at most 1 MiB; a file of a thousand of them is a mistake.
const MAX_FILE: u64 = 64 << 20;
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
    // JSON is YAML, so one parser does.
    let values: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| Error::new(Reason::Invalid, e.to_string().trim_end().to_owned()))
        .trying(what)?;
    let mut documents = Vec::new();
    for value in values {
        // A List is what `kubectl get -o yaml` writes for several objects.
        let values = match value.get("items").and_then(Value::as_array) {
            Some(items) if value["kind"] == "List" => items.clone(),
            _ if value.is_null() => continue,
            _ => vec![value],
        };
        for value in values {
            documents.push(document(value, source, directory, default_namespace).trying(what)?);
        }
    }
    Ok(documents)
}

fn document(mut value: Value, source: &str, directory: &Path, default_namespace: &str) -> Result<Document, Error> {
    let invalid = |message: String| Error::new(Reason::Invalid, message);
    let word = value["kind"].as_str().ok_or_else(|| invalid("an object has no kind".into()))?;
    let kind = Kind::parse(word)?;
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(invalid(format!("an object of kind {word} has no metadata.name")));
    }
    if !kind.is_applicable() {
        return Err(invalid(format!("a {kind} cannot be applied")).on(format!("{kind}/{name}")).hint(match kind {
            Kind::Actor => "`ate create actor` makes one",
            _ => "it reports what is; it cannot be written",
        }));
    }
    if kind.scope() == Scope::Namespace && value["metadata"]["namespace"].as_str().unwrap_or_default().is_empty() {
        value["metadata"]["namespace"] = default_namespace.into();
    }
    for container in value["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if let Some(image) = container["image"].as_str().and_then(|image| absolute_image(image, directory)) {
            container["image"] = image.into();
        }
    }
    Ok(Document { kind, source: source.to_owned(), value })
}

/// `oci:DIR` and `docker-archive:FILE` with a relative path: it counts from the file that says so, and the
/// server does not know where that is.
fn absolute_image(image: &str, directory: &Path) -> Option<String> {
    let (scheme, rest) = image.split_once(':')?;
    if !matches!(scheme, "oci" | "docker-archive") || rest.starts_with('/') {
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

    const TEMPLATE: &str = "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - image: oci:../img:v1\n";

    #[test]
    fn documents_come_in_the_order_in_which_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a.yaml"), format!("{TEMPLATE}---\nkind: WorkerPool\nmetadata: {{name: p}}\n"))
            .unwrap();
        std::fs::write(dir.path().join("sub/z.json"), r#"{"kind":"SandboxConfig","metadata":{"name":"c"}}"#).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not yaml: [").unwrap();
        let kinds: Vec<Kind> = read(&[dir.path().to_owned()], "default").unwrap().iter().map(|d| d.kind).collect();
        assert_eq!(kinds, [Kind::SandboxConfig, Kind::WorkerPool, Kind::ActorTemplate]);
    }

    #[test]
    fn a_relative_image_counts_from_its_file_and_the_namespace_is_filled_in() {
        let documents = parse(TEMPLATE, "t.yaml", Path::new("/srv/app/deploy"), "prod").unwrap();
        assert_eq!(documents[0].value["spec"]["containers"][0]["image"], "oci:/srv/app/img:v1");
        assert_eq!(documents[0].value["metadata"]["namespace"], "prod");
    }

    #[test]
    fn images_elsewhere_stay_as_written() {
        for image in ["registry.example/x@sha256:ab", "oci:/abs/dir:v1", "busybox:latest"] {
            assert_eq!(absolute_image(image, Path::new("/srv")), None);
        }
    }

    #[test]
    fn bad_documents_are_refused_with_the_place() {
        for (text, expected) in [
            ("kind: [", "x.yaml"),
            ("metadata: {name: a}", "no kind"),
            ("kind: WorkerPool", "no metadata.name"),
            ("kind: Actor\nmetadata: {name: a}", "cannot be applied"),
            ("kind: Pod\nmetadata: {name: a}", "there is no kind"),
        ] {
            let failure = parse(text, "x.yaml", Path::new("/"), "default").unwrap_err();
            assert!(format!("{failure:?}").contains(expected), "{text}: {failure:?}");
            assert_eq!(failure.code(), 2);
        }
    }
}
