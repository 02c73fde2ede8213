//! Watching: every existing object as ADDED, one BOOKMARK, then changes until the caller leaves.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use ate_api::{
    Error, Reason,
    id::WorkerId,
    v1::{Object, WatchEvent, watch_event::Type},
};
use ate_store::{Change, Changes};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{names, resources::Kind, views};
use crate::{
    access::{Ask, Verb, caller::Caller, gate::Admitted, tokens::TokenRecord},
    core::Core,
    records::{
        ActorRecord, AtespaceRecord, ConfigRecord, PoolRecord, SnapshotRecord, TemplateRecord, from_json, keys, unpack,
    },
};

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

/// Events between the watcher and the network; a slower reader slows its own watch only.
const BUFFER: usize = 64;
const PAGE: usize = 500;

/// What one watcher wants to see.
struct Watch {
    core: Arc<Core>,
    caller: Caller,
    kind: Kind,
    namespace: String,
    name: String,
    out: mpsc::Sender<Result<WatchEvent, Status>>,
    /// Version last sent of each object that is there.
    sent: HashMap<(String, String), u64>,
}

/// The reader has left, or the watch has failed and said so.
struct Over;

pub(crate) async fn start(admitted: Admitted, kind: Kind, namespace: String, name: String) -> Result<Events, Error> {
    if !namespace.is_empty() {
        names::label("namespace", &namespace)?;
    }
    let Admitted { core, caller } = admitted;
    let holds = caller.clone();
    // Before the list, so that nothing falls between the two.
    let feed = Feed::open(&core, kind, &namespace, &name);
    let (out, events) = mpsc::channel(BUFFER);
    let mut watch = Watch { core: core.clone(), caller, kind, namespace, name, out, sent: HashMap::new() };
    core.spawn(async move {
        let stop = watch.core.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = watch.run(feed) => {}
        }
    });
    Ok(Box::pin(holds.while_it_holds(ReceiverStream::new(events))))
}

enum Feed {
    Store(Changes),
    Workers(tokio::sync::broadcast::Receiver<WorkerId>),
    Assets(tokio::sync::broadcast::Receiver<ate_agent::AssetReport>),
}

impl Feed {
    fn open(core: &Core, kind: Kind, namespace: &str, name: &str) -> Feed {
        match kind {
            Kind::Worker => Feed::Workers(core.scheduler.watch()),
            Kind::Asset => Feed::Assets(core.asset_changes.subscribe()),
            _ => Feed::Store(core.db.store.watch(&prefix(kind, namespace, name).unwrap_or_default())),
        }
    }
}

/// Where in the store the objects are that a watcher may want; others may be there too. `None`: they are not stored.
fn prefix(kind: Kind, namespace: &str, name: &str) -> Option<String> {
    let (all, namespaced) = match kind {
        Kind::Worker | Kind::Asset => return None,
        Kind::Atespace => (keys::ATESPACES, false),
        Kind::SandboxConfig => (keys::CONFIGS, false),
        Kind::WorkerPool => (keys::POOLS, true),
        Kind::ActorTemplate => (keys::TEMPLATES, true),
        Kind::Actor => (keys::ACTORS, true),
        Kind::Token => (keys::TOKENS, false),
        // Keyed by digest, whosever they are.
        Kind::Snapshot => (keys::SNAPSHOTS, false),
    };
    Some(match (namespaced, namespace) {
        (true, "") => all.to_owned(),
        (true, namespace) => format!("{all}{namespace}/{name}"),
        (false, _) => format!("{all}{name}"),
    })
}

fn lagged() -> Error {
    Error::new(Reason::Unavailable, "the watcher fell behind and must start again")
}

impl Watch {
    async fn run(&mut self, feed: Feed) -> Result<(), Over> {
        self.existing().await?;
        self.send(Type::Bookmark, None).await?;
        match feed {
            Feed::Store(mut changes) => {
                while let Some(change) = changes.next().await {
                    match change {
                        Ok(change) => self.changed(change).await?,
                        Err(_) => return self.fail(lagged()).await,
                    }
                }
                Ok(())
            }
            Feed::Workers(mut changes) => loop {
                match changes.recv().await {
                    Ok(id) => match self.core.scheduler.worker(&id) {
                        Some(w) => {
                            let view = views::worker(&self.core, &w);
                            self.show(view).await?;
                        }
                        None => self.gone_by_name(&id.0).await?,
                    },
                    Err(_) => return self.fail(lagged()).await,
                }
            },
            Feed::Assets(mut changes) => loop {
                match changes.recv().await {
                    Ok(report) => {
                        let view = views::asset(&self.core, &report.sha256, Some(&report));
                        self.show(view).await?;
                    }
                    Err(_) => return self.fail(lagged()).await,
                }
            },
        }
    }

    async fn existing(&mut self) -> Result<(), Over> {
        match prefix(self.kind, &self.namespace, &self.name) {
            // Those of one namespace are found by an index.
            Some(prefix) if self.kind != Kind::Snapshot => self.stored(&prefix).await,
            _ => self.listed().await,
        }
    }

