//! `ate get`: what there is, as a table or in other forms, once or as it changes.

use ate_api::time::now;
use clap::Args;

use crate::{
    cli::Global,
    client::{Change, Client, Object},
    failure::{Failure, Outcome},
    kind::{Kind, Scope},
    show::{Output, columns, document, print, render, table::Table},
    target::{self, Target},
};

/// Show objects.
///
/// Kinds: atespaces, sandboxconfigs (sc), workerpools (pools), actortemplates (templates), actors, workers, snapshots,
/// assets, tokens. A snapshot's name is the digest of its manifest; its first digits are enough.
#[derive(Args)]
#[command(after_help = "Examples:
  ate get actors
  ate get actors -A -o wide
  ate get actor a b -o yaml
  ate get template/counter pool/default
  ate get snapshots                       what each was made with
  ate get actors -w                       and every change from now on")]
pub(crate) struct Get {
    /// KIND, KIND NAME…, KIND/NAME … or KIND,KIND.
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Keep watching and print what changes.
    #[arg(short, long)]
    watch: bool,
}

impl Get {
    /// Everything of one kind, once.
    pub(crate) fn all(kind: Kind, output: Output) -> Get {
        Get { what: vec![kind.plural().to_owned()], output, watch: false }
    }

    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let targets = target::parse(&self.what, &global.spaces)?;
        let client = Client::connect(&global.server).await?;
        if self.watch {
            return match targets.as_slice() {
                [one] => self.watch(&client, one, global.spaces.all).await,
                _ => Err(Failure::Usage("-w watches one kind or one object".to_owned())),
            };
        }
        let single = targets.len() == 1 && targets[0].name.is_some();
        let mut objects = Vec::new();
        for target in &targets {
            match &target.name {
                Some(_) => objects.push(find(&client, target).await?),
                None => {
                    let mut all = client.list(target.kind, &target.space).await?;
                    sort(&mut all);
                    objects.extend(all);
                }
            }
        }
        match self.output {
            Output::Table | Output::Wide => {
                if objects.is_empty() {
                    eprintln!("no {} found", targets.iter().map(|t| t.kind.plural()).collect::<Vec<_>>().join(" or "));
                }
                print(&self.tables(&objects, global.spaces.all));
            }
            _ => print(&document(&objects, self.output, single)),
        }
        Ok(())
    }

    /// One table for each kind, a blank line between them.
    fn tables(&self, objects: &[Object], all_spaces: bool) -> String {
        let mut kinds: Vec<Kind> = Vec::new();
        objects.iter().for_each(|o| {
            if !kinds.contains(&o.kind) {
                kinds.push(o.kind);
            }
        });
        let tables: Vec<String> = kinds
            .into_iter()
            .map(|kind| {
                let spaces = all_spaces && kind.scope() != Scope::Cluster;
                let of_kind = objects.iter().filter(|o| o.kind == kind);
                let rows: Vec<_> = of_kind.map(|o| columns::row(o, self.is_wide(), spaces, now())).collect();
                Table::new(columns::header(kind, self.is_wide(), spaces)).print(&rows)
            })
            .collect();
        tables.join("\n")
    }

    fn is_wide(&self) -> bool {
        self.output == Output::Wide
    }

    /// First everything there is, then one row for each change.
    async fn watch(&self, client: &Client, target: &Target, all_spaces: bool) -> Outcome {
        let spaces = all_spaces && target.kind.scope() != Scope::Cluster;
        let mut table = Table::new(columns::header(target.kind, self.is_wide(), spaces));
        let mut watch = client.watch(target).await?;
        let mut first = Some(Vec::new());
        let mut show = |objects: &[Object]| match self.output {
            Output::Table | Output::Wide => {
                let rows: Vec<_> = objects.iter().map(|o| columns::row(o, self.is_wide(), spaces, now())).collect();
                print(&table.print(&rows));
            }
            Output::Name => objects.iter().for_each(|o| print(&format!("{}\n", o.label()))),
            // One document for each change, so that a reader can take them one by one.
            Output::Json => objects.iter().for_each(|o| print(&format!("{}\n", o.value))),
            Output::Yaml => objects.iter().for_each(|o| print(&format!("---\n{}", render(&o.value, Output::Yaml)))),
        };
        while let Some(change) = watch.next().await? {
            match change {
                Change::Added(o) | Change::Modified(o) => match &mut first {
                    Some(first) => first.push(o),
                    None => show(&[o]),
                },
                Change::UpToDate => {
                    let mut all = first.take().unwrap_or_default();
                    sort(&mut all);
                    show(&all);
                }
                Change::Deleted(o) => {
                    if matches!(self.output, Output::Table | Output::Wide) {
                        print(&format!("{} deleted\n", o.label()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Snapshots from old to new, everything else by space and name.
fn sort(objects: &mut [Object]) {
    objects.sort_by_cached_key(|o| {
        let created = match o.kind {
            Kind::Snapshot => columns::text(&o.value, "/status/created"),
            _ => String::new(),
        };
        (created, o.namespace.clone(), o.name.clone())
    });
}

/// One object by name; snapshots and assets, whose names are digests, also by their first digits.
pub(crate) async fn find(client: &Client, target: &Target) -> Outcome<Object> {
    let prefix = target.name.as_deref().unwrap_or_default();
    let is_prefix = matches!(target.kind, Kind::Snapshot | Kind::Asset) && (4..64).contains(&prefix.len());
    if is_prefix {
        let mut matching = client.list(target.kind, "").await?;
        matching.retain(|o| o.name.starts_with(prefix));
        match matching.len() {
            1 => return Ok(matching.remove(0)),
            0 => {}
            n => return Err(Failure::Usage(format!("{n} {} begin with {prefix}", target.kind.plural()))),
        }
    }
    client.get(target).await
}
