//! `ate completion`: the script that makes a shell complete this command.

use clap::{Args, CommandFactory as _};

use crate::{cli::Cli, failure::Outcome, show::print};

/// Print a shell completion script.
#[derive(Args)]
#[command(after_help = "Examples:
  source <(ate completion bash)
  ate completion zsh > ~/.zfunc/_ate
  ate completion fish > ~/.config/fish/completions/ate.fish")]
pub(crate) struct Completion {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ate", &mut script);
        print(&String::from_utf8_lossy(&script));
        Ok(())
    }
}
