//! A herder as a node agent has it: spawned, given a network, called over its socket, ended.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ate_api::Error;
use ateom::driver::{self as pb, driver_client::DriverClient};
use sha2::{Digest, Sha256};
use tonic::transport::{Channel, Endpoint};

use crate::app;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const NEW: &str = "20240729-bookworm";
pub(crate) const OLD: &str = "20221219";

pub(crate) struct Worker {
    shim: Child,
    pub(crate) pid: u32,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: Ipv4Addr,
    pub(crate) client: DriverClient<Channel>,
    namespaces: Vec<PathBuf>,
}

impl Worker {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut shim = Command::new(env!("CARGO_BIN_EXE_ateom-gvisor"));
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
        let link = format!("gv{subnet}");
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()]);
        ip(&["address", "add", &format!("{host}/30"), "dev", &link]);
        ip(&["link", "set", &link, "up"]);
        let socket = format!("unix:{}", dir.path().join("herder.sock").display());
        let client = DriverClient::new(Endpoint::try_from(socket).unwrap().connect().await.unwrap());
        Worker { shim, pid, dir, address, client, namespaces: Vec::new() }
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("logs");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn snapshot_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn activation(&self, actor: &str, number: u64) -> pb::Activation {
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

    pub(crate) async fn run(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
    ) -> Result<pb::Outcome, Error> {
        let activation = Some(self.activation(actor, number));
        let request = pb::RunRequest { activation, sandbox: Some(with.0.clone()), workload: Some(with.1.clone()) };
        let response = self.client.run(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().outcome.unwrap())
    }

    /// Boots with durable directories from an archive.
    pub(crate) async fn run_with_data(
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

    pub(crate) async fn restore(
        &mut self,
        actor: &str,
        number: u64,
        with: (&pb::Sandbox, &pb::Workload),
        from: &Path,
    ) -> Result<pb::Outcome, Error> {
        let request = pb::RestoreRequest {
            activation: Some(self.activation(actor, number)),
            sandbox: Some(with.0.clone()),
            workload: Some(with.1.clone()),
            snapshot: Some(pb::Snapshot { digest: String::new(), dir: from.to_string_lossy().into_owned() }),
            base: None,
        };
        let response = self.client.restore(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().outcome.unwrap())
    }

    pub(crate) async fn prepare(&mut self, with: (&pb::Sandbox, &pb::Workload)) -> Result<(), Error> {
        let request = pb::PrepareRequest {
            sandbox: Some(with.0.clone()),
            workload: Some(with.1.clone()),
            snapshot: None,
            standby: false,
        };
        self.client.prepare(request).await.map(drop).map_err(|s| Error::from(&s))
    }

    pub(crate) async fn checkpoint(
        &mut self,
        activation: u64,
        dir: &Path,
        scope: pb::Scope,
    ) -> Result<Vec<String>, Error> {
        let dir = dir.to_string_lossy().into_owned();
        let request = pb::CheckpointRequest { activation, dir, scope: scope.into(), may_need_base: false };
        let response = self.client.checkpoint(request).await.map_err(|s| Error::from(&s))?;
        Ok(response.into_inner().files.into_iter().map(|f| f.name).collect())
    }

    pub(crate) async fn thaw(&mut self, activation: u64) -> Result<(), Error> {
        self.client.thaw(pb::ThawRequest { activation }).await.map(drop).map_err(|s| Error::from(&s))
    }

    pub(crate) async fn probe(&mut self, sandbox: pb::Sandbox) -> Result<pb::ProbeResponse, Error> {
        let response = self.client.probe(pb::ProbeRequest { sandbox: Some(sandbox) }).await;
        response.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub(crate) async fn reset(&mut self) {
        self.client.reset(pb::ResetRequest {}).await.unwrap();
    }

    pub(crate) async fn stats(&mut self) -> pb::StatsResponse {
        self.client.stats(pb::StatsRequest {}).await.unwrap().into_inner()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.get_port(8080, path)
    }

    pub(crate) fn get_port(&self, port: u16, path: &str) -> String {
        request(SocketAddr::new(self.address.into(), port), path, LIMIT).unwrap()
    }

    pub(crate) fn try_get(&self, path: &str, limit: Duration) -> Option<String> {
        request(SocketAddr::new(self.address.into(), 8080), path, limit).ok()
    }

    /// Everything in the worker's pid namespace: pid as we see it, and command line.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(ours) = namespace(self.pid) else { return Vec::new() };
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        let inside = all.filter(|&pid| namespace(pid).as_ref() == Some(&ours));
        inside.map(|pid| (pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())).collect()
    }

    /// Closes the lifeline, as the end of the node agent does.
    pub(crate) fn cut_lifeline(&mut self) {
        drop(self.shim.stdin.take());
    }

    /// Waits until the shim has ended.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.shim.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the herder did not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn remember(&mut self, namespaces: Vec<PathBuf>) {
        self.namespaces = namespaces;
    }

    pub(crate) fn remembered(&self) -> &[PathBuf] {
        &self.namespaces
    }

    pub(crate) fn shim_pid(&self) -> u32 {
        self.shim.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
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

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {args:?}");
}

/// The configuration `config` with one of the real binaries.
pub(crate) fn sandbox(runsc: &str, config: &str) -> pb::Sandbox {
    let path = app::runsc(runsc);
    pb::Sandbox {
        config_name: "test".into(),
        config_revision: 1,
        config_digest: hex::encode(Sha256::digest(config)),
        config_json: config.into(),
        asset_paths: [("runsc".to_owned(), path.to_string_lossy().into_owned())].into(),
        asset_digests: [("runsc".to_owned(), format!("digest of {runsc}"))].into(),
    }
}

pub(crate) fn container(name: &str, port: u16) -> pb::Container {
    pb::Container {
        name: name.into(),
        layers: vec![app::layer().to_string_lossy().into_owned()],
        args: vec!["/app".into(), port.to_string()],
        env: vec!["COLOUR=green".into()],
        cwd: "/".into(),
        readyz: Some(pb::Readyz { path: "/readyz".into(), port: port.into() }),
        ..pb::Container::default()
    }
}

pub(crate) fn workload(containers: Vec<pb::Container>) -> pb::Workload {
    pb::Workload { containers, volumes: vec![], key: "test".into() }
}
