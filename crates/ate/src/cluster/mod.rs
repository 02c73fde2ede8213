//! The servers of a cluster, each in a process of its own: `ate control` and `ate node`.

pub(crate) mod control;
mod kubernetes;
pub(crate) mod node;
mod pods;
mod secrets;
mod waiting;

use std::{path::Path, sync::Arc};

use ate_api::{Error, Reason};
use ate_fleet::tls::Certificates;

use crate::failure::{Outcome, Trying as _};

/// Where the secret with the certificates is mounted.
const CERTIFICATES: &str = "/etc/ate/tls";

/// Of the cluster this runs in, or of the one a kubeconfig names.
async fn kube_client() -> Outcome<kube::Client> {
    let client = kube::Client::try_default().await.map_err(|e| {
        Error::new(Reason::Invalid, e.to_string())
            .hint("--kubernetes is for pods with a service account, or with KUBECONFIG set")
    });
    client.trying(|| "cannot use the cluster".to_owned())
}

fn certificates(dir: &Path) -> Outcome<Arc<Certificates>> {
    Certificates::open(dir).trying(|| format!("cannot use the certificates in {}", dir.display()))
}
