//! The harness of the black-box tests: a real node in a directory of its own, driven through the command
//! line and through plain HTTP, as a user does.
//!
//! Nothing here knows the inside of the system. What a test needs from outside (sandbox builds, the image of
//! the example actor) is laid out by `script/setup` under `.cache`.
#![forbid(unsafe_code)]

pub mod attacks;
pub mod class;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod footprint;
mod forward;
pub mod given;
pub mod http;
pub mod image;
pub mod kit;
pub mod load;
pub mod node;
pub mod promises;
pub mod template;
pub mod until;
pub mod user;

use std::path::{Path, PathBuf};

pub use class::{Class, Site};
pub use footprint::Footprint;
pub use kit::Kit;
pub use node::Node;
pub use template::Template;
pub use until::{eventually, until};
pub use user::{Output, User};

/// The builds of gVisor the tests use, oldest first.
pub const RUNSC_OLD: &str = "20221219";
pub const RUNSC_A: &str = "20240729-bookworm";
pub const RUNSC_B: &str = "20240729-trixie";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository this was built from")
}

/// Something `script/setup` provides.
pub fn provided(path: &str) -> PathBuf {
    let found = repository().join(".cache").join(path);
    assert!(found.exists(), "{} is missing: run script/setup", found.display());
    found
}

/// A real `runsc` of this build.
pub fn runsc(build: &str) -> PathBuf {
    provided(&format!("runsc/{build}/runsc"))
}

/// The reference of the example actor's image.
pub fn counter_image() -> String {
    format!("oci:{}", provided("images/counter").display())
}

/// The example actor's static program.
pub fn counter_program() -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    provided(&format!("examples-target/{triple}/release/counter"))
}

/// A binary of this build: beside the running program, or one above when that is a test (`target/PROFILE/deps`).
pub fn binary(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("the path of this program");
    let dir = me.parent().expect("its directory");
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    let binary = dir.join(name);
    assert!(binary.exists(), "{} is missing: run `cargo build --workspace` first", binary.display());
    binary
}
