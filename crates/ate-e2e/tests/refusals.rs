//! What must not work, and how it fails: a typed error, and nothing lost.

use std::{fs, io::Write as _, net::TcpStream};

use ate_e2e::{Node, RUNSC_A, RUNSC_OLD, disk::files_below, eventually, node, runsc, user};

#[test]
fn a_template_that_names_a_binary_is_refused_with_the_way_to_do_it() {
    let node = Node::with_pool(1);
    let said = node.apply(&node::counter("sly", "  runsc: {url: \"file:///tmp/evil\"}\n")).refused();
    assert!(said.contains("SandboxConfig"), "{said}");
    assert!(node.list("templates").is_empty());
}

#[test]
fn a_template_that_needs_more_than_the_binary_can_do_is_refused_before_anything_starts() {
    let node = Node::start();
    node.import("gvisor-default", RUNSC_OLD, true).ok();
    node.apply(&node::pool("pool", 1, "")).ok();
    node.ate(&["create", "atespace", "default"]);
    node.workers_ready(1);
    let image = ate_e2e::counter_image();
    let yaml = node::counter("pair", "").replace(
        "  snapshotsConfig",
        &format!("  - name: side\n    image: {image}\n    env: [{{name: PORT, value: \"81\"}}]\n  snapshotsConfig"),
    );
    let out = node.apply(&yaml);
    let said = format!("{}{}", out.stdout, out.stderr);
    let told = if out.code != 0 {
        said
    } else {
        let mut last = String::new();
        eventually("the template to be refused", user::ANSWER, || {
            last = node.get("template", "pair").to_string();
            last.contains("MISSING_CAPABILITY") || last.contains("MissingCapability")
        });
        last
    };
    assert!(told.contains("multi-container") || told.contains("container"), "{told}");
    node.template(&node::counter("single", ""), "single");
    node.actor("a", "single");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 2);
}

#[test]
fn a_manifest_that_was_tampered_with_is_never_used() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    let uid = node.get("actor", "a")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let digest = node.get("actor", "a")["status"]["snapshot"].as_str().expect("a snapshot").to_owned();
    let mut touched = 0;
    for dir in [node.data().join("objects"), node.data().join("node/snapshots").join(&digest)] {
        for path in files_below(&dir).into_iter().filter(|p| p.ends_with("manifest.json")) {
            let text = fs::read_to_string(&path).expect("a manifest");
            if text.contains(&uid) {
                fs::remove_file(&path).expect("remove");
                fs::write(&path, text.replace("\"generation\":1", "\"generation\":7")).expect("write");
                touched += 1;
            }
        }
    }
    assert!(touched >= 1, "no manifest of the actor was found");
    let said = node.ate(&["resume", "actor", "a"]).refused();
    assert!(said.contains("MANIFEST_DIGEST_MISMATCH"), "{said}");
    node.workers_ready(1);
}

#[test]
fn a_snapshot_file_with_one_flipped_byte_is_never_restored() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    let digest = node.get("actor", "a")["status"]["snapshot"].as_str().expect("a snapshot").to_owned();
    let local = node.data().join("node/snapshots").join(&digest);
    let victim = files_below(&local)
        .into_iter()
        .filter(|p| !p.ends_with("manifest.json"))
        .max_by_key(|p| fs::metadata(p).map(|m| m.len()).unwrap_or(0))
        .expect("a snapshot file");
    let mut bytes = fs::read(&victim).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place: the object folder shares the inode, so both copies are bad.
    fs::write(&victim, bytes).expect("write");
    let said = node.ate(&["resume", "actor", "a"]).refused();
    assert!(said.contains("SNAPSHOT_CORRUPT"), "{said}");
    node.workers_ready(1);
}

#[test]
fn an_asset_whose_bytes_are_not_its_digest_never_becomes_ready() {
    let node = Node::start();
    let copy = node.dir().join("runsc");
    fs::copy(runsc(RUNSC_A), &copy).expect("copy");
    let yaml = format!(
        "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: forged}}\nspec:\n  sandboxClass: gvisor\n  assets:\n    amd64:\n      runsc: {{url: \"file://{}\", sha256: \"{}\"}}\n",
        copy.display(),
        "0".repeat(64)
    );
    node.apply(&yaml).ok();
    eventually("the configuration to be refused", user::ANSWER, || {
        node.get("sandboxconfig", "forged").to_string().contains("ASSET_DIGEST_MISMATCH")
    });
}

#[test]
fn a_class_without_a_driver_is_refused() {
    let node = Node::with_pool(1);
    let said = node.apply(&node::counter("odd", "  sandboxClass: teapot\n")).refused();
    assert!(said.contains("teapot"), "{said}");
}

#[test]
fn a_class_that_is_no_sandbox_is_nobodys_default() {
    let mut node = Node::start();
    let config =
        "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {name: open}\nspec: {sandboxClass: process";
    assert!(node.apply(&format!("{config}, default: true}}\n")).refused().contains("NOT_A_SANDBOX"));
    let space = "apiVersion: ate.dev/v1alpha1\nkind: Atespace\nmetadata: {name: default}\nspec: {defaultSandboxClass: process}\n";
    assert!(node.apply(space).refused().contains("NOT_A_SANDBOX"));
    node.stop();
    // All that it needs is on this machine, and still a first start leaves it out.
    node.first_start();
    assert!(node.log_text().contains("class process is no sandbox"), "{}", node.log_text());
    assert!(node.list("sandboxconfigs").iter().all(|c| c["spec"]["sandboxClass"] != "process"));

    node.apply(&format!("{config}}}\n")).ok();
    let told = node.ate(&["describe", "sandboxconfig", "open"]).ok();
    assert!(told.contains("NotASandbox"), "{told}");
}

#[test]
fn unknown_actors_are_404_and_a_full_house_is_503() {
    let node = Node::with_pool(1);
    assert_eq!(node.request("nobody", "/").status, 404);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    node.actor("b", "counter");
    assert_eq!(node.count("a"), 1);
    // A request in flight holds the only worker for longer than the other caller may wait.
    let mut slow = TcpStream::connect(node.router()).expect("the router");
    write!(slow, "GET /sleep/45000 HTTP/1.1\r\nhost: {}\r\n\r\n", user::host("a")).expect("write");
    assert_eq!(node.count("a"), 2);
    let answer = node.request("b", "/");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.retry_after.is_some());
    drop(slow);
    assert_eq!(node.count("b"), 1);
}

#[test]
fn an_actor_that_never_becomes_ready_is_an_error_and_gives_its_worker_back() {
    let node = Node::with_pool(1);
    let yaml = node::counter("mute", "").replace("path: /readyz", "path: /never");
    node.apply(&yaml).ok();
    eventually("the template to fail", std::time::Duration::from_secs(150), || {
        let t = node.get("template", "mute").to_string();
        t.contains("NOT_READY") || t.contains("NotReady")
    });
    node.workers_ready(1);
}
