//! Worker pools: their Deployment and PodDisruptionBudget, written by server-side apply and only where they differ.

use ate_api::{Error, Reason, canonical, id::Digest, resource::WorkerPool};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    Resource as _, ResourceExt as _,
    api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
    core::ApiResource,
    runtime::watcher,
};
use serde_json::{Value, json};

use super::{
    Context, Failure, MANAGER,
    deployment::{self, DRAIN, POOL},
    pods,
};
use crate::crd::Kind;

/// Digest of what was written last: what is no longer wanted differs from what is there only by this.
const WRITTEN: &str = "ate.dev/written";
/// Who ends first when there are too many: pods of a lower cost.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The Deployments that may be ours.
pub(super) fn deployments() -> watcher::Config {
    watcher::Config::default().labels(POOL)
}

pub(super) async fn bring_about(pool: &WorkerPool, object: &DynamicObject, context: &Context) -> Result<(), Failure> {
    let class = &context.declared.classes().get(&pool.spec.sandbox_class)?.descriptor;
    let owner = object.controller_owner_ref(&Kind::WorkerPool.api());
    let owner = serde_json::to_value(owner).unwrap_or_default();
    let namespace = &pool.metadata.namespace;
    let deployment = deployment::of(pool, class, &owner, context.declared.drain_time());
    let actual = find::<Deployment>(namespace, &pool.metadata.name, context).await?;
    let shrinks = actual.as_ref().is_some_and(|a| a["spec"]["replicas"].as_i64() > Some(pool.spec.replicas.into()));
    if shrinks {
        spare_those_in_use(pool, context).await?;
    }
    put::<Deployment>(actual, deployment, namespace, context).await?;
    let actual = find::<PodDisruptionBudget>(namespace, &pool.metadata.name, context).await?;
    put::<PodDisruptionBudget>(actual, deployment::budget(pool, &owner), namespace, context).await
}

/// True once no pod of the pool has anybody to be moved. Deletes what made the pods.
pub(super) async fn are_gone(pool: &DynamicObject, context: &Context) -> Result<bool, Failure> {
    remove::<Deployment>(pool, context).await?;
    remove::<PodDisruptionBudget>(pool, context).await?;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &pool.namespace().unwrap_or_default());
    let left = pods.list(&ListParams::default().labels(&format!("{POOL}={}", pool.name_any()))).await?;
    Ok(!left.items.iter().any(|pod| pod.finalizers().iter().any(|f| f == DRAIN)))
}

/// What is written here is written as JSON: a typed object would own fields that it only defaults.
fn api<K>(namespace: &str, context: &Context) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    Api::namespaced_with(context.client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

async fn find<K>(namespace: &str, pool: &str, context: &Context) -> Result<Option<Value>, Failure>
where
    K: kube::Resource<DynamicType = ()>,
{
    let found = api::<K>(namespace, context).get_opt(&deployment::name(pool)).await?;
    Ok(found.and_then(|f| serde_json::to_value(f).ok()))
}

async fn put<K>(actual: Option<Value>, mut wanted: Value, namespace: &str, context: &Context) -> Result<(), Failure>
where
    K: kube::Resource<DynamicType = ()>,
{
    let digest = Digest::of(&canonical::to_vec(&wanted));
    wanted["metadata"]["annotations"] = json!({WRITTEN: digest.as_str()});
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(actual) = &actual {
        if !belongs_to(actual, wanted["metadata"]["ownerReferences"][0]["uid"].as_str()) {
            let message = format!("there is a {} {name} that belongs to somebody else", K::kind(&()));
            return Err(Error::new(Reason::Conflict, message).into());
        }
        if contains(actual, &wanted) {
            return Ok(());
        }
    }
    let parameters = PatchParams::apply(MANAGER).force();
    api::<K>(namespace, context).patch(name, &parameters, &Patch::Apply(&wanted)).await?;
    Ok(())
}

/// Not what somebody else has under that name.
async fn remove<K>(pool: &DynamicObject, context: &Context) -> Result<(), Failure>
where
    K: kube::Resource<DynamicType = ()>,
{
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let Some(found) = find::<K>(&namespace, &name, context).await? else { return Ok(()) };
    if !belongs_to(&found, pool.uid().as_deref()) {
        return Ok(());
    }
    let uid = found["metadata"]["uid"].as_str().map(str::to_owned);
    let only_this = Preconditions { uid, resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
    match api::<K>(&namespace, context).delete(&deployment::name(&name), &parameters).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Whether the object with this uid is among the owners.
fn belongs_to(object: &Value, owner: Option<&str>) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owner.is_some() && owners.into_iter().any(|o| o["uid"].as_str() == owner)
}

/// Everything wanted is there; what others added does not matter.
fn contains(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| actual.get(key).is_some_and(|a| contains(a, value)))
        }
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len() && actual.iter().zip(wanted).all(|(a, w)| contains(a, w))
        }
        (actual, wanted) => actual == wanted,
    }
}

/// Before there are fewer: workers that hold somebody had better not be the ones that go.
async fn spare_those_in_use(pool: &WorkerPool, context: &Context) -> Result<(), Failure> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pool.metadata.namespace);
    let pods = api.list(&ListParams::default().labels(&format!("{POOL}={}", pool.metadata.name))).await?;
    for pod in pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let used = pods::worker(pod, &context.declared).is_some_and(|w| !w.is_empty);
        let cost = if used { "100" } else { "0" };
        let known = pod.annotations().get(COST).map_or("0", String::as_str);
        if cost != known {
            let change = json!({"metadata": {"annotations": {COST: cost}}});
            match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&change)).await {
                Err(kube::Error::Api(e)) if e.code == 404 => {} // it has just gone
                done => done.map(drop)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_added_is_no_difference_and_what_they_changed_is() {
        let wanted = json!({"a": {"b": [1, {"c": "x"}]}});
        assert!(contains(&json!({"a": {"b": [1, {"c": "x", "more": 1}], "more": 2}}), &wanted));
        for other in [
            json!({"a": {"b": [1, {"c": "y"}]}}),
            json!({"a": {"b": [1]}}),
            json!({"a": {"b": [1, {"c": "x"}, 2]}}),
            json!({}),
        ] {
            assert!(!contains(&other, &wanted), "{other}");
        }
    }
}
