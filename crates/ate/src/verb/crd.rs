//! `ate crd`: what Kubernetes has to know of our resources.

use std::path::PathBuf;

use ate_sandbox::{Registry, registry::directories};
use clap::Args;

use crate::{failure::Outcome, show::print};

/// Print the definitions of templates, pools and sandbox configurations for Kubernetes.
#[derive(Args)]
#[command(after_help = "Examples:
  ate crd | kubectl apply --server-side -f -
  ate crd --policies | kubectl apply --server-side -f -")]
pub(crate) struct Crd {
    /// Print the admission policies instead: which assets and settings each installed class takes.
    #[arg(long)]
    policies: bool,
    /// Look for herders here before the directory of this program.
    #[arg(long, value_name = "DIR", requires = "policies")]
    herder_dir: Option<PathBuf>,
}

impl Crd {
    pub(crate) fn run(self) -> Outcome {
        if !self.policies {
            print(&ate_kube::crd::manifests());
            return Ok(());
        }
        let (herders, unusable) = Registry::discover(&directories(self.herder_dir.as_deref()), ateom::CONTRACT_VERSION);
        for problem in unusable {
            eprintln!("left out: {problem}");
        }
        print(&ate_kube::policy::manifests(herders.classes().map(|h| &h.descriptor)));
        Ok(())
    }
}
