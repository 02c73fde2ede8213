//! For tests of herders: a herder as a node agent has it, spawned, given a network, called over its socket, ended.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "that is how a test fails")]

pub mod app;
pub mod leftovers;
pub mod pod;
pub mod tmpfs;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ate_api::Error;
use ateom::driver::{self as pb, driver_client::DriverClient};
use tonic::transport::{Channel, Endpoint};

pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Worker {
    shim: Child,
    pub pid: u32,
    pub dir: tempfile::TempDir,
    pub address: Ipv4Addr,
    pub client: DriverClient<Channel>,
}

impl Worker {
    /// Starts this program as the herder of a worker of its own.
    pub async fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut shim = Command::new(program);
        // A /30 that no other process on this machine can have: named after our child's pid, which is not known yet,
        // so after ours and a counter.
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let subnet = (std::process::id().wrapping_mul(64).wrapping_add(count)) % (1 << 19);
        let base = u32::from(Ipv4Addr::new(10, 96, 0, 0)) + subnet * 4;
        let (host, address) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
        shim.args([
            "serve",
            "--interface",
            "eth0",
            "--address",
            &format!("{address}/30"),
            "--gateway",
            &host.to_string(),
        ]);
        shim.arg("--socket").arg(dir.path().join("herder.sock")).arg("--work-dir").arg(dir.path().join("work"));
        shim.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shim = shim.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shim.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = serde_json::from_str::<serde_json::Value>(&line).unwrap()["pid"].as_u64().unwrap() as u32;
        let link = format!("hr{subnet}");
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()]);
        ip(&["address", "add", &format!("{host}/30"), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        let socket = format!("unix:{}", dir.path().join("herder.sock").display());
        let client = DriverClient::new(Endpoint::try_from(socket).unwrap().connect().await.unwrap());
        Worker { shim, pid, dir, address, client }
    }

    pub fn log_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("logs");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn snapshot_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn activation(&self, actor: &str, number: u64) -> pb::Activation {
        let identity = pb::Identity {
            atespace: "default".into(),
            name: actor.into(),
            uid: format!("uid-{actor}"),
            template_namespace: "default".into(),
            template_name: "test".into(),
        };
        let log_dir = self.log_dir().to_string_lossy().into_owned();
        let timeout_ms = LIMIT.as_millis() as u64;
        pb::Activation { number, identity: Some(identity), log_dir, timeout_ms, data_archive: String::new() }
    }

    pub fn run_request(&self, actor: &str, number: u64, with: (&pb::Sandbox, &pb::Workload)) -> pb::RunRequest {
        let activation = Some(self.activation(actor, number));
        pb::RunRequest { activation, sandbox: Some(with.0.clone()), workload: Some(with.1.clone()) }
    }

    pub fn restore_request(
        &self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
        from: &Path,
    ) -> pb::RestoreRequest {
        pb::RestoreRequest {
            activation: Some(self.activation(actor, number)),
            sandbox: Some(with.0.clone()),
            workload: Some(with.1.clone()),
            snapshot: Some(snapshot(from)),
            base: None,
        }
    }

    pub async fn run(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
    ) -> Result<pb::Outcome, Error> {
        let request = self.run_request(actor, number, with);
        let response = self.client.run(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().outcome.unwrap())
    }

    /// Boots with durable directories from an archive.
    pub async fn run_with_data(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
        archive: &Path,
    ) -> Result<pb::Outcome, Error> {
        let data_archive = archive.to_string_lossy().into_owned();
        let activation = Some(pb::Activation { data_archive, ..self.activation(actor, number) });
        let request = pb::RunRequest { activation, sandbox: Some(with.0.clone()), workload: Some(with.1.clone()) };
        let response = self.client.run(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().outcome.unwrap())
    }

    pub async fn restore(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
        from: &Path,
    ) -> Result<pb::Outcome, Error> {
        self.restore_with_base(actor, number, with, from, None).await
    }

    /// From a snapshot that holds what differs from another one.
    pub async fn restore_with_base(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
        from: &Path,
        base: Option<&Path>,
    ) -> Result<pb::Outcome, Error> {
        let mut request = self.restore_request(actor, number, with, from);
        request.base = base.map(snapshot);
        let response = self.client.restore(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().outcome.unwrap())
    }

    pub async fn prepare(&mut self, with: (&pb::Sandbox, &pb::Workload)) -> Result<(), Error> {
        self.prepare_for(with, None, false).await
    }

    /// Prepares for what was saved against `golden`, and for new actors that begin with it.
    pub async fn prepare_for(
        &mut self,
        with: (&pb::Sandbox, &pb::Workload),
        golden: Option<&Path>,
        standby: bool,
    ) -> Result<(), Error> {
        let request = pb::PrepareRequest {
            sandbox: Some(with.0.clone()),
            workload: Some(with.1.clone()),
            snapshot: golden.map(snapshot),
            standby,
        };
        self.client.prepare(request).await.map(drop).map_err(|s| Error::from(&s))
    }

    pub async fn checkpoint(&mut self, activation: u64, dir: &Path, scope: pb::Scope) -> Result<Vec<String>, Error> {
        self.checkpoint_with(activation, dir, scope, false).await.map(|(files, _)| files)
    }

    /// Names of the files, and whether they need the base.
    pub async fn checkpoint_with(
        &mut self,
        activation: u64,
        dir: &Path,
        scope: pb::Scope,
        may_need_base: bool,
    ) -> Result<(Vec<String>, bool), Error> {
        let dir = dir.to_string_lossy().into_owned();
        let request = pb::CheckpointRequest { activation, dir, scope: scope.into(), may_need_base };
        let response = self.client.checkpoint(request).await.map_err(|s| Error::from(&s))?.into_inner();
        Ok((response.files.into_iter().map(|f| f.name).collect(), response.needs_base))
    }

    pub async fn thaw(&mut self, activation: u64) -> Result<(), Error> {
        self.client.thaw(pb::ThawRequest { activation }).await.map(drop).map_err(|s| Error::from(&s))
    }

    pub async fn probe(&mut self, sandbox: pb::Sandbox) -> Result<pb::ProbeResponse, Error> {
        let response = self.client.probe(pb::ProbeRequest { sandbox: Some(sandbox) }).await;
        response.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub async fn reset(&mut self) {
        self.client.reset(pb::ResetRequest {}).await.unwrap();
    }

    pub async fn stats(&mut self) -> pb::StatsResponse {
        self.client.stats(pb::StatsRequest {}).await.unwrap().into_inner()
    }

    pub fn get(&self, path: &str) -> String {
        self.get_port(8080, path)
    }

    pub fn get_port(&self, port: u16, path: &str) -> String {
        request(SocketAddr::new(self.address.into(), port), path, LIMIT).unwrap()
    }

    pub fn try_get(&self, path: &str, limit: Duration) -> Option<String> {
        request(SocketAddr::new(self.address.into(), 8080), path, limit).ok()
    }

    /// Everything in the worker's pid namespace: pid as we see it, and command line.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(ours) = namespace(self.pid) else { return Vec::new() };
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        let inside = all.filter(|&pid| namespace(pid).as_ref() == Some(&ours));
        inside.map(|pid| (pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())).collect()
    }

    /// Those with this in their command line, without the herder itself.
    pub fn find(&self, word: &str) -> Vec<u32> {
        let all = self.processes().into_iter().filter(|(pid, line)| *pid != self.pid && line.contains(word));
        all.map(|(pid, _)| pid).collect()
    }

    /// Waits until the worker has become this.
    pub async fn until(&mut self, state: pb::stats_response::State) {
        let deadline = Instant::now() + LIMIT;
        while self.stats().await.state() != state {
            assert!(Instant::now() < deadline, "the worker does not become {state:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Closes the lifeline, as the end of the node agent does.
    pub fn cut_lifeline(&mut self) {
        drop(self.shim.stdin.take());
    }

    /// Waits until the shim has ended.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.shim.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the herder did not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn shim_pid(&self) -> u32 {
        self.shim.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
}

/// A directory as a snapshot; in these tests its path is as good as the digest of a manifest.
fn snapshot(dir: &Path) -> pb::Snapshot {
    pb::Snapshot { digest: dir.to_string_lossy().into_owned(), dir: dir.to_string_lossy().into_owned() }
}

/// One HTTP request; the client closes first.
fn request(to: SocketAddr, path: &str, limit: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: actor\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8(body).unwrap())
}

/// `kill SIGNAL PID`.
pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// A directory of this test run. Nothing removes it at the end of the run, but the next one does.
pub fn run_dir() -> &'static Path {
    static DIR: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let all = target_dir().join("test-runs");
        std::fs::create_dir_all(&all).unwrap();
        for entry in std::fs::read_dir(&all).unwrap().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let mine = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&mine).unwrap();
        mine
    });
    &DIR
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {args:?}");
}

/// `target/PROFILE`, from the running test's own place in `target/PROFILE/deps`.
pub fn target_dir() -> PathBuf {
    let me = std::env::current_exe().expect("the path of this program");
    let dir = me.parent().expect("its directory");
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    dir.to_owned()
}
