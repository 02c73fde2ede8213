//! The herder for microVMs: each actor in a virtual machine with a kernel of its own, run by QEMU.
#![deny(unsafe_code)]

mod accelerator;
mod binary;
mod class;
mod collect;
mod config;
mod describe;
mod doctor;
mod driver;
mod error;
mod guest;
mod idle;
mod logs;
mod machine;
mod memory;
mod plan;
mod record;
mod seen;
#[cfg(test)]
mod testing;
mod trial;
mod tsc;
mod vmm;

use vmm::launch;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == launch::VERB) {
        return launch::main(args);
    }
    ateom::cli::main::<class::Microvm>()
}
