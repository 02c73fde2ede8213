//! What came of an object: its status, and an event when that changes for people.

use ate_api::{
    Error,
    resource::{
        Condition, Resource,
        meta::{API_VERSION, set_condition},
    },
};
use kube::{
    Resource as _, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::{Value, json};

use super::{Context, Failure, MANAGER, object};
use crate::crd::Kind;

/// Whether the control plane took what is declared.
const ACCEPTED: &str = "Accepted";
/// There while an object that is to be deleted cannot be.
const DELETED: &str = "Deleted";
/// There while what runs the workers of a pool cannot be written.
const DEPLOYED: &str = "Deployed";
/// Reasons of what is under way: nothing to warn of.
const UNDER_WAY: [&str; 5] =
    ["Probing", "WorkersStarting", "SandboxConfigNotReady", "ResumeGoldenActor", "WaitGoldenActor"];
/// Of the text in an event, which may have 1024 bytes.
const MAX_NOTE: usize = 900;

/// What the control plane says to a declaration.
pub(super) enum Accepted<'a> {
    Yes,
    /// Not to what is there now; what was there before is still in force.
    No(&'a Error),
    /// To all of it, but not to its end.
    Stays(&'a Error),
    /// To all of it, but the API server does not take what comes of it.
    ButNotDeployed(&'a Error),
}

/// The status of an object that is in force.
pub(super) async fn write(
    kind: Kind,
    object: &DynamicObject,
    stored: &Resource,
    accepted: Accepted<'_>,
    context: &Context,
) -> Result<(), Failure> {
    let mut status = object::status_of(stored);
    let generation = object::generation(object);
    let mut own = told(object);
    own.retain(|c| match c.r#type.as_str() {
        ACCEPTED => true,
        DELETED => matches!(accepted, Accepted::Stays(_)),
        DEPLOYED => matches!(accepted, Accepted::ButNotDeployed(_)),
        _ => false,
    });
    match accepted {
        Accepted::Yes => {}
        Accepted::No(e) => set_condition(&mut own, refusal(ACCEPTED, e, generation)),
        Accepted::Stays(e) => set_condition(&mut own, refusal(DELETED, e, generation)),
        Accepted::ButNotDeployed(e) => set_condition(&mut own, refusal(DEPLOYED, e, generation)),
    }
    if matches!(accepted, Accepted::Yes | Accepted::ButNotDeployed(_)) {
        set_condition(&mut own, Condition::new(ACCEPTED, true, "Applied", "", generation));
    }
    let conditions = status["conditions"].as_array_mut();
    let own = own.iter().filter_map(|c| serde_json::to_value(c).ok());
    match conditions {
        Some(all) => all.extend(own),
        None => status["conditions"] = own.collect(),
    }
    put(kind, object, status, context).await
}

/// The status of an object that was refused.
pub(super) async fn write_refusal(
    kind: Kind,
    object: &DynamicObject,
    stored: Option<&Resource>,
    e: &Error,
    context: &Context,
) -> Result<(), Failure> {
    if let Some(stored) = stored {
        return write(kind, object, stored, Accepted::No(e), context).await;
    }
    let generation = object::generation(object);
    let mut conditions = told(object);
    conditions.retain(|c| [ACCEPTED, "Ready"].contains(&c.r#type.as_str()));
    set_condition(&mut conditions, refusal(ACCEPTED, e, generation));
    set_condition(&mut conditions, refusal("Ready", e, generation));
    put(kind, object, json!({"conditions": conditions}), context).await
}

fn refusal(r#type: &str, e: &Error, generation: u64) -> Condition {
    let hint = if e.hint.is_empty() { String::new() } else { format!("; {}", e.hint) };
    Condition::new(r#type, false, e.reason.camel_case(), format!("{}{hint}", e.message), generation)
}

/// The conditions it tells of now.
pub(super) fn told(object: &DynamicObject) -> Vec<Condition> {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter_map(|c| serde_json::from_value(c.clone()).ok()).collect()
}

async fn put(kind: Kind, object: &DynamicObject, status: Value, context: &Context) -> Result<(), Failure> {
    let before = &object.data["status"];
    if before == &status {
        return Ok(());
    }
    let name = object.name_any();
    let mut metadata = json!({"name": name, "uid": object.uid()});
    if let Some(namespace) = object.namespace() {
        metadata["namespace"] = namespace.into();
    }
    let whole = json!({"apiVersion": API_VERSION, "kind": kind.name(), "metadata": metadata, "status": status});
    let api = context.api(kind, object.metadata.namespace.as_deref());
    api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&whole)).await?;
    for r#type in [ACCEPTED, "Ready", DELETED, DEPLOYED] {
        tell(kind, object, condition(before, r#type), condition(&status, r#type), context).await;
    }
    Ok(())
}

fn condition<'a>(status: &'a Value, r#type: &str) -> Option<&'a Value> {
    status["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == r#type))
}

/// An event for a condition with another reason than before.
async fn tell(kind: Kind, object: &DynamicObject, before: Option<&Value>, now: Option<&Value>, context: &Context) {
    let Some(now) = now.filter(|now| before.is_none_or(|b| b["reason"] != now["reason"])) else { return };
    let text = |key: &str| now[key].as_str().unwrap_or_default().to_owned();
    let (reason, message) = (text("reason"), text("message"));
    let fine = now["status"] == "True" || UNDER_WAY.contains(&reason.as_str());
    // That it was applied shows in what comes of it; that it was refused does not.
    if now["type"] == ACCEPTED && fine && before.is_none() {
        return;
    }
    let event = Event {
        type_: if fine { EventType::Normal } else { EventType::Warning },
        reason,
        note: Some(message.chars().take(MAX_NOTE).collect()),
        action: text("type"),
        secondary: None,
    };
    let mut reference = object.object_ref(&kind.api());
    reference.kind = Some(kind.name().to_owned());
    if let Err(e) = context.recorder.publish(&event, &reference).await {
        tracing::warn!(object = %object.name_any(), error = %e, "event could not be written");
    }
}
