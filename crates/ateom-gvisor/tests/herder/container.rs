//! What a program inside finds, and what comes out of it.

use std::time::Instant;

use ate_api::Reason;
use ateom::driver::Scope;

use ateom_harness::app;

use crate::worker::{LIMIT, NEW, container, sandbox, worker, workload};

#[tokio::test]
async fn a_container_finds_its_environment_name_hosts_and_identity() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("alice", 7, with).await.unwrap();
    assert_eq!(worker.get("/env/COLOUR"), "green");
    assert!(worker.get("/env/PATH").contains("/usr/bin"));
    assert_eq!(worker.get("/host").trim(), "actor");
    assert!(worker.get("/read/etc/hosts").contains("169.254.17.2\tactor"));
    assert_eq!(worker.get("/read/etc/hostname"), "actor\n");
    assert_eq!(worker.get("/read/run/ate/name"), "alice");
    assert_eq!(worker.get("/read/run/ate/uid"), "uid-alice");
    assert_eq!(worker.get("/read/run/ate/template"), "default/test");
    assert_eq!(worker.get("/read/run/ate/activation"), "7");
    assert!(worker.get("/write/run/ate/name/bob").starts_with("error"), "the identity is read-only");
}

#[tokio::test]
async fn identity_is_fresh_in_each_clone_of_a_snapshot() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("golden", 1, with).await.unwrap();
    assert_eq!(worker.get("/read/run/ate/name"), "golden");
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    for clone in ["one", "two"] {
        worker.reset().await;
        worker.restore(clone, 1, with, &snapshot).await.unwrap();
        assert_eq!(worker.get("/read/run/ate/name"), clone);
        assert_eq!(worker.get("/read/run/ate/uid"), format!("uid-{clone}"));
    }
}

#[tokio::test]
async fn what_one_actor_writes_the_next_does_not_see() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/write/secret/mine"), "written");
    worker.reset().await;
    worker.run("b", 1, with).await.unwrap();
    assert!(worker.get("/read/secret").starts_with("error"));
    assert!(!app::layer().join("secret").exists());
}

#[tokio::test]
async fn log_lines_say_who_wrote_them_in_which_activation() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("alice", 3, with).await.unwrap();
    let log = worker.log_dir().join("main.jsonl");
    let deadline = Instant::now() + LIMIT;
    let text = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.lines().count() >= 2 {
            break text;
        }
        assert!(Instant::now() < deadline, "no log: {text}");
        tokio::task::yield_now().await;
    };
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for (stream, said) in [("stdout", "listening on 8080"), ("stderr", "a word to stderr")] {
        let line = lines.iter().find(|l| l["stream"] == stream).unwrap();
        assert_eq!(line["text"], said);
        assert_eq!(line["actor"], "alice");
        assert_eq!(line["atespace"], "default");
        assert_eq!(line["template"], "default/test");
        assert_eq!(line["container"], "main");
        assert_eq!(line["activation"], 3);
        line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
}

#[tokio::test]
async fn a_flooding_actor_fills_two_log_files_and_not_the_disk() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/log/40000"), "logged"); // 40 MB
    worker.reset().await;
    let sizes: Vec<u64> =
        std::fs::read_dir(worker.log_dir()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|&size| size < ateom::logs::MAX_FILE + 64 * 1024), "{sizes:?}");
}

#[tokio::test]
async fn a_hostile_layer_leads_nowhere_outside() {
    let worker_dir = tempfile::tempdir().unwrap();
    let (outside, layer) = (worker_dir.path().join("outside"), worker_dir.path().join("layer"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&layer).unwrap();
    std::fs::copy(app::layer().join("app"), layer.join("app")).unwrap();
    // /etc of the image points at a directory of the host.
    std::os::unix::fs::symlink(&outside, layer.join("etc")).unwrap();
    let mut main = container("main", 8080);
    main.layers = vec![layer.to_string_lossy().into_owned()];
    let mut worker = worker().await;
    let error = worker.run("a", 1, (&sandbox(NEW, "{}"), &workload(vec![main]))).await.unwrap_err();
    assert_eq!(error.reason, Reason::ImageInvalid, "{error}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was written outside");
}
