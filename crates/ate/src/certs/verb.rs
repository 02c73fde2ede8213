//! The verb itself: flags, and what is told.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{Error, Reason, name::is_label};
use clap::{Args, ValueEnum};

use super::{
    authority::{Authority, Step},
    component::{Component, Wanted, bring},
    files, manifest,
};
use crate::{
    failure::{Failure, Outcome, Trying as _},
    show::{self, print},
};

const DAY: u64 = 24 * 3600;
/// Further names of the API, a line for each.
const NAMES: &str = "dns";

/// Make the certificates of the components of a cluster, and renew those that end soon.
///
/// The directory holds an authority (ca/, to be kept safe: it never goes into the cluster) and a folder for each
/// component with ca.crt, tls.crt and tls.key. Running it again renews what ends soon and changes nothing else, so it may
/// run every day. Components read new files without a restart. Where cert-manager makes certificates this is not needed.
#[derive(Args)]
#[command(after_help = "Examples:
  ate certs --dir ./ate-certs
  ate certs --dir ./ate-certs -o yaml | kubectl apply --server-side --force-conflicts -f -
  ate certs --dir ./ate-certs --dns ate.example.com
  ate certs --dir ./ate-certs --replace-ca")]
pub(crate) struct Certs {
    /// Where they are kept.
    #[arg(long, alias = "out", value_name = "DIR")]
    dir: PathBuf,
    /// Print the components' certificates as Kubernetes objects.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Namespace of the installation.
    #[arg(long, default_value = "ate-system", value_name = "NAME")]
    system_namespace: String,
    /// Further name or address of the API, remembered for the next runs. May be repeated; an empty one forgets all.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    dns: Vec<String>,
    /// Days a certificate counts.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825), value_name = "N")]
    days: u16,
    /// One that ends within so many days is renewed [default: a third of --days].
    #[arg(long, value_name = "N")]
    renew_before: Option<u16>,
    /// One step of replacing the authority; there are three, and each says when to do the next.
    #[arg(long)]
    replace_ca: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl Certs {
    pub(crate) fn run(self) -> Outcome {
        let what = || format!("cannot make certificates in {}", self.dir.display());
        let days = |n: u16| Duration::from_secs(u64::from(n) * DAY);
        let renew_before = self.renew_before.unwrap_or(self.days / 3);
        if renew_before >= self.days {
            return Err(Failure::Usage("--renew-before must be less than --days: all would be renewed always".into()));
        }
        label(&self.system_namespace).trying(what)?;
        if self.replace_ca {
            told(match Authority::replace(&self.dir).trying(what)? {
                Step::Trusted => "step 1 of 3: a new authority is trusted; when every component has this, run it again",
                Step::Signs => "step 2 of 3: the new authority signs; when every component has this, run it again",
                Step::Done => "step 3 of 3: the former authority is trusted no more",
            });
        }
        let further = names(&self.dir, self.dns).trying(what)?;
        let (authority, new) = Authority::open(&self.dir).trying(what)?;
        if new {
            told(&format!("made an authority in {}; keep ca/ safe", self.dir.display()));
        }
        let wanted = Wanted {
            namespace: &self.system_namespace,
            further: &further,
            lifetime: days(self.days),
            renew_before: days(renew_before),
        };
        for component in Component::ALL {
            match bring(&self.dir, component, &authority, &wanted).trying(what)? {
                Some(why) => told(&format!("{}: a new certificate for {} days: {why}", component.name(), self.days)),
                None => told(&format!("{}: unchanged", component.name())),
            }
        }
        if authority.ends_within(2 * days(self.days)) {
            told("the authority itself ends soon: begin with --replace-ca");
        }
        if let Some(format) = self.output {
            let list = manifest::objects(&self.dir, &self.system_namespace, &authority.bundle()).trying(what)?;
            let format = if format == Format::Yaml { show::Output::Yaml } else { show::Output::Json };
            print(&show::render(&list, format));
        }
        Ok(())
    }
}

/// The further names: those given now, or else those of the last time.
fn names(dir: &Path, given: Vec<String>) -> Result<Vec<String>, Error> {
    let file = dir.join(NAMES);
    if given.is_empty() {
        let known = files::read(&file)?.unwrap_or_default();
        return Ok(known.lines().map(str::to_owned).collect());
    }
    let given: Vec<String> = given.into_iter().filter(|n| !n.is_empty()).collect();
    files::make_dir(dir)?;
    files::write(&file, given.join("\n").as_bytes(), files::PUBLIC)?;
    Ok(given)
}

/// Standard output is for the objects.
fn told(text: &str) {
    eprintln!("{text}");
}

/// It becomes part of DNS names.
fn label(name: &str) -> Result<(), Error> {
    if is_label(name) {
        Ok(())
    } else {
        Err(Error::new(Reason::Invalid, format!("{name:?} is no name of a namespace")))
    }
}
