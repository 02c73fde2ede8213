//! From the kernel's first process to a place where containers can be: modules, filesystems, a root of our own.

use std::{ffi::CString, fs, path::Path};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::{STATE, cgroup, identity};

/// In load order, as the initramfs has them.
const MODULES: &str = "/modules";
/// Where the root is built.
const NEW_ROOT: &str = "/new-root";

/// After this, `/` is a tmpfs that holds all that is ever written in this machine.
pub(crate) fn boot() -> Result<()> {
    new_root()?;
    mount_fs("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    mount_fs("sysfs", "/sys", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    mount_fs("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755")?;
    load_modules()?;
    cgroup::mount()?;
    identity::make_room()?;
    Ok(())
}

/// The kernel's own first filesystem cannot be left behind by pivot_root, and containers have to.
fn new_root() -> Result<()> {
    mount_fs("tmpfs", NEW_ROOT, MountFlags::NOSUID, "mode=0755")?;
    for dir in ["proc", "sys", "dev", "modules", "run"] {
        fs::create_dir(Path::new(NEW_ROOT).join(dir))?;
    }
    fs::create_dir(format!("{NEW_ROOT}{STATE}"))?;
    for entry in fs::read_dir(MODULES).context("no modules in the initramfs")? {
        let path = entry?.path();
        let to = format!("{NEW_ROOT}{}", path.display());
        fs::copy(&path, to).with_context(|| format!("cannot copy {}", path.display()))?;
        fs::remove_file(path)?;
    }
    // The running program stays where it is for as long as it runs; containers are started from this copy.
    fs::copy("/init", format!("{NEW_ROOT}/init")).context("cannot copy /init")?;
    fs::remove_file("/init")?;
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/").context("cannot move the new root into place")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn load_modules() -> Result<()> {
    let mut modules: Vec<_> = fs::read_dir(MODULES)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    modules.sort();
    for path in modules {
        let file = fs::File::open(&path)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot load {}", path.display())),
        }
    }
    fs::remove_dir_all(MODULES)?;
    Ok(())
}

/// Mounts a filesystem that has no device, at a directory that is made if it is missing.
pub(crate) fn mount_fs(kind: &str, target: &str, flags: MountFlags, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
    let options = CString::new(options)?;
    mount(kind, target, kind, flags, Some(options.as_c_str()))
        .with_context(|| format!("cannot mount {kind} at {target}"))
}
