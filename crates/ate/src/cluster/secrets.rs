//! Secrets that templates name, in Kubernetes: those of the cluster.

use std::sync::Arc;

use ate_api::Error;
use ate_kube::secrets::KubeSecrets;
use ate_node::{SecretData, Secrets};

use crate::failure::Outcome;

#[derive(Debug)]
struct OfCluster(KubeSecrets);

#[async_trait::async_trait]
impl Secrets for OfCluster {
    async fn read(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, Error> {
        self.0.read(namespace, name).await
    }
}

pub(super) async fn of_cluster() -> Outcome<Arc<dyn Secrets>> {
    Ok(Arc::new(OfCluster(KubeSecrets::new(super::kube_client().await?))))
}
