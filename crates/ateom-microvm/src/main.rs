//! The herder for microVMs: each actor in a virtual machine with a kernel of its own, run by QEMU.
#![deny(unsafe_code)]

mod accelerator;
mod class;
mod collect;
mod config;
mod describe;
mod doctor;
mod driver;
mod probe;
mod trial;

fn main() -> std::process::ExitCode {
    ateom::cli::main::<class::Microvm>()
}
