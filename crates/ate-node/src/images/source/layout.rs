//! An OCI image layout directory: `index.json`, and blobs by digest.

use std::{io, path::PathBuf};

use ate_api::id::Digest;
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex};

use super::{
    super::{
        ImageError,
        document::{MAX_DOCUMENT, blob, of_this_platform},
    },
    Section, open_file, read_small,
};

pub(in super::super) struct Layout {
    dir: PathBuf,
    tag: Option<String>,
}

impl Layout {
    pub(super) fn new(dir: PathBuf, tag: Option<String>) -> Self {
        Layout { dir, tag }
    }

    pub(super) fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let named = match digest {
            Some(digest) => digest.clone(),
            None => {
                let index = self.open("index.json").and_then(|s| read_small(s, MAX_DOCUMENT));
                named_in(&index.map_err(|e| self.error("index.json", &e))?, self.tag.as_deref(), &self.name())?
            }
        };
        read_small(self.blob(&named)?, MAX_DOCUMENT).map_err(|e| self.error(named.as_str(), &e))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Section, ImageError> {
        self.open(&format!("blobs/sha256/{digest}")).map_err(|e| self.error(digest.as_str(), &e))
    }

    fn open(&self, name: &str) -> io::Result<Section> {
        Section::whole(open_file(&self.dir.join(name))?)
    }

    fn name(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    fn error(&self, what: &str, e: &io::Error) -> ImageError {
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                ImageError::not_found(self.name(), format!("the layout has no {what}"))
            }
            _ => ImageError::invalid(self.name(), format!("{what}: {e}")),
        }
    }
}

/// What `index.json` has under a tag; without a tag, its only image (or the one of this platform).
pub(in super::super) fn named_in(index: &[u8], tag: Option<&str>, image: &str) -> Result<Digest, ImageError> {
    let index: ImageIndex =
        serde_json::from_slice(index).map_err(|e| ImageError::invalid(image, format!("bad index.json: {e}")))?;
    let name = |d: &Descriptor| d.annotations().as_ref().and_then(|a| a.get(ANNOTATION_REF_NAME)).cloned();
    let found = match tag {
        // The last one wins: tools append.
        Some(tag) => index.manifests().iter().rfind(|d| name(d).as_deref() == Some(tag)).ok_or_else(|| {
            let tags: Vec<String> = index.manifests().iter().filter_map(name).collect();
            ImageError::not_found(image, format!("no tag {tag:?}; there is: {}", tags.join(", ")))
        })?,
        None => of_this_platform(index.manifests()).map_err(|e| match index.manifests().len() {
            0 => ImageError::not_found(image, "the layout is empty"),
            _ => ImageError::invalid(image, format!("{e}; name one by its tag")),
        })?,
    };
    blob(found).map(|b| b.digest).map_err(|e| ImageError::invalid(image, e))
}
