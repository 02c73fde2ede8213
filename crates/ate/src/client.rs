//! The connection to a server, and its services as this command uses them.

use std::time::Duration;

use ate_api::{
    Error, Reason,
    ateapi::{ActorRef, control_client::ControlClient},
    resource::Explanation,
    v1::{
        self, assets_client::AssetsClient, choices_client::ChoicesClient, logs_client::LogsClient,
        resources_client::ResourcesClient, revocations_client::RevocationsClient, rollouts_client::RolloutsClient,
        snapshots_client::SnapshotsClient, tokens_client::TokensClient, usage_client::UsageClient,
    },
};
use serde_json::Value;
use tonic::Streaming;

use crate::{
    connection::{Channel, Server},
    failure::{Failure, Outcome, Trying as _},
    kind::{Kind, Scope, closest},
    target::Target,
};

/// Time for a call that only reads or writes records.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects asked for at a time; 1 MiB each at most, usually 1 KiB.
const PAGE: u32 = 500;
/// A page of the largest objects there can be.
const MAX_MESSAGE: usize = 512 << 20;

/// One server.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

/// One object as the server tells it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub value: Value,
}

impl Object {
    fn read(kind: Kind, o: v1::Object) -> Outcome<Object> {
        let value = serde_json::from_slice(&o.json).map_err(|e| {
            Failure::new(
                format!("cannot read {kind}/{}", o.name),
                Error::new(Reason::Internal, format!("the server sent something that is not JSON: {e}")),
            )
        })?;
        Ok(Object { kind, namespace: o.namespace, name: o.name, uid: o.uid, value })
    }

    /// `actor/default/a`.
    pub(crate) fn label(&self) -> String {
        // Workers and snapshots tell a namespace too, but their names are unique without it.
        let space = if self.kind.scope() == Scope::Cluster { String::new() } else { self.namespace.clone() };
        Target { kind: self.kind, space, name: Some(self.name.clone()) }.to_string()
    }
}

/// What a watch reports.
pub(crate) enum Change {
    Added(Object),
    Modified(Object),
    Deleted(Object),
    /// Everything that existed was reported.
    UpToDate,
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Outcome<Client> {
        Ok(Client { channel: server.connect().await? })
    }

    fn resources(&self) -> ResourcesClient<Channel> {
        ResourcesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
    pub(crate) fn assets(&self) -> AssetsClient<Channel> {
        AssetsClient::new(self.channel.clone())
    }
    pub(crate) fn logs(&self) -> LogsClient<Channel> {
        LogsClient::new(self.channel.clone())
    }
    pub(crate) fn usage(&self) -> UsageClient<Channel> {
        UsageClient::new(self.channel.clone())
    }
    pub(crate) fn revocations(&self) -> RevocationsClient<Channel> {
        RevocationsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
    pub(crate) fn tokens(&self) -> TokensClient<Channel> {
        TokensClient::new(self.channel.clone())
    }

    pub(crate) fn rollouts(&self) -> RolloutsClient<Channel> {
        RolloutsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Every object of a kind, by space and name.
    pub(crate) async fn list(&self, kind: Kind, space: &str) -> Outcome<Vec<Object>> {
        let mut objects = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListRequest {
                kind: kind.name().to_owned(),
                namespace: space.to_owned(),
                page_size: PAGE,
                page_token,
            };
            let response = self
                .resources()
                .list(timed(request, CALL_TIMEOUT))
                .await
                .trying(|| format!("cannot list {}", kind.plural()))?
                .into_inner();
            for o in response.objects {
                objects.push(Object::read(kind, o)?);
            }
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return Ok(objects);
            }
        }
    }

    /// One object. When it is not there, says which one may have been meant.
    pub(crate) async fn get(&self, target: &Target) -> Outcome<Object> {
        let got = self.resources().get(timed(reference(target), CALL_TIMEOUT)).await;
        match got.trying(|| format!("cannot get {target}")) {
            Ok(o) => Object::read(target.kind, o.into_inner()),
            Err(failure) if failure.reason() == Some(Reason::NotFound) => Err(self.suggest(failure, target).await),
            Err(failure) => Err(failure),
        }
    }

    /// Adds to "not found" what there is instead.
    pub(crate) async fn suggest(&self, failure: Failure, target: &Target) -> Failure {
        let Some(name) = &target.name else { return failure };
        let Ok(all) = self.list(target.kind, "").await else { return failure };
        if let Some(o) = all.iter().find(|o| o.name == *name) {
            return failure.advise(format!("there is {}", o.label()));
        }
        let here = all.iter().filter(|o| o.namespace == target.space).map(|o| o.name.as_str());
        match closest(name, here) {
            Some(near) => failure.advise(format!("did you mean \"{near}\"?")),
            None => failure.hint(format!("`ate get {}` lists what there is", target.kind.plural())),
        }
    }

    pub(crate) async fn apply(&self, value: &Value, dry_run: bool) -> Result<v1::ApplyResponse, Error> {
        let json = value.to_string().into_bytes();
        let request = timed(v1::ApplyRequest { json, dry_run }, CALL_TIMEOUT);
        match self.resources().apply(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Error::from(&status)),
        }
    }

