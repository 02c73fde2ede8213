//! The node: its parts, how they start and how they end.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ate_agent::Hub;
use ate_api::{
    Error, Reason,
    id::{Digest, Uid},
};
use ate_sandbox::Registry;
use ate_snapshot::{LocalSnapshots, Repository};
use tokio::sync::broadcast;

use crate::{
    activate::Plans,
    assets::AssetCache,
    capture::Captures,
    fence::Fence,
    images::ImageCache,
    network::{Cidr, Egress, Links},
    pins::Pins,
    platform,
    probe::Probes,
    revoked::Revoked,
    secrets::Secrets,
    workers::{Context, Herders, PodPlaces, Source, Verified, Workers, clean_stale},
};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the control plane calls it.
    pub name: String,
    /// Everything the node keeps lies below `node/` in it. Not below `/run`.
    pub data_dir: PathBuf,
    /// Where the programs `ateom-CLASS` are.
    pub herder_dir: PathBuf,
    /// What the snapshot location `default` means: a directory.
    pub objects_dir: PathBuf,
    /// Addresses of workers. Several nodes on one machine may share a range.
    pub cidr: Cidr,
    /// Whether actors may reach what this machine reaches.
    pub egress: bool,
    /// Where workers come from. Pods have their own network, for which the two before this do not matter, and their
    /// directories lie below `workers/` in the data directory.
    pub workers: Source,
    /// Where secrets that templates name are read. None: there are none, and who cannot do without is refused.
    pub secrets: Option<Arc<dyn Secrets>>,
}

/// One machine's agent: workers and everything they need.
pub struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) logs: PathBuf,
    pub(crate) context: Context,
    /// What the herders say of themselves.
    pub(crate) classes: Registry,
    pub(crate) workers: Workers,
    pub(crate) assets: AssetCache,
    pub(crate) images: ImageCache,
    pub(crate) local: LocalSnapshots,
    pub(crate) repository: Repository,
    pub(crate) probes: Probes,
    pub(crate) plans: Plans,
    pub(crate) captures: Captures,
    pub(crate) secrets: Option<Arc<dyn Secrets>>,
    egress: Option<Egress>,
    /// Held for as long as the node lives: one node per data directory.
    _lock: fs::File,
}

