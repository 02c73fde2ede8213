//! Waits until the server has made an object ready, and says how far it is.

use std::time::Duration;

use ate_api::{Error, Reason};
use serde_json::Value;

use crate::{
    client::{Change, Client, Object},
    failure::{Failure, Outcome, Trying as _},
    kind::Kind,
    progress::Progress,
    show::columns::{condition, text},
    target::Target,
};

/// Reason of the condition Ready while the server fetches and tries the binaries of a configuration.
const PROBING: &str = "Probing";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Waiting(String),
    Ready,
    Failed { reason: String, message: String },
}

/// What the status of an object says.
pub(crate) fn readiness(kind: Kind, value: &Value) -> Readiness {
    let observed = value.pointer("/status/observedGeneration").and_then(Value::as_u64);
    let generation = value.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or_default();
    if observed.is_some_and(|o| o < generation) {
        return Readiness::Waiting("not looked at yet".to_owned());
    }
    let ready = condition(value, "Ready");
    let part = |key: &str| ready.map(|c| text(c, key)).unwrap_or_default();
    let (status, reason, message) = (part("/status"), part("/reason"), part("/message"));
    let why = if message.is_empty() { reason.clone() } else { message.clone() };
    match kind {
        Kind::ActorTemplate => match text(value, "/status/phase").as_str() {
            "Ready" => Readiness::Ready,
            "Failed" => Readiness::Failed { reason, message },
            "" if why.is_empty() => Readiness::Waiting("not looked at yet".to_owned()),
            "" => Readiness::Waiting(why),
            "ResumeGoldenActor" => Readiness::Waiting("starting the golden actor".to_owned()),
            "WaitGoldenActor" => Readiness::Waiting("making the golden snapshot".to_owned()),
            phase => Readiness::Waiting(phase.to_owned()),
        },
        Kind::WorkerPool => {
            let ready = value.pointer("/status/readyReplicas").and_then(Value::as_u64).unwrap_or_default();
            let wanted = value.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or_default();
            match ready >= wanted && observed.is_some() {
                true => Readiness::Ready,
                false if why.is_empty() => Readiness::Waiting(format!("{ready} of {wanted} workers are ready")),
                false => Readiness::Waiting(why),
            }
        }
        Kind::SandboxConfig => match status.as_str() {
            "True" => Readiness::Ready,
            // Fetching and trying the binaries goes on; any other reason is the end of it.
            "False" if reason != PROBING => Readiness::Failed { reason, message },
            _ if why.is_empty() => Readiness::Waiting("not looked at yet".to_owned()),
            _ => Readiness::Waiting(why),
        },
        _ => Readiness::Ready,
    }
}

/// Follows one object until it is ready. A failure of the object, or time running out, is an error.
pub(crate) async fn until_ready(
    client: &Client,
    target: &Target,
    timeout: Duration,
    progress: &mut Progress,
) -> Outcome<Object> {
    let what = || format!("{target} did not become ready");
    let mut last = String::new();
    let follow = async {
        let mut watch = client.watch(target).await?;
        loop {
            let object = match watch.next().await? {
                Some(Change::Added(o) | Change::Modified(o)) => o,
                Some(Change::UpToDate) => continue,
                Some(Change::Deleted(_)) => {
                    return Err(Error::new(Reason::NotFound, "it was deleted meanwhile")).trying(what);
                }
                None => return Err(Error::new(Reason::Unavailable, "the server ended the watch")).trying(what),
            };
            match readiness(target.kind, &object.value) {
                Readiness::Waiting(message) => {
                    progress.say(&message);
                    last = message;
                }
                Readiness::Ready => return Ok(object),
                Readiness::Failed { reason, message } => return Err(Failure::new(what(), failed(&reason, message))),
            }
        }
    };
    match tokio::time::timeout(timeout, follow).await {
        Ok(done) => done,
        Err(_) => {
            Err(Error::new(Reason::DeadlineExceeded, format!("still waiting after {}s: {last}", timeout.as_secs()))
                .hint(format!(
                    "`ate describe {} {}` says more",
                    target.kind,
                    target.name.as_deref().unwrap_or_default()
                )))
            .trying(what)
        }
    }
}

/// A condition's reason is a CamelCase word or one of our own reasons.
fn failed(reason: &str, message: String) -> Error {
    let known = reason
        .parse::<Reason>()
        .ok()
        .or_else(|| Reason::ALL.iter().copied().find(|r| r.as_str().replace('_', "").eq_ignore_ascii_case(reason)));
    match known {
        Some(reason) => Error::new(reason, message),
        None => Error::new(Reason::Internal, format!("{message} ({reason})")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_is_ready_failed_or_on_its_way() {
        let config = |status: &str, reason: &str, observed: u64| {
            json!({"metadata": {"generation": 2}, "status": {"revision": 3, "observedGeneration": observed,
                "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "m"}]}})
        };
        let of = |v| readiness(Kind::SandboxConfig, &v);
        assert_eq!(of(config("True", "Verified", 2)), Readiness::Ready);
        assert_eq!(of(config("False", "Probing", 2)), Readiness::Waiting("m".into()));
        assert!(matches!(of(config("False", "AssetDigestMismatch", 2)), Readiness::Failed { .. }));
        assert!(
            matches!(of(config("True", "Verified", 1)), Readiness::Waiting(_)),
            "the status is of an older generation"
        );
        assert!(matches!(of(json!({})), Readiness::Waiting(_)));
    }

    #[test]
    fn a_failed_condition_keeps_its_reason_in_either_spelling() {
        for reason in ["ASSET_DIGEST_MISMATCH", "AssetDigestMismatch"] {
            assert_eq!(failed(reason, String::new()).reason, Reason::AssetDigestMismatch);
        }
        assert_eq!(failed("Odd", "m".into()).message, "m (Odd)");
    }
}
