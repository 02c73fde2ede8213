//! Callers whom somebody else knows: a cluster's own users, by the tokens they have there anyway.
//!
//! Two questions are asked through [`Reviewer`]: whose token this is, and whether its owner may do something. The second is
//! asked of the cluster's authorizer in its own terms (group `ate.dev`; verb, resource, namespace), so that roles are
//! written in one place. An atespace is asked about as the namespace of the same name.
//!
//! Answers count for a short while; both memories are capped. While nobody can answer, calls
//! fail as unavailable, and the server's own tokens go on to count.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ate_api::{Error, Reason, id::Digest};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::{Ask, Reach, Verb, table::Space};
use crate::{api::Kind, catalog::Catalog};

/// A "no" counts for so much less: whoever was just given something need not wait long.
const SHORTER: u32 = 6;
/// Of each memory; some hundred bytes each.
const MAX_KEPT: usize = 10_000;
/// Questions at once: strangers with made-up tokens must not press on the cluster's API server through us.
const MAX_ASKED: usize = 16;
/// Spaces a list over "all that I may see" asks about one by one.
const MAX_SPACES: usize = 500;
/// One answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No namespace has a longer name, and names may still be unchecked here.
const MAX_NAME: usize = 63;
/// Nothing longer is looked at; a service account's token has about 1 KiB.
const MAX_TOKEN: usize = 16 << 10;

/// Somebody, in the words of whoever knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is asked about, as an authorizer of Kubernetes knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub verb: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    /// Empty: in all of them.
    pub namespace: String,
}

/// Who knows tokens and rights of others.
#[async_trait::async_trait]
pub trait Reviewer: fmt::Debug + Send + Sync {
    /// Whose token it is. Errors: `UNAUTHENTICATED` when it counts for nobody, `UNAVAILABLE` when that is not known.
    async fn identify(&self, token: &str) -> Result<Identity, Error>;
    /// Whether they may. Errors: `UNAVAILABLE` when that is not known.
    async fn may(&self, who: &Identity, what: &Question) -> Result<bool, Error>;
}

/// A reviewer, and what it answered lately.
#[derive(Debug)]
pub(crate) struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    /// How long a "yes" counts. What is taken from somebody is gone after this.
    pub(super) counts: Duration,
    identities: Memory<Digest, Result<Arc<Identity>, Error>>,
    decisions: Memory<(Arc<Identity>, Question), bool>,
    asked: Semaphore,
}

impl Reviews {
    pub(crate) fn new(reviewer: Arc<dyn Reviewer>, counts: Duration) -> Reviews {
        Reviews {
            reviewer,
            counts,
            identities: Memory::default(),
            decisions: Memory::default(),
            asked: Semaphore::new(MAX_ASKED),
        }
    }

