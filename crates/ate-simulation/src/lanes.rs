//! Each history is a process of its own, forked from one that has done nothing yet: whatever a library keeps in statics is
//! the same at the start of each, a history that hangs is ended by the kernel, and one that panics hurts no other.
//!
//! Only processes with a single thread fork. The child runs its history in a fresh thread, whose hash maps take their
//! keys from the seed.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};

/// Wall-clock seconds a history may take; most take a hundredth.
pub(crate) const MAX_SECONDS: u32 = 60;
/// Address space of a history: a runaway one must not take the machine with it.
const MAX_MEMORY: u64 = 2 << 30;
/// Of the thread it runs in. Unoptimised futures are large.
const STACK: usize = 64 << 20;

pub(crate) struct Child {
    pid: libc::pid_t,
    output: File,
}

/// Runs `work` in a child; what it returns is read by [`Child::join`].
pub(crate) fn fork(work: impl FnOnce() -> Vec<u8>) -> Result<Child> {
    let mut ends = [0; 2];
    // SAFETY: an array of two, as the call wants it.
    ensure!(unsafe { libc::pipe(ends.as_mut_ptr()) } == 0, "no pipe: {}", std::io::Error::last_os_error());
    // SAFETY: both were just opened and belong to nobody else.
    let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: this process has one thread, so the child may do whatever the parent might.
    match unsafe { libc::fork() } {
        -1 => bail!("cannot fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(read);
            let code = i32::from(File::from(write).write_all(&work()).is_err());
            // SAFETY: ends the process without what the parent has registered to be done at its own end.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Child { pid, output: File::from(read) }),
    }
}

impl Child {
    pub(crate) fn join(mut self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        self.output.read_to_end(&mut output).context("read from a child")?;
        let mut status = 0;
        // SAFETY: our own child, waited for once.
        ensure!(unsafe { libc::waitpid(self.pid, &mut status, 0) } == self.pid, "lost a child");
        if libc::WIFSIGNALED(status) {
            match libc::WTERMSIG(status) {
                libc::SIGALRM => bail!("it hangs: not over after {MAX_SECONDS} s"),
                signal => bail!("ended by signal {signal}"),
            }
        }
        ensure!(libc::WEXITSTATUS(status) == 0, "ended with status {}", libc::WEXITSTATUS(status));
        Ok(output)
    }
}

/// Bounds this process, and runs `work` in a fresh thread.
pub(crate) fn bounded<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    let limit = libc::rlimit { rlim_cur: MAX_MEMORY, rlim_max: MAX_MEMORY };
    // SAFETY: plain calls with plain values.
    unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &limit);
        libc::alarm(MAX_SECONDS);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}
