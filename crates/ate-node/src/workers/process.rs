//! Who a process is: its pid alone is not enough, the kernel gives pids out again. Used to end what an earlier
//! run of this node left, and nothing else.

use std::{fs, io, path::PathBuf, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// One process of one boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// In clock ticks since boot, field 22 of `/proc/PID/stat`.
    start: u64,
    boot: String,
    exe: PathBuf,
}

impl Process {
    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Ok(Process {
            pid,
            start: start_time(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
                .ok_or_else(|| io::Error::other("/proc/PID/stat has no start time"))?,
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            exe: fs::read_link(format!("/proc/{pid}/exe"))?,
        })
    }

    fn is_same(&self, other: &Process) -> bool {
        // A program that was replaced on disk is still the same process: the kernel appends a word to its path.
        let path = |p: &Process| p.exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        (self.pid, self.start, &self.boot) == (other.pid, other.start, &other.boot) && path(self) == path(other)
    }

    /// Ends the process if it still is the one meant, and waits until it is gone. Blocks.
    /// True if it was there.
    pub(crate) fn kill(&self, limit: Duration) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        // The descriptor first, the check second: what the descriptor means cannot change any more.
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        match Process::of(self.pid) {
            Ok(now) if self.is_same(&now) => (),
            _ => return Ok(false), // another process, or a zombie that waits for its parent
        }
        match pidfd_send_signal(&fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => (),
            Err(e) => return Err(e.into()),
        }
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} does not end", self.pid))),
            _ => Ok(true),
        }
    }
}

/// The program's name, in parentheses, may hold anything; what follows the last of them are numbers.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(start_time(stat), Some(4711));
    }

    #[test]
    fn a_recorded_process_is_ended_and_a_stranger_with_its_pid_is_not() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let stranger = Process { start: process.start + 1, ..process.clone() };
        assert!(!stranger.kill(Duration::from_secs(5)).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(process.kill(Duration::from_secs(5)).unwrap());
        child.wait().unwrap();
        assert!(!process.kill(Duration::from_secs(5)).unwrap());
    }
}
