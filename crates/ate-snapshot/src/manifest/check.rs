//! Reading a manifest: size, then digest, then version, then every rule. Nothing of it is used before.

use std::collections::BTreeSet;

use ate_api::{id::Digest, resource::template::Scope};
use serde::Deserialize;

use super::{ENCODING_ZSTD, FORMAT_VERSION, MANIFEST_NAME, MAX_BYTES, MEDIA_TYPE, Manifest};
use crate::Error;

/// A checkpoint is a handful of files; a chunked memory image of a large guest stays below this.
const MAX_FILES: usize = 1024;
/// Of all files together. Larger than the memory of any machine an actor is likely to run on.
const MAX_TOTAL_SIZE: u64 = 1 << 40;
/// `ActorTemplate` allows 10 containers; the rest is room.
const MAX_IMAGES: usize = 64;
const MAX_ASSETS: usize = 32;
const MAX_ASSET_URLS: usize = 16;
/// Linux names a few hundred flags on amd64.
const MAX_CPU_FEATURES: usize = 1024;
const MAX_VERSIONS: usize = 64;
/// Of a file name: what Linux file systems take.
const MAX_FILE_NAME: usize = 255;
/// Of a name of an object: a DNS name.
const MAX_NAME: usize = 253;
/// Of other text: references, URLs, versions.
const MAX_TEXT: usize = 4096;
const KNOWN_OS: &[&str] = &["linux"];
const KNOWN_ARCH: &[&str] = &["amd64", "arm64"];

impl Manifest {
    /// Reads the bytes of a manifest whose digest the caller has from a record it trusts.
    pub fn parse_verified(bytes: &[u8], expected: &Digest) -> Result<Manifest, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::ManifestTooLarge { limit: MAX_BYTES });
        }
        let found = Digest::of(bytes);
        if found != *expected {
            return Err(Error::ManifestDigest { expected: expected.clone(), found });
        }
        Self::parse(bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
        let malformed = |e: serde_json::Error| Error::Manifest(e.to_string());
        // The version first: a later format may look different everywhere else.
        let version: VersionOnly = serde_json::from_slice(bytes).map_err(malformed)?;
        if version.format_version != u64::from(FORMAT_VERSION) {
            return Err(Error::ManifestVersion { found: version.format_version, known: FORMAT_VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The rules a manifest keeps beyond its shape; applied when it is written and when it is read.
    pub fn check(&self) -> Result<(), Error> {
        ensure(self.format_version == FORMAT_VERSION, || "formatVersion is not 1".to_owned())?;
        ensure(self.media_type == MEDIA_TYPE, || format!("mediaType {:?} is unknown", clip(&self.media_type)))?;
        ensure(self.generation > 0, || "generation is 0".to_owned())?;
        ensure(self.activation.0 > 0, || "activation is 0".to_owned())?;

        name("actor.atespace", &self.actor.atespace)?;
        name("actor.name", &self.actor.name)?;
        name("template.namespace", &self.template.namespace)?;
        name("template.name", &self.template.name)?;

        if let Some(base) = &self.base {
            ensure(self.scope == Scope::Full, || "base is there, but scope is not Full".to_owned())?;
            ensure(self.parent.is_some(), || "base is there, but parent is not".to_owned())?;
            base.location.iter().try_for_each(|l| text("base.location", l))?;
        }
        self.check_machine()?;
        self.check_sandbox_info()?;
        count("images", self.images.len(), MAX_IMAGES)?;
        for image in &self.images {
            name("images.container", &image.container)?;
            text("images.reference", &image.reference)?;
        }
        self.check_files()
    }

    fn check_machine(&self) -> Result<(), Error> {
        let p = &self.platform;
        ensure(KNOWN_OS.contains(&p.os.as_str()), || format!("platform.os {:?} is unknown", clip(&p.os)))?;
        ensure(KNOWN_ARCH.contains(&p.arch.as_str()), || format!("platform.arch {:?} is unknown", clip(&p.arch)))?;
        text("platform.kernelRelease", &p.kernel_release)?;
        count("platform.cpuFeatures", p.cpu_features.len(), MAX_CPU_FEATURES)?;
        p.cpu_features.iter().try_for_each(|f| name("platform.cpuFeatures", f))
    }

    fn check_sandbox_info(&self) -> Result<(), Error> {
        let s = &self.sandbox;
        name("sandbox.class", &s.sandbox.class)?;
        name("sandbox.config.name", &s.sandbox.config.name)?;
        name("sandbox.driver.name", &s.driver.name)?;
        text("sandbox.driver.version", &s.driver.version)?;
        count("sandbox.assets", s.sandbox.assets.len(), MAX_ASSETS)?;
        let mut seen = BTreeSet::new();
        for asset in &s.sandbox.assets {
            name("sandbox.assets.name", &asset.name)?;
            ensure(seen.insert(&asset.name), || format!("sandbox.assets names {:?} twice", asset.name))?;
            text("sandbox.assets.mediaType", &asset.media_type)?;
            count("sandbox.assets.urls", asset.urls.len(), MAX_ASSET_URLS)?;
            asset.urls.iter().try_for_each(|u| text("sandbox.assets.urls", u))?;
        }
        count("sandbox.versions", s.versions.len(), MAX_VERSIONS)?;
        s.versions.iter().try_for_each(|(asset, version)| {
            name("sandbox.versions", asset)?;
            text("sandbox.versions", version)
        })
    }

    fn check_files(&self) -> Result<(), Error> {
        count("files", self.files.len(), MAX_FILES)?;
        let mut seen = BTreeSet::new();
        let mut total = 0u64;
        for file in &self.files {
            if !is_plain_name(&file.name) {
                return Err(Error::Manifest(format!("file name {:?} is not a plain name", clip(&file.name))));
            }
            ensure(seen.insert(&file.name), || format!("files has {:?} twice", file.name))?;
            text("files.mediaType", &file.media_type)?;
            if let Some(encoding) = &file.encoding {
                ensure(encoding == ENCODING_ZSTD, || format!("files.encoding {:?} is unknown", clip(encoding)))?;
            }
            total = total.saturating_add(file.size);
        }
        ensure(total <= MAX_TOTAL_SIZE, || format!("files have {total} bytes, more than {MAX_TOTAL_SIZE}"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionOnly {
    format_version: u64,
}

/// One path component that names a file and nothing else, on disk and as an object key.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_FILE_NAME
        && !matches!(name, "." | "..")
        && name != MANIFEST_NAME
        && !name.chars().any(|c| matches!(c, '/' | '\\') || c.is_control())
}

fn ensure(ok: bool, problem: impl FnOnce() -> String) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::Manifest(problem())) }
}

fn count(field: &str, found: usize, max: usize) -> Result<(), Error> {
    ensure(found <= max, || format!("{field} has {found} entries, more than {max}"))
}

fn name(field: &str, s: &str) -> Result<(), Error> {
    bounded(field, s, MAX_NAME)?;
    ensure(!s.is_empty(), || format!("{field} is empty"))
}

fn text(field: &str, s: &str) -> Result<(), Error> {
    bounded(field, s, MAX_TEXT)
}

fn bounded(field: &str, s: &str, max: usize) -> Result<(), Error> {
    ensure(s.len() <= max, || format!("{field} has {} bytes, more than {max}", s.len()))?;
    ensure(!s.chars().any(char::is_control), || format!("{field} has control characters"))
}

/// The beginning of a hostile text, short enough for a message.
fn clip(s: &str) -> String {
    s.chars().take(80).collect()
}
