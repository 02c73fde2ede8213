//! This program once more, between the worker and the actor's own: goes where the actor lives and becomes it.

use std::{ffi::OsString, fs::File, io, os::fd::AsFd, os::unix::process::CommandExt, path::Path, process::ExitCode};

use rustix::{
    fs::{Gid, Uid},
    thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid},
};

/// `ateom-process enter NETNS ROOT CWD UID GID GID,GID… PROGRAM ARGUMENT…`, with the environment of the actor.
pub(crate) const VERB: &str = "enter";

pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let Err(e) = become_actor(args);
    // To the actor's log; the code is what shells end with when there is no such program.
    eprintln!("cannot start {}: {e}", args.get(6).map(|p| p.display().to_string()).unwrap_or_default());
    ExitCode::from(127)
}

/// Returns only if it fails. There is one thread only, so what is said of a thread holds for the process.
fn become_actor(args: &[OsString]) -> io::Result<std::convert::Infallible> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let [netns, root, cwd, uid, gid, gids, program, rest @ ..] = args else { return Err(bad()) };
    let number = |text: &str| text.parse::<u32>().map_err(|_| bad());
    let text = |arg: &OsString| arg.to_str().map(str::to_owned).ok_or_else(bad);
    let netns = File::open(netns)?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    rustix::process::chroot(root)?;
    std::env::set_current_dir(Path::new("/").join(cwd))?;
    let gids = text(gids)?.split(',').filter(|g| !g.is_empty()).map(number).collect::<io::Result<Vec<_>>>()?;
    set_thread_groups(&gids.into_iter().map(Gid::from_raw).collect::<Vec<_>>())?;
    set_thread_gid(Gid::from_raw(number(&text(gid)?)?))?;
    set_thread_uid(Uid::from_raw(number(&text(uid)?)?))?;
    Err(std::process::Command::new(program).args(rest).exec())
}
