//! The `ate` command: every verb of the command line, and `ate up`, the whole system in one process.
//! Installed under the name `kubectl-ate` it is the kubectl plugin `kubectl ate`.
#![forbid(unsafe_code)]

mod certs;
mod cli;
mod client;
mod cluster;
mod connection;
mod documents;
mod failure;
mod in_cluster;
mod kind;
mod programs;
mod progress;
mod show;
mod target;
mod up;
mod verb;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
