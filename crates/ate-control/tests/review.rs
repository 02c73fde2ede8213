//! Callers whom the cluster knows: it says who they are and what they may, and nobody else does.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ate_api::{Error, Reason, v1};
use ate_control::{Identity, Options, Question, Reviewer};
use futures::StreamExt as _;
use serde_json::Value;
use support::world::{PATIENCE, World, atespace, eventually, options, template};

/// A cluster's authorizer, as far as this control plane sees one: tokens of users, and what each may.
#[derive(Debug, Default)]
struct Cluster {
    tokens: Mutex<BTreeMap<String, String>>,
    /// User, verb, resource with subresource, namespace or empty.
    rules: Mutex<BTreeSet<[String; 4]>>,
    identified: AtomicUsize,
    asked: AtomicUsize,
    away: AtomicBool,
}

impl Cluster {
    fn knows(&self, token: &str, user: &str) {
        self.tokens.lock().unwrap().insert(token.into(), user.into());
    }

    fn forgets(&self, token: &str) {
        self.tokens.lock().unwrap().remove(token);
    }

    fn allows(&self, user: &str, verbs: &str, resources: &str, namespace: &str) {
        for verb in verbs.split(' ') {
            for resource in resources.split(' ') {
                self.rules.lock().unwrap().insert([user, verb, resource, namespace].map(str::to_owned));
            }
        }
    }

    fn takes_all(&self) {
        self.rules.lock().unwrap().clear();
    }

