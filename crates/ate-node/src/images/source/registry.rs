//! A registry, spoken to with the OCI distribution protocol; without TLS only on this machine.

mod http;

use std::{io, path::Path, time::Duration};

use ate_api::id::Digest;
use oci_spec::distribution::Reference;
use tokio::io::AsyncWriteExt;

use self::http::{Failure, Http};
use super::{
    super::{
        ImageError,
        document::{Blob, MAX_DOCUMENT},
    },
    Section,
};

/// One blob, however slow the line; the golden snapshot that waits for it has its own deadline.
const BLOB_TIMEOUT: Duration = Duration::from_secs(3600);
/// Tries per blob; networks drop connections.
const ATTEMPTS: u32 = 3;
/// Before the second try; doubled after each.
const BACK_OFF: Duration = Duration::from_millis(500);

const DOCUMENTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

pub(in super::super) struct Registry {
    reference: Reference,
    http: Http,
}

impl Registry {
    pub(super) async fn new(reference: Reference) -> Result<Self, ImageError> {
        let http = Http::new(&reference).await.map_err(|e| failed(&reference, e))?;
        Ok(Registry { reference, http })
    }

    pub(super) async fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let named = match (digest, self.reference.digest()) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(digest)) => digest.to_owned(),
            (None, None) => self.reference.tag().unwrap_or("latest").to_owned(),
        };
        let document = self.http.document(&format!("manifests/{named}"), DOCUMENTS, MAX_DOCUMENT as usize).await;
        document.map_err(|e| self.error(e))
    }

    /// Fetches a blob into an unnamed file.
    pub(super) async fn blob(&self, blob: &Blob, tmp: &Path) -> Result<Section, ImageError> {
        let mut pause = BACK_OFF;
        let mut attempt = 1;
        loop {
            let fetched = tokio::time::timeout(BLOB_TIMEOUT, self.fetch(blob, tmp)).await;
            let error = match fetched {
                Ok(Ok(section)) => return Ok(section),
                Ok(Err(e)) => e,
                Err(_) => return Err(ImageError::unavailable(&self.reference, "a layer took longer than an hour")),
            };
            if attempt == ATTEMPTS || !matches!(error, ImageError::Unavailable { .. }) {
                return Err(error);
            }
            tracing::warn!(image = %self.reference, blob = blob.digest.short(), %error, "fetching again");
            tokio::time::sleep(pause).await;
            (pause, attempt) = (pause * 2, attempt + 1);
        }
    }

    async fn fetch(&self, blob: &Blob, tmp: &Path) -> Result<Section, ImageError> {
        let local = |e: io::Error| ImageError::io(&self.reference, "writing a layer into", tmp, e);
        let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(tmp).map_err(local)?);
        let digest = format!("sha256:{}", blob.digest);
        let answer = self.http.get(&format!("blobs/{digest}"), "*/*").await;
        let mut answer = answer.map_err(|e| self.error(e))?;
        let mut len = 0u64;
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.error(e.into()))? {
            len += chunk.len() as u64;
            if len > blob.size {
                return Err(ImageError::invalid(
                    &self.reference,
                    format!("{digest} is larger than {} bytes", blob.size),
                ));
            }
            file.write_all(&chunk).await.map_err(local)?;
        }
        file.flush().await.map_err(local)?;
        Section::whole(file.into_std().await).map_err(local)
    }

    fn error(&self, e: Failure) -> ImageError {
        failed(&self.reference, e)
    }
}

fn failed(reference: &Reference, e: Failure) -> ImageError {
    match e {
        Failure::NotFound(message) => ImageError::not_found(reference, message),
        Failure::Unavailable(message) => ImageError::unavailable(reference, message),
        Failure::TooLarge(max) => ImageError::invalid(reference, format!("an answer is larger than {max} bytes")),
    }
}
