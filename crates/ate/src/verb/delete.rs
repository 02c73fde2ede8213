//! `ate delete`: removes objects.

use std::{path::PathBuf, time::Duration};

use ate_api::{Reason, ateapi};
use clap::Args;

use crate::{
    cli::Global,
    client::{Client, actor_ref, timed},
    documents,
    failure::{Failure, Outcome, Trying as _},
    kind::{Kind, Scope},
    show::print,
    target::{self, Target},
    verb::{get, sandbox::digest},
};

/// Ending a running actor and removing what it stored.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(60);
const STAYS: &str = "is in use and stays; its binaries are revoked";

/// Remove objects.
///
/// An object others need is kept, and they are named. Deleting an actor ends it and removes its snapshots.
///
/// With --force a SandboxConfig or an asset that is in use is revoked: it stays, and nothing begins under its binaries any
/// more (see `ate sandbox revoke`).
#[derive(Args)]
#[command(after_help = "Examples:
  ate delete actor a b
  ate delete template/counter pool/default
  ate delete -f examples/counter.yaml
  ate delete actor gone --ignore-not-found
  ate delete sandboxconfig bad --force")]
pub(crate) struct Delete {
    /// KIND NAME… or KIND/NAME ….
    #[arg(required_unless_present = "filename", value_name = "KIND NAME")]
    what: Vec<String>,
    /// Remove the objects named in a file or directory.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// An object that is not there is no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// Revoke the binaries of a SandboxConfig or an asset that is in use.
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let targets = match self.filename.is_empty() {
            true => target::parse(&self.what, &global.spaces)?,
            false => from_files(&self.filename, global.spaces.namespace())?,
        };
        if let Some(kind) = targets.iter().find(|t| t.name.is_none()).map(|t| t.kind) {
            return Err(Failure::Usage(format!("name the {kind} to delete; there is no deleting of all at once")));
        }
        let client = Client::connect(&global.server).await?;
        for target in &targets {
            match delete(&client, target, self.force).await {
                Ok(()) => {
                    print(&format!("{target} {}\n", if self.stays(&client, target).await { STAYS } else { "deleted" }))
                }
                Err(f) if f.reason() == Some(Reason::NotFound) && self.ignore_not_found => {}
                Err(f) if f.reason() == Some(Reason::NotFound) => return Err(client.suggest(f, target).await),
                Err(f) => return Err(f),
            }
        }
        Ok(())
    }

    /// Whether it was revoked rather than deleted.
    async fn stays(&self, client: &Client, target: &Target) -> bool {
        self.force
            && matches!(target.kind, Kind::SandboxConfig | Kind::Asset)
            && get::find(client, target).await.is_ok()
    }
}

/// In the opposite order of applying: first what needs others.
fn from_files(files: &[PathBuf], namespace: &str) -> Outcome<Vec<Target>> {
    let documents = documents::read(files, namespace)?;
    let target = |d: &documents::Document| {
        let metadata = &d.value["metadata"];
        let space = match d.kind.scope() {
            Scope::Cluster => String::new(),
            _ => metadata["namespace"].as_str().unwrap_or_default().to_owned(),
        };
        Target { kind: d.kind, space, name: metadata["name"].as_str().map(str::to_owned) }
    };
    Ok(documents.iter().rev().map(target).collect())
}

async fn delete(client: &Client, target: &Target, force: bool) -> Outcome {
    let what = || format!("cannot delete {target}");
    match target.kind {
        Kind::Actor => {
            let request = ateapi::DeleteActorRequest { actor_ref: actor_ref(target) };
            client.control().delete_actor(timed(request, ACTOR_TIMEOUT)).await.trying(what)?;
        }
        Kind::Atespace => {
            let request = ateapi::DeleteAtespaceRequest { name: target.name.clone().unwrap_or_default() };
            client.control().delete_atespace(timed(request, ACTOR_TIMEOUT)).await.trying(what)?;
        }
        Kind::Worker | Kind::Snapshot => {
            return Err(Failure::Usage(format!(
                "{} cannot be deleted by hand; they go when nothing needs them",
                target.kind.plural()
            )));
        }
        Kind::Asset => {
            let name = digest::whole(client, target.name.as_deref().unwrap_or_default()).await?;
            client.delete(&Target { name: Some(name), ..target.clone() }, force).await?;
        }
        _ => client.delete(target, force).await?,
    }
    Ok(())
}