    /// Deletes an object that was applied. `force`: revokes its binaries instead, if it is in use.
    pub(crate) async fn delete(&self, target: &Target, force: bool) -> Outcome {
        let request = v1::DeleteRequest { r#ref: Some(reference(target)), force };
        self.resources().delete(timed(request, CALL_TIMEOUT)).await.trying(|| format!("cannot delete {target}"))?;
        Ok(())
    }

    /// Which sandbox an object gets and why: as facts, and as the server wrote them.
    pub(crate) async fn explain(&self, target: &Target) -> Outcome<(Explanation, Value)> {
        let what = || format!("cannot explain {target}");
        let answer = ChoicesClient::new(self.channel.clone()).explain(timed(reference(target), CALL_TIMEOUT)).await;
        let json = match answer.trying(what) {
            Ok(answer) => answer.into_inner().json,
            Err(failure) if failure.reason() == Some(Reason::NotFound) => {
                return Err(self.suggest(failure, target).await);
            }
            Err(failure) => return Err(failure),
        };
        let unread =
            |e: serde_json::Error| Error::new(Reason::Internal, format!("the server sent something else: {e}"));
        let value: Value = serde_json::from_slice(&json).map_err(unread).trying(what)?;
        Ok((serde_json::from_value(value.clone()).map_err(unread).trying(what)?, value))
    }

    pub(crate) async fn set_default_class(
        &self,
        request: v1::SetDefaultClassRequest,
        whose: &str,
    ) -> Outcome<v1::SetDefaultResponse> {
        let what = match request.sandbox_class.as_str() {
            "" => format!("cannot take the default class from {whose}"),
            class => format!("cannot make {class} the default class of {whose}"),
        };
        let done = ChoicesClient::new(self.channel.clone()).set_default_class(timed(request, CALL_TIMEOUT)).await;
        Ok(done.trying(|| what)?.into_inner())
    }

    pub(crate) async fn set_default_config(
        &self,
        request: v1::SetDefaultConfigRequest,
    ) -> Outcome<v1::SetDefaultResponse> {
        let what = format!("cannot make sandboxconfig/{} the default of its class", request.name);
        let done = ChoicesClient::new(self.channel.clone()).set_default_config(timed(request, CALL_TIMEOUT)).await;
        Ok(done.trying(|| what)?.into_inner())
    }

    pub(crate) async fn watch(&self, target: &Target) -> Outcome<Watch> {
        let request = v1::WatchRequest {
            kind: target.kind.name().to_owned(),
            namespace: target.space.clone(),
            name: target.name.clone().unwrap_or_default(),
        };
        let stream = self.resources().watch(request).await.trying(|| format!("cannot watch {target}"))?.into_inner();
        Ok(Watch { kind: target.kind, stream })
    }

    /// The stored bytes of a snapshot's manifest.
    pub(crate) async fn manifest(&self, digest: &str) -> Outcome<Vec<u8>> {
        let request = v1::GetManifestRequest { digest: digest.to_owned() };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let response = snapshots.get_manifest(timed(request, CALL_TIMEOUT)).await;
        Ok(response.trying(|| format!("cannot read the manifest of snapshot/{digest}"))?.into_inner().manifest)
    }
}

/// A stream of changes of one kind.
pub(crate) struct Watch {
    kind: Kind,
    stream: Streaming<v1::WatchEvent>,
}

impl Watch {
    /// The next change; `None` when the server ended the stream.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Change>> {
        use v1::watch_event::Type;
        let event = self.stream.message().await.trying(|| format!("the watch on {} ended", self.kind.plural()))?;
        let Some(event) = event else { return Ok(None) };
        let kind = event.r#type();
        if kind == Type::Bookmark {
            return Ok(Some(Change::UpToDate));
        }
        let object = Object::read(self.kind, event.object.unwrap_or_default())?;
        Ok(Some(match kind {
            Type::Added => Change::Added(object),
            Type::Deleted => Change::Deleted(object),
            _ => Change::Modified(object),
        }))
    }
}

pub(crate) fn actor_ref(target: &Target) -> Option<ActorRef> {
    Some(ActorRef { atespace: target.space.clone(), name: target.name.clone().unwrap_or_default() })
}

/// A request that gives up after `timeout`, on both sides.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

fn reference(target: &Target) -> v1::ObjectRef {
    v1::ObjectRef {
        kind: target.kind.name().to_owned(),
        namespace: target.space.clone(),
        name: target.name.clone().unwrap_or_default(),
    }
}
