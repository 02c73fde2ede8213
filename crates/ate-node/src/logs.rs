//! Reads what herders write about an actor: one file of JSON lines per container, `NAME.jsonl`, with at most one
//! older file `NAME.jsonl.1` beside it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_agent::{LogLine, LogTail};
use ate_api::{
    Error, Reason,
    id::{Activation, Uid},
};
use serde::Deserialize;
use tokio::{sync::mpsc, time::sleep};

use crate::node::Inner;

/// How soon a follower sees a new line. Polled: a watch per reader would be a file descriptor per reader too.
const POLL: Duration = Duration::from_millis(200);
/// Lines a slow reader may be behind; then the file waits for it.
const BACKLOG: usize = 256;
/// Twice what a herder lets a file grow to.
const MAX_FILE: u64 = 16 << 20;
/// Several times what a herder lets a line grow to, JSON escapes included.
const MAX_LINE: usize = 128 << 10;
/// Read at once.
const CHUNK: u64 = 256 << 10;

#[derive(Deserialize)]
struct Entry {
    time: String,
    stream: String,
    text: String,
    activation: u64,
}

impl Inner {
    pub(crate) async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if container.is_empty() || !container.bytes().all(plain) {
            return Err(Error::new(Reason::Invalid, format!("`{container}` is not the name of a container")));
        }
        let file = self.log_dir(actor).join(format!("{container}.jsonl"));
        let (tx, rx) = mpsc::channel(BACKLOG);
        let reader = Reader { path: file, container: container.to_owned(), file: None, offset: 0, rest: Vec::new() };
        tokio::spawn(async move {
            if let Err(e) = reader.run(tail as usize, follow, &tx).await {
                tracing::warn!("cannot read a log: {e}");
            }
        });
        Ok(rx)
    }
}

struct Reader {
    path: PathBuf,
    container: String,
    /// The file being read and its inode: a rotated file is read to its end before the next.
    file: Option<(File, u64)>,
    offset: u64,
    /// A line that has not ended yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Ends at the end of the log, or with the reader's interest.
    async fn run(mut self, tail: usize, follow: bool, tx: &mpsc::Sender<LogLine>) -> io::Result<()> {
        let mut lines = Vec::new();
        for path in [older(&self.path), self.path.clone()] {
            self.open(&path)?;
            while self.read(&mut lines)? {
                if tail > 0 && lines.len() > 2 * tail {
                    lines.drain(..lines.len() - tail);
                }
                tokio::task::yield_now().await; // files are read a piece at a time
            }
        }
        if tail > 0 {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        if send(&mut lines, tx).await && follow { self.follow(tx).await } else { Ok(()) }
    }

    async fn follow(&mut self, tx: &mpsc::Sender<LogLine>) -> io::Result<()> {
        let mut lines = Vec::new();
        loop {
            tokio::select! {
                () = sleep(POLL) => (),
                () = tx.closed() => return Ok(()),
            }
            while self.read(&mut lines)? {}
            if self.is_rotated() {
                self.open(&self.path.clone())?;
                while self.read(&mut lines)? {}
            }
            if !send(&mut lines, tx).await {
                return Ok(());
            }
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<()> {
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let inode = file.metadata()?.ino();
        (self.file, self.offset) = (Some((file, inode)), 0);
        self.rest.clear();
        Ok(())
    }

    /// Another file has the name now.
    fn is_rotated(&self) -> bool {
        let inode = self.file.as_ref().map(|(_, inode)| *inode);
        std::fs::metadata(&self.path).is_ok_and(|m| Some(m.ino()) != inode)
    }

    /// Reads a piece; false at the end.
    fn read(&mut self, lines: &mut Vec<LogLine>) -> io::Result<bool> {
        let Some((file, _)) = &mut self.file else { return Ok(false) };
        if self.offset >= MAX_FILE {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(CHUNK).read_to_end(&mut self.rest)?;
        self.offset += read as u64;
        while let Some(end) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            // A line cut short by a crash is skipped.
            if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
                lines.push(LogLine {
                    time: entry.time,
                    container: self.container.clone(),
                    stream: entry.stream,
                    text: entry.text,
                    activation: Activation(entry.activation),
                });
            }
        }
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
        }
        Ok(read > 0)
    }
}

/// False when nobody reads any more.
async fn send(lines: &mut Vec<LogLine>, tx: &mpsc::Sender<LogLine>) -> bool {
    for line in lines.drain(..) {
        if tx.send(line).await.is_err() {
            return false;
        }
    }
    true
}

fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    older.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(n: u64) -> String {
        format!(r#"{{"time":"t","stream":"stdout","text":"line {n}","activation":{n}}}"#) + "\n"
    }

    async fn read(path: &Path, tail: usize, follow: bool) -> mpsc::Receiver<LogLine> {
        let (tx, rx) = mpsc::channel(BACKLOG);
        let (path, container) = (path.to_owned(), "main".to_owned());
        let reader = Reader { path, container, file: None, offset: 0, rest: Vec::new() };
        tokio::spawn(async move { reader.run(tail, follow, &tx).await.unwrap() });
        rx
    }

    async fn texts(mut rx: mpsc::Receiver<LogLine>) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(line) = rx.recv().await {
            all.push(line.activation.0);
        }
        all
    }

    #[tokio::test]
    async fn the_last_lines_come_from_both_files_and_damaged_ones_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.jsonl");
        std::fs::write(older(&path), line(1) + &line(2)).unwrap();
        std::fs::write(&path, format!("{}{{\"time\": cut\n{}", line(3), line(4))).unwrap();
        assert_eq!(texts(read(&path, 0, false).await).await, [1, 2, 3, 4]);
        assert_eq!(texts(read(&path, 3, false).await).await, [2, 3, 4]);
        assert_eq!(texts(read(&dir.path().join("none.jsonl"), 0, false).await).await, [0u64; 0]);
    }

    #[tokio::test]
    async fn a_follower_sees_new_lines_across_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.jsonl");
        std::fs::write(&path, line(1)).unwrap();
        let mut rx = read(&path, 0, true).await;
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(10), rx.recv()).await.unwrap().unwrap().activation.0;
        assert_eq!(next().await, 1);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(line(2).as_bytes()).unwrap();
        std::fs::rename(&path, older(&path)).unwrap();
        std::fs::write(&path, line(3)).unwrap();
        assert_eq!([next().await, next().await], [2, 3]);
    }
}
