//! The kernel modules a guest needs, in an order in which each finds what it depends on.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::FileType;

use super::{
    elf,
    problem::{Problem, unusable},
    root::Root,
    unpack::unpack,
};

/// The devices of the machine, and the filesystems of the actor.
const WANTED: [&str; 7] =
    ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "erofs", "overlay"];
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
/// The largest of a distribution are some 5 MiB, unpacked.
const MAX_MODULE: usize = 64 << 20;
/// Their places have two digits.
const MAX_MODULES: usize = 99;
/// A list of names; Debian's is 20 KiB.
const MAX_BUILTIN: u64 = 4 << 20;
/// kernel/drivers/net/ethernet/VENDOR/CHIP/FAMILY is the deepest there is.
const MAX_DEPTH: usize = 16;

#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The directory with the modules of a kernel.
pub(super) fn dir(root: &Root, version: &str) -> Result<Option<String>, Problem> {
    for base in ["lib/modules", "usr/lib/modules"] {
        let dir = format!("{base}/{version}");
        if !root.list(&format!("{dir}/kernel"))?.is_empty() {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

pub(super) fn in_load_order(root: &Root, version: &str) -> Result<Vec<Module>, Problem> {
    let dir = dir(root, version)?.unwrap_or_default();
    let mut order = Order { root, files: BTreeMap::new(), seen: builtin(root, &dir)?, modules: Vec::new() };
    index(root, &format!("{dir}/kernel"), MAX_DEPTH, &mut order.files)?;
    for name in WANTED {
        order.add(name, &format!("the guest of kernel {version}"))?;
    }
    Ok(order.modules)
}

struct Order<'a> {
    root: &'a Root,
    files: BTreeMap<String, String>,
    /// In the kernel itself, or added already.
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str, by: &str) -> Result<(), Problem> {
        if !self.seen.insert(plain(name)) {
            return Ok(());
        }
        let path = self.files.get(&plain(name)).cloned().ok_or_else(|| Problem::Missing {
            what: format!("the kernel module {name}"),
            place: format!(
                "{by} needs it, and it is neither in {} nor in the kernel itself",
                self.root.shown("lib/modules")
            ),
            fix: "use a kernel for virtual machines, such as Debian's linux-image-cloud-amd64".to_owned(),
        })?;
        let shown = self.root.shown(&path);
        let packed = self.root.read(&path, MAX_MODULE as u64)?.unwrap_or_default();
        let bytes = unpack(&packed, MAX_MODULE).map_err(unusable(&shown))?;
        let info = elf::modinfo(&bytes).map_err(unusable(&shown))?;
        let said = |key: &'static str| info.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str());
        for needed in said("depends").flat_map(|v| v.split(',')).filter(|n| !n.is_empty()) {
            self.add(needed, &shown)?;
        }
        for soft in said("softdep").flat_map(before) {
            self.add_soft(soft, &shown)?;
        }
        if self.modules.len() == MAX_MODULES {
            return Err(Problem::Unusable { path: shown, why: format!("more than {MAX_MODULES} modules are needed") });
        }
        self.modules.push(Module { name: plain(name), bytes });
        Ok(())
    }

    /// Better with it: an algorithm, say, which may have another name as a module, or be in the kernel.
    fn add_soft(&mut self, name: &str, by: &str) -> Result<(), Problem> {
        let names = [name.to_owned(), format!("{name}_generic")];
        let there = names.iter().filter(|n| self.files.contains_key(&plain(n)));
        there.cloned().collect::<Vec<_>>().iter().try_for_each(|name| self.add(name, by))
    }
}

/// `pre: crc32c post: other` asks for crc32c to be there before.
fn before(softdep: &str) -> impl Iterator<Item = &str> {
    let mut pre = false;
    softdep.split_whitespace().filter(move |word| {
        let label = word.ends_with(':');
        pre = if label { *word == "pre:" } else { pre };
        pre && !label
    })
}

/// Names are written with `-` or `_`, as it happens.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn builtin(root: &Root, dir: &str) -> Result<BTreeSet<String>, Problem> {
    let list = root.read(&format!("{dir}/modules.builtin"), MAX_BUILTIN)?.unwrap_or_default();
    let list = String::from_utf8_lossy(&list).into_owned();
    Ok(list.lines().filter_map(|l| l.rsplit('/').next()?.strip_suffix(".ko").map(plain)).collect())
}

fn index(root: &Root, dir: &str, depth: usize, files: &mut BTreeMap<String, String>) -> Result<(), Problem> {
    for (name, kind) in root.list(dir)? {
        let path = format!("{dir}/{name}");
        if kind == FileType::Directory && depth > 0 {
            index(root, &path, depth - 1, files)?;
        } else if let Some(module) = ENDINGS.iter().find_map(|e| name.strip_suffix(e)) {
            files.insert(plain(module), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_come_before_is_taken_from_a_soft_dependency() {
        let names = |s| before(s).collect::<Vec<_>>();
        assert_eq!(names("pre: crc32c sha256 post: other"), ["crc32c", "sha256"]);
        assert_eq!(names("post: other pre: crc32c"), ["crc32c"]);
        assert!(names("post: other").is_empty() && names("").is_empty());
    }
}
