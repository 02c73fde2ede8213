//! `ate describe`: objects in full, with conditions and events; for a snapshot also its manifest.

use ate_api::time::now;
use clap::Args;

use super::get::find;
use crate::{
    cli::Global,
    client::Client,
    failure::Outcome,
    kind::Kind,
    show::{describe, print},
    target,
};

/// Show objects in full, for people.
///
/// Of a snapshot it also shows the manifest: everything that is needed to use it.
#[derive(Args)]
#[command(after_help = "Examples:
  ate describe actor a
  ate describe sandboxconfig gvisor-default
  ate describe snapshot 3f9a2c             with its manifest
  ate describe templates")]
pub(crate) struct Describe {
    /// KIND, KIND NAME… or KIND/NAME ….
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
}

impl Describe {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let targets = target::parse(&self.what, &global.spaces)?;
        let client = Client::connect(&global.server).await?;
        let mut texts = Vec::new();
        for target in &targets {
            let objects = match &target.name {
                Some(_) => vec![find(&client, target).await?],
                None => client.list(target.kind, &target.space).await?,
            };
            for object in objects {
                let mut text = describe::describe(&object, now());
                if object.kind == Kind::Snapshot && target.name.is_some() {
                    let manifest = client.manifest(&object.name).await?;
                    text += "Manifest:\n";
                    text += &indented(&manifest);
                }
                texts.push(text);
            }
        }
        print(&texts.join("\n"));
        Ok(())
    }
}

/// The manifest as it is stored, only with line breaks.
fn indented(manifest: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(manifest) {
        Ok(value) => format!("{value:#}\n").lines().map(|line| format!("  {line}\n")).collect(),
        Err(_) => format!("  {}\n", String::from_utf8_lossy(manifest)),
    }
}
