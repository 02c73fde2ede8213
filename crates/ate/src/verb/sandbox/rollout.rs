//! `ate sandbox rollout`: bring existing actors to another revision of their binaries.

mod show;

use std::time::Duration;

use ate_api::{
    Error, Reason,
    v1::{self, RolloutRef, StartRolloutRequest, rollout::Phase},
};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cli::Global,
    client::{Client, timed},
    failure::{Failure, Outcome, Trying as _},
    progress::Progress,
    show::{Output, print, render, table::Table},
    verb::duration,
};

/// The server may still count after a start.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often --wait looks.
const LOOK: Duration = Duration::from_millis(500);

/// Bring existing actors to another revision of their sandbox's binaries.
///
/// The golden snapshots of the class are made anew under it and restored once; only then does anybody move. One that
/// does not come up stops the rollout, and nothing was moved.
#[derive(Subcommand)]
pub(crate) enum Rollout {
    Start(Start),
    Status(Status),
    Pause(Pause),
    Resume(Resume),
    Undo(Undo),
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Policy {
    /// Files-only snapshots at the next resume, whole ones when somebody boots the actor anew.
    #[default]
    NextResume,
    /// Boot actors at rest anew: they keep their durable directories and give up their memory.
    Reboot,
    /// Leave existing actors where they are.
    Keep,
}

/// Start a rollout.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox rollout start --to gvisor-default
  ate sandbox rollout start --class microvm --to microvm-next --policy reboot --max-unavailable 10%
  ate sandbox rollout start --to gvisor-default --policy reboot --wait")]
pub(crate) struct Start {
    #[command(flatten)]
    class: Class,
    /// SandboxConfig to come to; its revision of now is meant.
    #[arg(long, value_name = "CONFIG")]
    to: String,
    /// How actors that have a snapshot follow.
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    policy: Policy,
    /// How many actors may be on the way at once, with policy reboot.
    #[arg(long, default_value = "1", value_name = "N|P%")]
    max_unavailable: String,
    #[command(flatten)]
    wait: Wait,
}

/// Show how far rollouts are.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox rollout status
  ate sandbox rollout status --class gvisor --wait
  ate sandbox rollout status -o json")]
pub(crate) struct Status {
    /// Only of this class.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Pause a rollout: nothing more is built or moved.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox rollout pause --class gvisor")]
pub(crate) struct Pause {
    #[command(flatten)]
    class: Class,
}

/// Go on with a rollout that is paused.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox rollout resume --class gvisor")]
pub(crate) struct Resume {
    #[command(flatten)]
    class: Class,
}

/// Take a rollout back: new actors and those not moved yet are as before.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox rollout undo --class microvm")]
pub(crate) struct Undo {
    #[command(flatten)]
    class: Class,
}

#[derive(Args)]
struct Class {
    /// Sandbox class.
    #[arg(long, default_value = "gvisor", value_name = "CLASS")]
    class: String,
}

#[derive(Args)]
struct Wait {
    /// Wait until it is done, failed or paused, and show how far it is.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "30m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

impl Rollout {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        match self {
            Rollout::Start(start) => start.run(&client).await,
            Rollout::Status(status) => status.run(&client).await,
            Rollout::Pause(Pause { class: Class { class } }) => {
                let paused = client.rollouts().pause_rollout(of(&class)).await;
                said(&paused.trying(|| format!("cannot pause rollout/{class}"))?.into_inner(), "paused");
                Ok(())
            }
            Rollout::Resume(Resume { class: Class { class } }) => {
                let resumed = client.rollouts().resume_rollout(of(&class)).await;
                said(&resumed.trying(|| format!("cannot resume rollout/{class}"))?.into_inner(), "resumed");
                Ok(())
            }
            Rollout::Undo(Undo { class: Class { class } }) => {
                let undone = client.rollouts().undo_rollout(of(&class)).await;
                let undone = undone.trying(|| format!("cannot undo rollout/{class}"))?.into_inner();
                said(&undone, "undone");
                if undone.moved > 0 {
                    eprintln!("{} actors had moved and stay under {}", undone.moved, undone.to);
                }
                Ok(())
            }
        }
    }
}

impl Start {
    async fn run(self, client: &Client) -> Outcome {
        let class = self.class.class;
        let request = StartRolloutRequest {
            sandbox_class: class.clone(),
            config: self.to.clone(),
            policy: match self.policy {
                Policy::NextResume => v1::rollout::Policy::NextResume,
                Policy::Reboot => v1::rollout::Policy::Reboot,
                Policy::Keep => v1::rollout::Policy::Keep,
            }
            .into(),
            max_unavailable: self.max_unavailable,
        };
        let started = client.rollouts().start_rollout(timed(request, TIMEOUT)).await;
        let started =
            started.trying(|| format!("cannot start a rollout of class {class} to {}", self.to))?.into_inner();
        said(&started, "started");
        if self.wait.wait { wait(client, &class, self.wait.timeout).await } else { Ok(()) }
    }
}

impl Status {
    async fn run(self, client: &Client) -> Outcome {
        if self.wait.wait {
            for rollout in all(client, self.class.as_deref()).await? {
                wait(client, &rollout.sandbox_class, self.wait.timeout).await?;
            }
        }
        let rollouts = all(client, self.class.as_deref()).await?;
        match self.output {
            Output::Table | Output::Wide => print(&show::tables(&rollouts)),
            Output::Name => rollouts.iter().for_each(|r| print(&format!("rollout/{}\n", r.sandbox_class))),
            Output::Json | Output::Yaml => print(&render(&show::document(&rollouts), self.output)),
        }
        Ok(())
    }
}

async fn all(client: &Client, class: Option<&str>) -> Outcome<Vec<v1::Rollout>> {
    if let Some(class) = class {
        return Ok(vec![get(client, class).await?]);
    }
    let answer = client.rollouts().list_rollouts(timed((), TIMEOUT)).await;
    Ok(answer.trying(|| "cannot list rollouts".to_owned())?.into_inner().rollouts)
}

async fn get(client: &Client, class: &str) -> Outcome<v1::Rollout> {
    let answer = client.rollouts().get_rollout(of(class)).await;
    Ok(answer.trying(|| format!("cannot get rollout/{class}"))?.into_inner())
}

/// Until it does not go on by itself. One that failed or paused is a failure of the command.
async fn wait(client: &Client, class: &str, timeout: Duration) -> Outcome {
    let end = tokio::time::Instant::now() + timeout;
    let mut progress = Progress::parts(format!("rollout/{class}"), 0);
    loop {
        let rollout = get(client, class).await?;
        progress.set(rollout.moved, rollout.total);
        progress.say(&show::state(&rollout));
        match rollout.phase() {
            Phase::Done | Phase::Undone => {
                progress.end();
                said(&rollout, show::phase(&rollout));
                return Ok(());
            }
            Phase::Failed | Phase::Paused => {
                progress.end();
                return Err(stopped(&rollout));
            }
            _ if tokio::time::Instant::now() >= end => {
                progress.end();
                let error = Error::new(Reason::DeadlineExceeded, format!("it goes on: {}", show::state(&rollout)));
                return Err(Failure::new(format!("rollout/{class} is not done after {timeout:?}"), error));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

fn stopped(rollout: &v1::Rollout) -> Failure {
    let what = format!("rollout/{} is {}", rollout.sandbox_class, show::phase(rollout));
    let error = match &rollout.stopped {
        Some(why) => Error {
            reason: why.reason.parse().unwrap_or(Reason::Internal),
            object: why.object.clone(),
            message: why.message.clone(),
            hint: why.hint.clone(),
        },
        None => Error::new(Reason::WrongState, "somebody paused it")
            .hint(format!("ate sandbox rollout resume --class {}", rollout.sandbox_class)),
    };
    Failure::new(what, error)
}

fn of(class: &str) -> tonic::Request<RolloutRef> {
    timed(RolloutRef { sandbox_class: class.to_owned() }, TIMEOUT)
}

fn said(rollout: &v1::Rollout, what: &str) {
    print(&format!("rollout/{} to {} {what}\n", rollout.sandbox_class, rollout.to));
}
