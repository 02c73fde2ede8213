//! The ports to the outside: frames in, frames out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ate_guest::frame::{self, Frame, HEADER, Kind};

/// Ports appear one after the other while the driver starts.
const APPEAR: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// One port.
pub(crate) struct Port(File);

impl Port {
    /// Finds the port of a name; its number depends on the order in which devices were found.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let deadline = Instant::now() + APPEAR;
        loop {
            for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
                if fs::read_to_string(entry.path().join("name")).is_ok_and(|n| n.trim() == name) {
                    let device = format!("/dev/{}", entry.file_name().to_string_lossy());
                    let file = OpenOptions::new().read(true).write(true).open(&device);
                    return Ok(Port(file.with_context(|| format!("cannot open {device}"))?));
                }
            }
            if Instant::now() > deadline {
                bail!("there is no port {name}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// The next frame of at most `max` bytes.
    pub(crate) fn read(&mut self, max: usize) -> Result<Frame> {
        let mut head = [0; HEADER];
        self.fill(&mut head)?;
        let (kind, len) = frame::parse_header(head, max)?;
        let mut payload = vec![0; len];
        self.fill(&mut payload)?;
        Ok(Frame { kind, payload })
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.0.read(buffer) {
                // Nobody is connected at this moment: the machine was just restored.
                Ok(0) => std::thread::sleep(POLL),
                Ok(n) => buffer = &mut buffer[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, kind: Kind, parts: &[&[u8]]) -> io::Result<()> {
        let len = parts.iter().map(|p| p.len()).sum();
        let mut bytes = Vec::with_capacity(HEADER + len);
        bytes.extend_from_slice(&frame::header(kind, len));
        parts.iter().for_each(|p| bytes.extend_from_slice(p));
        self.0.write_all(&bytes)
    }
}
