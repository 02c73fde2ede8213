//! `doctor`: can this machine run the class, and how fast?

use std::{collections::BTreeMap, path::PathBuf};

use ate_sandbox::Check;
use ateom::doctor::basics;

pub(crate) fn checks(_assets: &BTreeMap<String, PathBuf>) -> Vec<Check> {
    basics()
}