    /// From the store, also what is kept in memory: memory learns of a commit only after the feed has told of it, and
    /// whoever began to watch in between would never see it.
    async fn stored(&mut self, prefix: &str) -> Result<(), Over> {
        let mut after: Option<String> = None;
        loop {
            let page = match self.core.db.page(prefix, after.as_deref(), PAGE).await {
                Ok(page) => page,
                Err(e) => return self.fail(e).await,
            };
            let last = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            for (key, found) in page {
                self.changed(Change { key, version: found.version, value: Some(found.value) }).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn listed(&mut self) -> Result<(), Over> {
        let mut token = String::new();
        loop {
            match self.core.list_objects(&self.caller, self.kind, &self.namespace, &token, PAGE).await {
                Ok((objects, next)) => {
                    for object in objects {
                        self.show(Ok(object)).await?;
                    }
                    if next.is_empty() {
                        return Ok(());
                    }
                    token = next;
                }
                Err(e) => return self.fail(e).await,
            }
        }
    }

    async fn changed(&mut self, change: Change) -> Result<(), Over> {
        match self.read(&change).await {
            Ok(Some(object)) => self.show(Ok(object)).await,
            Ok(None) => self.gone(&change).await,
            Err(e) => self.fail(e).await,
        }
    }

    /// The object as the change left it.
    async fn read(&self, change: &Change) -> Result<Option<Object>, Error> {
        let Some(bytes) = &change.value else { return Ok(None) };
        let (key, version) = (change.key.as_str(), change.version);
        let object = match self.kind {
            Kind::Atespace => {
                let record = from_json::<AtespaceRecord>(key, bytes)?;
                let actors = self.core.count_actors(&record.resource.metadata.name).await?;
                views::atespace(&record, version, actors)?
            }
            Kind::SandboxConfig => {
                let r = from_json::<ConfigRecord>(key, bytes)?.resource;
                views::object("SandboxConfig", &r.metadata, version, &r)?
            }
            Kind::WorkerPool => {
                let r = from_json::<PoolRecord>(key, bytes)?.resource;
                views::object("WorkerPool", &r.metadata, version, &r)?
            }
            Kind::ActorTemplate => {
                let r = from_json::<TemplateRecord>(key, bytes)?.resource;
                views::object("ActorTemplate", &r.metadata, version, &r)?
            }
            Kind::Actor => {
                let Some(name) = keys::actor_of(key) else { return Ok(None) };
                views::actor(&self.core, &name, &unpack::<ActorRecord>(key, bytes)?, version)?
            }
            Kind::Snapshot => {
                let record = unpack::<SnapshotRecord>(key, bytes)?;
                if !self.caller.sees(&Ask::snapshot(Verb::Watch, &record)) {
                    return Ok(None);
                }
                let current = self.core.is_current(&record).await?;
                views::snapshot(&self.core, &record, current, version)?
            }
            Kind::Token => views::token(version, &from_json::<TokenRecord>(key, bytes)?)?,
            Kind::Worker | Kind::Asset => return Ok(None),
        };
        // A snapshot was asked about with its record, which says whose it is.
        let ask = Ask::object(Verb::Watch, self.kind, &object.namespace, &object.name);
        Ok(self.caller.sees(&ask).then_some(object))
    }

    fn wants(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || object.namespace == self.namespace)
            && (self.name.is_empty() || object.name == self.name)
    }

    async fn show(&mut self, object: Result<Object, Error>) -> Result<(), Over> {
        let object = match object {
            Ok(object) => object,
            Err(e) => return self.fail(e).await,
        };
        if !self.wants(&object) {
            return Ok(());
        }
        let id = (object.namespace.clone(), object.name.clone());
        let stored = !matches!(self.kind, Kind::Worker | Kind::Asset);
        let before = self.sent.insert(id.clone(), object.version);
        // A change that the list has shown already.
        if let Some(before) = before.filter(|b| stored && *b >= object.version) {
            self.sent.insert(id, before);
            return Ok(());
        }
        let kind = if before.is_some() { Type::Modified } else { Type::Added };
        self.send(kind, Some(object)).await
    }

    async fn gone(&mut self, change: &Change) -> Result<(), Over> {
        let path = change.key.split_once('/').map_or("", |(_, path)| path);
        let id = match (self.kind, path.split_once('/')) {
            (Kind::Actor | Kind::WorkerPool | Kind::ActorTemplate, Some((ns, name))) => {
                (ns.to_owned(), name.to_owned())
            }
            (Kind::Snapshot, _) => return self.gone_by_name(path).await,
            _ => (String::new(), path.to_owned()),
        };
        match self.sent.get(&id) {
            Some(shown) if *shown < change.version => self.send_gone(id, change.version).await,
            _ => Ok(()),
        }
    }

    async fn gone_by_name(&mut self, name: &str) -> Result<(), Over> {
        match self.sent.keys().find(|(_, n)| n == name).cloned() {
            Some(id) => self.send_gone(id, 0).await,
            None => Ok(()),
        }
    }

    async fn send_gone(&mut self, id: (String, String), version: u64) -> Result<(), Over> {
        self.sent.remove(&id);
        let object = Object {
            kind: format!("{:?}", self.kind),
            namespace: id.0,
            name: id.1,
            uid: String::new(),
            version,
            json: Vec::new(),
        };
        self.send(Type::Deleted, Some(object)).await
    }

    async fn send(&self, kind: Type, object: Option<Object>) -> Result<(), Over> {
        self.out.send(Ok(WatchEvent { r#type: kind.into(), object })).await.map_err(|_| Over)
    }

    async fn fail(&self, e: Error) -> Result<(), Over> {
        let _ = self.out.send(Err(e.into())).await;
        Err(Over)
    }
}
