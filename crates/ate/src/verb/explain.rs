//! `ate explain`: which sandbox an actor or template gets, and why.

use ate_api::time::now;
use clap::{Args, ValueEnum};

use crate::{
    cli::Global,
    client::Client,
    failure::{Failure, Outcome},
    kind::Kind,
    show::{self, Output, explain, print},
    target,
};

/// Say which sandbox class, configuration and binaries apply to an actor or template, and why.
///
/// For each it names the rule that decided, then where it would run next, what stands in the way if nothing, and what
/// would change the answer. Nothing is started.
#[derive(Args)]
#[command(after_help = "Examples:
  ate explain actor a
  ate explain template counter
  ate explain actor a -o json")]
pub(crate) struct Explain {
    /// KIND NAME… or KIND/NAME …, where the kind is actor or template.
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// The facts as the server has them.
    Json,
    Yaml,
}

impl Explain {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let targets = target::parse(&self.what, &global.spaces)?;
        for target in &targets {
            if !matches!(target.kind, Kind::Actor | Kind::ActorTemplate) {
                return Err(Failure::Usage(format!("a {} has no sandbox; name an actor or a template", target.kind)));
            }
            if target.name.is_none() {
                return Err(Failure::Usage(format!("which {}? write `ate explain {} NAME`", target.kind, target.kind)));
            }
        }
        let client = Client::connect(&global.server).await?;
        let mut texts = Vec::new();
        for target in &targets {
            let (explanation, value) = client.explain(target).await?;
            texts.push(match self.output {
                Form::Text => explain::text(&explanation, now()),
                Form::Json => show::render(&value, Output::Json),
                Form::Yaml => show::render(&value, Output::Yaml),
            });
        }
        let between = match self.output {
            Form::Yaml => "---\n",
            Form::Text => "\n",
            Form::Json => "",
        };
        print(&texts.join(between));
        Ok(())
    }
}
