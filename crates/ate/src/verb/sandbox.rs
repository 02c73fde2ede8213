//! `ate sandbox`: binaries of sandboxes. Here `import`, which brings them into the system and names them in a
//! `SandboxConfig`.

mod collect;
mod defaults;
pub(crate) mod digest;
mod revoke;
mod rollout;
mod signing;
mod usage;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{
    Error, Reason,
    resource::{API_VERSION, Asset, ObjectMeta, SandboxConfig, SandboxConfigSpec, template},
    v1::{ImportRequest, ImportResponse, apply_response, import_request},
};
use ate_sandbox::host::arch;
use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{apply::word, duration, pair};
use crate::{
    cli::Global,
    client::Client,
    failure::{Outcome, Trying as _},
    kind::Kind,
    progress::Progress,
    show::{columns::text, human, print},
    target::Target,
    wait,
};

/// Bytes in one message; the server takes at most 1 MiB.
const CHUNK: usize = 512 << 10;
/// Chunks read ahead of the connection.
const CHUNKS_AHEAD: usize = 4;
const TAR: &str = "application/x-tar";

/// Administer sandbox binaries.
#[derive(Subcommand)]
pub(crate) enum Sandbox {
    Import(Import),
    Usage(usage::Usage),
    Revoke(revoke::Revoke),
    Unrevoke(revoke::Unrevoke),
    Revocations(revoke::Revocations),
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    SetDefault(defaults::SetDefault),
    SetDefaultConfig(defaults::SetDefaultConfig),
}

/// Import a sandbox's binaries and name them in a SandboxConfig.
///
/// Puts each file into the asset store under its digest and applies a SandboxConfig that pins it for this machine's
/// architecture. An existing config keeps its other architectures and settings and gets a new revision; snapshots made
/// under an older revision go on using the binaries they name.
///
/// With --from, the herder of the class makes the assets out of what a distribution ships: a directory into which its
/// packages were unpacked, or / where they are installed. ASSET=PATH then replaces or adds single ones.
#[derive(Args)]
#[command(after_help = "Examples:
  ate sandbox import --name gvisor-default --default runsc=/usr/bin/runsc
  ate sandbox import --class gvisor --name gvisor-next runsc=./runsc --config platform=systrap
  ate sandbox import --class microvm --name microvm-default --default --from .cache/microvm/10.0
  ate sandbox import --class microvm --name microvm-own --from / kernel=./vmlinux
  ate sandbox import --name gvisor-signed --public-key minisign.pub --signature runsc=runsc.minisig runsc=./runsc")]
pub(crate) struct Import {
    /// Sandbox class the binaries are for [default: that of the SandboxConfig if there is one, else gvisor].
    #[arg(long)]
    class: Option<String>,
    /// SandboxConfig to create or change.
    #[arg(long)]
    name: String,
    /// Make it the default of its class.
    #[arg(long)]
    default: bool,
    /// A setting in the class's own format. May be repeated.
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    config: Vec<(String, String)>,
    /// Do not wait until the binaries are verified and probed.
    #[arg(long)]
    no_wait: bool,
    /// A public key of minisign that the assets must be signed by. May be repeated; adds to those the config has.
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// The .minisig file of an asset, made with `minisign -S -m PATH`. May be repeated.
    #[arg(long, value_parser = pair, value_name = "ASSET=FILE")]
    signature: Vec<(String, String)>,
    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
    /// Directory with a distribution's packages, from which the class makes its assets.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where the herders (programs ateom-CLASS) are, for --from [default: beside this program].
    #[arg(long, env = "ATE_HERDER_DIR", value_name = "DIR")]
    herder_dir: Option<PathBuf>,
    /// Asset and the file it is in. A .tar, .tar.gz, .tgz or .tar.zst is unpacked into a directory.
    #[arg(required_unless_present = "from", value_parser = pair, value_name = "ASSET=PATH")]
    assets: Vec<(String, String)>,
}

impl Sandbox {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Sandbox::Import(import) => import.run(&Client::connect(&global.server).await?).await,
            Sandbox::Usage(usage) => usage.run(global).await,
            Sandbox::Revoke(revoke) => revoke.run(global).await,
            Sandbox::Unrevoke(unrevoke) => unrevoke.run(global).await,
            Sandbox::Revocations(revocations) => revocations.run(global).await,
            Sandbox::Rollout(rollout) => rollout.run(global).await,
            Sandbox::SetDefault(v) => v.run(global).await,
            Sandbox::SetDefaultConfig(v) => v.run(global).await,
        }
    }
}

