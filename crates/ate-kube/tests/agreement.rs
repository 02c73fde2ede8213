//! One machine and Kubernetes say the same of every object: one table of good and bad ones is held against both.

mod support;

use std::path::Path;

use ate_api::v1::{ApplyRequest, resources_client::ResourcesClient};
use ate_control::Control;
use serde_json::Value;
use support::table;
use tonic::transport::Channel;

/// What the API of one machine says.
struct OneMachine {
    _control: Control,
    api: ResourcesClient<Channel>,
}

impl OneMachine {
    async fn start(dir: &Path) -> OneMachine {
        let control = support::control(dir).await;
        let api = ResourcesClient::new(support::serve(&control, dir).await);
        OneMachine { _control: control, api }
    }

    async fn apply(&self, object: &Value, dry_run: bool) -> Result<(), String> {
        let request = ApplyRequest { json: object.to_string().into_bytes(), dry_run };
        let answer = self.api.clone().apply(request).await;
        answer.map(drop).map_err(|s| ate_api::Error::from(&s).to_string())
    }
}

/// What somebody says of an object that should be good or bad, if that is wrong.
fn wrong(who: &str, what: &str, good: bool, verdict: &Result<(), String>) -> Option<String> {
    match (good, verdict) {
        (true, Err(why)) => Some(format!("{who} refuses {what}: {why}")),
        (false, Ok(())) => Some(format!("{who} takes {what}")),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_and_kubernetes_take_the_same_objects() {
    let Some(cluster) = ate_kube_harness::Cluster::start().await else { return };
    let client = cluster.admin();
    support::install(&client).await;
    let dir = tempfile::tempdir().unwrap();
    let machine = OneMachine::start(dir.path()).await;
    let mut mistakes = Vec::new();
    let cases = table::cases();
    for case in &cases {
        let there = support::create(&client, &case.object, true).await.map(drop).map_err(|e| e.to_string());
        let here = machine.apply(&case.object, true).await;
        mistakes.extend(wrong("Kubernetes", &case.what, case.good, &there));
        mistakes.extend(wrong("one machine", &case.what, case.good, &here));
    }
    for (i, edit) in table::edits().into_iter().enumerate() {
        let named = |object: &Value| {
            let mut object = object.clone();
            object["metadata"]["name"] = format!("edited-{i}").into();
            object
        };
        let stored = support::create(&client, &named(&edit.before), false).await.unwrap();
        machine.apply(&named(&edit.before), false).await.unwrap();
        let mut after = named(&edit.after);
        after["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
        let there = support::replace(&client, &after, true).await.map(drop).map_err(|e| e.to_string());
        // Not dry: what may not change is asked about when it is written.
        let here = machine.apply(&named(&edit.after), false).await;
        mistakes.extend(wrong("Kubernetes", edit.what, edit.good, &there));
        mistakes.extend(wrong("one machine", edit.what, edit.good, &here));
    }
    assert!(cases.len() > 200, "the table has shrunk to {}", cases.len());
    assert!(mistakes.is_empty(), "{} of {}:\n{}", mistakes.len(), cases.len(), mistakes.join("\n"));
}
