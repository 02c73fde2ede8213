//! Who may do what with the API, against a running control plane.

mod support;

use ate_api::{Error, Reason, v1};
use futures::StreamExt as _;
use serde_json::Value;
use support::world::{World, atespace, eventually, options, pool, sandbox_config, template};

/// A world with the atespaces `default` and `team-b`, an actor in each, and a file for the audit log.
async fn two_teams() -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = ate_control::Options { audit_log: Some(dir.path().join("audit.log")), ..options() };
    let w = World::ready(options, 2).await;
    w.apply(atespace("team-b")).await.unwrap();
    w.create("a").await.unwrap();
    w.create_from("team-b", "b", "counter").await.unwrap();
    (w, dir)
}

async fn has(w: &World, role: &str, spaces: &[&str]) -> World {
    w.acting(&w.token(role, role, spaces).await.unwrap())
}

fn denied<T: std::fmt::Debug>(answer: Result<T, Error>) -> Error {
    let e = answer.unwrap_err();
    assert_eq!(e.reason, Reason::PermissionDenied, "{e}");
    assert!(!e.hint.is_empty() && !e.object.is_empty(), "{e:?}");
    e
}

fn names(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

/// Without the golden ones, which whoever sees every atespace sees too.
fn users_actors(objects: &[Value]) -> Vec<&str> {
    let users = objects.iter().filter(|o| o["metadata"]["namespace"] != ate_api::id::GOLDEN_ATESPACE);
    users.map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

fn audit(dir: &tempfile::TempDir) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_nobody_is_known_without_a_token_and_health_alone_is_told() {
    let (w, dir) = two_teams().await;
    let stranger = w.over_tcp(None).await;
    let e = stranger.get("Actor", "a").await.unwrap_err();
    assert_eq!(e.reason, Reason::Unauthenticated, "{e}");
    assert!(e.hint.contains("ate token create"), "{e:?}");
    for token in ["", "ate_", "ate_0000000000000000000000000000000000000000000000000000000000000000", "x"] {
        for w in [w.over_tcp(Some(token)).await, w.acting(token)] {
            assert_eq!(w.get("Actor", "a").await.unwrap_err().reason, Reason::Unauthenticated, "{token:?}");
        }
    }
    let request = tonic_health::pb::HealthCheckRequest { service: "ateapi.Control".into() };
    let mut health = tonic_health::pb::health_client::HealthClient::new(stranger.face.clone());
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    let line = &audit(&dir).into_iter().find(|l| l["caller"]["auth"] == "none").unwrap();
    assert_eq!((&line["decision"], &line["call"]), (&"denied".into(), &"/ate.v1.Resources/Get".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_counts_until_it_is_revoked_or_expires_over_a_restart_too() {
    let (w, _dir) = two_teams().await;
    let secret = w.token("ci", "viewer", &["default"]).await.unwrap();
    assert_eq!(w.token("ci", "admin", &[]).await.unwrap_err().reason, Reason::AlreadyExists);
    let brief = w.token_for("brief", "viewer", &["default"], 1).await.unwrap();
    w.over_tcp(Some(&secret)).await.get("Actor", "a").await.unwrap();
    let w = w.restart().await;
    let ci = w.over_tcp(Some(&secret)).await;
    ci.get("Actor", "a").await.unwrap();
    let shown = w.get("Token", "ci").await.unwrap();
    assert_eq!((&shown["spec"]["role"], &shown["status"]["phase"]), (&"viewer".into(), &"Active".into()));
    assert!(!shown.to_string().contains(&secret) && !shown.to_string().contains("sha256"), "{shown}");

    // A stream that was opened with it ends too.
    let watch = v1::WatchRequest { kind: "Actor".into(), ..Default::default() };
    let mut events = ci.resources.clone().watch(watch).await.unwrap().into_inner();
    assert!(events.next().await.unwrap().is_ok());
    w.delete("Token", "ci").await.unwrap();
    let e = ci.get("Actor", "a").await.unwrap_err();
    assert_eq!(e.reason, Reason::Unauthenticated, "{e}");
    let last = tokio::time::timeout(support::world::PATIENCE, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return Error::from(&status),
                None => panic!("the watch ended without a word"),
            }
        }
    });
    assert_eq!(last.await.unwrap().reason, Reason::Unauthenticated);
    // Whoever holds a handle of the old process would keep its store open.
    drop((ci, events));
    let w = w.restart().await;
    assert_eq!(w.acting(&secret).get("Actor", "a").await.unwrap_err().reason, Reason::Unauthenticated);

    let brief = w.acting(&brief);
    eventually("the token expires", async || brief.get("Actor", "a").await.is_err()).await;
    let e = brief.get("Actor", "a").await.unwrap_err();
    assert!(e.reason == Reason::Unauthenticated && e.message.contains("expired"), "{e}");
    assert_eq!(w.get("Token", "brief").await.unwrap()["status"]["phase"], "Expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_its_own_spaces_and_changes_nothing() {
    let (w, _dir) = two_teams().await;
    let v = has(&w, "viewer", &["default"]).await;
    v.get("Actor", "a").await.unwrap();
    v.get("ActorTemplate", "counter").await.unwrap();
    v.get("SandboxConfig", "gvisor-default").await.unwrap();
    assert_eq!(names(&v.list("Actor").await), ["a"]);
    assert_eq!(names(&v.list("Atespace").await), ["default"]);
    assert_eq!(users_actors(&w.list("Actor").await), ["a", "b"]);
    denied(v.get_in("Actor", "team-b", "b").await);
    denied(v.list_in("Actor", "team-b").await);
    denied(v.list_in("ActorTemplate", "other").await);
    denied(v.get("Token", "viewer").await);
    denied(v.list_in("Token", "").await);
    // Seats tell who sits on them.
    denied(v.list_in("Worker", "").await);
    denied(v.create("mine").await);
    denied(v.resume("a").await);
    denied(v.remove("a").await);
    denied(v.apply(template("own")).await);
    denied(v.token("more", "admin", &[]).await);
    let logs = v1::TailRequest { atespace: "default".into(), name: "a".into(), ..Default::default() };
    let tail = v1::logs_client::LogsClient::new(v.face.clone()).tail(logs).await;
    denied(tail.map(drop).map_err(|s| Error::from(&s)));
    assert_eq!(w.actor("a").await.unwrap().activation, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_tokens_and_watches_show_nothing_of_other_spaces() {
    let (w, _dir) = two_teams().await;
    for space in ["aaa", "zzz"] {
        w.apply(atespace(space)).await.unwrap();
        w.create_from(space, "hidden", "counter").await.unwrap();
    }
    let v = has(&w, "viewer", &["default", "team-b"]).await;
    assert_eq!(names(&v.list("Actor").await), ["a", "b"]);
    let forged = v1::ListRequest { kind: "Actor".into(), page_token: "actor/aaa/hidden".into(), ..Default::default() };
    let e = Error::from(&v.resources.clone().list(forged).await.unwrap_err());
    assert_eq!(e.reason, Reason::Invalid, "{e}");

    let watch = v1::WatchRequest { kind: "Actor".into(), ..Default::default() };
    let mut events = v.resources.clone().watch(watch).await.unwrap().into_inner();
    w.create_from("zzz", "late", "counter").await.unwrap();
    w.create("seen").await.unwrap();
    let mut seen = Vec::new();
    let watched = tokio::time::timeout(support::world::PATIENCE, async {
        while !seen.contains(&"seen".to_owned()) {
            seen.extend(events.next().await.unwrap().unwrap().object.map(|o| o.name));
        }
    });
    watched.await.unwrap();
    assert_eq!(seen, ["a", "b", "seen"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_their_owners_to_see() {
    let (w, _dir) = two_teams().await;
    for (space, name) in [("default", "a"), ("team-b", "b")] {
        w.resume_in(space, name, false).await.unwrap();
    }
    w.suspend("a").await.unwrap();
    let request = ate_api::ateapi::SuspendActorRequest { actor_ref: support::world::reference("team-b", "b") };
    w.api.clone().suspend_actor(request).await.unwrap();
    let of = |owner: &str, all: &[Value]| {
        let found = all.iter().find(|s| s["spec"]["owner"] == owner);
        found.map(|s| s["metadata"]["name"].as_str().unwrap().to_owned())
    };
    let all = w.list("Snapshot").await;
    let theirs = of("team-b/b", &all).unwrap();
    let v = has(&w, "viewer", &["default"]).await;
    let seen = v.list("Snapshot").await;
    assert!(of("default/a", &seen).is_some() && of("default/counter", &seen).is_some(), "{seen:?}");
    assert_eq!(of("team-b/b", &seen), None);
    denied(v.get_in("Snapshot", "", &theirs).await);
    denied(v.get_in("Snapshot", "", &theirs[..8]).await);
    let request = v1::GetManifestRequest { digest: theirs };
    let manifest = v1::snapshots_client::SnapshotsClient::new(v.face.clone()).get_manifest(request).await;
    denied(manifest.map(drop).map_err(|s| Error::from(&s)));
    v.get_in("Snapshot", "", &of("default/a", &seen).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_user_moves_actors_at_home_and_writes_no_template() {
    let (w, dir) = two_teams().await;
    let u = has(&w, "actor-user", &["default"]).await;
    u.create("mine").await.unwrap();
    u.resume("mine").await.unwrap();
    u.suspend("mine").await.unwrap();
    u.remove("mine").await.unwrap();
    denied(u.create_from("team-b", "mine", "counter").await);
    denied(u.resume_in("team-b", "b", false).await);
    denied(u.apply(template("own")).await);
    denied(u.delete("ActorTemplate", "counter").await);
    denied(u.apply(atespace("new")).await);
    denied(u.apply(pool("new", 1)).await);
    let did: Vec<String> = audit(&dir)
        .into_iter()
        .filter(|l| l["caller"]["name"] == "actor-user")
        .map(|l| {
            format!(
                "{} {} {}",
                l["decision"].as_str().unwrap(),
                l["verb"].as_str().unwrap(),
                l["object"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        did,
        [
            "allowed create actor/default/mine",
            "allowed resume actor/default/mine",
            "allowed suspend actor/default/mine",
            "allowed delete actor/default/mine",
            "denied create actor/team-b/mine",
            "denied resume actor/team-b/b",
            "denied apply actortemplate/default/own",
            "denied delete actortemplate/default/counter",
            "denied apply atespace/new",
            "denied apply workerpool/default/new",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_author_chooses_what_runs_and_never_the_binary_that_runs_it() {
    let (w, _dir) = two_teams().await;
    let t = has(&w, "template-author", &["default"]).await;
    t.apply(template("own")).await.unwrap();
    t.template_ready("own").await;
    t.create_from("default", "mine", "own").await.unwrap();
    let mut elsewhere = template("own");
    elsewhere["metadata"]["namespace"] = "other".into();
    denied(t.apply(elsewhere).await);
    let e = denied(t.apply(sandbox_config("evil", 'e', true)).await);
    assert!(e.hint.contains("sandbox-admin"), "{e:?}");
    denied(t.apply(sandbox_config("gvisor-default", 'e', true)).await);
    denied(t.delete("SandboxConfig", "gvisor-default").await);
    let import = v1::assets_client::AssetsClient::new(t.face.clone()).import(futures::stream::empty()).await;
    denied(import.map(drop).map_err(|s| Error::from(&s)));
    let config = w.get("SandboxConfig", "gvisor-default").await.unwrap();
    assert_eq!(config["status"]["revision"], 1);
    assert!(w.get("SandboxConfig", "evil").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_administrator_chooses_binaries_and_nothing_else() {
    let (w, dir) = two_teams().await;
    let s = has(&w, "sandbox-admin", &[]).await;
    s.apply(sandbox_config("gvisor-next", 'b', false)).await.unwrap();
    s.delete("SandboxConfig", "gvisor-next").await.unwrap();
    assert_eq!(users_actors(&s.list("Actor").await), ["a", "b"]);
    assert_eq!(s.list("Worker").await.len(), 2);
    denied(s.apply(template("own")).await);
    denied(s.create("mine").await);
    denied(s.resume("a").await);
    denied(s.remove("a").await);
    denied(s.apply(pool("pool", 5)).await);
    denied(s.token("more", "admin", &[]).await);
    let mine = audit(&dir).into_iter().filter(|l| l["caller"]["name"] == "sandbox-admin");
    assert_eq!(mine.filter(|l| l["decision"] == "allowed").count(), 2);
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    assert!(!text.contains("ate_"), "a secret is in the audit log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_control_plane_does_by_itself_is_asked_nothing() {
    let (w, dir) = two_teams().await;
    let before = audit(&dir).len();
    // As the router does it.
    let deadline = std::time::Instant::now() + support::world::PATIENCE;
    w.control.resume(&support::world::name("a"), false, deadline).await.unwrap();
    assert_eq!(audit(&dir).len(), before);
}
