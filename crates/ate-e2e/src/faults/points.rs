//! Where faults can be put: the names in the sources.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::repository;

/// What may happen to a step, as the crate `ate-failpoint` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its answer may be lost.
    Answered,
    /// The same, and it may be run again.
    Repeatable,
    /// What it gives is in the caller's hands.
    Held,
    /// It cannot fail.
    Plain,
}

/// The process a step runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Control plane and node agent.
    Server,
    Herder,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    pub name: String,
    pub kind: Kind,
    pub place: Place,
}

/// A use of one of the macros.
pub struct Site {
    pub step: Step,
    /// In the text of its file.
    pub span: std::ops::Range<usize>,
}

/// Every step there is, by name.
pub fn all() -> BTreeMap<String, Step> {
    let mut steps = BTreeMap::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source file");
        for Site { step, .. } in sites(&file, &text) {
            let known = steps.entry(step.name.clone()).or_insert_with(|| step.clone());
            assert_eq!(*known, step, "one name, two kinds of step: {}", file.display());
        }
    }
    steps
}

/// The sources of everything that is shipped.
pub fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in ["crates", "examples"] {
        for member in fs::read_dir(repository().join(top)).expect("the sources").flatten() {
            if member.file_name() != "ate-failpoint" && member.file_name() != "ate-e2e" {
                collect(&member.path().join("src"), &mut found);
            }
        }
    }
    found.sort();
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The steps in one file.
pub fn sites(file: &Path, text: &str) -> Vec<Site> {
    let herder = file.components().any(|c| c.as_os_str().to_string_lossy().starts_with("ateom"));
    let place = if herder { Place::Herder } else { Place::Server };
    let mut found = Vec::new();
    for macro_name in ["step!(", "step_now!("] {
        for (at, _) in text.match_indices(macro_name) {
            // A longer name that ends like this one is another macro.
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let open = at + macro_name.len();
            let arguments = &text[open..open + closing(&text[open..])];
            let name = arguments.split('"').nth(1).expect("a step has a name").to_owned();
            let last = arguments.trim_end().trim_end_matches(',').rsplit(',').next().unwrap_or_default().trim();
            let kind = match last {
                "repeatable" => Kind::Repeatable,
                "held" => Kind::Held,
                "plain" => Kind::Plain,
                _ => Kind::Answered,
            };
            found.push(Site { step: Step { name, kind, place }, span: at..open + arguments.len() });
        }
    }
    found
}

/// How far it is to the parenthesis that closes what is open at the beginning.
pub fn closing(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a parenthesis is not closed: {}", &text[..text.len().min(80)]);
}
