//! The CRDs: schemas from the Rust types, rules beside them, and how `kubectl` shows the objects.

mod rules;
mod schema;

use ate_api::resource::{
    ActorTemplateSpec, ActorTemplateStatus, SandboxConfigSpec, SandboxConfigStatus, WorkerPoolSpec, WorkerPoolStatus,
};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

pub(crate) use rules::LABEL;

/// Group of all resources, those without a CRD included.
pub const GROUP: &str = "ate.dev";
pub const VERSION: &str = "v1alpha1";

/// A kind that Kubernetes keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    SandboxConfig,
    WorkerPool,
    ActorTemplate,
}

impl Kind {
    /// In the order in which they need each other.
    pub const ALL: [Kind; 3] = [Kind::SandboxConfig, Kind::WorkerPool, Kind::ActorTemplate];

    pub fn name(self) -> &'static str {
        match self {
            Kind::SandboxConfig => "SandboxConfig",
            Kind::WorkerPool => "WorkerPool",
            Kind::ActorTemplate => "ActorTemplate",
        }
    }

    fn short_name(self) -> &'static str {
        match self {
            Kind::SandboxConfig => "sbc",
            Kind::WorkerPool => "wp",
            Kind::ActorTemplate => "at",
        }
    }

    pub fn is_namespaced(self) -> bool {
        !ate_api::resource::Resource::is_cluster_scoped(self.name())
    }

    /// As the API server serves it.
    pub fn api(self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, self.name()))
    }

    fn schema(self) -> Value {
        let (spec, mut status) = match self {
            Kind::SandboxConfig => (schema::of::<SandboxConfigSpec>(), schema::of::<SandboxConfigStatus>()),
            Kind::WorkerPool => (schema::of::<WorkerPoolSpec>(), schema::of::<WorkerPoolStatus>()),
            Kind::ActorTemplate => (schema::of::<ActorTemplateSpec>(), schema::of::<ActorTemplateStatus>()),
        };
        // What a status does not say it does not say: nothing is filled in.
        schema::remove_defaults(&mut status);
        let mut schema = json!({
            "type": "object",
            "description": self.description(),
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec,
                "status": status,
            },
        });
        for (path, rule) in rules::of(self) {
            schema::add(&mut schema, path, rule);
        }
        schema
    }

    fn description(self) -> &'static str {
        match self {
            Kind::SandboxConfig => "Which binaries a sandbox class runs, under which settings.",
            Kind::WorkerPool => "How many warm workers of which class.",
            Kind::ActorTemplate => "What actors are made from: images, volumes, and what their snapshots hold.",
        }
    }

    fn columns(self) -> Value {
        let column = |name: &str, r#type: &str, path: &str| json!({"name": name, "type": r#type, "jsonPath": path});
        let ready = || column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status");
        let age = || column("Age", "date", ".metadata.creationTimestamp");
        Value::Array(match self {
            Kind::SandboxConfig => vec![
                column("Class", "string", ".spec.sandboxClass"),
                column("Default", "boolean", ".spec.default"),
                column("Revision", "integer", ".status.revision"),
                ready(),
                age(),
            ],
            Kind::WorkerPool => vec![
                column("Desired", "integer", ".spec.replicas"),
                column("Replicas", "integer", ".status.replicas"),
                column("Ready", "integer", ".status.readyReplicas"),
                column("Class", "string", ".spec.sandboxClass"),
                column("Config", "string", ".status.sandboxConfig"),
                age(),
            ],
            Kind::ActorTemplate => vec![
                column("Class", "string", ".spec.sandboxClass"),
                column("Phase", "string", ".status.phase"),
                ready(),
                age(),
            ],
        })
    }

    /// The whole CustomResourceDefinition.
    pub fn definition(self) -> Value {
        let api = self.api();
        let mut subresources = json!({"status": {}});
        if self == Kind::WorkerPool {
            subresources["scale"] =
                json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{GROUP}", api.plural)},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": self.name(),
                    "listKind": format!("{}List", self.name()),
                    "plural": api.plural,
                    "singular": self.name().to_lowercase(),
                    "shortNames": [self.short_name()],
                    "categories": ["ate"],
                },
                "scope": if self.is_namespaced() { "Namespaced" } else { "Cluster" },
                "versions": [{
                    "name": VERSION,
                    "served": true,
                    "storage": true,
                    "subresources": subresources,
                    "additionalPrinterColumns": self.columns(),
                    "schema": {"openAPIV3Schema": self.schema()},
                }],
            },
        })
    }
}

/// All definitions as YAML, as `ate crd` prints them.
pub fn manifests() -> String {
    crate::yaml::documents(&Kind::ALL.map(Kind::definition))
}

/// File name below `manifests/crds` → content.
pub fn files() -> Vec<(String, String)> {
    let file = |kind: Kind| (format!("{}.yaml", kind.api().plural), crate::yaml::documents([&kind.definition()]));
    Kind::ALL.into_iter().map(file).collect()
}
