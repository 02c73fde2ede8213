//! Asks one herder what its class is: `ateom-CLASS describe`, bounded in time and output.

use std::{
    io::{self, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{MAX_DESCRIPTOR, RegistryError};
use crate::ClassDescriptor;

/// Bytes of its error output that go into a message.
const MAX_COMPLAINT: usize = 1000;

pub(super) fn describe(class: &str, program: &Path, limit: Duration) -> Result<ClassDescriptor, RegistryError> {
    let named = || program.to_owned();
    let (stdout, stderr) = output(program, limit)?;
    if stdout.len() > MAX_DESCRIPTOR {
        return Err(RegistryError::TooLong { program: named() });
    }
    let descriptor: ClassDescriptor = serde_json::from_slice(&stdout).map_err(|e| {
        let said = String::from_utf8_lossy(&stderr);
        RegistryError::Malformed { program: named(), message: format!("{e}; it says: {}", said.trim()) }
    })?;
    if descriptor.name != class {
        let says = descriptor.name.chars().take(63).collect();
        return Err(RegistryError::WrongName { program: named(), says });
    }
    Ok(descriptor)
}

/// What the program writes until it closes its output, which is all there is to wait for: it is ended and reaped
/// then, whatever else it may be doing.
fn output(program: &Path, limit: Duration) -> Result<(Vec<u8>, Vec<u8>), RegistryError> {
    let fail = |e: io::Error| RegistryError::Start { program: program.to_owned(), message: e.to_string() };
    let mut child = Command::new(program)
        .arg("describe")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let deadline = Instant::now() + limit;
    let stdout = read(child.stdout.take(), MAX_DESCRIPTOR + 1);
    let stderr = read(child.stderr.take(), MAX_COMPLAINT);
    let wait = |end: mpsc::Receiver<Vec<u8>>| end.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
    let written = wait(stdout).map(|out| (out, wait(stderr).unwrap_or_default()));
    end(&mut child).map_err(fail)?;
    written.ok_or_else(|| RegistryError::TimedOut { program: program.to_owned(), limit })
}

/// Reads at most `max` bytes on a thread of its own. The thread ends with the pipe.
fn read(pipe: Option<impl Read + Send + 'static>, max: usize) -> mpsc::Receiver<Vec<u8>> {
    let (done, end) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error is judged as it is.
            let _ = pipe.take(max as u64).read_to_end(&mut bytes);
        }
        let _ = done.send(bytes);
    });
    end
}

fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}
