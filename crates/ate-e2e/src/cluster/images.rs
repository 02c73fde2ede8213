//! The images of an installation, of the programs of this build, as `images/*/Containerfile` make them: what their first stage
//! lays out, without the building of an image around it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{binary, repository, user::run};

/// In a Containerfile, before the programs.
const LAYOUT: &str = "RUN images/layout ${PROGRAMS} /image ";
const ENTRYPOINT: &str = "ENTRYPOINT ";

/// An image's files, and what is started.
pub(super) struct Image {
    pub(super) root: PathBuf,
    pub(super) entrypoint: String,
}

/// Lays an image out below a directory, if nobody has yet.
pub(super) fn image(dir: &Path, reference: &str) -> Image {
    let name = reference.split(':').next().unwrap_or_default();
    let recipe = repository().join("images").join(name.strip_prefix("ate-").unwrap_or(name)).join("Containerfile");
    let recipe = std::fs::read_to_string(&recipe).unwrap_or_else(|e| panic!("no image {reference}: {e}"));
    let line =
        |start: &str| recipe.lines().find_map(|line| line.strip_prefix(start)).expect("a line of a Containerfile");
    let entrypoint: Vec<String> = serde_json::from_str(line(ENTRYPOINT)).expect("a list");
    let root = dir.join("images").join(name);
    if !root.exists() {
        let new = root.with_extension("new");
        let mut layout = Command::new(repository().join("images/layout"));
        layout.arg(binary("ate").parent().expect("a directory")).arg(&new).args(line(LAYOUT).split_whitespace());
        run(&mut layout, "").ok();
        std::fs::rename(&new, &root).unwrap();
    }
    Image { root, entrypoint: entrypoint[0].clone() }
}
