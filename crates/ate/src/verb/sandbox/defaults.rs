//! `ate sandbox set-default` and `set-default-config`: who gets what without asking. One transaction each.

use ate_api::v1::{SetDefaultClassRequest, SetDefaultConfigRequest};
use clap::Args;

use crate::{cli::Global, client::Client, failure::Outcome, show::print};

/// Make a class the default of the cluster, or of one atespace.
///
/// Templates that are created from now on and name no class get it. Those that exist keep the class they have, and so do
/// their actors and snapshots. Without an atespace (-a or ATE_ATESPACE) it is for the whole cluster: the annotation
/// ate.dev/is-default-class moves to the default SandboxConfig of the class. With --none there is no default there any more:
/// an atespace then has that of the cluster, and the cluster the built-in one.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox set-default microvm
  ate sandbox set-default gvisor --atespace team-a
  ate sandbox set-default --none --atespace team-a
  ate get sandboxconfigs                  DEFAULT shows `class` where it stands now")]
pub(crate) struct SetDefault {
    /// The class, for example gvisor.
    #[arg(value_name = "CLASS", required_unless_present = "none")]
    class: Option<String>,
    /// Leave the cluster, or the atespace, without a default.
    #[arg(long, conflicts_with = "class")]
    none: bool,
}

/// Make a SandboxConfig the default of its class.
///
/// Pools that name no configuration run under it from now on. Snapshots go on under what they were made under.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox set-default-config gvisor-next
  ate explain template counter            says what that means for a template")]
pub(crate) struct SetDefaultConfig {
    #[arg(value_name = "NAME")]
    name: String,
}

impl SetDefault {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        let atespace = global.spaces.atespace.clone().unwrap_or_default();
        let whose = if atespace.is_empty() { "the cluster".to_owned() } else { format!("atespace/{atespace}") };
        let class = self.class.unwrap_or_default();
        let request = SetDefaultClassRequest { sandbox_class: class.clone(), atespace: atespace.clone() };
        let done = client.set_default_class(request, &whose).await?;
        if class.is_empty() {
            match done.before.as_str() {
                "" => print(&format!("{whose} had no default class\n")),
                before => print(&format!("{whose} has no default class any more (it was {before})\n")),
            }
            return Ok(());
        }
        let through = match (&done.object, atespace.is_empty()) {
            (Some(config), true) => format!(" (sandboxconfig/{})", config.name),
            _ => String::new(),
        };
        print(&format!("{class} is the default class of {whose}{through}{}\n", was(&done.before, &class)));
        Ok(())
    }
}

impl SetDefaultConfig {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        let done = client.set_default_config(SetDefaultConfigRequest { name: self.name.clone() }).await?;
        print(&format!("sandboxconfig/{} is the default of its class{}\n", self.name, was(&done.before, &self.name)));
        Ok(())
    }
}

fn was(before: &str, now: &str) -> String {
    match before {
        "" => String::new(),
        same if same == now => ", as it was before".to_owned(),
        other => format!(", in place of {other}"),
    }
}
