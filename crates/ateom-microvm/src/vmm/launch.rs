//! The step between herder and VMM: a process that gives up all it can and then becomes the VMM.
//!
//! `ateom-microvm launch ACCESS PROGRAM ARG…`: new, empty network and IPC namespaces, no capabilities, nothing to be
//! gained by executing anything. What the VMM may use it has as open descriptors. QEMU's own seccomp filter comes on
//! top of that.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::thread::{CapabilitySet, UnshareFlags};

/// First argument of such a process.
pub(crate) const VERB: &str = "launch";
/// What the VMM needs to open memory files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It opens them for reading only.
    Read,
    /// It is too old for that and opens them for writing, though it never writes: it must be able to.
    Write,
}

impl Access {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
        }
    }
}

/// The process's whole `main`. Returns only if it fails.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let access = args.next();
    let Some(program) = args.next() else {
        eprintln!("ateom-microvm: launch is what the herder calls, not you");
        return ExitCode::FAILURE;
    };
    let kept = match access {
        Some(word) if word == Access::Write.word() => CapabilitySet::DAC_OVERRIDE,
        _ => CapabilitySet::empty(),
    };
    let why = give_up(kept).map_err(std::io::Error::from).err();
    let why = why.unwrap_or_else(|| Command::new(&program).args(args).exec());
    eprintln!("ateom-microvm: cannot become {}: {why}", program.display());
    ExitCode::FAILURE
}

#[allow(unsafe_code)]
fn give_up(kept: CapabilitySet) -> rustix::io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, which would break the ownership of file descriptors; it is not passed.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)? };
    rustix::thread::set_no_new_privs(true)?;
    // Being root, the program gets at its start whatever is left in the bounding set.
    for capability in CapabilitySet::all().difference(kept).iter() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    Ok(())
}
