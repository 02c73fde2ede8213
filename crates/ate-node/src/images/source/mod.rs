//! The places images come from, all answering the same three questions: what does the reference name, what does a
//! manifest say, where are the bytes of a blob. Nothing here is trusted; the caller verifies every digest.

mod archive;
#[cfg(test)]
mod fuzz;
mod layout;
mod registry;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use ate_api::id::Digest;
use rustix::fs::OFlags;

use super::{ImageError, document::Blob, reference::Reference};
use archive::Archive;
use layout::Layout;
#[cfg(test)]
pub(super) use layout::named_in;
use registry::Registry;

/// A source of one image.
pub(super) enum Source {
    Layout(Layout),
    Archive(Archive),
    Registry(Registry),
}

/// Bytes in a file: a blob, or a part of an archive.
pub(super) struct Section {
    file: File,
    offset: u64,
    pub(super) len: u64,
    /// Whether the blob's own digest can be checked; what `docker save` writes has none beside the diff id.
    pub(super) has_digest: bool,
}

impl Section {
    fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Section { file, offset: 0, len, has_digest: true })
    }

    pub(super) fn open(mut self) -> io::Result<impl Read> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        Ok(self.file.take(self.len))
    }
}

impl Source {
    /// Blocking for files, which are only opened; a registry is not asked yet.
    pub(super) async fn open(reference: &Reference) -> Result<Self, ImageError> {
        let reference = reference.clone();
        match reference {
            Reference::Registry(r) => Registry::new(r).await.map(Source::Registry),
            Reference::Layout { dir, tag } => Ok(Source::Layout(Layout::new(dir, tag))),
            Reference::LayoutArchive { .. } | Reference::DockerArchive { .. } => {
                let image = reference.to_string();
                let open = tokio::task::spawn_blocking(move || Archive::open(&reference));
                open.await.map_err(|e| ImageError::invalid(image, e))?.map(Source::Archive)
            }
        }
    }

    /// The index or manifest the reference names; with `digest`, exactly that manifest.
    pub(super) async fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        match self {
            Source::Layout(layout) => layout.document(digest),
            Source::Archive(archive) => archive.document(digest),
            Source::Registry(registry) => registry.document(digest).await,
        }
    }

    /// The bytes of a blob in a file; `tmp` is for what has to be fetched.
    pub(super) async fn blob(&self, blob: &Blob, tmp: &Path) -> Result<Section, ImageError> {
        match self {
            Source::Layout(layout) => layout.blob(&blob.digest),
            Source::Archive(archive) => archive.blob(&blob.digest),
            Source::Registry(registry) => registry.blob(blob, tmp).await,
        }
    }
}

/// Opens a regular file, and nothing that would block or surprise.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Reads a small document whole.
fn read_small(section: Section, max: u64) -> io::Result<Vec<u8>> {
    if section.len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {max} bytes")));
    }
    let mut bytes = Vec::with_capacity(section.len as usize);
    section.open()?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
