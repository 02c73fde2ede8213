//! The shared libraries that programs need, as the dynamic loader would find them.

use std::collections::{BTreeMap, VecDeque};

use super::{
    elf,
    problem::{Problem, unusable},
    root::Root,
};

/// The loader of x86-64 glibc; programs of the bundle are started through it.
pub(super) const LOADER: &str = "ld-linux-x86-64.so.2";
/// Where distributions put libraries; a later one counts only if an earlier has none of that name.
pub(super) const DIRS: [&str; 6] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];
/// The largest in use are some 30 MiB.
const MAX_LIBRARY: u64 = 256 << 20;
/// QEMU of Debian needs some 60.
const MAX_LIBRARIES: usize = 512;

/// Libraries by the name they are asked for.
#[derive(Default)]
pub(super) struct Libraries {
    found: BTreeMap<String, Vec<u8>>,
}

struct Wanted {
    name: String,
    by: String,
    search: Vec<String>,
}

impl Libraries {
    /// Adds all that a program or plug-in needs, and what that needs.
    pub(super) fn add(&mut self, root: &Root, path: &str, bytes: &[u8]) -> Result<(), Problem> {
        let mut queue = VecDeque::from(wanted(root, path, bytes)?);
        while let Some(want) = queue.pop_front() {
            if self.found.contains_key(&want.name) {
                continue;
            }
            let (path, bytes) = find(root, &want)?;
            queue.extend(wanted(root, &path, &bytes)?);
            self.found.insert(want.name, bytes);
            if self.found.len() > MAX_LIBRARIES {
                let why = format!("more than {MAX_LIBRARIES} libraries are needed");
                return Err(Problem::Unusable { path: root.shown(&path), why });
            }
        }
        Ok(())
    }

    pub(super) fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.found
    }
}

fn wanted(root: &Root, path: &str, bytes: &[u8]) -> Result<Vec<Wanted>, Problem> {
    let linked = elf::linked(bytes).map_err(unusable(root.shown(path)))?;
    let origin = parent(path);
    let search: Vec<String> = linked.search.iter().map(|dir| dir.replace("$ORIGIN", origin)).collect();
    let want =
        |name: &str, search: &[String]| Wanted { name: name.to_owned(), by: root.shown(path), search: search.to_vec() };
    // The loader is asked for by path.
    let loader = linked.interpreter.iter().map(|i| want(i.rsplit('/').next().unwrap_or(i), &[parent(i).to_owned()]));
    Ok(loader.chain(linked.needed.iter().map(|name| want(name, &search))).collect())
}

fn find(root: &Root, want: &Wanted) -> Result<(String, Vec<u8>), Problem> {
    let own = want.search.iter().map(String::as_str);
    for dir in own.chain(DIRS) {
        let path = format!("{}/{}", dir.trim_end_matches('/'), want.name);
        if let Some(bytes) = root.read(&path, MAX_LIBRARY)? {
            return Ok((path, bytes));
        }
    }
    Err(Problem::Missing {
        what: format!("the library {}", want.name),
        place: format!("{} needs it, and it is in no directory for libraries of {}", want.by, root.shown("")),
        fix: "unpack the packages that qemu-system-x86 depends on into the same directory".to_owned(),
    })
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
