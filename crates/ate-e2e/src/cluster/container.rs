//! A container, run by a real runtime (`runc`), and again when it ends by itself (`restartPolicy: Always`). It can be killed
//! and started again, and does not outlive the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::node::signal;

/// Lines of a log that explain a failure.
const LAST: usize = 40;
/// An orderly end.
const END: Duration = Duration::from_secs(30);
/// From the call of the runtime to a process.
const START: Duration = Duration::from_secs(30);
/// Runs the container, and again when it ends, until it is to end. Kills it when nobody holds the standard input any more:
/// when it is to be killed, and whatever becomes of the test.
const SHIM: &str = r#"
trap '' INT TERM HUP
exec 3<&0
until [ -e "$BUNDLE/ending" ]; do
  rm -f "$BUNDLE/pid"
  [ -z "$COPY" ] || { rm -rf "$BUNDLE/rootfs" && cp -a "$COPY" "$BUNDLE/rootfs"; }
  runc --root "$STATE" run --bundle "$BUNDLE" --pid-file "$BUNDLE/pid" "$ID" <&- 3<&- &
  runner=$!
  {
    read -r _ <&3
    touch "$BUNDLE/ending"
    until runc --root "$STATE" kill "$ID" KILL || ! kill -0 $runner; do sleep 0.05; done
  } >/dev/null 2>&1 &
  reader=$!
  wait $runner
  code=$?
  kill -9 $reader
  runc --root "$STATE" delete --force "$ID"
  [ -e "$BUNDLE/ending" ] || { echo "--- it ended by itself with $code and is started again"; sleep 0.2; }
done
"#;

pub struct Container {
    id: String,
    /// State of the runtime.
    state: PathBuf,
    bundle: PathBuf,
    /// Files of the image. Copied for each start, unless the container cannot write there.
    image: PathBuf,
    config: Value,
    shim: Option<Child>,
}

impl Container {
    /// `config` as the runtime takes it (OCI), but for the root, which is that of an image.
    pub(super) fn start(dir: &Path, id: &str, image: &Path, config: Value) -> Container {
        let bundle = dir.join("run").join(id);
        fs::create_dir_all(&bundle).unwrap();
        let (id, image) = (id.to_owned(), image.to_owned());
        let mut container = Container { id, state: dir.join("runc"), bundle, image, config, shim: None };
        container.start_again();
        container
    }

    pub fn start_again(&mut self) {
        self.kill();
        let read_only = self.config["root"]["readonly"] == true;
        let root = if read_only { self.image.clone() } else { self.bundle.join("rootfs") };
        let copy = if read_only { Path::new("") } else { &self.image };
        self.config["root"]["path"] = root.display().to_string().into();
        fs::write(self.bundle.join("config.json"), self.config.to_string()).unwrap();
        for old in [self.ending(), self.bundle.join("pid")] {
            let _ = fs::remove_file(old);
        }
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut shim = Command::new("sh");
        shim.args(["-c", SHIM])
            .env("STATE", &self.state)
            .env("BUNDLE", &self.bundle)
            .env("ID", &self.id)
            .env("COPY", copy);
        shim.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.shim = Some(shim.spawn().unwrap());
    }

    /// At once, as when a machine fails.
    pub fn kill(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            drop(shim.stdin.take());
            let _ = shim.wait();
        }
    }

    /// In good order, as the kubelet ends it; it is not started again.
    pub fn stop(&mut self) {
        self.ask_to_end();
        let end = Instant::now() + END;
        while !self.has_ended() {
            assert!(Instant::now() < end, "it did not end within {END:?}:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.shim = None;
    }

    pub(super) fn ask_to_end(&mut self) {
        fs::write(self.ending(), "").unwrap();
        self.signal(Signal::TERM);
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.shim.as_mut().is_none_or(|shim| shim.try_wait().unwrap().is_some())
    }

    /// It does nothing any more, and is still there.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// It goes on as if no time had passed.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// To its first process, once it has one.
    fn signal(&mut self, which: Signal) {
        let end = Instant::now() + START;
        while !self.has_ended() {
            let pid = fs::read_to_string(self.bundle.join("pid")).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                return signal(pid, which);
            }
            assert!(Instant::now() < end, "no process within {START:?}:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file that is there once it is not to be started again.
    fn ending(&self) -> PathBuf {
        self.bundle.join("ending")
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log")
    }

    pub(super) fn last_words(&self) -> String {
        let said = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        format!("--- {}\n{}", self.id, lines[lines.len().saturating_sub(LAST)..].join("\n"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(self.bundle.join("rootfs"));
    }
}
