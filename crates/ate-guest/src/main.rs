//! Init and agent inside a virtual machine: mounts, network, containers, clock, identity. One static binary.
//!
//! As PID 1 it is the agent, which speaks [`ate_guest::protocol`] with the herder outside. For each container it
//! starts itself again, as the first process of the container's namespaces, and that becomes the container's program.
#![deny(unsafe_code)]

mod boot;
mod cgroup;
mod containers;
mod control;
mod entropy;
mod identity;
mod logs;
mod network;
mod port;
mod program;

use std::process::ExitCode;

/// Where the agent keeps what containers are made of.
const STATE: &str = "/state";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match (args.next().as_deref(), args.next()) {
        (Some(program::VERB), Some(spec)) => program::become_container(&spec),
        _ if std::process::id() == 1 => boot::boot().and_then(|()| control::serve()),
        _ => {
            eprintln!("ate-guest is init inside a virtual machine; it does nothing elsewhere");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The console is what the herder shows when a machine ends. As PID 1, to end is to end the machine.
            eprintln!("ate-guest: {e:#}");
            ExitCode::FAILURE
        }
    }
}
