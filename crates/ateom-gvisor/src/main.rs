//! The herder for gVisor (runsc).
#![forbid(unsafe_code)]

mod binary;
mod class;
mod config;
mod describe;
mod doctor;
mod driver;
mod runsc;
mod sandbox;
mod spec;

fn main() -> std::process::ExitCode {
    ateom::cli::main::<class::Gvisor>()
}
