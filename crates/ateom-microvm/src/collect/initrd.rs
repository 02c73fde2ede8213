//! The guest's first filesystem: the guest agent as `/init`, and the modules it loads.

use std::{io::Read, path::Path};

use super::{
    cpio::Cpio,
    elf,
    modules::Module,
    problem::{Problem, io, unusable},
};

/// Some 2 MiB are expected; it lies in the memory of each guest.
const MAX_INIT: u64 = 64 << 20;
const CONSOLE: (u32, u32) = (5, 1);
const FIX: &str = "build it with `script/guest`, which puts it beside the herders";

/// The guest agent's bytes. It must be static: there is nothing else in the guest.
pub(super) fn init(guest: &Path) -> Result<Vec<u8>, Problem> {
    let shown = guest.display();
    let file = match std::fs::File::open(guest) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let (what, place) = ("the guest agent".to_owned(), format!("there is no {shown}"));
            return Err(Problem::Missing { what, place, fix: FIX.to_owned() });
        }
        opened => opened.map_err(io(&shown))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_INIT + 1).read_to_end(&mut bytes).map_err(io(&shown))?;
    if bytes.len() as u64 > MAX_INIT {
        return Err(Problem::TooLarge { path: shown.to_string(), cap: MAX_INIT });
    }
    match elf::linked(&bytes).map_err(unusable(&shown))?.interpreter {
        None => Ok(bytes),
        Some(loader) => {
            let why = format!("it is linked dynamically (needs {loader}); {FIX}");
            Err(Problem::Unusable { path: shown.to_string(), why })
        }
    }
}

/// Modules are `/modules/NN-NAME.ko`: in the order of their names each finds what it depends on.
pub(super) fn archive(init: Vec<u8>, modules: &[Module]) -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.directory("dev");
    // What the kernel opens for init before anything is mounted.
    cpio.character_device("dev/console", 0o600, CONSOLE);
    cpio.file("init", 0o755, &init);
    cpio.directory("modules");
    for (place, module) in modules.iter().enumerate() {
        cpio.file(&format!("modules/{place:02}-{}.ko", module.name), 0o644, &module.bytes);
    }
    cpio.directory("proc");
    cpio.directory("sys");
    cpio.finish()
}
