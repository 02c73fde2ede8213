//! For tests: a real Kubernetes API server over a real etcd, as `script/kube-test-server` builds it or as
//! `KUBEBUILDER_ASSETS` names it. There are no controllers and no kubelets beside it: what they would do, a test does itself,
//! with what is played here.
//!
//! Where the programs are missing a test does not fail but says why it did nothing: [`cluster`] does both. Nobody reads that, so
//! `script/test` looks for them too, and fails at its end unless it is told to go without (`ATE_WITHOUT_KUBERNETES=1`).
#![forbid(unsafe_code)]

mod certificates;
mod metrics;
mod node;
mod objects;
mod played;
mod process;
mod programs;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::Engine as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

use certificates::Authority;
pub use certificates::{ADMIN, MASTERS};
pub use node::{PlayedNode, play_node};
pub use objects::{create, token};
pub use played::play_deployments;
use process::Lifeline;
use programs::Programs;

/// Both programs are up within two seconds on an idle machine; tests run beside each other on busy ones.
const START: Duration = Duration::from_secs(90);
/// Below those of outgoing connections (`net.ipv4.ip_local_port_range`), as Linux has them by default.
const PORTS: Range<u16> = 10_000..32_768;
/// Ports are tried and given up again before a server takes them: somebody else may be faster.
const ATTEMPTS: usize = 5;

/// An API server of its own. Ends with this value, and with the test's process whatever happens to that.
pub struct Cluster {
    dir: PathBuf,
    programs: Programs,
    authority: Authority,
    port: u16,
    etcd_port: u16,
    // Ends before etcd does, and before the directory goes with it.
    api: Mutex<Option<Lifeline>>,
    _etcd: Lifeline,
}

/// The API server that all tests of this process share, or `None` with the reason on standard error. Tests keep apart by
/// namespace, and by the names of what has none.
pub async fn cluster() -> Option<&'static Cluster> {
    static SHARED: OnceCell<Option<Cluster>> = OnceCell::const_new();
    SHARED.get_or_init(Cluster::start).await.as_ref()
}

impl Cluster {
    /// One that nobody else uses, for tests that stop it. `None`: there is none to be had here.
    ///
    /// # Panics
    /// When there is one and it does not start, or when it is not where `KUBEBUILDER_ASSETS` says.
    pub async fn start() -> Option<Cluster> {
        let programs = match Programs::find() {
            Ok(programs) => programs,
            Err(why) => {
                eprintln!("skipped, because {why}");
                return None;
            }
        };
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Cluster::try_start(programs.clone()).await {
                Ok(cluster) => return Some(cluster),
                Err(why) => last = why,
            }
        }
        panic!("the Kubernetes API server for tests does not start: {last}");
    }

    async fn try_start(programs: Programs) -> Result<Cluster, String> {
        let dir = tempfile::Builder::new().prefix("ate-kube-").tempdir().map_err(|e| e.to_string())?.keep();
        let authority = Authority::new(&dir).map_err(|e| e.to_string())?;
        let [etcd_port, peer_port, port] = [free_address()?, free_address()?, free_address()?].map(|a| a.port());
        let etcd = Lifeline::start(
            &programs.etcd,
            &[
                format!("--data-dir={}", dir.join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
                // What a test stores need not survive a power cut.
                "--unsafe-no-fsync".to_owned(),
            ],
            &dir.join("etcd.log"),
            Some(&dir),
        )?;
        let cluster = Cluster { dir, programs, authority, port, etcd_port, api: Mutex::new(None), _etcd: etcd };
        cluster.start_api().await?;
        Ok(cluster)
    }

    /// Starts the API server, or starts it again after [`Cluster::stop_api`], on the same port over the same data.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_api(&self) -> Result<(), String> {
        let log = self.dir.join("kube-apiserver.log");
        let api = Lifeline::start(
            &self.programs.api_server,
            &[
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", self.port),
                format!("--cert-dir={}", self.dir.display()),
                format!("--tls-cert-file={}", self.dir.join("apiserver.crt").display()),
                format!("--tls-private-key-file={}", self.dir.join("apiserver.key").display()),
                format!("--client-ca-file={}", self.dir.join("ca.crt").display()),
                format!("--service-account-signing-key-file={}", self.dir.join("sa.key").display()),
                format!("--service-account-key-file={}", self.dir.join("sa.key").display()),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
            ],
            &log,
            None,
        )?;
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = Some(api);
        let (admin, end) = (self.admin(), Instant::now() + START);
        loop {
            let ready = admin.request_text(http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?);
            if ready.await.is_ok_and(|text| text == "ok") && has_default_namespace(&admin).await {
                return Ok(());
            }
            let over = self.api.lock().unwrap_or_else(PoisonError::into_inner).as_mut().is_none_or(Lifeline::has_ended);
            if over || Instant::now() > end {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<_> = said.lines().rev().take(5).collect();
                return Err(format!("not ready; it says: {}", tail.join(" | ")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the API server; etcd and its data stay.
    pub fn stop_api(&self) {
        drop(self.api.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// A client of the user who may do everything. A client belongs to the runtime it is made in.
    pub fn admin(&self) -> Client {
        self.client_as(ADMIN, &[MASTERS])
    }

    /// A client of somebody else, who may do what role bindings of the test say.
    ///
    /// # Panics
    /// When no certificate can be made.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Client {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig_of(user, groups)).expect("a kubeconfig");
        // Nothing of it is waited for but by its signature: all it names is in it.
        let options = KubeConfigOptions::default();
        let config = futures::executor::block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// Writes a kubeconfig of a user, for programs. JSON is YAML.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> std::io::Result<PathBuf> {
        let path = self.dir.join(format!("{user}.kubeconfig"));
        std::fs::write(&path, self.kubeconfig_of(user, groups).to_string())?;
        Ok(path)
    }

    fn kubeconfig_of(&self, user: &str, groups: &[&str]) -> serde_json::Value {
        let (certificate, key) = self.authority.client(user, groups).expect("a client certificate");
        let base64 = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": base64(&self.authority.pem()),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": base64(&certificate), "client-key-data": base64(&key),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The certificate (PEM) of who vouches for it.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// What the processes say, for a test that fails.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("kube-apiserver.log")).unwrap_or_default()
    }
}

async fn has_default_namespace(admin: &Client) -> bool {
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(admin.clone());
    namespaces.get_opt("default").await.is_ok_and(|found| found.is_some())
}

/// An address of loopback that nobody uses. Not with one of the ports that the kernel gives to outgoing connections: whoever
/// listened there and was ended can listen there again.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr, String> {
    let chance = || RandomState::new().build_hasher().finish();
    let mut all = (0..100).map(|_| PORTS.start + (chance() % PORTS.len() as u64) as u16);
    let free = all.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = free.ok_or_else(|| format!("no port between {} and {} is free", PORTS.start, PORTS.end))?;
    Ok(([127, 0, 0, 1], port).into())
}