impl Node {
    /// Starts a node without workers, after removing what an earlier run that was killed has left.
    ///
    /// # Errors
    /// `IN_USE` if another node has the data directory; otherwise what the machine lacks.
    pub async fn start(options: Options) -> Result<Arc<Self>, Error> {
        let root = options.data_dir.join("node");
        let (workers, logs) = (root.join("workers"), root.join("logs"));
        for dir in [&root, &workers, &logs] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|e| io(format!("create {}", dir.display()), &e))?;
        }
        // Absolute, because herders have a working directory of their own.
        let root = root.canonicalize().map_err(|e| io(format!("use {}", root.display()), &e))?;
        if root.starts_with("/run") {
            let message = format!("data directory {} lies below /run, which herders cover", root.display());
            return Err(Error::new(Reason::Invalid, message).hint("choose another data directory"));
        }
        let lock = lock(&root.join("lock"))?;
        let herder_dir = &options.herder_dir;
        let programs = herder_dir.canonicalize().map_err(|e| io(format!("use {}", herder_dir.display()), &e))?;
        let classes = classes(&programs).await?;
        let (workers, logs) = (root.join("workers"), root.join("logs"));

        let mark = Digest::of(root.as_os_str().as_encoded_bytes());
        let group = u32::from_str_radix(&mark.as_str()[..8], 16).unwrap_or(1);
        let links = Links::open(options.cidr, group).map_err(unavailable)?;
        let stale = workers.clone();
        let cleaned = tokio::task::spawn_blocking(move || clean_stale(&stale)).await;
        cleaned.map_err(std::io::Error::other).flatten().map_err(|e| io("clean up after an earlier run", &e))?;
        links.remove_all().await.map_err(unavailable)?;
        let pods = match options.workers {
            Source::Processes => None,
            Source::Pods(pods) => Some(PodPlaces { pods, dir: root.parent().unwrap_or(&root).join("workers") }),
        };
        let egress = Egress::new(mark.short());
        let opens = options.egress && pods.is_none();
        match opens {
            true => egress.open(options.cidr).await,
            false => egress.close().await,
        }
        .map_err(unavailable)?;

        let assets = AssetCache::open(root.join("assets")).await?;
        let revoked = Revoked::open(&root);
        let hub = Hub::default();
        forward_asset_reports(&assets, hub.clone());
        let context = Context {
            herders: Arc::new(Herders { programs, workers }),
            links,
            hub,
            verified: Verified::new(assets.clone(), revoked),
            platform: Arc::new(platform::detect().map_err(|e| io("describe this machine", &e))?),
            node: options.name.clone(),
            pins: Pins::default(),
            fence: Fence::default(),
            pods,
        };
        Ok(Arc::new(Node(Arc::new(Inner {
            name: options.name,
            logs,
            workers: Workers::new(context.clone()),
            context,
            classes,
            assets,
            images: ImageCache::open(root.join("images")).await?,
            local: LocalSnapshots::open(root.join("snapshots")).await?,
            repository: Repository::new(options.objects_dir)?,
            probes: Probes::default(),
            plans: Plans::default(),
            captures: Captures::default(),
            secrets: options.secrets,
            egress: opens.then_some(egress),
            _lock: lock,
        }))))
    }

    /// Ends all workers and removes what the node put on the machine. What ran is lost: suspend first. Pods, and who is on
    /// them, go on.
    /// Takes at most about half a minute.
    pub async fn shutdown(&self) {
        self.0.workers.shutdown().await;
        if let Err(e) = self.0.context.links.remove_all().await {
            tracing::warn!("{e}");
        }
        if let Some(egress) = &self.0.egress
            && let Err(e) = egress.close().await
        {
            tracing::warn!("{e}");
        }
        self.0.context.hub.close();
    }
}

impl Inner {
    /// Where a herder writes an actor's logs.
    pub(crate) fn log_dir(&self, actor: &Uid) -> PathBuf {
        self.logs.join(actor.as_str())
    }
}

/// The herders there are. One that does not describe itself is as good as none: its class cannot run.
async fn classes(programs: &Path) -> Result<Registry, Error> {
    let directories = [programs.to_owned()];
    let discover = move || Registry::discover(&directories, ateom::CONTRACT_VERSION);
    let discovered = tokio::task::spawn_blocking(discover).await.map_err(std::io::Error::other);
    let (classes, errors) = discovered.map_err(|e| io("ask the herders", &e))?;
    for e in errors {
        tracing::warn!("a herder is left out: {e}");
    }
    Ok(classes)
}

fn lock(path: &Path) -> Result<fs::File, Error> {
    let file = fs::File::create(path).map_err(|e| io(format!("create {}", path.display()), &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let message = format!("another node is using {}", path.parent().unwrap_or(path).display());
            Err(Error::new(Reason::InUse, message).hint("stop it, or choose another data directory"))
        }
        Err(fs::TryLockError::Error(e)) => Err(io(format!("lock {}", path.display()), &e)),
    }
}

fn forward_asset_reports(assets: &AssetCache, hub: Hub) {
    let mut reports = assets.subscribe();
    tokio::spawn(async move {
        loop {
            match reports.recv().await {
                Ok(report) => hub.send(ate_agent::NodeEvent::Asset(report)),
                // Progress is for people: what was missed is superseded by the next.
                Err(broadcast::error::RecvError::Lagged(_)) => (),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

fn io(what: impl std::fmt::Display, e: &std::io::Error) -> Error {
    let reason = if crate::disk::is_full(e) { Reason::DiskFull } else { Reason::Unavailable };
    Error::new(reason, format!("cannot {what}: {e}"))
}

fn unavailable(e: crate::network::NetworkError) -> Error {
    Error::new(Reason::Unavailable, e.to_string()).hint("the node must run as root, and needs the package nftables")
}
