//! The command line: which verbs there are, and the flags all of them share.

use std::{ffi::OsString, path::Path};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    certs::Certs,
    cluster,
    connection::Server,
    failure::{EXIT_CODES, Failure, Outcome},
    kind::{Kind, Scope},
    up, verb,
};

const DEFAULT_SPACE: &str = ate_api::id::DEFAULT_SPACE;

/// Runs very many sandboxed programs ("actors") on few machines: idle ones are suspended into snapshots and
/// resumed within a blink when a request comes.
#[derive(Parser)]
#[command(name = "ate", version, max_term_width = 110)]
#[command(after_help = after_help())]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

fn after_help() -> String {
    format!(
        "Examples:
  ate up                                  start everything on this machine
  ate run ./image --name hello            a template and an actor in one go
  ate get actors -o wide
  curl http://hello.default.localhost:8000/

{EXIT_CODES}

`ate help VERB` shows the flags and examples of one verb."
    )
}

/// Flags of every verb.
#[derive(Args, Clone)]
pub(crate) struct Global {
    #[command(flatten)]
    pub server: Server,
    #[command(flatten)]
    pub spaces: Spaces,
}

/// Which atespace and namespace a command is about.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Spaces {
    /// Atespace of actors [default: default].
    #[arg(short, long, global = true, env = "ATE_ATESPACE", value_name = "NAME", help_heading = "Global options")]
    pub atespace: Option<String>,
    /// Namespace of templates and pools [default: default].
    #[arg(short, long, global = true, env = "ATE_NAMESPACE", value_name = "NAME", help_heading = "Global options")]
    pub namespace: Option<String>,
    /// Every atespace and namespace.
    #[arg(short = 'A', long = "all-spaces", global = true, help_heading = "Global options")]
    pub all: bool,
}

impl Spaces {
    /// The space a kind is looked up in; empty where it has none or all are meant.
    pub(crate) fn of(&self, kind: Kind) -> String {
        match kind.scope() {
            Scope::Cluster => String::new(),
            _ if self.all => String::new(),
            Scope::Namespace => self.namespace().to_owned(),
            Scope::Atespace => self.atespace().to_owned(),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_SPACE)
    }

    pub(crate) fn atespace(&self) -> &str {
        self.atespace.as_deref().unwrap_or(DEFAULT_SPACE)
    }
}

#[derive(Subcommand)]
enum Verb {
    Up(up::Up),
    Control(cluster::control::ControlServer),
    Node(cluster::node::NodeServer),
    Run(verb::run::Run),
    Apply(verb::apply::Apply),
    Get(verb::get::Get),
    Describe(verb::describe::Describe),
    Explain(verb::explain::Explain),
    Delete(verb::delete::Delete),
    #[command(subcommand)]
    Create(verb::create::Create),
    /// Start an actor, or bring it back from its snapshot.
    Resume(verb::lifecycle::Resume),
    /// Keep an actor's state on its node and give its worker back.
    Pause(verb::lifecycle::Park),
    /// Keep an actor's state in object storage and give its worker back.
    Suspend(verb::lifecycle::Park),
    Logs(verb::logs::Logs),
    #[command(subcommand)]
    Sandbox(verb::sandbox::Sandbox),
    #[command(subcommand)]
    Token(verb::token::Token),
    Certs(Certs),
    Crd(verb::crd::Crd),
    Doctor(verb::doctor::Doctor),
    Completion(verb::completion::Completion),
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> Outcome {
    let args: Vec<OsString> = std::env::args_os().collect();
    let plugin = args.first().and_then(|a| Path::new(a).file_name()).is_some_and(|n| n == "kubectl-ate");
    let mut command = Cli::command();
    if plugin {
        // Help then shows what the user typed.
        command = command.bin_name("kubectl ate").display_name("kubectl ate");
    }
    let cli = match command.try_get_matches_from_mut(args).and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return Err(Failure::Silent(if e.use_stderr() { 2 } else { 0 }));
        }
    };
    let mut global = cli.global;
    global.server.cluster.plugin = plugin;
    // Only the servers need more than one thread.
    let mut runtime = match &cli.verb {
        Verb::Up(_) | Verb::Control(_) | Verb::Node(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Err(Failure::Usage(format!("cannot start threads: {e}"))),
    };
    let done = runtime.block_on(async {
        match cli.verb {
            Verb::Up(v) => v.run().await,
            Verb::Control(v) => v.run().await,
            Verb::Node(v) => v.run().await,
            Verb::Run(v) => v.run(&global).await,
            Verb::Apply(v) => v.run(&global).await,
            Verb::Get(v) => v.run(&global).await,
            Verb::Describe(v) => v.run(&global).await,
            Verb::Explain(v) => v.run(&global).await,
            Verb::Delete(v) => v.run(&global).await,
            Verb::Create(v) => v.run(&global).await,
            Verb::Resume(v) => v.run(&global).await,
            Verb::Pause(v) => v.run(&global, verb::lifecycle::Parking::Pause).await,
            Verb::Suspend(v) => v.run(&global, verb::lifecycle::Parking::Suspend).await,
            Verb::Logs(v) => v.run(&global).await,
            Verb::Sandbox(v) => v.run(&global).await,
            Verb::Token(v) => v.run(&global).await,
            Verb::Certs(v) => v.run(),
            Verb::Crd(v) => v.run(),
            Verb::Doctor(v) => v.run(),
            Verb::Completion(v) => v.run(),
        }
    });
    // Work that blocks a thread (a read of stdin, say) must not hold up the end.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_a_description_and_examples() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{} has no description", sub.get_name());
                match sub.has_subcommands() {
                    true => check(sub),
                    false => {
                        let text = sub.get_after_help().map(|h| h.to_string()).unwrap_or_default();
                        assert!(text.contains("Examples:\n  "), "{} has no examples", sub.get_name());
                    }
                }
            }
        }
        check(&Cli::command());
    }
}
