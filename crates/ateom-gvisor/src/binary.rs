//! What a runsc binary can do, found by asking it.
//!
//! runsc has no list of features, but it prints its flags. Two generations matter: since 2024 memory images are split
//! (`checkpoint --compression`), several containers can be saved together, a checkpoint can leave the sandbox alive,
//! and `restore` acts on a container that was created ahead. Before that a checkpoint always ends the sandbox and
//! `restore` creates it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ate_api::{Error, Reason};
use ateom::{Probed, process::Processes, program::Program};

use crate::{
    config::{Config, Platform},
    describe::ASSET,
};

/// A healthy binary answers in 20 ms.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_CAP: usize = 256 * 1024;

/// A runsc binary, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) version: String,
    flags: BTreeSet<String>,
    checkpoint_flags: BTreeSet<String>,
    platforms: String,
}

impl Binary {
    pub(crate) async fn ask(processes: &Processes, program: &Program) -> Result<Self, Error> {
        let path = program.path();
        let say = async |args: &[&str]| {
            let mut command = program.command(ASSET)?;
            command.args(args);
            let failed = |why: String| {
                let message = format!("`{} {}` {why}", path.display(), args.join(" "));
                Error::new(Reason::SandboxFailed, message).hint("the asset is not a runsc that works on this machine")
            };
            let output = processes.output(&mut command, ANSWER, ANSWER_CAP).await.map_err(|e| failed(e.to_string()))?;
            if output.exit.success() {
                return Ok(output.stdout + &output.stderr);
            }
            Err(failed(format!("failed: {}", output.exit)))
        };
        let version = say(&["--version"]).await?;
        let version = version.lines().next().and_then(|l| l.strip_prefix("runsc version ")).unwrap_or_default();
        if version.is_empty() || version.len() > 128 {
            let message = format!("`{} --version` does not answer as runsc does", path.display());
            return Err(Error::new(Reason::SandboxFailed, message));
        }
        let flags = say(&["flags"]).await?;
        Ok(Binary {
            version: version.to_owned(),
            platforms: usage(&flags, "platform"),
            flags: names(&flags),
            checkpoint_flags: names(&say(&["help", "checkpoint"]).await?),
        })
    }

    pub(crate) fn has_flag(&self, name: &str) -> bool {
        self.flags.contains(name)
    }

    /// Of the generation since 2024.
    pub(crate) fn is_modern(&self) -> bool {
        self.checkpoint_flags.contains("compression")
    }

    /// The platform to use. Depends on configuration and binary only, so that a snapshot meets the same one again.
    pub(crate) fn platform(&self, config: &Config) -> Result<&'static str, Error> {
        let name = match config.platform {
            Platform::Auto if self.knows("systrap") => "systrap",
            Platform::Auto | Platform::Ptrace => "ptrace",
            Platform::Systrap => "systrap",
            Platform::Kvm => "kvm",
        };
        if self.knows(name) {
            return Ok(name);
        }
        Err(Error::new(Reason::MissingCapability, format!("runsc {} has no platform `{name}`", self.version))
            .hint("set `platform: auto` in the SandboxConfig, or use a newer runsc"))
    }

    fn knows(&self, platform: &str) -> bool {
        self.platforms.split([' ', ',']).any(|word| word.trim_end_matches('.') == platform)
    }

    pub(crate) fn capabilities(&self, config: &Config) -> Result<Probed, Error> {
        self.platform(config)?;
        let mut capabilities = vec!["snapshot.data", "snapshot.full"];
        if self.is_modern() {
            capabilities.extend(["checkpoint.leave-running", "prepare", "snapshot.multi-container"]);
        }
        capabilities.sort_unstable();
        Ok(Probed {
            capabilities: capabilities.into_iter().map(String::from).collect(),
            versions: BTreeMap::from([(ASSET.to_owned(), self.version.clone())]),
        })
    }
}

/// Names of the flags in Go's usage text: lines of the form `  -name …`.
fn names(usage: &str) -> BTreeSet<String> {
    let name = |line: &str| line.strip_prefix("  -")?.split([' ', '\t']).next().map(str::to_owned);
    usage.lines().filter_map(name).collect()
}

/// What the usage text says of one flag.
fn usage(text: &str, flag: &str) -> String {
    let mut lines =
        text.lines().skip_while(|l| l.strip_prefix("  -").is_none_or(|l| l.split(' ').next() != Some(flag)));
    lines.nth(1).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &str = "  -overlay\n    \tDEPRECATED\n  -platform string\n    \tspecifies which platform to use: systrap (default), ptrace, kvm. (default \"systrap\")\n  -platform_device_path string\n    \tpath\n";

    fn binary(flags: &str, checkpoint: &str) -> Binary {
        Binary {
            version: "test".into(),
            platforms: usage(flags, "platform"),
            flags: names(flags),
            checkpoint_flags: names(checkpoint),
        }
    }

    #[test]
    fn fuzz_what_a_binary_says_of_itself() {
        ate_fuzz::Target::named("gvisor.flags").sample("flags", || FLAGS.into()).run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            binary(&text, &text).platform(&Config::default())?;
            Ok::<_, Error>(())
        });
    }

    #[test]
    fn the_platform_follows_from_configuration_and_binary() {
        let new = binary(FLAGS, "  -compression value\n    \tx");
        let old = binary(&FLAGS.replace("systrap (default), ", ""), "");
        let with = |platform| Config { platform, ..Config::default() };
        assert_eq!(new.platform(&with(Platform::Auto)), Ok("systrap"));
        assert_eq!(old.platform(&with(Platform::Auto)), Ok("ptrace"));
        assert_eq!(old.platform(&with(Platform::Kvm)), Ok("kvm"));
        assert_eq!(old.platform(&with(Platform::Systrap)).unwrap_err().reason, Reason::MissingCapability);
        assert!(new.is_modern() && !old.is_modern());
    }
}
