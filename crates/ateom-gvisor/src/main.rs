//! The herder for gVisor (runsc).
#![forbid(unsafe_code)]

mod binary;
mod cli;
mod config;
mod describe;
mod doctor;
mod driver;
mod probe;
mod runsc;
mod sandbox;
mod spec;

fn main() -> std::process::ExitCode {
    cli::main()
}
