//! `ate resume`, `ate pause` and `ate suspend`: moves actors on and off workers by hand.

use std::time::{Duration, Instant};

use ate_api::ateapi;
use clap::Args;

use super::duration;
use crate::{
    cli::Global,
    client::{Client, actor_ref, timed},
    failure::{Failure, Outcome, Trying as _},
    kind::Kind,
    show::print,
    target::{self, Target},
};

#[derive(Args)]
#[command(after_help = "Examples:
  ate resume actor a
  ate resume actor a b --timeout 10s
  ate resume actor a --boot               give up memory, keep durable directories")]
pub(crate) struct Resume {
    /// actor NAME…, or actor/NAME ….
    #[arg(required = true, value_name = "actor NAME")]
    what: Vec<String>,
    /// Start from the image instead of the snapshot: durable directories stay, what was in memory is given up.
    #[arg(long)]
    boot: bool,
    /// How long to wait for a worker and for the actor to answer.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

/// Flags of pause and suspend.
#[derive(Args)]
#[command(after_help = "Examples:
  ate suspend actor a
  ate pause actor a b
  ate suspend actor/a -a team-a")]
pub(crate) struct Park {
    /// actor NAME…, or actor/NAME ….
    #[arg(required = true, value_name = "actor NAME")]
    what: Vec<String>,
    /// How long to wait until the snapshot is stored.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parking {
    Pause,
    Suspend,
}

impl Resume {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let actors = actors(&self.what, global)?;
        let client = Client::connect(&global.server).await?;
        for actor in &actors {
            let begun = Instant::now();
            let request = ateapi::ResumeActorRequest { actor_ref: actor_ref(actor), boot: self.boot };
            let resumed = client.control().resume_actor(timed(request, self.timeout)).await;
            let resumed = resumed.trying(|| format!("cannot resume {actor}"))?.into_inner().actor.unwrap_or_default();
            let took = begun.elapsed().as_millis();
            print(&format!("{actor} running on {} after {took} ms\n", resumed.ateom_pod_name));
        }
        Ok(())
    }
}

impl Park {
    pub(crate) async fn run(self, global: &Global, parking: Parking) -> Outcome {
        let actors = actors(&self.what, global)?;
        let client = Client::connect(&global.server).await?;
        for actor in &actors {
            let begun = Instant::now();
            let (parked, word) = match parking {
                Parking::Pause => {
                    let request = timed(ateapi::PauseActorRequest { actor_ref: actor_ref(actor) }, self.timeout);
                    let done = client.control().pause_actor(request).await;
                    (done.trying(|| format!("cannot pause {actor}"))?.into_inner().actor, "paused")
                }
                Parking::Suspend => {
                    let request = timed(ateapi::SuspendActorRequest { actor_ref: actor_ref(actor) }, self.timeout);
                    let done = client.control().suspend_actor(request).await;
                    (done.trying(|| format!("cannot suspend {actor}"))?.into_inner().actor, "suspended")
                }
            };
            let took = begun.elapsed().as_millis();
            let snapshot = parked.and_then(|a| a.latest_snapshot_info).map(|s| s.manifest_digest).unwrap_or_default();
            let short = crate::show::human::short(&snapshot);
            print(&format!("{actor} {word} after {took} ms, snapshot {short}\n"));
        }
        Ok(())
    }
}

fn actors(what: &[String], global: &Global) -> Outcome<Vec<Target>> {
    let targets = target::parse(what, &global.spaces)?;
    match targets.iter().find(|t| t.kind != Kind::Actor || t.name.is_none()) {
        None => Ok(targets),
        Some(t) if t.kind == Kind::Actor => Err(Failure::Usage("name the actor: actor NAME".to_owned())),
        Some(t) => Err(Failure::Usage(format!("only actors can be moved, {} cannot", t.kind.plural()))),
    }
}
