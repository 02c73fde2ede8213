//! `vmm.tar`: QEMU with all it opens at run time, so that it runs alike on any machine.
//!
//! ```text
//! bin/qemu-system-x86_64
//! lib/ld-linux-x86-64.so.2               what starts it: lib/ld-linux-x86-64.so.2 --library-path lib bin/qemu-…
//! lib/libc.so.6 …                        what it is linked against
//! lib/x86_64-linux-gnu/qemu/accel-*.so   QEMU 7.2 has its accelerators as plug-ins
//! share/qemu/qboot.rom …                 firmware, for -L
//! ```

use std::collections::BTreeMap;

use super::{
    elf,
    libraries::{DIRS, LOADER, Libraries},
    problem::{Problem, io, unusable},
    root::Root,
};

const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's is 30 to 65 MiB.
const MAX_PROGRAM: u64 = 512 << 20;
const MAX_PLUGIN: u64 = 64 << 20;
const MAX_FIRMWARE: u64 = 16 << 20;

const FIRMWARE_DIRS: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/share/qboot"];
/// What `-M microvm -bios qboot.rom` opens: the firmware, and the stub that enters a PVH kernel.
const FIRMWARE: [&str; 2] = ["qboot.rom", "pvh.bin"];
/// What it opens besides for a bzImage, and where the CPU's task priority is virtualised.
const MORE_FIRMWARE: [&str; 2] = ["linuxboot_dma.bin", "kvmvapic.bin"];

const FIX: &str = "unpack the packages qemu-system-x86 and qemu-system-data, with all they depend on, there";

/// The archive; the same bytes for the same packages.
pub(super) fn tar(root: &Root) -> Result<Vec<u8>, Problem> {
    archive(&files(root)?).map_err(io("vmm.tar"))
}

struct File {
    mode: u32,
    bytes: Vec<u8>,
}

fn files(root: &Root) -> Result<BTreeMap<String, File>, Problem> {
    let path = format!("usr/bin/{PROGRAM}");
    let program = root.read(&path, MAX_PROGRAM)?.ok_or_else(|| missing(root, &path))?;
    let interpreter = elf::linked(&program).map_err(unusable(root.shown(&path)))?.interpreter;
    if !interpreter.is_some_and(|i| i.ends_with(&format!("/{LOADER}"))) {
        let why = format!("it is not linked dynamically with glibc ({LOADER})");
        return Err(Problem::Unusable { path: root.shown(&path), why });
    }
    let mut libraries = Libraries::default();
    libraries.add(root, &path, &program)?;

    let mut files = BTreeMap::from([(format!("bin/{PROGRAM}"), File { mode: 0o555, bytes: program })]);
    for (path, bytes) in accelerators(root)? {
        libraries.add(root, &path, &bytes)?;
        // QEMU looks where its packages have it, relative to the directory of the running program: the loader's.
        let within = path.strip_prefix("usr/").unwrap_or(&path).to_owned();
        files.insert(within, File { mode: 0o444, bytes });
    }
    for name in FIRMWARE.iter().chain(&MORE_FIRMWARE) {
        match firmware(root, name)? {
            Some(bytes) => _ = files.insert(format!("share/qemu/{name}"), File { mode: 0o444, bytes }),
            None if FIRMWARE.contains(name) => return Err(missing(root, &format!("{}/{name}", FIRMWARE_DIRS[0]))),
            None => {}
        }
    }
    for (name, bytes) in libraries.into_files() {
        let mode = if name == LOADER { 0o555 } else { 0o444 };
        files.insert(format!("lib/{name}"), File { mode, bytes });
    }
    Ok(files)
}

/// Plug-ins that execute the guest. All others are for devices this class does not have.
fn accelerators(root: &Root) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    // The first directory that has any; the others may be the same one by another name.
    for dir in DIRS {
        let dir = format!("{dir}/qemu");
        let names = root.list(&dir)?.into_iter().map(|(name, _)| name);
        let mine = names.filter(|n| n.starts_with("accel-") && n.ends_with("-x86_64.so") && !n.contains("qtest"));
        let paths: Vec<String> = mine.map(|name| format!("{dir}/{name}")).collect();
        if !paths.is_empty() {
            let read = |path: String| Ok(root.read(&path, MAX_PLUGIN)?.map(|bytes| (path, bytes)));
            return paths.into_iter().filter_map(|path| read(path).transpose()).collect();
        }
    }
    Ok(Vec::new())
}

fn firmware(root: &Root, name: &str) -> Result<Option<Vec<u8>>, Problem> {
    for dir in FIRMWARE_DIRS {
        if let Some(bytes) = root.read(&format!("{dir}/{name}"), MAX_FIRMWARE)? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn missing(root: &Root, path: &str) -> Problem {
    let what = path.rsplit('/').next().unwrap_or(path).to_owned();
    Problem::Missing { what, place: format!("there is no {}", root.shown(path)), fix: FIX.to_owned() }
}

/// Sorted, of no time and owned by root.
fn archive(files: &BTreeMap<String, File>) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut dirs: Vec<&str> = Vec::new();
    for (path, file) in files {
        for (end, _) in path.match_indices('/') {
            if !dirs.contains(&&path[..end]) {
                dirs.push(&path[..end]);
                append(&mut tar, tar::EntryType::Directory, &path[..=end], 0o755, &[])?;
            }
        }
        append(&mut tar, tar::EntryType::Regular, path, file.mode, &file.bytes)?;
    }
    tar.into_inner()
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(path)?;
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append(&header, bytes)
}