    pub(crate) async fn identify(&self, token: &str) -> Result<Arc<Identity>, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::new(Reason::Unauthenticated, "this is no token"));
        }
        // The token itself is kept nowhere.
        let key = Digest::of(token.as_bytes());
        if let Some(known) = self.identities.get(&key) {
            return known;
        }
        let answer = self.limited(self.reviewer.identify(token)).await.map(Arc::new);
        match &answer {
            Ok(_) => self.identities.keep(key, answer.clone(), self.counts),
            Err(e) if e.reason == Reason::Unauthenticated => {
                self.identities.keep(key, answer.clone(), self.counts / SHORTER)
            }
            Err(_) => {}
        }
        answer
    }

    pub(crate) async fn may(&self, who: &Arc<Identity>, what: Question) -> Result<bool, Error> {
        let key = (who.clone(), what);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let may = self.limited(self.reviewer.may(who, &key.1)).await?;
        self.decisions.keep(key, may, if may { self.counts } else { self.counts / SHORTER });
        Ok(may)
    }

    /// Where they may, of what is asked. `None`: nowhere.
    pub(super) async fn reach(
        &self,
        who: &Arc<Identity>,
        ask: &Ask,
        catalog: &Catalog,
    ) -> Result<Option<Reach>, Error> {
        let question = |namespace: &str| question(ask.verb, ask.kind, namespace);
        match &ask.space {
            Space::Atespace(name) | Space::Namespace(name) if name.len() > MAX_NAME => Ok(None),
            Space::Atespace(name) | Space::Namespace(name) => {
                let may = self.may(who, question(name)).await?;
                Ok(may.then(|| Reach::Only([name.clone()].into())))
            }
            Space::Mine if ask.verb.is_view() => {
                if self.may(who, question("")).await? {
                    return Ok(Some(Reach::All));
                }
                let spaces = spaces(catalog);
                if spaces.len() > MAX_SPACES {
                    let message = format!("there are more than {MAX_SPACES} spaces, too many to ask about each");
                    return Err(
                        Error::new(Reason::PermissionDenied, message).hint("name one: -a ATESPACE, -n NAMESPACE")
                    );
                }
                let asked = futures::stream::iter(spaces)
                    .map(|space| async { Ok::<_, Error>(self.may(who, question(&space)).await?.then_some(space)) });
                let within: BTreeSet<String> =
                    asked.buffer_unordered(MAX_ASKED).try_filter_map(|s| async { Ok(s) }).try_collect().await?;
                Ok((!within.is_empty()).then_some(Reach::Only(within)))
            }
            Space::Shared | Space::Every | Space::Mine => Ok(self.may(who, question("")).await?.then_some(Reach::All)),
        }
    }

    async fn limited<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = || Error::new(Reason::Unavailable, "the cluster does not say who calls and what they may");
        let answer = async {
            let _turn = self.asked.acquire().await.map_err(|_| late())?;
            answer.await
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Wherever actors or templates are.
fn spaces(catalog: &Catalog) -> BTreeSet<String> {
    let templates = catalog.templates.all().into_iter().map(|(name, _)| name.namespace);
    catalog.atespaces.all().into_iter().map(|(name, _)| name).chain(templates).collect()
}

/// What is asked, in the words of Kubernetes. docs/kubernetes.md has the table.
pub(super) fn question(verb: Verb, kind: Kind, namespace: &str) -> Question {
    let (verb, subresource) = match verb {
        Verb::Get => ("get", ""),
        Verb::List => ("list", ""),
        Verb::Watch => ("watch", ""),
        Verb::Apply => ("patch", ""),
        Verb::Create => ("create", ""),
        Verb::Update => ("update", ""),
        Verb::Delete => ("delete", ""),
        Verb::Resume => ("resume", ""),
        Verb::Pause => ("pause", ""),
        Verb::Suspend => ("suspend", ""),
        Verb::Logs => ("get", "log"),
        Verb::Import => ("create", ""),
        Verb::Clear => ("deletecollection", ""),
    };
    Question { verb, resource: resource(kind), subresource, namespace: namespace.to_owned() }
}

fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::Atespace => "atespaces",
        Kind::SandboxConfig => "sandboxconfigs",
        Kind::WorkerPool => "workerpools",
        Kind::ActorTemplate => "actortemplates",
        Kind::Actor => "actors",
        Kind::Worker => "workers",
        Kind::Snapshot => "snapshots",
        Kind::Asset => "assets",
        Kind::Token => "tokens",
    }
}

/// `resume on actors.ate.dev in namespace team-a`.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}.ate.dev", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        match self.namespace.as_str() {
            "" => f.write_str(" in all namespaces"),
            namespace => write!(f, " in namespace {namespace}"),
        }
    }
}

/// Answers with the time until which they count.
#[derive(Debug)]
struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Memory(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, v)| v.clone())
    }

    fn keep(&self, key: K, value: V, time: Duration) {
        let now = Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (until, _)| *until > now);
        }
        // Still full: asking again costs less than remembering without end.
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, (now + time, value));
    }
}
