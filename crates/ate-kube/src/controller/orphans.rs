//! Objects the control plane has and Kubernetes has not: deleted while nobody could see it, and with the finalizer taken
//! off by hand. They are withdrawn as any other: what is needed stays, and is said.

use std::sync::Arc;

use ate_api::resource::Resource;
use kube::{ResourceExt as _, api::DynamicObject, runtime::reflector::Store};

use super::Context;
use crate::crd::Kind;

/// Once, after the first complete list of the objects.
pub(super) async fn collect(kind: Kind, store: Store<DynamicObject>, context: Arc<Context>) {
    if store.wait_until_ready().await.is_err() {
        return;
    }
    for orphan in orphans(kind, &store, &context) {
        let meta = orphan.metadata();
        tracing::warn!(object = %orphan.label(), "not in Kubernetes any more, removing it");
        let removed = context.declared.delete(kind.name(), &meta.namespace, &meta.name, meta.uid.as_ref());
        if let Err(e) = removed.await {
            tracing::warn!(object = %orphan.label(), error = %e, "not in Kubernetes any more, and still needed");
        }
    }
}

fn orphans(kind: Kind, store: &Store<DynamicObject>, context: &Context) -> Vec<Resource> {
    let there = store.state();
    let is_there = |orphan: &Resource| {
        let meta = orphan.metadata();
        there.iter().any(|o| o.name_any() == meta.name && o.namespace().unwrap_or_default() == meta.namespace)
    };
    context.declared.all(kind.name()).into_iter().filter(|r| !is_there(r)).collect()
}
