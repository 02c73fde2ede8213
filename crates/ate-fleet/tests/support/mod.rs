//! A certificate authority, a node agent that does next to nothing, and that agent served.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_agent::*;
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_fleet::tls::Certificates;
use ate_sandbox::{Revocations, SandboxRef, Verification};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: Arc<tempfile::TempDir>,
}

impl Authority {
    pub fn new() -> Self {
        Authority::in_dir(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn in_dir(dir: Arc<tempfile::TempDir>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem, dir }
    }

    /// A directory as a secret is mounted.
    pub fn issue(&self, name: &str) -> PathBuf {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        self.reissue(name, &dir);
        dir
    }

    pub fn reissue(&self, name: &str, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        for (file, text) in [("ca.crt", &self.pem), ("tls.crt", &certificate.pem()), ("tls.key", &key.serialize_pem())]
        {
            std::fs::write(dir.join(file), text).unwrap();
        }
    }

    pub fn open(&self, name: &str) -> Arc<Certificates> {
        open(&self.issue(name))
    }

    /// Another one takes its place; this is the former.
    pub fn renew(&mut self) -> Authority {
        let new = Authority::in_dir(self.dir.clone());
        std::mem::replace(self, new)
    }

    /// Whoever has these directories trusts both.
    pub fn trust_also(&self, former: &Authority, dirs: &[&Path]) {
        for dir in dirs {
            std::fs::write(dir.join("ca.crt"), format!("{}{}", former.pem, self.pem)).unwrap();
        }
    }
}

pub fn open(dir: &Path) -> Arc<Certificates> {
    Certificates::open(dir).unwrap()
}

pub struct Served {
    pub address: String,
    certificates: PathBuf,
    stop: CancellationToken,
    /// Its connections die with it, as those of a process.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Served {
    pub async fn start(node: Arc<Quiet>, certificates: PathBuf) -> Self {
        Served::at("127.0.0.1:0", node, certificates).await
    }

    async fn at(address: &str, node: Arc<Quiet>, certificates: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, opened) = (CancellationToken::new(), open(&certificates));
        let (address, stopped) = (address.to_owned(), stop.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = loop {
                match TcpListener::bind(&address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            tell.send(listener.local_addr().unwrap().to_string()).unwrap();
            ate_fleet::server::serve(node, listener, opened, stopped).await.unwrap();
        });
        Served { address: told.await.unwrap(), certificates, stop, runtime: Some(runtime) }
    }

    /// The process dies, and another is started at the same address.
    pub async fn replace(mut self, node: Arc<Quiet>) -> Self {
        self.runtime.take().unwrap().shutdown_background();
        Served::at(&self.address, node, self.certificates.clone()).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Says what it is asked, and does nothing.
#[derive(Default)]
pub struct Quiet {
    hub: Hub,
    held: Mutex<bool>,
    calls: AtomicUsize,
    collected: Mutex<LiveSet>,
}

impl Quiet {
    /// Calls are not answered from now on.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    pub fn collected(&self) -> LiveSet {
        self.collected.lock().unwrap().clone()
    }

    pub fn lose(&self, worker: &str) {
        self.hub.send(NodeEvent::WorkerLost { id: WorkerId(worker.into()), message: String::new() });
    }
}

fn none<T>() -> Result<T, Error> {
    Err(Error::new(Reason::Unimplemented, "it does nothing"))
}

#[async_trait]
impl NodeAgent for Quiet {
    fn name(&self) -> &str {
        "one"
    }
    fn events(&self) -> NodeEvents {
        self.hub.listen()
    }
    async fn set_pool(&self, _: PoolSpec) -> Result<(), Error> {
        none()
    }
    async fn remove_pool(&self, _: &ObjectName) -> Result<(), Error> {
        none()
    }
    async fn check_signatures(&self, _: &SandboxRef, _: &Verification, _: bool) -> Result<(), Error> {
        none()
    }
    async fn probe(&self, _: &SandboxRef) -> Result<Probed, Error> {
        none()
    }
    async fn import_asset(&self, mut upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        let mut whole = Vec::new();
        while let Some(chunk) = upload.chunks.recv().await {
            whole.extend(chunk);
        }
        Ok((Digest::of(&whole), whole.len() as u64, "file:///x".into(), false))
    }
    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        Ok(Vec::new())
    }
    async fn delete_asset(&self, _: &Digest) -> Result<(), Error> {
        Err(Error::new(Reason::InUse, "somebody uses it").on("asset/x").hint("wait"))
    }
    async fn set_revocations(&self, _: Revocations) -> Result<(), Error> {
        none()
    }
    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        self.calls.fetch_add(1, SeqCst);
        if *self.held.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        Ok(ResolvedImage { digest: Digest::of(reference.as_bytes()), exposed_ports: vec![80] })
    }
    async fn prepare(&self, _: Prepare) -> Result<(), Error> {
        none()
    }
    async fn activate(&self, _: Activate) -> Result<Activated, Error> {
        none()
    }
    async fn capture(&self, _: Capture) -> Result<Captured, Error> {
        none()
    }
    async fn thaw(&self, _: &WorkerId, _: &Uid, _: Activation, _: u64) -> Result<(), Error> {
        none()
    }
    async fn release(&self, _: &WorkerId, _: &Uid, _: Activation) -> Result<(), Error> {
        none()
    }
    async fn manifest(&self, _: &SnapshotRef) -> Result<Vec<u8>, Error> {
        none()
    }
    async fn delete_snapshot(&self, _: &SnapshotRef) -> Result<(), Error> {
        none()
    }
    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        *self.collected.lock().unwrap() = live;
        Ok(())
    }
    async fn logs(&self, _: &Uid, _: &str, _: u32, _: bool) -> Result<LogTail, Error> {
        none()
    }
}

/// Waits until something holds, or fails the test.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
