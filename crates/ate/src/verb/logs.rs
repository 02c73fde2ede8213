//! `ate logs`: what an actor's containers wrote.

use ate_api::v1::TailRequest;
use clap::Args;

use crate::{
    cli::Global,
    client::Client,
    failure::{Failure, Outcome, Trying as _},
    kind::Kind,
    show::print,
    target,
};

/// Show what an actor wrote to stdout and stderr.
#[derive(Args)]
#[command(after_help = "Examples:
  ate logs actor a
  ate logs actor a -f --tail 20
  ate logs actor a -c side --prefix --timestamps")]
pub(crate) struct Logs {
    /// actor NAME, or actor/NAME.
    #[arg(required = true, value_name = "actor NAME")]
    what: Vec<String>,
    /// Only this container.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    container: String,
    /// Keep printing what is written from now on.
    #[arg(short, long)]
    follow: bool,
    /// Begin with this many earlier lines; 0 means all that are kept.
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    tail: u32,
    /// Put the container's name before each line.
    #[arg(long)]
    prefix: bool,
    /// Put the time before each line.
    #[arg(long)]
    timestamps: bool,
}

impl Logs {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        // `ate logs NAME` is meant as an actor too.
        let what = match self.what.as_slice() {
            [name] if !name.contains('/') => vec![Kind::Actor.to_string(), name.clone()],
            what => what.to_vec(),
        };
        let targets = target::parse(&what, &global.spaces)?;
        let [actor] = targets.as_slice() else {
            return Err(Failure::Usage("logs shows one actor at a time".to_owned()));
        };
        let (Kind::Actor, Some(name)) = (actor.kind, actor.name.clone()) else {
            return Err(Failure::Usage(format!("only actors have logs, {} have none", actor.kind.plural())));
        };
        let client = Client::connect(&global.server).await?;
        let request = TailRequest {
            atespace: actor.space.clone(),
            name,
            container: self.container,
            follow: self.follow,
            tail_lines: self.tail,
        };
        let what = || format!("cannot read the logs of {actor}");
        let mut lines = client.logs().tail(request).await.trying(what)?.into_inner();
        while let Some(line) = lines.message().await.trying(what)? {
            let time = if self.timestamps { format!("{} ", line.time) } else { String::new() };
            let container = if self.prefix { format!("[{}] ", line.container) } else { String::new() };
            print(&format!("{time}{container}{}\n", line.text));
        }
        Ok(())
    }
}
