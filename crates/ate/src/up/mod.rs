//! `ate up`: control plane, node agent and router in one process, in the foreground.

pub(crate) mod adapters;
mod data_dir;
mod first_start;
pub(crate) mod listen;
pub(crate) mod settings;
pub(crate) mod signals;
pub(crate) mod system;
pub(crate) mod tls;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use ate_api::{Error, Reason};
use ate_sandbox::{ClassDescriptor, Registry, registry::PREFIX};
use clap::Args;

use self::{
    listen::{ApiListener, reachable},
    settings::{Given, Settings},
    signals::{INTERRUPTED, Signals},
    system::{Listeners, System, host_name},
    tls::Encryption,
};
use crate::{
    client::Client,
    connection::Server,
    failure::{Failure, Outcome, Trying as _},
    show::print,
};

/// Start everything on this machine: control plane, node and router in one process.
///
/// On a first start with nothing configured it makes an atespace, a SandboxConfig and a pool for each sandbox whose
/// binaries are on the PATH, and says so. SIGINT and SIGTERM suspend what runs and end; a second one ends at once.
/// Every flag may also come from the environment or, with --config, from a TOML file with the same names; a flag outweighs
/// the environment, the environment the file.
#[derive(Args)]
#[command(after_help = "Examples:
  ate up
  ate up --data-dir /srv/ate --router-listen 0.0.0.0:8000
  ate up --config /etc/ate.toml
  ate up --listen 0.0.0.0:7600 --tls-self-signed
  ATE_LISTEN=unix:/run/ate.sock ate up")]
pub(crate) struct Up {
    /// TOML file with settings.
    #[arg(long, env = "ATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

impl Up {
    pub(crate) async fn run(self) -> Outcome {
        let settings = Settings::resolve(self.given, self.config.as_deref())?;
        log_to_stderr(&settings.log)?;
        let mut signals = Signals::listen()?;
        // What may be refused comes first, so that nothing has to be undone.
        let _lock = data_dir::lock(&settings.data_dir)?;
        let classes = classes(&settings.herder_dir)?;
        let encryption = Encryption::of(&settings, &host_name())?;
        let own = ApiListener::own(&settings.data_dir).await?;
        let wide = ApiListener::bind(&settings.listen).await?;
        let router = listen::tcp(settings.router_listen, "--router-listen").await?;
        let (server, api) = (own.server(false)?, wide.server(encryption.is_some())?);
        let told = Told { server, api, authority: encryption.as_ref().and_then(|e| e.authority.clone()) };
        let routed = reachable(router.local_addr().trying(|| "cannot listen".to_owned())?);
        introduce(&settings, &told, encryption.as_ref(), routed.port(), &classes);

        let listeners = Listeners { own, wide, encryption };
        let system = tokio::select! {
            started = System::start(&settings, listeners, router, routed.port(), classes.clone()) => started?,
            () = signals.next() => return Err(Failure::Silent(INTERRUPTED)),
        };
        let ended = tokio::select! {
            ready = ready(&settings, &told, routed, &classes) => match ready {
                Ok(()) => {
                    signals.next().await;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            () = signals.next() => Ok(()),
        };
        signals.end_at_next();
        print("ending: suspending what runs (a second signal ends at once)\n");
        system.stop().await;
        if let Some(file) = &settings.ready_file {
            let _ = std::fs::remove_file(file);
        }
        print("ended\n");
        ended
    }
}

/// What callers need to know.
struct Told {
    /// For root and the user this runs as.
    server: String,
    /// For callers with a token.
    api: String,
    /// What they need to trust it.
    authority: Option<PathBuf>,
}

/// Says where things are.
fn introduce(settings: &Settings, told: &Told, encryption: Option<&Encryption>, router_port: u16, classes: &Registry) {
    let described = classes.classes().map(|herder| &herder.descriptor);
    let warning = |c: &ClassDescriptor| if c.may_be_default().is_ok() { "" } else { ", NO SANDBOX" };
    let names: Vec<String> =
        described.map(|c| format!("{} ({} {}{})", c.name, c.driver_name, c.driver_version, warning(c))).collect();
    print(&format!(
        "ate {}\n  data       {}\n  API        {}\n             {} with a token (ate token create)\n{}  router     \
         http://ACTOR.ATESPACE.localhost:{router_port}/\n  sandboxes  {}\n",
        env!("CARGO_PKG_VERSION"),
        settings.data_dir.display(),
        told.server,
        told.api,
        encryption.map(certificate).unwrap_or_default(),
        names.join(", ")
    ));
}

fn certificate(encryption: &Encryption) -> String {
    let file = encryption.authority.as_ref().map(|f| format!("; clients need --ca-file {}", f.display()));
    format!("  certificate sha256:{}{}\n", encryption.fingerprint, file.unwrap_or_default())
}

/// Makes the first configuration if there is none, and says that all is ready.
async fn ready(settings: &Settings, told: &Told, router: SocketAddr, classes: &Registry) -> Outcome {
    let begun = Instant::now();
    if !settings.empty {
        let client = Client::connect(&Server::at(&told.server)).await?;
        if let Err(failure) = first_start::configure(&client, classes, settings.workers).await {
            // The user may still configure it by hand, so this is no reason to end.
            failure.report();
        }
    }
    if let Some(file) = &settings.ready_file {
        let what = || format!("cannot write {}", file.display());
        // Renamed into place: whoever waits for it never reads half of it.
        let new = file.with_extension("new");
        let mut lines = format!("server={}\napi={}\nrouter={router}\n", told.server, told.api);
        if let Some(authority) = &told.authority {
            lines += &format!("ca={}\n", authority.display());
        }
        std::fs::write(&new, lines).trying(what)?;
        std::fs::rename(&new, file).trying(what)?;
    }
    print(&format!("ready after {:.1}s; try: ate run IMAGE --name hello\n", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The installed herders. One that does not work is told, and left out.
pub(crate) fn classes(herder_dir: &Path) -> Outcome<Registry> {
    let (classes, unusable) = Registry::discover(&[herder_dir.to_owned()], ateom::CONTRACT_VERSION);
    for e in unusable {
        eprintln!("warning: a herder is left out: {e}");
    }
    if classes.classes().next().is_none() {
        let message = format!("there is no usable herder (a program {PREFIX}CLASS) in {}", herder_dir.display());
        return Err(Error::new(Reason::NotFound, message).hint(format!(
            "put one beside the ate program, for example {PREFIX}gvisor, or name its directory with --herder-dir"
        )))
        .trying(|| "cannot start".to_owned());
    }
    Ok(classes)
}

pub(crate) fn log_to_stderr(filter: &str) -> Outcome {
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| Failure::Usage(format!("--log {filter}: {e}")))?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    Ok(())
}
