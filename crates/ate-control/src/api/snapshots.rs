//! `ate.v1.Snapshots`: the manifests of committed snapshots.

use std::time::Duration;

use ate_api::{
    Error, Reason,
    v1::{GetManifestRequest, GetManifestResponse, snapshots_server::Snapshots},
};
use tonic::{Request, Response, Status};

use super::{Kind, names};
use crate::{
    access::{Ask, Gate, Verb},
    records::{SnapshotRecord, keys},
};

/// Fetching one manifest from object storage.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct SnapshotsService(pub(crate) Gate);

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<GetManifestResponse>, Status> {
        let digest = names::digest(&request.get_ref().digest)?;
        let object = format!("snapshot/{}", digest.short());
        let mut admitted =
            self.0.admit(&request, &[Ask::object(Verb::Get, Kind::Snapshot, "", digest.as_str())]).await?;
        let core = admitted.core.clone();
        let record: SnapshotRecord = core.db.get_packed(&keys::snapshot(&digest)).await?.ok_or_else(|| {
            Error::new(Reason::SnapshotNotFound, "no committed snapshot has this manifest").on(object.clone())
        })?;
        admitted.check(&Ask::snapshot(Verb::Get, &record)).await?;
        let read = tokio::time::timeout(TIMEOUT, async {
            let reference = record.snapshot.reference();
            core.node.manifest(&reference).await
        });
        let manifest = read
            .await
            .unwrap_or_else(|_| Err(Error::new(Reason::StorageUnavailable, "the manifest did not arrive in time")))
            .map_err(|e| e.on(object))?;
        Ok(Response::new(GetManifestResponse { manifest }))
    }
}
