//! `ate apply`: creates or changes objects as files say.

use std::{path::PathBuf, time::Duration};

use ate_api::v1::apply_response::Outcome as Applied;
use clap::Args;

use super::duration;
use crate::{
    cli::Global,
    client::Client,
    documents::{self, Document},
    failure::{Outcome, Trying as _},
    kind::Scope,
    progress::Progress,
    show::print,
    target::Target,
    wait,
};

/// Create or change objects from files.
///
/// Reads YAML or JSON, several documents in one file. All of them are read and checked before the first is sent, and
/// they are applied in the order in which they need each other: atespaces, sandbox configs, pools, templates.
#[derive(Args)]
#[command(after_help = "Examples:
  ate apply -f examples/counter.yaml
  ate apply -f examples/counter.yaml --wait
  ate apply -f deploy/                    every .yaml, .yml and .json below
  kubectl get actortemplate x -o yaml | ate apply -f -")]
pub(crate) struct Apply {
    /// File, directory, or - for standard input. May be repeated.
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Wait until every object is ready; shows the progress of golden snapshots.
    #[arg(long)]
    wait: bool,
    /// How long to wait, for each object.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    /// Let the server check the objects but change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let documents = documents::read(&self.filename, global.spaces.namespace())?;
        let client = Client::connect(&global.server).await?;
        let note = if self.dry_run { " (dry run)" } else { "" };
        for document in &documents {
            let target = target(document);
            let applied = client.apply(&document.value, self.dry_run).await;
            let applied = applied.trying(|| format!("cannot apply {}: {target}", document.source))?;
            print(&format!("{target} {}{note}\n", word(applied.outcome())));
        }
        if self.wait && !self.dry_run {
            for document in &documents {
                let target = target(document);
                let mut progress = Progress::spinner(target.to_string());
                wait::until_ready(&client, &target, self.timeout, &mut progress).await?;
                let took = progress.end();
                print(&format!("{target} ready after {:.1}s\n", took.as_secs_f64()));
            }
        }
        Ok(())
    }
}

fn target(document: &Document) -> Target {
    let metadata = &document.value["metadata"];
    let space = match document.kind.scope() {
        Scope::Cluster => "",
        _ => metadata["namespace"].as_str().unwrap_or_default(),
    };
    Target { kind: document.kind, space: space.to_owned(), name: metadata["name"].as_str().map(str::to_owned) }
}

/// What happened to the object.
pub(crate) fn word(outcome: Applied) -> &'static str {
    match outcome {
        Applied::Created => "created",
        Applied::Configured => "configured",
        Applied::Unchanged => "unchanged",
        Applied::Unspecified => "applied",
    }
}