impl Import {
    /// The first import of a class: its files, as the default configuration.
    pub(crate) fn first(class: &str, name: String, assets: Vec<(String, String)>) -> Import {
        let timeout = Duration::from_secs(120);
        Import {
            class: Some(class.to_owned()),
            name,
            default: true,
            config: Vec::new(),
            no_wait: false,
            public_key: Vec::new(),
            signature: Vec::new(),
            timeout,
            from: None,
            herder_dir: None,
            assets,
        }
    }

    pub(crate) async fn run(self, client: &Client) -> Outcome {
        let target = Target { kind: Kind::SandboxConfig, space: String::new(), name: Some(self.name.clone()) };
        let there = existing(client, &target).await?;
        let class = self.class(there.as_ref());
        let signing = signing::Signing::read(&self.public_key, &self.signature)?;
        let collected = match &self.from {
            Some(from) => Some(collect::collect(&class, from, self.herder_dir.as_deref()).await?),
            None => None,
        };
        let mut files = collected.as_ref().map(|c| c.assets.clone()).unwrap_or_default();
        files.extend(self.assets.iter().map(|(asset, path)| (asset.clone(), PathBuf::from(path))));
        let mut assets = BTreeMap::new();
        for (asset, path) in &files {
            let (imported, media_type) = upload(client, asset, path).await?;
            let known = if imported.existed { " (was there already)" } else { "" };
            print(&format!("{asset}  sha256:{}  {}{known}\n", imported.sha256, human::size(imported.size)));
            let what = || format!("cannot import {}", path.display());
            assets.insert(asset.clone(), pinned(imported, media_type).trying(what)?);
        }
        drop(collected);
        signing.sign(&mut assets)?;
        let what = || format!("cannot apply {target}");
        let (no_wait, timeout) = (self.no_wait, self.timeout);
        let mut config = self.config(there, assets);
        signing.add_keys(&mut config.spec);
        let config = serde_json::to_value(config).map_err(|e| Error::new(Reason::Internal, e.to_string()));
        let applied = client.apply(&config.trying(what)?, false).await.trying(what)?;
        let outcome: apply_response::Outcome = applied.outcome();
        print(&format!("{target} {}\n", word(outcome)));
        if no_wait {
            return Ok(());
        }
        let mut progress = Progress::spinner(target.to_string());
        let ready = wait::until_ready(client, &target, timeout, &mut progress).await?;
        let took = progress.end().as_secs_f64();
        let versions = ready.value.pointer("/status/versions").and_then(Value::as_object);
        let versions: Vec<String> = versions
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k} {}", human::version(v.as_str().unwrap_or_default())))
            .collect();
        let revision = text(&ready.value, "/status/revision");
        print(&format!("{target} ready after {took:.1}s: revision {revision}, {}\n", versions.join(", ")));
        Ok(())
    }

    fn class(&self, existing: Option<&SandboxConfig>) -> String {
        let of_config = || existing.map(|config| config.spec.sandbox_class.clone());
        self.class.clone().or_else(of_config).unwrap_or_else(template::default_class)
    }

    /// The config as it shall be; what it says of other things stays.
    fn config(self, existing: Option<SandboxConfig>, assets: BTreeMap<String, Asset>) -> SandboxConfig {
        let class = self.class(existing.as_ref());
        let mut config = existing.unwrap_or_else(|| SandboxConfig {
            api_version: API_VERSION.to_owned(),
            kind: Kind::SandboxConfig.name().to_owned(),
            metadata: ObjectMeta { name: self.name, ..Default::default() },
            spec: SandboxConfigSpec {
                sandbox_class: class.clone(),
                default: false,
                assets: BTreeMap::new(),
                verification: None,
                config: None,
            },
            status: None,
        });
        config.status = None;
        config.spec.sandbox_class = class;
        config.spec.default |= self.default;
        config.spec.assets.entry(arch().to_owned()).or_default().extend(assets);
        if !self.config.is_empty() {
            let settings = config.spec.config.get_or_insert_default();
            // `true` and `3` are meant as such; anything else is text.
            let typed = |v: String| serde_json::from_str(&v).unwrap_or(Value::String(v));
            settings.extend(self.config.into_iter().map(|(k, v)| (k, typed(v))));
        }
        config
    }
}

