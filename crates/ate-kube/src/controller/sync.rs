//! One object: applied to the control plane, or withdrawn from it, with the finalizer in between.

use std::sync::Arc;

use ate_api::{Error, Reason, resource::Resource};
use kube::{
    ResourceExt as _,
    api::DynamicObject,
    runtime::{controller::Action, finalizer},
};

use super::{AGAIN, Context, FINALIZER, Failure, displaced, object, pools, status};
use crate::crd::Kind;

pub(super) async fn reconcile(
    kind: Kind,
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, Failure> {
    let api = context.api(kind, object.metadata.namespace.as_deref());
    let done = finalizer(&api, FINALIZER, object, |event| async {
        match event {
            finalizer::Event::Apply(object) => declare(kind, &object, &context).await,
            finalizer::Event::Cleanup(object) => withdraw(kind, &object, &context).await,
        }
    });
    Ok(done.await?)
}

async fn declare(kind: Kind, object: &DynamicObject, context: &Context) -> Result<Action, Failure> {
    let stored = || {
        let stored = context.declared.get(kind.name(), &object.namespace().unwrap_or_default(), &object.name_any());
        stored.filter(|stored| stored.metadata().uid == object::uid(object))
    };
    if let Some(stored) = stored()
        && displaced::write_back(object, &stored, context).await?
    {
        // What was written comes back as a change.
        return Ok(Action::await_change());
    }
    let applied = async { context.declared.apply(object::declared(object)?).await }.await;
    match applied {
        Ok(resource) => {
            let made = match &resource {
                Resource::WorkerPool(pool) => pools::bring_about(pool, object, context).await,
                _ => Ok(()),
            };
            let refused = made.as_ref().err().and_then(Failure::refusal);
            let accepted = refused.as_ref().map_or(status::Accepted::Yes, status::Accepted::ButNotDeployed);
            status::write(kind, object, &resource, accepted, context).await?;
            made.map(|()| Action::await_change())
        }
        Err(e) if e.reason == Reason::StorageUnavailable => Err(e.into()),
        Err(e) => {
            status::write_refusal(kind, object, stored().as_ref(), &e, context).await?;
            // What it is refused for may change without it.
            Ok(Action::requeue(AGAIN))
        }
    }
}

async fn withdraw(kind: Kind, object: &DynamicObject, context: &Context) -> Result<Action, Failure> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let uid = object::uid(object);
    match context.declared.delete(kind.name(), &namespace, &name, uid.as_ref()).await {
        Ok(true) => {}
        Ok(false) => return Err(Failure::Pending("the control plane is cleaning up")),
        Err(e) => {
            say_why_it_stays(kind, object, &e, context).await?;
            return Err(e.into());
        }
    }
    if kind == Kind::WorkerPool && !pools::are_gone(object, context).await? {
        return Err(Failure::Pending("worker pods are ending"));
    }
    Ok(Action::await_change())
}

/// Somebody needs an object that is to be deleted: it stays, in force, and says who.
async fn say_why_it_stays(kind: Kind, object: &DynamicObject, e: &Error, context: &Context) -> Result<(), Failure> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    match context.declared.get(kind.name(), &namespace, &name) {
        Some(stored) => status::write(kind, object, &stored, status::Accepted::Stays(e), context).await,
        None => Ok(()),
    }
}
