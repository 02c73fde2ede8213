//! The audit log: one line of JSON for each write and each denial, with who, what, and the decision. Appended to a file
//! only its owner may read, which is rotated by size. Never in it: tokens, or what an object contains.
//!
//! A line is written before what it allows is done. It says what was permitted, not how it ended; that the object
//! tells. Should the disk be full, calls go on: otherwise nobody could delete what fills it. The process log says so.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{Error, time::now};
use serde::Serialize;

use super::{
    Ask,
    caller::{Caller, Peer},
};

/// A file of this size is put aside: about 50,000 lines.
const MAX_BYTES: u64 = 16 << 20;
/// Files put aside: `audit.log.1`, the newest, to `audit.log.4`.
const KEPT: u32 = 4;
/// Unknown callers could otherwise push out of the log what known ones did.
const UNKNOWN_PER_SECOND: u32 = 20;
/// A path is a method's name; what is longer is none of ours.
const MAX_PATH: usize = 128;

pub(crate) struct Audit {
    log: Mutex<Log>,
}

struct Log {
    /// `None`: nothing is kept, for tests and benchmarks.
    file: Option<Rotated>,
    unknown: Unknown,
}

/// Unknown callers within the current second.
struct Unknown {
    since: Instant,
    written: u32,
    left_out: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    caller: Who<'a>,
    /// As a method of the API; only where nothing better is known.
    #[serde(skip_serializing_if = "str::is_empty")]
    call: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    verb: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    object: &'a str,
    /// Denials of unknown callers that got no line of their own since the last one.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

#[derive(Serialize)]
struct Who<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    role: &'a str,
    auth: &'a str,
    peer: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Audit {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Audit> {
        Audit::rotating(path, MAX_BYTES)
    }

    fn rotating(path: Option<&Path>, max_bytes: u64) -> io::Result<Audit> {
        let file = path.map(|p| Rotated::open(p, max_bytes)).transpose()?;
        let unknown = Unknown { since: Instant::now(), written: 0, left_out: 0 };
        Ok(Audit { log: Mutex::new(Log { file, unknown }) })
    }

    pub(crate) fn allowed(&self, caller: &Caller, ask: &Ask) {
        self.known("allowed", caller, ask, None);
    }

    pub(crate) fn denied(&self, caller: &Caller, ask: &Ask, denial: &Error) {
        self.known("denied", caller, ask, Some(denial));
    }

    fn known(&self, decision: &'static str, caller: &Caller, ask: &Ask, denial: Option<&Error>) {
        let line = Line {
            time: now().to_string(),
            decision,
            reason: denial.map(|d| d.reason.as_str()),
            message: denial.map_or("", |d| d.message.as_str()),
            caller: Who {
                name: &caller.name,
                role: caller.rights.role(),
                auth: caller.how.word(),
                peer: caller.peer.to_string(),
            },
            call: "",
            verb: ask.verb.word(),
            kind: ask.kind.word(),
            object: &ask.label(),
            left_out: 0,
        };
        self.lock().write(&line);
    }

    pub(crate) fn unauthenticated(&self, peer: Peer, path: &str, denial: &Error) {
        let mut log = self.lock();
        let Some(left_out) = log.unknown.may_write() else { return };
        let call: String = path.chars().take(MAX_PATH).collect();
        let line = Line {
            time: now().to_string(),
            decision: "denied",
            reason: Some(denial.reason.as_str()),
            message: &denial.message,
            caller: Who { name: "", role: "", auth: "none", peer: peer.to_string() },
            call: &call,
            verb: "",
            kind: "",
            object: "",
            left_out,
        };
        log.write(&line);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unknown {
    /// How many were left out before this one; `None`: this one is too.
    fn may_write(&mut self) -> Option<u64> {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.written) = (Instant::now(), 0);
        }
        if self.written >= UNKNOWN_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Log {
    fn write(&mut self, line: &Line<'_>) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            file.append(&bytes)
        });
        if let Err(e) = written {
            tracing::error!(error = %e, object = line.object, "a line of the audit log could not be written");
        }
    }
}

struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl Rotated {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Rotated> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Rotated { path: path.to_owned(), file, bytes, max_bytes })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.max_bytes {
            self.rotate()?;
        }
        // One call for one line, so that a process that dies leaves no half line behind.
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..KEPT).rev() {
            match std::fs::rename(aside(n), aside(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.path, aside(1))?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // Also one that was there already with another mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ate_api::{Reason, id::ActorName, role::Role};

    use super::*;
    use crate::access::{Grant, Rights, Verb, caller::How};

    fn caller() -> Caller {
        Caller {
            name: "ci".into(),
            rights: Rights::Granted(Arc::new(Grant::everywhere(Role::ActorUser))),
            how: How::Token,
            peer: Peer::Tcp("127.0.0.1:4711".parse().unwrap()),
            standing: Default::default(),
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn a_line_says_who_what_and_the_decision_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let audit = Audit::open(Some(&path)).unwrap();
        let ask = Ask::actor(Verb::Create, &ActorName::new("default", "a\n\"{}"));
        audit.allowed(&caller(), &ask);
        audit.denied(&caller(), &ask, &Error::new(Reason::PermissionDenied, "no"));
        audit.unauthenticated(Peer::Unknown, "/ateapi.Control/GetActor", &Error::new(Reason::Unauthenticated, "who?"));
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["caller"]["name"], "ci");
        assert_eq!(lines[0]["caller"]["role"], "actor-user");
        assert_eq!(lines[0]["caller"]["auth"], "token");
        assert_eq!(lines[0]["caller"]["peer"], "127.0.0.1:4711");
        assert_eq!(
            (&lines[0]["verb"], &lines[0]["kind"], &lines[0]["object"], &lines[0]["decision"]),
            (&"create".into(), &"actor".into(), &"actor/default/a\n\"{}".into(), &"allowed".into())
        );
        assert_eq!((&lines[1]["decision"], &lines[1]["reason"]), (&"denied".into(), &"PERMISSION_DENIED".into()));
        assert_eq!(
            (&lines[2]["call"], &lines[2]["reason"]),
            (&"/ateapi.Control/GetActor".into(), &"UNAUTHENTICATED".into())
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        // Every second line is over the limit.
        let audit = Audit::rotating(Some(&path), 300).unwrap();
        let name = |n: usize| format!("a{n}");
        for n in 0..20 {
            audit.allowed(&caller(), &Ask::actor(Verb::Delete, &ActorName::new("default", name(n))));
        }
        drop(audit);
        let mut kept = Vec::new();
        for file in ["audit.log.4", "audit.log.3", "audit.log.2", "audit.log.1", "audit.log"] {
            let path = dir.path().join(file);
            assert!(std::fs::metadata(&path).unwrap().len() < 900, "{file}");
            kept.extend(lines(&path));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5);
        // In order, none lost in between, the newest there.
        let last: Vec<_> = (20 - kept.len()..20).map(|n| format!("actor/default/{}", name(n))).collect();
        assert_eq!(kept.iter().map(|l| l["object"].as_str().unwrap()).collect::<Vec<_>>(), last);
        // A process that starts again goes on where the last one ended.
        Audit::open(Some(&path))
            .unwrap()
            .allowed(&caller(), &Ask::actor(Verb::Delete, &ActorName::new("default", "z")));
        assert_eq!(lines(&path).last().unwrap()["object"], "actor/default/z");
    }

    #[test]
    fn unknown_callers_cannot_flood_the_log_and_are_counted() {
        let mut unknown = Unknown { since: Instant::now(), written: 0, left_out: 0 };
        let written = (0..1000).filter(|_| unknown.may_write().is_some()).count();
        assert!(written < 1000 && written >= UNKNOWN_PER_SECOND as usize);
        unknown.since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let (before, counted) = (unknown.left_out, unknown.may_write());
        assert!(counted == Some(before) && before > 0);
        assert_eq!(unknown.left_out, 0);
    }
}
