//! `/run/ate` inside an actor: who it is. A directory bound read-only, rewritten at each activation.
//!
//! Files are replaced atomically: an actor sees the old or the new identity, never half of one. A program must read
//! them again after a restore; nothing else tells it that it was restored.

use std::{fs, io, path::Path};

use crate::driver::Activation;

/// Where actors find it.
pub const MOUNT_POINT: &str = "/run/ate";

/// File name → content, without line ends: `atespace`, `name`, `uid`, `template` (`NAMESPACE/NAME`), `activation`.
pub fn files(activation: &Activation) -> [(&'static str, String); 5] {
    let who = activation.identity.clone().unwrap_or_default();
    let template = format!("{}/{}", who.template_namespace, who.template_name);
    [
        ("atespace", who.atespace),
        ("name", who.name),
        ("uid", who.uid),
        ("template", template),
        ("activation", activation.number.to_string()),
    ]
}

/// Writes them into `dir`.
pub fn write(dir: &Path, activation: &Activation) -> io::Result<()> {
    for (name, content) in files(activation) {
        let new = dir.join(format!(".{name}"));
        fs::write(&new, content)?;
        fs::rename(new, dir.join(name))?;
    }
    Ok(())
}
