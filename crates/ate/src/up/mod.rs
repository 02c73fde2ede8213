//! `ate up`: control plane, node agent and router in one process, in the foreground.

mod data_dir;
mod first_start;
pub(crate) mod herders;
mod listen;
pub(crate) mod settings;
mod signals;

use std::path::PathBuf;

use clap::Args;

use self::settings::{Given, Settings};
use crate::failure::Outcome;

/// Start everything on this machine: control plane, node and router in one process.
///
/// On a first start with nothing configured it makes an atespace, a SandboxConfig and a pool for each sandbox whose
/// binaries are on the PATH, and says so. SIGINT and SIGTERM suspend what runs and end; a second one ends at once.
/// Every flag may also come from the environment or, with --config, from a TOML file with the same names; a flag outweighs
/// the environment, the environment the file.
#[derive(Args)]
#[command(after_help = "Examples:
  ate up
  ate up --data-dir /srv/ate --router-listen 0.0.0.0:8000
  ate up --config /etc/ate.toml
  ATE_LISTEN=unix:/run/ate.sock ate up")]
pub(crate) struct Up {
    /// TOML file with settings.
    #[arg(long, env = "ATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

impl Up {
    pub(crate) async fn run(self) -> Outcome {
        let _settings = Settings::resolve(self.given, self.config.as_deref())?;
        Ok(())
    }
}
