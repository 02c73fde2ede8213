//! Every target has samples, and every sample has a target.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("ate-fuzz") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn targets() -> Vec<String> {
    let mut files = Vec::new();
    ["crates", "examples"].iter().for_each(|dir| sources(&root().join(dir), &mut files));
    let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut named: Vec<String> = text
        .split("Target::named(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .collect();
    named.sort();
    named
}

#[test]
fn every_target_has_a_name_of_its_own_and_a_good_sample() {
    let named = targets();
    let unique: BTreeSet<&String> = named.iter().collect();
    assert_eq!(unique.len(), named.len(), "two targets have one name: {named:?}");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut kept: Vec<String> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let inputs = fs::read_dir(entry.path()).unwrap().map(|e| e.unwrap().file_name());
            inputs.filter(|name| name.to_string_lossy().starts_with("good-")).count() > 0
        })
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, named, "kept samples (left) and targets (right) differ");
}