async fn existing(client: &Client, target: &Target) -> Outcome<Option<SandboxConfig>> {
    let there = client.list(Kind::SandboxConfig, "").await?;
    let Some(object) = there.into_iter().find(|o| Some(&o.name) == target.name.as_ref()) else { return Ok(None) };
    serde_json::from_value(object.value)
        .map(Some)
        .map_err(|e| Error::new(Reason::Unimplemented, format!("the server knows a newer form of it: {e}")))
        .trying(|| format!("cannot change {target}"))
}

fn pinned(imported: ImportResponse, media_type: Option<&str>) -> Result<Asset, Error> {
    let sha256 = ate_api::id::Digest::parse(&imported.sha256)
        .ok_or_else(|| Error::new(Reason::Internal, "the server sent something that is no digest"))?;
    Ok(Asset {
        url: imported.url,
        sha256,
        size: Some(imported.size),
        media_type: media_type.map(str::to_owned),
        signature: None,
    })
}

/// Streams a file to the server, which hashes what arrives.
async fn upload(client: &Client, asset: &str, path: &Path) -> Outcome<(ImportResponse, Option<&'static str>)> {
    let what = || format!("cannot import {}", path.display());
    let file = tokio::fs::File::open(path).await.trying(what)?;
    let metadata = file.metadata().await.trying(what)?;
    if !metadata.is_file() {
        return Err(Error::new(Reason::Invalid, "it is not a file")).trying(what);
    }
    let is_tar = [".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|e| path.to_string_lossy().ends_with(e));
    let media_type = is_tar.then_some(TAR);
    let header = import_request::Header {
        name: asset.to_owned(),
        media_type: media_type.unwrap_or("application/octet-stream").to_owned(),
        size: metadata.len(),
    };
    let progress = Progress::bytes(format!("importing {asset}"), metadata.len());
    let (send, receive) = mpsc::channel(CHUNKS_AHEAD);
    let reader = async {
        let part = |part| ImportRequest { part: Some(part) };
        let mut file = file;
        let mut open = send.send(part(import_request::Part::Header(header))).await.is_ok();
        // The server hanging up shows as the error of the call.
        while open {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
            if read == 0 {
                break;
            }
            progress.advance(read as u64);
            open = send.send(part(import_request::Part::Chunk(chunk))).await.is_ok();
        }
        drop(send);
        std::io::Result::Ok(())
    };
    let mut assets = client.assets();
    let (read, imported) = tokio::join!(reader, assets.import(ReceiverStream::new(receive)));
    let imported = imported.trying(what)?.into_inner();
    read.trying(what)?;
    progress.end();
    Ok((imported, media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(config: &[(&str, &str)]) -> Import {
        Import {
            class: None,
            name: "n".into(),
            default: true,
            config: config.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            no_wait: true,
            public_key: Vec::new(),
            signature: Vec::new(),
            timeout: Duration::ZERO,
            from: None,
            herder_dir: None,
            assets: Vec::new(),
        }
    }

    fn asset(url: &str) -> BTreeMap<String, Asset> {
        let sha256 = ate_api::id::Digest::of(url.as_bytes());
        BTreeMap::from([(
            "runsc".to_owned(),
            Asset { url: url.to_owned(), sha256, size: None, media_type: None, signature: None },
        )])
    }

    #[test]
    fn an_import_keeps_other_architectures_and_settings() {
        let mut old = import(&[("platform", "systrap"), ("directfs", "true")]).config(None, asset("file:///old"));
        old.spec.assets.insert("other".into(), asset("file:///other"));
        let new = import(&[("directfs", "false")]).config(Some(old), asset("file:///new"));
        assert_eq!(new.spec.assets[arch()]["runsc"].url, "file:///new");
        assert_eq!(new.spec.assets["other"]["runsc"].url, "file:///other");
        let settings = new.spec.config.unwrap();
        assert_eq!(settings["platform"], "systrap");
        assert_eq!(settings["directfs"], false);
        assert!(new.spec.default);
        assert_eq!(new.spec.sandbox_class, "gvisor");
    }

    #[test]
    fn an_import_without_a_class_is_for_that_of_the_config() {
        let named = |class: Option<&str>| Import { class: class.map(str::to_owned), ..import(&[]) };
        let old = named(Some("microvm")).config(None, asset("file:///old"));
        assert_eq!(named(None).class(Some(&old)), "microvm");
        assert_eq!(named(None).config(Some(old.clone()), asset("file:///new")).spec.sandbox_class, "microvm");
        assert_eq!(named(Some("other")).class(Some(&old)), "other");
    }
}
