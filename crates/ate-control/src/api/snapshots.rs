//! `ate.v1.Snapshots`: the manifests of committed snapshots.

use std::{sync::Arc, time::Duration};

use ate_api::{
    Error, Reason,
    id::Digest,
    v1::{GetManifestRequest, GetManifestResponse, snapshots_server::Snapshots},
};
use tonic::{Request, Response, Status};

use crate::{
    core::Core,
    records::{SnapshotRecord, keys},
};

/// Fetching one manifest from object storage.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct SnapshotsService(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<GetManifestResponse>, Status> {
        let text = request.into_inner().digest;
        let digest = Digest::parse(&text)
            .ok_or_else(|| Error::new(Reason::Invalid, "digest must be a sha256 in lower-case hex"))?;
        let object = format!("snapshot/{}", digest.short());
        let record: SnapshotRecord = self.0.db.get_packed(&keys::snapshot(&digest)).await?.ok_or_else(|| {
            Error::new(Reason::SnapshotNotFound, "no committed snapshot has this manifest").on(object.clone())
        })?;
        let read = tokio::time::timeout(TIMEOUT, async {
            let reference = record.snapshot.reference();
            self.0.node.manifest(&reference).await
        });
        let manifest = read
            .await
            .unwrap_or_else(|_| Err(Error::new(Reason::StorageUnavailable, "the manifest did not arrive in time")))
            .map_err(|e| e.on(object))?;
        Ok(Response::new(GetManifestResponse { manifest }))
    }
}
