//! `ate sandbox revoke`, `unrevoke` and `revocations`: binaries that must not run any more.

use std::time::Duration;

use ate_api::{
    Error, Reason,
    v1::{AffectedActor, Revocation, RevokeRequest, UnrevokeRequest, affected_actor::State},
};
use clap::Args;
use serde_json::json;

use super::digest;
use crate::{
    cli::Global,
    client::{Client, timed},
    failure::{Failure, Outcome, Trying as _},
    show::{Output, human::short, print, render, table::Table},
};

/// Until every node has confirmed.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The same, and everybody's files are saved.
const STOP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Forbid a binary: nothing begins or resumes under it from now on.
///
/// Every node has confirmed when the command returns, and it stays so over restarts. Actors that run under it are listed
/// and go on. With --stop they are taken off their workers: those of templates with durable directories keep these and
/// give up their memory; the others go back to their last snapshot.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox revoke 3f2a9c41 --reason CVE-2026-1234
  ate sandbox revoke 3f2a9c41 --reason \"escape in the wild\" --stop
  ate sandbox usage --digest 3f2a9c41             who needs it")]
pub(crate) struct Revoke {
    /// sha256 of the binary; first digits are enough for one that is known.
    #[arg(value_name = "DIGEST")]
    digest: String,
    /// What whoever is refused will read.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also stop what runs under it.
    #[arg(long)]
    stop: bool,
}

/// Take a revocation back.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox unrevoke 3f2a9c41")]
pub(crate) struct Unrevoke {
    #[arg(value_name = "DIGEST")]
    digest: String,
}

/// Show which binaries are revoked, and why.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox revocations
  ate sandbox revocations -o json")]
pub(crate) struct Revocations {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Revoke {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        let digest = digest::whole(&client, &self.digest).await?;
        let request = RevokeRequest { digest: digest.clone(), reason: self.reason, stop: self.stop };
        let timeout = if self.stop { STOP_TIMEOUT } else { TIMEOUT };
        let revoked = client.revocations().revoke(timed(request, timeout)).await;
        let revoked = revoked.trying(|| format!("cannot revoke asset/{digest}"))?.into_inner();
        let named = match revoked.configs.as_slice() {
            [] => "no SandboxConfig names it".to_owned(),
            configs => format!("named by {}", configs.join(", ")),
        };
        print(&format!("asset/{digest} revoked, {named}\n"));
        if revoked.running.is_empty() {
            print("nothing runs under it\n");
            return Ok(());
        }
        let rows: Vec<_> = revoked.running.iter().map(row).collect();
        print(&Table::new(vec!["ACTOR", "STATE", "MESSAGE"]).print(&rows));
        let failed = revoked.running.iter().filter(|a| a.state() == State::Failed).count();
        if failed > 0 {
            let message = format!("{failed} of {} actors could not be stopped and go on", revoked.running.len());
            let error = Error::new(Reason::SandboxFailed, message);
            return Err(Failure::new(format!("cannot stop all that runs under asset/{digest}"), error)
                .hint("repeat the command, or delete these actors"));
        }
        if !self.stop {
            eprintln!("they go on; --stop takes them off their workers");
        }
        Ok(())
    }
}

impl Unrevoke {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        let revoked = list(&client).await?;
        // Also what no configuration names any more, so not asked of the assets there are.
        let wanted = self.digest.strip_prefix("sha256:").unwrap_or(&self.digest);
        let mut matching = revoked.iter().filter(|r| !wanted.is_empty() && r.digest.starts_with(wanted));
        let digest = match (matching.next(), matching.next()) {
            (Some(one), None) => one.digest.clone(),
            (Some(_), Some(_)) => {
                return Err(Failure::Usage(format!("more than one revoked binary begins with {wanted}")));
            }
            (None, _) => {
                let error = Error::new(Reason::NotFound, "no such binary is revoked")
                    .hint("`ate sandbox revocations` lists what is");
                return Err(Failure::new(format!("cannot unrevoke asset/{wanted}"), error));
            }
        };
        let request = timed(UnrevokeRequest { digest: digest.clone() }, TIMEOUT);
        client.revocations().unrevoke(request).await.trying(|| format!("cannot unrevoke asset/{digest}"))?;
        print(&format!("asset/{digest} may run again\n"));
        Ok(())
    }
}

impl Revocations {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let revoked = list(&Client::connect(&global.server).await?).await?;
        match self.output {
            Output::Table | Output::Wide => {
                if revoked.is_empty() {
                    eprintln!("no binary is revoked");
                }
                let wide = self.output == Output::Wide;
                let name = |r: &Revocation| if wide { r.digest.clone() } else { short(&r.digest).to_owned() };
                let rows = revoked.iter().map(|r| vec![name(r), r.time.clone(), r.configs.join(","), r.reason.clone()]);
                print(&Table::new(vec!["SHA256", "SINCE", "NAMED-BY", "REASON"]).print(&rows.collect::<Vec<_>>()));
            }
            Output::Name => revoked.iter().for_each(|r| print(&format!("asset/{}\n", r.digest))),
            Output::Json | Output::Yaml => {
                let all = revoked
                    .iter()
                    .map(|r| json!({ "sha256": r.digest, "reason": r.reason, "since": r.time, "namedBy": r.configs }));
                print(&render(&json!({ "items": all.collect::<Vec<_>>() }), self.output));
            }
        }
        Ok(())
    }
}

async fn list(client: &Client) -> Outcome<Vec<Revocation>> {
    let answer = client.revocations().list_revocations(timed((), TIMEOUT)).await;
    Ok(answer.trying(|| "cannot list what is revoked".to_owned())?.into_inner().revocations)
}

fn row(actor: &AffectedActor) -> Vec<String> {
    let state = match actor.state() {
        State::Running | State::Unspecified => "running",
        State::Suspended => "suspended, files kept",
        State::Stopped => "stopped",
        State::Failed => "running, not stopped",
    };
    vec![format!("{}/{}", actor.atespace, actor.name), state.to_owned(), actor.message.clone()]
}
