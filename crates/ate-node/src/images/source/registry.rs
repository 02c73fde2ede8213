//! A registry, spoken to with the OCI distribution protocol; without TLS only on this machine.

use std::{io, path::Path, time::Duration};

use ate_api::id::Digest;
use futures::TryStreamExt;
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError as E, OciErrorCode},
    secrets::RegistryAuth,
};
use tokio::io::AsyncWriteExt;

use super::{
    super::{
        ImageError, credentials,
        document::{Blob, MAX_DOCUMENT},
        reference::is_loopback,
    },
    Section,
};

/// A registry that is up answers a connection within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No byte for this long: the transfer is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// One blob, however slow the line; the golden snapshot that waits for it has its own deadline.
const BLOB_TIMEOUT: Duration = Duration::from_secs(3600);
/// Tries per blob; networks drop connections.
const ATTEMPTS: u32 = 3;
/// Before the second try; doubled after each.
const BACK_OFF: Duration = Duration::from_millis(500);

const DOCUMENTS: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

pub(in super::super) struct Registry {
    reference: Reference,
    client: Client,
    auth: RegistryAuth,
}

impl Registry {
    pub(super) async fn new(reference: Reference) -> Result<Self, ImageError> {
        let host = reference.resolve_registry().to_owned();
        let protocol = match is_loopback(&host) {
            true => ClientProtocol::HttpsExcept(vec![host.clone()]),
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| ImageError::unavailable(&reference, e))?;
        let auth = match credentials::find(&host).await {
            Some((user, password)) => RegistryAuth::Basic(user, password),
            None => RegistryAuth::Anonymous,
        };
        Ok(Registry { reference, client, auth })
    }

    pub(super) async fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let reference = match digest {
            Some(digest) => self.reference.clone_with_digest(format!("sha256:{digest}")),
            None => self.reference.clone(),
        };
        let pull = self.client.pull_manifest_raw(&reference, &self.auth, DOCUMENTS);
        let (bytes, _) = pull.await.map_err(|e| self.error(&e))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::invalid(
                &self.reference,
                format!("its manifest is larger than {MAX_DOCUMENT} bytes"),
            ));
        }
        Ok(bytes.to_vec())
    }

    /// Fetches a blob into an unnamed file.
    pub(super) async fn blob(&self, blob: &Blob, tmp: &Path) -> Result<Section, ImageError> {
        let authenticate = self.client.auth(&self.reference, &self.auth, RegistryOperation::Pull);
        authenticate.await.map_err(|e| self.error(&e))?;
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
        let pulled = self.client.pull_blob_stream(&self.reference, digest.as_str()).await;
        let mut stream = pulled.map_err(|e| self.error(&e))?.stream;
        let mut len = 0u64;
        while let Some(chunk) = stream.try_next().await.map_err(|e| ImageError::unavailable(&self.reference, e))? {
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

    fn error(&self, e: &E) -> ImageError {
        let unknown = |c: &OciErrorCode| {
            matches!(c, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::BlobUnknown)
        };
        match e {
            E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => {
                ImageError::not_found(&self.reference, e)
            }
            E::RegistryError { envelope, .. } if envelope.errors.iter().any(|e| unknown(&e.code)) => {
                ImageError::not_found(&self.reference, e)
            }
            E::DigestError(_) => ImageError::invalid(&self.reference, e),
            _ => ImageError::unavailable(&self.reference, e),
        }
    }
}