    fn reached(&self) -> Result<(), Error> {
        if self.away.load(Ordering::SeqCst) { Err(Error::new(Reason::Unavailable, "away")) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl Reviewer for Cluster {
    async fn identify(&self, token: &str) -> Result<Identity, Error> {
        self.identified.fetch_add(1, Ordering::SeqCst);
        self.reached()?;
        let tokens = self.tokens.lock().unwrap();
        let name = tokens.get(token).ok_or_else(|| Error::new(Reason::Unauthenticated, "nobody's token"))?;
        Ok(Identity { name: name.clone(), uid: String::new(), groups: Vec::new(), extra: BTreeMap::new() })
    }

    async fn may(&self, who: &Identity, what: &Question) -> Result<bool, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.reached()?;
        let resource = match what.subresource {
            "" => what.resource.to_owned(),
            sub => format!("{}/{sub}", what.resource),
        };
        let rule = |ns: &str| [who.name.as_str(), what.verb, &resource, ns].map(str::to_owned);
        let rules = self.rules.lock().unwrap();
        Ok(rules.contains(&rule("")) || rules.contains(&rule(&what.namespace)))
    }
}

/// Long enough that nothing is asked twice within a test that counts.
const LONG: Duration = Duration::from_secs(600);

/// `default` and `team-b`, an actor in each.
async fn two_teams(review_ttl: Duration) -> (World, Arc<Cluster>, tempfile::TempDir) {
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Arc::new(Cluster::default()));
    let audit_log = Some(dir.path().join("audit.log"));
    let w = World::ready(Options { reviewer: Some(cluster.clone()), review_ttl, audit_log, ..options() }, 2).await;
    w.apply(atespace("team-b")).await.unwrap();
    w.create("a").await.unwrap();
    w.create_from("team-b", "b", "counter").await.unwrap();
    (w, cluster, dir)
}

fn denied<T: std::fmt::Debug>(answer: Result<T, Error>) -> Error {
    let e = answer.unwrap_err();
    assert_eq!(e.reason, Reason::PermissionDenied, "{e}");
    e
}

fn names(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_cluster_may_what_its_authorizer_says_and_nothing_else() {
    let (w, cluster, dir) = two_teams(LONG).await;
    cluster.knows("t-alice", "alice");
    cluster.allows("alice", "get list watch create resume delete", "actors", "default");
    cluster.allows("alice", "get", "actortemplates", "default");
    let alice = w.over_tcp(Some("t-alice")).await;
    alice.get("Actor", "a").await.unwrap();
    alice.create("own").await.unwrap();
    alice.resume("own").await.unwrap();
    assert_eq!(names(&alice.list("Actor").await), ["a", "own"]);
    let e = denied(alice.get_in("Actor", "team-b", "b").await);
    assert!(e.hint.contains("get on actors.ate.dev in namespace team-b"), "{e:?}");
    denied(alice.list_in("Actor", "team-b").await);
    denied(alice.list_in("Worker", "").await);
    denied(alice.apply(template("mine")).await);
    denied(alice.token("more", "admin", &[]).await);
    let logs = v1::TailRequest { atespace: "default".into(), name: "a".into(), ..Default::default() };
    let tail = v1::logs_client::LogsClient::new(alice.face.clone()).tail(logs).await;
    let e = denied(tail.map(drop).map_err(|s| Error::from(&s)));
    assert!(e.hint.contains("get on actors.ate.dev/log in namespace default"), "{e:?}");

    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let hers = |l: &&Value| l["caller"]["name"] == "alice" && l["caller"]["auth"] == "review";
    assert!(lines.iter().filter(hers).any(|l| l["decision"] == "allowed" && l["verb"] == "resume"), "{text}");
    assert!(lines.iter().filter(hers).any(|l| l["decision"] == "denied" && l["verb"] == "apply"), "{text}");
    assert!(!text.contains("t-alice"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_in_all_namespaces_sees_all_and_whoever_may_in_none_sees_nothing() {
    let (w, cluster, _dir) = two_teams(LONG).await;
    cluster.knows("t-root", "root");
    cluster.allows("root", "list", "actors workers atespaces", "");
    cluster.knows("t-bob", "bob");
    let root = w.acting("t-root");
    assert!(names(&root.list("Actor").await).contains(&"b"));
    assert_eq!(names(&root.list("Atespace").await), ["default", "team-b"]);
    root.list_in("Worker", "").await.unwrap();
    let bob = w.acting("t-bob");
    for kind in ["Actor", "Atespace", "ActorTemplate", "Snapshot", "SandboxConfig"] {
        denied(bob.list_in(kind, "").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_the_cluster_does_not_know_are_refused_and_those_of_this_server_go_on_to_count() {
    let (w, cluster, _dir) = two_teams(LONG).await;
    assert_eq!(w.acting("made-up").get("Actor", "a").await.unwrap_err().reason, Reason::Unauthenticated);
    let asked = cluster.identified.load(Ordering::SeqCst);
    let own = w.token("ci", "viewer", &["default"]).await.unwrap();
    w.acting(&own).get("Actor", "a").await.unwrap();
    // One that looks like this server's is never shown to the cluster.
    assert!(w.acting("ate_0123").get("Actor", "a").await.is_err());
    assert_eq!(cluster.identified.load(Ordering::SeqCst), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_count_for_a_while_so_a_busy_caller_costs_the_cluster_two_questions() {
    let (w, cluster, _dir) = two_teams(LONG).await;
    cluster.knows("t-alice", "alice");
    cluster.allows("alice", "get", "actors", "default");
    let alice = w.acting("t-alice");
    for _ in 0..20 {
        alice.get("Actor", "a").await.unwrap();
    }
    let questions = (cluster.identified.load(Ordering::SeqCst), cluster.asked.load(Ordering::SeqCst));
    assert_eq!(questions, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_ends_calls_and_streams_soon_and_an_authorizer_that_is_away_allows_nothing_new() {
    let (w, cluster, _dir) = two_teams(Duration::from_millis(50)).await;
    cluster.knows("t-alice", "alice");
    cluster.allows("alice", "get watch", "actors", "default");
    let alice = w.over_tcp(Some("t-alice")).await;
    alice.get("Actor", "a").await.unwrap();
    let opened = async || {
        let watch = v1::WatchRequest { kind: "Actor".into(), namespace: "default".into(), ..Default::default() };
        let mut events = alice.resources.clone().watch(watch).await.unwrap().into_inner();
        assert!(events.next().await.unwrap().is_ok());
        events
    };
    let ended = async |mut events: tonic::Streaming<v1::WatchEvent>| {
        let last = async {
            loop {
                match events.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return Error::from(&status),
                    None => panic!("the watch ended without a word"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, last).await.expect("the watch ends")
    };

    let events = opened().await;
    cluster.away.store(true, Ordering::SeqCst);
    let gone = async || alice.get("Actor", "a").await.is_err_and(|e| e.reason == Reason::Unavailable);
    eventually("calls are unavailable", gone).await;
    cluster.away.store(false, Ordering::SeqCst);
    alice.get("Actor", "a").await.unwrap();

    cluster.takes_all();
    assert_eq!(ended(events).await.reason, Reason::PermissionDenied);
    denied(alice.get("Actor", "a").await);

    cluster.allows("alice", "get watch", "actors", "default");
    eventually("what is given counts soon", async || alice.get("Actor", "a").await.is_ok()).await;
    let events = opened().await;
    cluster.forgets("t-alice");
    assert_eq!(ended(events).await.reason, Reason::Unauthenticated);
}
