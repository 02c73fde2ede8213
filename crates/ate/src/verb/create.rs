//! `ate create`: the objects that are made by name rather than from a file.

use std::time::Duration;

use ate_api::ateapi;
use clap::{Args, Subcommand};

use super::pair;
use crate::{
    cli::Global,
    client::{Client, actor_ref, timed},
    failure::{Outcome, Trying as _},
    kind::Kind,
    show::print,
    target::Target,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Create an atespace or an actor by name.
#[derive(Subcommand)]
pub(crate) enum Create {
    /// Create an atespace, the unit of isolation that actors live in.
    #[command(after_help = "Examples:
  ate create atespace team-a")]
    Atespace {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    Actor(Actor),
}

/// Create actors from a template.
///
/// They start suspended, at the template's golden snapshot; the first request or `ate resume` wakes them.
#[derive(Args)]
#[command(after_help = "Examples:
  ate create actor a --template counter
  ate create actor a b c --template counter -a team-a
  ate create actor a --template prod/counter --selector disk=fast")]
pub(crate) struct Actor {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Template, as NAME or NAMESPACE/NAME.
    #[arg(short, long, value_name = "TEMPLATE")]
    template: String,
    /// Only on workers of pools with this label. May be repeated.
    #[arg(short = 'l', long, value_parser = pair, value_name = "KEY=VALUE")]
    selector: Vec<(String, String)>,
}

impl Create {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        match self {
            Create::Atespace { names } => {
                for name in names {
                    let request = ateapi::CreateAtespaceRequest { name: name.clone() };
                    let created = client.control().create_atespace(timed(request, TIMEOUT)).await;
                    created.trying(|| format!("cannot create atespace/{name}"))?;
                    print(&format!("atespace/{name} created\n"));
                }
                Ok(())
            }
            Create::Actor(actor) => actor.run(&client, global).await,
        }
    }
}

impl Actor {
    async fn run(self, client: &Client, global: &Global) -> Outcome {
        let template = Target::one(Kind::ActorTemplate, &self.template, &global.spaces);
        for name in &self.names {
            create(client, &Target::one(Kind::Actor, name, &global.spaces), &template, &self.selector).await?;
        }
        Ok(())
    }
}

pub(crate) async fn create(
    client: &Client,
    actor: &Target,
    template: &Target,
    selector: &[(String, String)],
) -> Outcome {
    let match_labels: std::collections::HashMap<String, String> = selector.iter().cloned().collect();
    let request = ateapi::CreateActorRequest {
        actor_ref: actor_ref(actor),
        actor_template_namespace: template.space.clone(),
        actor_template_name: template.name.clone().unwrap_or_default(),
        worker_selector: (!match_labels.is_empty()).then_some(ateapi::Selector { match_labels }),
    };
    client.control().create_actor(timed(request, TIMEOUT)).await.trying(|| format!("cannot create {actor}"))?;
    print(&format!("{actor} created\n"));
    Ok(())
}
