//! The floor: the same actor restored by hand with bare `runsc`, nothing prepared, uncompressed image.
//!
//! Two containers (an idle sandbox root and the app), four commands: create, restore, create, restore. The
//! clock runs from the first command to the first HTTP 200. Everything that is not runsc (network namespace,
//! bundles, the image itself) is made before the clock starts.
//!
//! runsc insists on not being in the root network namespace and finds out through `/proc/sys/net`, so the
//! floor runs in a helper process of its own: a mount namespace where that directory is masked. One line on
//! stdin asks for one sample, one line on stdout answers in milliseconds.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

/// Address inside the sandbox; the same private link every actor has.
pub(crate) const INSIDE: &str = "169.254.17.2";
pub(crate) const OUTSIDE: &str = "169.254.17.1";
pub(crate) const MAC_INSIDE: &str = "02:00:00:00:00:02";
/// A packet that is lost while the network comes up would be sent again a second later only.
const CONNECT: Duration = Duration::from_millis(5);
/// A restore that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The helper process, asked for one sample at a time.
pub(crate) struct Floor {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Floor {
    /// Starts this program again as the helper `args`, in a network and mount namespace of its own.
    pub(crate) fn start<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> anyhow::Result<Self> {
        let me = std::env::current_exe()?;
        let mut child = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "sh", "-ec"])
            .arg("mount -t tmpfs -o ro tmpfs /proc/sys/net; mount -t tmpfs tmpfs /run; exec \"$@\"")
            .arg("floor")
            .arg(me)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the floor helper (unshare, from util-linux)")?;
        let ask = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut floor = Floor { child, ask, answers };
        ensure!(floor.line()? == "ready", "the floor helper did not come up");
        Ok(floor)
    }

    /// Milliseconds from the first command to the first HTTP 200.
    pub(crate) fn sample(&mut self) -> anyhow::Result<f64> {
        writeln!(self.ask, "sample")?;
        self.line()?.parse().context("the floor helper failed; its message is above")
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the helper process runs.
pub(crate) fn helper(runsc: &Path, app: &Path, heap_mb: u32, dir: &Path) -> anyhow::Result<()> {
    let hand = Hand { runsc: runsc.to_owned(), dir: dir.to_owned() };
    hand.write_bundles(app, heap_mb)?;
    hand.make_image()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        println!("{:.3}", hand.sample()?);
    }
    Ok(())
}

struct Hand {
    runsc: PathBuf,
    dir: PathBuf,
}

impl Hand {
    fn write_bundles(&self, app: &Path, heap_mb: u32) -> anyhow::Result<()> {
        for (name, kind) in [("pause", "sandbox"), ("app", "container")] {
            let bundle = self.dir.join(name);
            fs::create_dir_all(bundle.join("rootfs"))?;
            fs::copy(app, bundle.join("rootfs/app"))?;
            let env = match name {
                "app" => vec!["PORT=80".to_owned(), format!("HEAP_MB={heap_mb}")],
                _ => vec!["PORT=81".to_owned()],
            };
            let spec = json!({
                "ociVersion": "1.0.2",
                "process": {
                    "user": {"uid": 0, "gid": 0}, "args": ["/app"], "env": env, "cwd": "/",
                    "capabilities": {"bounding": ["CAP_NET_BIND_SERVICE"], "effective": ["CAP_NET_BIND_SERVICE"], "permitted": ["CAP_NET_BIND_SERVICE"]},
                },
                "root": {"path": "rootfs", "readonly": false},
                "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
                "linux": {"namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "network", "path": "/run/netns/floor"},
                ]},
                "annotations": {
                    "io.kubernetes.cri.container-type": kind,
                    "io.kubernetes.cri.sandbox-id": "pauseb",
                    "io.kubernetes.cri.container-name": name,
                },
            });
            fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
        }
        Ok(())
    }

    /// Boots the actor once and saves it.
    fn make_image(&self) -> anyhow::Result<()> {
        self.new_network()?;
        for name in ["pause", "app"] {
            self.runsc(&["create", "--bundle", &self.bundle(name), &format!("{name}b")])?;
            self.runsc(&["start", &format!("{name}b")])?;
        }
        wait_for_200(CONNECT)?;
        self.runsc(&["checkpoint", "--image-path", &self.image(), "--compression", "none", "pauseb"])?;
        self.clean()
    }

    fn sample(&self) -> anyhow::Result<f64> {
        self.new_network()?;
        let began = Instant::now();
        for name in ["pause", "app"] {
            let id = format!("{name}b");
            self.runsc(&["create", "--bundle", &self.bundle(name), &id])?;
            self.runsc(&["restore", "--image-path", &self.image(), "--detach", &id])?;
        }
        wait_for_200(CONNECT)?;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        self.clean()?;
        Ok(ms)
    }

    fn clean(&self) -> anyhow::Result<()> {
        for id in ["pauseb", "appb"] {
            self.runsc(&["delete", "-force", id])?;
        }
        Ok(())
    }

    fn bundle(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn image(&self) -> String {
        self.dir.join("image").display().to_string()
    }

    fn runsc(&self, args: &[&str]) -> anyhow::Result<()> {
        let log = fs::File::create(self.dir.join("runsc.log"))?;
        let status = Command::new(&self.runsc)
            .arg("--root")
            .arg(self.dir.join("root"))
            .args(["--platform=systrap", "--overlay2=root:memory", "--net-disconnect-ok"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        if !status.success() {
            let log = fs::read_to_string(self.dir.join("runsc.log")).unwrap_or_default();
            bail!("runsc {} failed ({status}): {}", args.join(" "), log.chars().take(600).collect::<String>());
        }
        Ok(())
    }

    /// runsc takes the addresses of its namespace away, so every sandbox needs a new one. With a fixed MAC
    /// and a permanent neighbour no address resolution is on the clock.
    fn new_network(&self) -> anyhow::Result<()> {
        let script = format!(
            "ip netns del floor 2>/dev/null || true; ip link del hfloor 2>/dev/null || true; ip link set lo up
             ip netns add floor
             ip link add hfloor type veth peer name eth0 address {MAC_INSIDE} netns floor
             ip addr add {OUTSIDE}/30 dev hfloor; ip link set hfloor up
             ip neigh replace {INSIDE} lladdr {MAC_INSIDE} nud permanent dev hfloor
             ip -n floor addr add {INSIDE}/30 dev eth0; ip -n floor link set lo up; ip -n floor link set eth0 up
             ip -n floor route add default via {OUTSIDE}"
        );
        let status = Command::new("sh").args(["-ec", &script]).status()?;
        ensure!(status.success(), "cannot make the network namespace of the floor");
        Ok(())
    }
}

/// The same request as is measured. A new socket for each attempt: one that was refused or timed out early would
/// wait a second for its retry.
pub(crate) fn wait_for_200(connect: Duration) -> anyhow::Result<()> {
    let address: SocketAddr = format!("{INSIDE}:80").parse()?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if answers_200(address, connect).unwrap_or(false) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
    bail!("no answer from the actor within {PATIENCE:?}")
}

fn answers_200(address: SocketAddr, connect: Duration) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect_timeout(&address, connect)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: floor\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    socket.read_exact(&mut head)?;
    Ok(&head[9..] == b"200")
}
