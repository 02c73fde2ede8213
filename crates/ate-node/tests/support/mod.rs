//! Builds layers and OCI layouts, honest ones and others, from raw tar headers.
#![allow(dead_code)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use ate_api::id::Digest;
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// A layer archive being made. Names are written as they are, also those a careful tool would refuse.
#[derive(Default, Clone)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, kind: EntryType, name: &str, edit: impl FnOnce(&mut Header), data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if name.len() > 100 {
            self = self.extension(EntryType::GNULongName, name.as_bytes());
        }
        let short = &name.as_bytes()[..name.len().min(100)];
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        edit(&mut header);
        header.set_cksum();
        self.raw(&header, data)
    }

    /// An extension header for the next entry.
    pub fn extension(self, kind: EntryType, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_cksum();
        self.raw(&header, data)
    }

    fn raw(mut self, header: &Header, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, |_| {}, data.as_bytes())
    }

    pub fn file_mode(self, name: &str, data: &str, mode: u32) -> Self {
        self.entry(EntryType::Regular, name, |h| h.set_mode(mode), data.as_bytes())
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, |h| h.set_mode(mode), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, |h| set_link(h, target), b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, |h| set_link(h, target), b"")
    }

    pub fn device(self, name: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let edit = |h: &mut Header| {
            h.set_device_major(major).expect("a gnu header has devices");
            h.set_device_minor(minor).expect("a gnu header has devices");
        };
        self.entry(kind, name, edit, b"")
    }

    /// A pax record for the next entry.
    pub fn pax(self, key: &str, value: &[u8]) -> Self {
        let rest = key.len() + value.len() + 3;
        let digits = |n: usize| n.to_string().len();
        let len =
            if digits(rest + digits(rest)) == digits(rest) { rest + digits(rest) } else { rest + digits(rest) + 1 };
        let mut record = format!("{len} {key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        self.extension(EntryType::XHeader, &record)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

fn set_link(header: &mut Header, target: &str) {
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).and_then(|()| out.finish()).expect("compressing in memory")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("compressing in memory")
}

/// GOARCH of the machine that runs the tests.
pub fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An OCI image layout being made.
pub struct Layout {
    pub dir: PathBuf,
    manifests: Vec<Value>,
}

/// An image whose parts can still be falsified.
pub struct Parts {
    pub config: Value,
    /// As stored, and uncompressed.
    pub layers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Overrides what the manifest says of the layers.
    pub descriptors: Option<Vec<Value>>,
}

impl Parts {
    pub fn new(layers: &[&Layer]) -> Self {
        Parts::stored(layers.iter().map(|l| (l.bytes(), l.bytes())).collect())
    }

    pub fn stored(layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(_, plain)| format!("sha256:{}", Digest::of(plain))).collect();
        let config = json!({
            "architecture": arch(), "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Parts { config, layers, descriptors: None }
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(bytes)), "size": bytes.len()})
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Layout {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        fs::create_dir_all(dir.join("blobs/sha256")).expect("making a layout");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("making a layout");
        Layout { dir, manifests: Vec::new() }
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        fs::write(self.blob_path(&Digest::of(bytes)), bytes).expect("writing a blob");
        descriptor(media_type, bytes)
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.as_str())
    }

    /// Stores an image and returns the descriptor of its manifest.
    pub fn image(&self, parts: &Parts) -> Value {
        let config = self.blob(CONFIG, parts.config.to_string().as_bytes());
        let stored = parts.layers.iter().map(|(stored, _)| self.blob(LAYER, stored)).collect();
        let layers: Vec<Value> = parts.descriptors.clone().unwrap_or(stored);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    /// Gives a descriptor a tag.
    pub fn tag(&mut self, mut descriptor: Value, tag: &str) -> String {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).expect("writing index.json");
        format!("oci:{}:{tag}", self.dir.display())
    }

    pub fn add(&mut self, parts: &Parts, tag: &str) -> String {
        let image = self.image(parts);
        self.tag(image, tag)
    }
}

pub fn digest_in(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().and_then(Digest::parse).expect("a descriptor has a digest")
}

/// Names below a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("listing a directory")
        .map(|e| e.expect("listing a directory").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every name below a directory with kind, size and mode: what an attack would change.
pub fn snapshot(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("listing a directory") {
            let path = entry.expect("listing a directory").path();
            let meta = fs::symlink_metadata(&path).expect("looking at a file");
            if meta.is_dir() {
                todo.push(path.clone());
            }
            found.push(format!("{} {:?} {:?} {}", path.display(), meta.file_type(), meta.permissions(), meta.len()));
        }
    }
    found.sort();
    found
}

/// A file system of one megabyte, unmounted at the end.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"];
        assert!(std::process::Command::new("mount").args(mount).arg(dir.path()).status().unwrap().success());
        SmallDisk(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
