//! The controller: what is declared in Kubernetes is applied to the control plane, and what came of it is written back.
//!
//! It runs in the process of the control plane that leads. Should two of them run for a moment, nothing is lost: objects
//! are applied with the generation they have, what is written is written by server-side apply or against what was read, and
//! the store of the control plane refuses whoever does not lead. While the API server is away the control plane goes on
//! from its store, and the watches come back by themselves. No wake-up of an actor writes anything here.

mod deployment;
mod displaced;
mod object;
mod orphans;
mod pods;
mod pools;
mod status;
mod sync;

use std::{sync::Arc, time::Duration};

use ate_api::{Error, Reason};
use ate_control::{Control, declared::Declared};
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Client,
    api::{Api, DynamicObject},
    runtime::{
        controller::{Action, Controller as Reconciler},
        events::{Recorder, Reporter},
        finalizer, watcher,
    },
};
use tokio_util::sync::CancellationToken;

pub use deployment::POOL;

use crate::crd::Kind;

/// Owner of the fields the controller writes.
const MANAGER: &str = "ate";
/// On our objects: the control plane cleans up before they are gone.
const FINALIZER: &str = "ate.dev/control";
/// What is refused or waits is looked at again this often, beside whatever changes.
const AGAIN: Duration = Duration::from_secs(10);
/// What is on its way.
const SOON: Duration = Duration::from_millis(500);
/// Objects reconciled at once.
const CONCURRENCY: u16 = 16;

/// What everything here works with.
pub(crate) struct Context {
    client: Client,
    declared: Declared,
    recorder: Recorder,
}

/// Why an object is not where it should be yet; all are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Kubernetes(#[from] kube::Error),
    #[error("{0}")]
    Refused(#[from] Error),
    #[error("{0}")]
    Pending(&'static str),
    #[error("{0}")]
    Finalizer(String),
}

impl Failure {
    /// What somebody has to change something for; anything else may pass.
    fn refusal(&self) -> Option<Error> {
        match self {
            Failure::Refused(e) => Some(e.clone()),
            // Malformed, forbidden or invalid; what is in conflict or too many has only to be tried again.
            Failure::Kubernetes(kube::Error::Api(e)) if [400, 403, 422].contains(&e.code) => {
                Some(Error::new(Reason::Invalid, format!("the API server refuses it: {}", e.message)))
            }
            _ => None,
        }
    }

    /// When it is tried again.
    fn again(&self) -> Action {
        Action::requeue(if matches!(self, Failure::Pending(_)) { SOON } else { AGAIN })
    }
}

impl From<finalizer::Error<Failure>> for Failure {
    fn from(e: finalizer::Error<Failure>) -> Self {
        match e {
            finalizer::Error::ApplyFailed(e) | finalizer::Error::CleanupFailed(e) => e,
            other => Failure::Finalizer(other.to_string()),
        }
    }
}

impl Context {
    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.api()),
            None => Api::all_with(self.client.clone(), &kind.api()),
        }
    }
}

pub struct Controller;

impl Controller {
    /// Runs until `stop`. `instance` is named in the events it writes: the name of the pod.
    ///
    /// From its start on the API of the control plane takes no templates, pools and configurations any more.
    pub async fn run(client: Client, control: &Control, instance: &str, stop: CancellationToken) {
        let reporter = Reporter { controller: "ate-control".into(), instance: Some(instance.to_owned()) };
        let context = Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            declared: control.declared_by("Kubernetes"),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for kind in Kind::ALL {
            tasks.spawn(follow(kind, context.clone(), stop.clone()));
        }
        tasks.spawn(pods::follow(context.clone(), stop.clone()));
        tasks.join_all().await;
    }
}

/// Follows the objects of one kind.
async fn follow(kind: Kind, context: Arc<Context>, stop: CancellationToken) {
    let objects = context.api(kind, None);
    let config = kube::runtime::controller::Config::default().concurrency(CONCURRENCY);
    let mut reconciler = Reconciler::new_with(objects, watcher::Config::default(), kind.api())
        .with_config(config)
        .reconcile_all_on(context.declared.changes(kind.name()))
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    if kind == Kind::WorkerPool {
        let deployments: Api<Deployment> = Api::all(context.client.clone());
        reconciler = reconciler.owns(deployments, pools::deployments());
    }
    let store = reconciler.store();
    let orphans = orphans::collect(kind, store, context.clone());
    let reconciled = reconciler.run(
        move |object, context| sync::reconcile(kind, object, context),
        |_, failure: &Failure, _| failure.again(),
        context,
    );
    let reconciled = reconciled.for_each(|result| async move {
        if let Err(e) = result {
            tracing::warn!(kind = kind.name(), error = %e, "not as declared yet");
        }
    });
    tokio::select! {
        () = stop.cancelled().then(|()| tokio::time::sleep(SOON)) => {}
        ((), ()) = async { tokio::join!(reconciled, orphans) } => {}
    }
}
