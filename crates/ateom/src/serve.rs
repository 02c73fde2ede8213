//! `ateom-CLASS serve`: from the command line to a served socket, and back to nothing.

use std::{
    ffi::OsString, net::Ipv4Addr, os::unix::fs::DirBuilderExt, path::PathBuf, process::ExitCode, time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc, watch},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::{
    driver::{driver_server::DriverServer, stats_response::State},
    namespaces,
    network::{ActorNetwork, WorkerInterface},
    process::Processes,
    sandbox::Driver,
    server::Server,
    worker::{Status, Worker},
};

/// The node agent moves the interface in as soon as it knows our pid.
const INTERFACE: Duration = Duration::from_secs(30);
const KILL: Duration = Duration::from_secs(5);
/// Time the herder gets to end its actor after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// Operations that wait for the one under way.
const QUEUE: usize = 16;
const EVENTS: usize = 64;

/// The command line of `serve`.
#[derive(Debug, Clone)]
pub struct ServeArgs {
    pub socket: PathBuf,
    pub work_dir: PathBuf,
    pub interface: String,
    /// None: the worker is a pod and has its network already.
    pub given: Option<Given>,
    /// Set in the process inside the namespaces.
    pub inside: bool,
}

/// What the node agent gives a worker that is no pod.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Address and prefix length.
    pub address: (Ipv4Addr, u8),
    pub gateway: Option<Ipv4Addr>,
}

impl ServeArgs {
    fn scratch(&self) -> PathBuf {
        self.work_dir.join("sandbox")
    }

    fn inner_command_line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec!["serve".into(), "--inside".into()];
        line.extend(["--socket".into(), self.socket.clone().into()]);
        line.extend(["--work-dir".into(), self.work_dir.clone().into()]);
        line.extend(["--interface".into(), self.interface.clone().into()]);
        match self.given {
            None => line.push("--pod".into()),
            Some(Given { address: (address, prefix), gateway }) => {
                line.extend(["--address".into(), format!("{address}/{prefix}").into()]);
                line.extend(gateway.into_iter().flat_map(|g| ["--gateway".into(), g.to_string().into()]));
            }
        }
        line
    }
}

/// What a driver gets to work with.
pub struct Place {
    pub processes: Processes,
    pub network: ActorNetwork,
    /// On disk, emptied at the end. `/run` is a tmpfs of our own.
    pub scratch: PathBuf,
    /// The host's resolver configuration.
    pub resolv_conf: Vec<u8>,
}

/// Runs the herder; returns when it has ended. Must be called before the process has any other thread.
pub fn serve<D: Driver>(args: &ServeArgs, driver: impl FnOnce(Place) -> D) -> ExitCode {
    if args.work_dir.starts_with("/run") {
        eprintln!("ateom: --work-dir may not be below /run, which is covered inside a worker");
        return ExitCode::FAILURE;
    }
    if !args.inside {
        if args.given.is_none() {
            // Both lie on the node, where nobody has made room for this pod yet.
            for dir in [args.socket.parent(), Some(args.work_dir.as_path())].into_iter().flatten() {
                if let Err(e) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
                    eprintln!("ateom: cannot create {}: {e}", dir.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        // Whoever asks a pod to end says for how long.
        let grace = args.given.map(|_| GRACE);
        return namespaces::shim(&args.inner_command_line(), &[args.scratch(), args.socket.clone()], grace);
    }
    match inside(args, driver) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ateom: {e}");
            ExitCode::FAILURE
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn inside<D: Driver>(args: &ServeArgs, driver: impl FnOnce(Place) -> D) -> Result<(), AnyError> {
    let scratch = args.scratch();
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?; // left by a shim that was killed
    }
    std::fs::create_dir_all(&scratch)?;
    // Actors' durable directories are nobody else's business.
    std::fs::set_permissions(&scratch, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let outside = namespaces::enter(&args.socket, args.given.is_some())
        .map_err(|e| format!("cannot set up the worker's namespaces: {e}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(run(args, scratch, outside, driver));
    // Tasks may hold blocking work; the process ends now and the kernel ends everything else in the namespace.
    runtime.shutdown_background();
    result
}

async fn run<D: Driver>(
    args: &ServeArgs,
    scratch: PathBuf,
    outside: namespaces::Inside,
    driver: impl FnOnce(Place) -> D,
) -> Result<(), AnyError> {
    let processes = Processes::start()?;
    let (status_tx, status) = watch::channel(Status::default());
    let leaving = CancellationToken::new();
    let end = end_requested(args.given.is_none().then(|| (status.clone(), leaving.clone())))?;
    tokio::pin!(end);
    let interface = WorkerInterface { name: args.interface.clone(), given: args.given };
    let network = tokio::select! {
        network = ActorNetwork::start(&interface, INTERFACE, &processes) => network?,
        () = &mut end => return Ok(()),
    };
    let place = Place { processes: processes.clone(), network, scratch, resolv_conf: outside.resolv_conf };
    let address = place.network.address();
    let driver = driver(place);

    let (events, _) = broadcast::channel(EVENTS);
    let (commands, commands_rx) = mpsc::channel(QUEUE);
    let (resets, resets_rx) = mpsc::channel(QUEUE);
    let info = driver.info();
    let worker = Worker::new(driver, status_tx, events.clone());
    tokio::spawn(worker.run(commands_rx, resets_rx));

    outside.listener.set_nonblocking(true)?;
    let incoming = UnixListenerStream::new(UnixListener::from_std(outside.listener)?);
    let instance = ate_api::id::Uid::generate().to_string();
    let end_now = CancellationToken::new();
    let server = Server { info, instance, commands, resets, status, events, leaving, end_now: end_now.clone() };
    let serving =
        tonic::transport::Server::builder().add_service(DriverServer::new(server)).serve_with_incoming(incoming);
    tracing::info!(%address, "worker up");
    tokio::select! {
        served = serving => served?,
        () = &mut end => (),
        () = end_now.cancelled() => tracing::warn!("told that it is beyond use"),
    }
    if processes.kill_all(KILL).await.is_err() {
        tracing::warn!("some processes did not end; they end with their namespace");
    }
    Ok(())
}

/// Resolves when the node agent is gone (our stdin ends) or asks us to end (SIGTERM). A pod outlives the node agent; asked to
/// end, it takes nobody any more and waits until its actor has left.
fn end_requested(
    pod: Option<(watch::Receiver<Status>, CancellationToken)>,
) -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let lifeline = async {
        let mut buffer = [0u8; 64];
        let mut stdin = tokio::io::stdin();
        while matches!(stdin.read(&mut buffer).await, Ok(1..)) {}
    };
    let is_pod = pod.is_some();
    Ok(async move {
        tokio::select! {
            () = lifeline, if !is_pod => tracing::info!("the node agent is gone"),
            _ = term.recv() => tracing::info!("asked to end"),
            _ = int.recv() => tracing::info!("interrupted"),
        }
        if let Some((mut status, leaving)) = pod {
            leaving.cancel();
            // Fails only when the worker is gone already.
            let _ = status.wait_for(|s| !matches!(s.state, State::Starting | State::Running | State::Frozen)).await;
        }
    })
}
