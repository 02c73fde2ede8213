//! What runs the workers of a pool: the shape of their pods, by what their class says it needs of a machine.

use std::time::Duration;

use ate_api::resource::WorkerPool;
use ate_sandbox::ClassDescriptor;
use serde_json::{Value, json};

/// Label of everything that belongs to a pool, with its name.
pub const POOL: &str = "ate.dev/worker-pool";
/// On worker pods: whoever is on the worker leaves before the pod is gone.
pub const DRAIN: &str = "ate.dev/drain";
/// Taint of nodes that are kept for a class, and toleration of its workers.
const CLASS: &str = "ate.dev/sandboxClass";
/// What node agent and herders share, at the same path in both.
const SHARED: &str = "/var/lib/ate";
/// For the herder, once its actor is gone.
const END: Duration = Duration::from_secs(30);

/// Name of the Deployment and of the PodDisruptionBudget of a pool.
pub(super) fn name(pool: &str) -> String {
    format!("{pool}-workers")
}

/// `drain`: how long moving an actor off its worker may take.
pub(super) fn of(pool: &WorkerPool, class: &ClassDescriptor, owner: &Value, drain: Duration) -> Value {
    let labels = json!({POOL: pool.metadata.name, CLASS: class.name});
    let selector = json!({POOL: pool.metadata.name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(pool, owner, &labels),
        "spec": {
            "replicas": pool.spec.replicas,
            "selector": {"matchLabels": selector},
            // A worker more than there may be is better than one less: somebody may be waiting.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels, "finalizers": [DRAIN]},
                "spec": pod(pool, class, drain),
            },
        },
    })
}

/// When nodes are emptied, a tenth of the workers at a time: each has an actor to be moved first.
pub(super) fn budget(pool: &WorkerPool, owner: &Value) -> Value {
    let labels = json!({POOL: pool.metadata.name});
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(pool, owner, &labels),
        "spec": {"maxUnavailable": "10%", "selector": {"matchLabels": labels}},
    })
}

fn metadata(pool: &WorkerPool, owner: &Value, labels: &Value) -> Value {
    json!({
        "name": name(&pool.metadata.name),
        "namespace": pool.metadata.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    })
}

fn pod(pool: &WorkerPool, class: &ClassDescriptor, drain: Duration) -> Value {
    let needs = &class.host_needs;
    let given = pool.spec.template.clone().unwrap_or_default();
    let mut selector = needs.node_labels.clone();
    selector.extend(given.node_selector);
    let mut tolerations = vec![json!({"key": CLASS, "operator": "Equal", "value": class.name, "effect": "NoSchedule"})];
    tolerations.extend(given.tolerations);
    let mut pod = json!({
        "containers": [herder(&pool.spec.ateom_image, class, given.resources)],
        "volumes": [{"name": "ate", "hostPath": {"path": SHARED, "type": "DirectoryOrCreate"}}],
        "tolerations": tolerations,
        // It speaks with the node agent alone.
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        // The herder waits for its actor to be moved, and ends at once when it has none.
        "terminationGracePeriodSeconds": (drain + END).as_secs(),
    });
    if !selector.is_empty() {
        pod["nodeSelector"] = json!(selector);
    }
    if let Some(class) = given.priority_class_name {
        pod["priorityClassName"] = class.into();
    }
    if let Some(affinity) = given.node_affinity {
        pod["affinity"] = json!({"nodeAffinity": affinity});
    }
    pod
}

fn herder(image: &str, class: &ClassDescriptor, resources: Option<Value>) -> Value {
    let own = format!("{SHARED}/workers/$(POD_UID)");
    let mut container = json!({
        "name": "herder",
        "image": image,
        // The image's entrypoint is the herder.
        "args": ["serve", "--pod", "--socket", format!("{own}/driver.sock"), "--work-dir", format!("{own}/work")],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
        "securityContext": security(class),
        "volumeMounts": [{
            "name": "ate",
            "mountPath": SHARED,
            // Images are mounted by the node agent after the pod has started.
            "mountPropagation": "HostToContainer",
        }],
    });
    if let Some(resources) = resources {
        container["resources"] = resources;
    }
    container
}

/// A herder is root in its container: it mounts, and makes namespaces. What it may beyond that is what its class declares.
fn security(class: &ClassDescriptor) -> Value {
    let needs = &class.host_needs;
    if !needs.devices.is_empty() {
        // Capabilities do not suffice: the device cgroup of a container admits devices of the host only to privileged ones.
        return json!({"runAsUser": 0, "privileged": true});
    }
    let capabilities: Vec<_> = needs.capabilities.iter().map(|c| c.trim_start_matches("CAP_")).collect();
    json!({
        "runAsUser": 0,
        "privileged": false,
        // Beyond what containers have anyway. For gvisor: SYS_ADMIN for the worker's namespaces and mounts, NET_ADMIN for
        // the actor's network in it, SYS_PTRACE for the sandbox's processes.
        "capabilities": {"add": capabilities},
        // The usual profiles forbid mounts and namespaces whatever the capabilities; the sandbox brings a seccomp filter
        // of its own for what runs in it.
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    })
}
