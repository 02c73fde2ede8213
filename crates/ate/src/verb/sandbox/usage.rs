//! `ate sandbox usage`: what runs where, and who breaks if something goes.

use std::time::Duration;

use ate_api::v1::{GetUsageRequest, GetUsageResponse, RevisionUsage, User, user::Kind as UserKind};
use clap::Args;
use serde_json::{Value, json};

use super::digest;
use crate::{
    cli::Global,
    client::{Client, timed},
    failure::{Outcome, Trying as _},
    show::{Output, human::short, print, render, table::Table},
};

/// The server may still count after a start.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Show which actors, golden snapshots and snapshots need which binaries.
///
/// Counts are of all there are, for each revision of a SandboxConfig; names are the first ones, running actors before
/// templates, these before suspended actors and snapshots.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox usage
  ate sandbox usage --config gvisor-default@2 --limit 1000
  ate sandbox usage --digest 3f2a9c -o json
  ate sandbox usage --config old -o name          everybody who needs it")]
pub(crate) struct Usage {
    /// Only this configuration, or this revision of it.
    #[arg(long, value_name = "NAME[@REVISION]", default_value = "", hide_default_value = true)]
    config: String,
    /// Only revisions that name this binary; its first digits are enough.
    #[arg(long, value_name = "SHA256")]
    digest: Option<String>,
    /// How many names to show; at most 1000.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
    /// Names after those that were shown; what an earlier answer said.
    #[arg(long = "continue", value_name = "TOKEN", default_value = "", hide_default_value = true)]
    token: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Usage {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::connect(&global.server).await?;
        let digest = match &self.digest {
            Some(digest) => digest::whole(&client, digest).await?,
            None => String::new(),
        };
        let request = GetUsageRequest {
            config: self.config.clone(),
            digest,
            page_size: self.limit,
            page_token: self.token.clone(),
        };
        let usage = client.usage().get_usage(timed(request, TIMEOUT)).await;
        let usage = usage.trying(|| "cannot tell what is in use".to_owned())?.into_inner();
        match self.output {
            Output::Table | Output::Wide => {
                print(&tables(&usage, self.output == Output::Wide));
                if !usage.next_page_token.is_empty() {
                    eprintln!("there are more: --continue {}", usage.next_page_token);
                }
            }
            Output::Name => usage.users.iter().for_each(|u| print(&format!("{}\n", label(u)))),
            Output::Json | Output::Yaml => print(&render(&document(&usage), self.output)),
        }
        Ok(())
    }
}

fn tables(usage: &GetUsageResponse, wide: bool) -> String {
    let mut header =
        vec!["CONFIG", "CLASS", "CURRENT", "RUNNING", "SUSPENDED", "GOLDENS", "SNAPSHOTS", "REVOKED", "BINARIES"];
    if wide {
        header.push("WHY");
    }
    let rows: Vec<_> = usage.revisions.iter().map(|r| row(r, wide)).collect();
    let mut text = Table::new(header).print(&rows);
    if !usage.users.is_empty() {
        let rows: Vec<_> = usage.users.iter().map(|u| vec![label(u), state(u).to_owned(), config(u)]).collect();
        text += &format!("\n{}", Table::new(vec!["USER", "STATE", "CONFIG"]).print(&rows));
    }
    text
}

fn row(r: &RevisionUsage, wide: bool) -> Vec<String> {
    let yes = |b: bool| if b { "yes" } else { "" }.to_owned();
    let mut assets: Vec<String> = r.assets.iter().map(|(name, digest)| format!("{name} {}", short(digest))).collect();
    assets.sort();
    let mut row = vec![
        format!("{}@{}", r.config, r.revision),
        r.sandbox_class.clone(),
        yes(r.current),
        r.running.to_string(),
        r.suspended.to_string(),
        r.goldens.to_string(),
        r.snapshots.to_string(),
        yes(!r.revoked.is_empty()),
        assets.join(", "),
    ];
    if wide {
        row.push(r.revoked.clone());
    }
    row
}

fn label(u: &User) -> String {
    let kind = match u.kind() {
        UserKind::Golden => "actortemplate",
        UserKind::Snapshot => "snapshot",
        UserKind::RunningActor | UserKind::SuspendedActor | UserKind::Unspecified => "actor",
    };
    format!("{kind}/{}", u.name)
}

fn state(u: &User) -> &'static str {
    match u.kind() {
        UserKind::RunningActor => "running",
        UserKind::SuspendedActor => "suspended",
        UserKind::Golden => "golden",
        UserKind::Snapshot | UserKind::Unspecified => "stored",
    }
}

fn config(u: &User) -> String {
    format!("{}@{}", u.config, u.revision)
}

fn document(usage: &GetUsageResponse) -> Value {
    let revisions = usage.revisions.iter().map(|r| {
        json!({
            "config": r.config, "revision": r.revision, "sandboxClass": r.sandbox_class, "current": r.current,
            "assets": r.assets, "revoked": r.revoked, "running": r.running, "suspended": r.suspended,
            "goldens": r.goldens, "snapshots": r.snapshots,
        })
    });
    let users = usage.users.iter().map(|u| json!({ "name": label(u), "state": state(u), "config": config(u) }));
    json!({
        "revisions": revisions.collect::<Vec<_>>(),
        "users": users.collect::<Vec<_>>(),
        "continue": usage.next_page_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_shows_counts_and_names() {
        let usage = GetUsageResponse {
            revisions: vec![RevisionUsage {
                config: "gvisor-default".into(),
                revision: 2,
                sandbox_class: "gvisor".into(),
                current: true,
                assets: [("runsc".to_owned(), "ab".repeat(32))].into(),
                revoked: "CVE".into(),
                running: 1,
                suspended: 1_000_000,
                goldens: 3,
                snapshots: 1_000_004,
            }],
            users: vec![User {
                kind: UserKind::RunningActor.into(),
                name: "default/a".into(),
                config: "gvisor-default".into(),
                revision: 2,
            }],
            next_page_token: "t".into(),
        };
        let text = tables(&usage, true);
        for word in
            ["gvisor-default@2", "1000000", "1000004", "runsc abababababab", "CVE", "actor/default/a", "running"]
        {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
        let json = document(&usage);
        assert_eq!(json["revisions"][0]["suspended"], 1_000_000);
        assert_eq!((&json["users"][0]["name"], &json["continue"]), (&json!("actor/default/a"), &json!("t")));
    }
}
