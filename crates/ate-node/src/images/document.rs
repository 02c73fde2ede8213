//! Manifests, indexes and configurations: read under caps, verified by digest, reduced to what is used.

use std::collections::BTreeMap;

use ate_api::id::Digest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

/// Registries refuse larger manifests too.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// What container tools build at most, and less than overlayfs mounts.
pub(super) const MAX_LAYERS: usize = 127;
/// An index may point to an index, as some registries do; more is a loop or a trick.
pub(super) const MAX_INDEX_DEPTH: usize = 3;
/// Variables, arguments and labels of a configuration together; a process gets no more either.
const MAX_CONFIG_STRINGS: usize = 1 << 20;

/// What a container of an image runs by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute; `/` if the image names none.
    pub workdir: String,
    /// As in the image; see [`super::Image::user`].
    pub user: String,
    /// TCP ports.
    pub exposed_ports: Vec<u16>,
    pub labels: BTreeMap<String, String>,
}

/// A blob an image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What a manifest or index turned out to be.
pub(super) enum Document {
    Manifest {
        config: Blob,
        layers: Vec<Blob>,
    },
    /// The one manifest of this platform.
    Index(Blob),
}

/// GOARCH of this machine.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Checks bytes against the descriptor that led to them.
pub(super) fn verify(bytes: &[u8], digest: &Digest) -> Result<(), String> {
    let actual = Digest::of(bytes);
    if actual == *digest { Ok(()) } else { Err(format!("expected sha256:{digest}, got sha256:{actual}")) }
}

/// Reads a manifest or, by its media type or fields, an index.
pub(super) fn parse(bytes: &[u8]) -> Result<Document, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe = serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))?;
    if probe.schema_version != 2 {
        return Err(format!("manifest schema {} is not supported", probe.schema_version));
    }
    match (probe.manifests, probe.layers) {
        (Some(_), None) => {
            let index: ImageIndex = serde_json::from_slice(bytes).map_err(|e| format!("bad index: {e}"))?;
            blob(of_this_platform(index.manifests())?).map(Document::Index)
        }
        (None, Some(_)) => {
            let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(|e| format!("bad manifest: {e}"))?;
            if manifest.layers().is_empty() || manifest.layers().len() > MAX_LAYERS {
                return Err(format!("{} layers; 1 to {MAX_LAYERS} are supported", manifest.layers().len()));
            }
            let layers = manifest.layers().iter().map(blob).collect::<Result<_, _>>()?;
            Ok(Document::Manifest { config: blob(manifest.config())?, layers })
        }
        _ => Err("neither a manifest nor an index".into()),
    }
}

pub(super) fn blob(descriptor: &Descriptor) -> Result<Blob, String> {
    let digest = Digest::parse(descriptor.digest().as_ref())
        .ok_or_else(|| format!("digest {} is not a sha256", descriptor.digest()))?;
    Ok(Blob { digest, size: descriptor.size() })
}

/// The manifest or index for this machine; an entry that names no platform is taken if it is the only one.
pub(super) fn of_this_platform(entries: &[Descriptor]) -> Result<&Descriptor, String> {
    let image = |d: &&Descriptor| match d.media_type() {
        MediaType::ImageManifest | MediaType::ImageIndex => true,
        other => other.to_string().starts_with("application/vnd.docker.distribution.manifest."),
    };
    let entries: Vec<&Descriptor> = entries.iter().filter(image).collect();
    let here = |d: &&&Descriptor| {
        d.platform()
            .as_ref()
            .is_some_and(|p| p.os().to_string() == "linux" && p.architecture().to_string() == architecture())
    };
    match (entries.iter().find(here), entries.as_slice()) {
        (Some(entry), _) => Ok(entry),
        (None, [only]) if only.platform().is_none() => Ok(only),
        _ => {
            let has: Vec<String> = entries
                .iter()
                .filter_map(|d| d.platform().as_ref())
                .map(|p| format!("{}/{}", p.os(), p.architecture()))
                .collect();
            Err(format!("no variant for linux/{}; there is: {}", architecture(), has.join(", ")))
        }
    }
}

/// Reads a configuration: what to run, and the digests of the uncompressed layers.
pub(super) fn parse_config(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), String> {
    let parsed: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|e| format!("bad image configuration: {e}"))?;
    let (os, arch) = (parsed.os().to_string(), parsed.architecture().to_string());
    if os != "linux" || arch != architecture() {
        return Err(format!("it is for {os}/{arch}, this machine is linux/{}", architecture()));
    }
    let diff_ids = parsed.rootfs().diff_ids().iter().map(|d| Digest::parse(d).ok_or(d));
    let diff_ids = diff_ids.collect::<Result<Vec<_>, _>>().map_err(|d| format!("bad diff id {d:?}"))?;
    let Some(config) = parsed.config() else {
        return Ok((ImageConfig { workdir: "/".into(), ..ImageConfig::default() }, diff_ids));
    };
    let workdir = config.working_dir().clone().filter(|d| !d.is_empty()).unwrap_or_else(|| "/".into());
    let ports = config.exposed_ports().iter().flatten().filter_map(|p| port(p));
    let labels = config.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    let config = ImageConfig {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        workdir: if workdir.starts_with('/') { workdir } else { format!("/{workdir}") },
        user: config.user().clone().unwrap_or_default(),
        exposed_ports: ports.collect(),
        labels: labels.collect(),
    };
    let strings =
        || config.entrypoint.iter().chain(&config.cmd).chain(&config.env).chain([&config.workdir, &config.user]);
    if strings().any(|s| s.contains('\0')) {
        return Err("a value of the image configuration contains a zero byte".into());
    }
    if strings().map(String::len).sum::<usize>() > MAX_CONFIG_STRINGS {
        return Err(format!("the image configuration has more than {MAX_CONFIG_STRINGS} bytes of arguments"));
    }
    Ok((config, diff_ids))
}

/// `80`, `80/tcp`; anything else is not a TCP port.
fn port(text: &str) -> Option<u16> {
    text.strip_suffix("/tcp").unwrap_or(text).parse().ok().filter(|p| *p != 0)
}
