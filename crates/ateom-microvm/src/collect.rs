//! `collect`: from what a distribution ships to the assets of the class.
//!
//! Reads a directory laid out as packages are: one that `dpkg -x` filled, or `/` where they are installed. Makes the
//! same bytes from the same packages and guest agent, wherever and whenever, so that an asset's digest says what is
//! in it.

pub(crate) mod cpio;
mod elf;
mod initrd;
mod kernel;
mod libraries;
mod modules;
mod problem;
mod root;
mod unpack;
mod vmm;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ate_api::Error;

use self::{
    problem::{Problem, io},
    root::Root,
};
use crate::describe;

/// The guest agent; `script/guest` puts it where the herders are.
const GUEST: &str = "ate-guest";

pub(crate) fn collect(from: &Path, out: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let me = std::env::current_exe().map_err(io("the path of this program"))?;
    Ok(assets(from, &me.with_file_name(GUEST), out)?)
}

/// Answers the name of each asset and its file below `out`.
fn assets(from: &Path, guest: &Path, out: &Path) -> Result<BTreeMap<String, PathBuf>, Problem> {
    // Before the long work: the agent is what is missing most often.
    let init = initrd::init(guest)?;
    let root = Root::open(from)?;
    let vmm = vmm::tar(&root)?;
    let (version, kernel) = kernel::find(&root)?;
    let initrd = initrd::archive(init, &modules::in_load_order(&root, &version)?);
    let write = |name: &str, file: &str, bytes: Vec<u8>| {
        let path = out.join(file);
        std::fs::write(&path, bytes).map_err(io(path.display()))?;
        Ok((name.to_owned(), path))
    };
    // By the ending, who imports it knows an archive.
    [
        write(describe::VMM, "vmm.tar", vmm),
        write(describe::KERNEL, "kernel", kernel),
        write(describe::INITRD, "initrd", initrd),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests;
