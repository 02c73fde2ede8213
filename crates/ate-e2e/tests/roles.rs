//! Who may do what, on a real node: every refusal is typed, nothing forbidden happens, and the audit log tells.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ate_e2e::{Node, Output, RUNSC_A, RUNSC_B, disk::files_below, node, runsc, user};
use sha2::Digest as _;

/// Exit code of refusals.
const REFUSED: i32 = 5;
/// A user of this machine that is not root.
const NOBODY: u32 = 65534;

#[track_caller]
fn denied(output: Output) -> String {
    assert_eq!(output.code, REFUSED, "{}{}", output.stdout, output.stderr);
    assert!(output.stderr.contains("PERMISSION_DENIED") && output.stderr.contains("hint:"), "{}", output.stderr);
    output.stderr
}

#[track_caller]
fn unknown(output: Output) -> String {
    assert_eq!(output.code, REFUSED, "{}{}", output.stdout, output.stderr);
    assert!(output.stderr.contains("UNAUTHENTICATED"), "{}", output.stderr);
    output.stderr
}

#[test]
fn root_needs_nothing_everybody_else_a_token_and_a_revoked_one_is_none() {
    let node = Node::start();
    node.ate(&["create", "atespace", "default"]).ok();
    let said = unknown(node.ate_as(None, &["get", "actors"]));
    assert!(said.contains("ate token create"), "{said}");
    let token = node.token("ci", "viewer", &[]);
    node.ate_as(Some(&token), &["get", "actors"]).ok();
    assert_eq!(node.get("token", "ci")["spec"]["role"], "viewer");

    // In a file, as it was printed.
    let file = node.dir().join("token");
    fs::write(&file, format!("{token}\n")).expect("write");
    node.ate_as(None, &["get", "actors", "--token-file", &file.display().to_string()]).ok();

    node.ate(&["token", "revoke", "ci"]).ok();
    unknown(node.ate_as(Some(&token), &["get", "actors"]));
    unknown(node.ate_as(Some("ate_guess"), &["get", "actors"]));
    let denials = node.audit().into_iter().filter(|l| l["reason"] == "UNAUTHENTICATED").count();
    assert_eq!(denials, 3);

    // Nothing on the disk would let somebody in.
    for path in files_below(&node.data()) {
        let bytes = fs::read(&path).unwrap_or_default();
        assert!(!contains(&bytes, token.as_bytes()), "the token is in {}", path.display());
    }
    let mode = fs::metadata(node.data().join("audit.log")).expect("an audit log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_user_of_the_machine_is_not_root_by_reaching_the_socket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let program = dir.path().join("ate");
    fs::copy(ate_e2e::binary("ate"), &program).expect("copy");
    let server = format!("unix:{}", dir.path().join("api.sock").display());
    let node = Node::start_with(&["--listen", &server]);
    let as_nobody =
        |server: &str, token: Option<&str>| node.ate_as_user(&program, NOBODY, server, token, &["get", "actors"]);
    let said = unknown(as_nobody(&server, None));
    assert!(said.contains("user 65534"), "{said}");
    as_nobody(&server, Some(&node.token("viewer", "viewer", &[]))).ok();
    // The socket in the data directory lets them in not even that far.
    let own = as_nobody(node.api(), None);
    assert_eq!(own.code, 6, "{}", own.stderr);
    assert!(own.stderr.contains("permission denied") && own.stderr.contains("ATE_TOKEN_FILE"), "{}", own.stderr);
}

#[test]
fn a_template_author_cannot_write_a_sandbox_config() {
    let node = Node::with_pool(1);
    let author = node.token("author", "template-author", &[]);
    let digest = hex::encode(sha2::Sha256::digest(fs::read(runsc(RUNSC_B)).expect("a runsc")));
    let config = |name: &str| {
        format!(
            "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: {name}}}\nspec:\n  sandboxClass: gvisor\n  default: true\n  assets:\n    amd64:\n      runsc: {{url: \"file://{}\", sha256: \"{digest}\"}}\n",
            runsc(RUNSC_B).display()
        )
    };
    for name in ["mine", "gvisor-default"] {
        let said = denied(node.apply_as(&author, &config(name)));
        assert!(said.contains("sandbox-admin"), "{said}");
    }
    denied(node.ate_as(Some(&author), &["delete", "sandboxconfig", "gvisor-default"]));
    assert_eq!(node.list("sandboxconfigs").len(), 1);
    assert_eq!(node.get("sandboxconfig", "gvisor-default")["status"]["revision"], 1);

    // What is theirs to do works, with the binary they did not choose.
    node.apply_as(&author, &node::counter("counter", "")).ok();
    node.template_ready("counter");
    node.ate_as(Some(&author), &["create", "actor", "a", "--template", "counter"]).ok();
    node.ate_as(Some(&author), &["resume", "actor", "a"]).ok();
    assert_eq!(node.count("a"), 1);
    node.ate_as(Some(&author), &["logs", "actor", "a"]).ok();

    let told = |decision: &str, object: &str| {
        let hit = |l: &&serde_json::Value| {
            l["decision"] == decision && l["object"] == object && l["caller"]["name"] == "author"
        };
        node.audit().iter().filter(hit).count()
    };
    assert_eq!(told("denied", "sandboxconfig/mine"), 1);
    // Once to apply, and once to delete.
    assert_eq!(told("denied", "sandboxconfig/gvisor-default"), 2);
    assert_eq!(told("allowed", "actortemplate/default/counter"), 1);
    assert_eq!(told("allowed", "actor/default/a"), 2);
}

#[test]
fn a_template_author_cannot_choose_a_digest() {
    let node = Node::with_pool(1);
    let author = node.token("author", "template-author", &[]);
    let said = node.apply_as(&author, &node::counter("sly", "  runsc: {url: \"file:///tmp/evil\"}\n")).refused();
    assert!(said.contains("SandboxConfig"), "{said}");
    let said = node.apply_as(&author, &node::counter("sly", "  sandboxConfigName: mine\n")).refused();
    assert!(said.contains("sandboxConfigName"), "{said}");
    assert!(node.list("templates").is_empty());

    // Nor bring in bytes that somebody could name later.
    let binary = node.dir().join("evil");
    fs::write(&binary, "#!/bin/sh\n").expect("write");
    let asset = format!("runsc={}", binary.display());
    denied(node.ate_as(Some(&author), &["sandbox", "import", "--class", "gvisor", "--name", "mine", &asset]));
    let evil = hex::encode(sha2::Sha256::digest("#!/bin/sh\n"));
    assert!(node.list("assets").iter().all(|a| a["metadata"]["name"] != evil.as_str()));

    // Nor choose another pool's: pools are the platform's.
    let pool = node::pool("mine", 1, "  sandboxConfigName: gvisor-default\n");
    denied(node.apply_as(&author, &pool));
}

#[test]
fn a_manifest_in_the_authors_own_bucket_chooses_no_binary() {
    let node = Node::with_pool(1);
    let author = node.token("author", "template-author", &[]);
    let bucket = node.data().join("objects/of-the-author");
    let location = format!("file://{}", bucket.display());
    let yaml = node::counter("counter", "").replace("location: default", &format!("location: \"{location}\""));
    node.apply_as(&author, &yaml).ok();
    node.template_ready("counter");
    node.ate_as(Some(&author), &["create", "actor", "a", "--template", "counter"]).ok();
    assert_eq!(node.count("a"), 1);
    node.ate_as(Some(&author), &["suspend", "actor", "a"]).ok();

    // The binary the author would like to run, behind a URL that tells whether anybody came for it.
    let ran = node.dir().join("evil-ran");
    let evil = format!("#!/bin/sh\ntouch {}\n", ran.display());
    let (url, asked) = serve(evil.clone());
    let digest = hex::encode(sha2::Sha256::digest(&evil));

    let actor = node.get("actor", "a");
    let uid = actor["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let recorded = actor["status"]["snapshot"].as_str().expect("a snapshot").to_owned();
    let manifest = files_below(&bucket)
        .into_iter()
        .find(|p| p.ends_with("manifest.json") && p.to_string_lossy().contains(&uid))
        .expect("the actor's manifest is in the bucket");
    let mut forged: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).expect("read")).expect("JSON");
    let asset = forged.pointer_mut("/sandbox/assets/0").expect("an asset");
    assert_eq!(asset["name"], "runsc");
    asset["sha256"] = digest.as_str().into();
    asset["size"] = evil.len().into();
    asset["urls"] = serde_json::json!([url]);
    fs::remove_file(&manifest).expect("remove");
    fs::write(&manifest, forged.to_string()).expect("write");
    // So that the node has to go to the bucket.
    node.forget_snapshot(&recorded);

    let refused = node.ate_as(Some(&author), &["resume", "actor", "a"]);
    assert_eq!(refused.code, REFUSED, "{}", refused.stderr);
    assert!(refused.stderr.contains("MANIFEST_DIGEST_MISMATCH"), "{}", refused.stderr);
    let through_the_router = node.request("a", "/");
    assert!(through_the_router.status >= 500, "{}", through_the_router.body);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "somebody fetched the binary");
    assert!(!ran.exists(), "the binary ran");
    assert!(node.list("assets").iter().all(|a| a["metadata"]["name"] != digest.as_str()));
    node.workers_ready(1);

    // And nothing outside of the node's own folder can be a location at all.
    let outside = yaml.replace(&location, "file:///etc").replace("name: counter", "name: outside");
    let applied = node.apply_as(&author, &outside);
    let told = if applied.code != 0 {
        applied.stderr
    } else {
        ate_e2e::until("the template to fail", user::ANSWER, || {
            let t = node.get("template", "outside").to_string();
            t.contains("must lie below").then_some(t)
        })
    };
    assert!(told.contains("must lie below"), "{told}");
    assert!(!Path::new("/etc/actors").exists());
}

#[test]
fn a_sandbox_administrator_brings_binaries_in_and_leaves_actors_alone() {
    let node = Node::with_pool(1);
    let admin = node.token("binaries", "sandbox-admin", &[]);
    let asset = format!("runsc={}", runsc(RUNSC_A).display());
    node.ate_as(Some(&admin), &["sandbox", "import", "--class", "gvisor", "--name", "next", &asset]).ok();
    denied(node.apply_as(&admin, &node::counter("counter", "")));
    denied(node.ate_as(Some(&admin), &["create", "actor", "a", "--template", "counter"]));
    denied(node.ate_as(Some(&admin), &["token", "create", "more", "--role", "admin"]));
    let allowed: Vec<_> = node
        .audit()
        .into_iter()
        .filter(|l| l["caller"]["name"] == "binaries" && l["decision"] == "allowed")
        .map(|l| format!("{} {}", l["verb"].as_str().unwrap_or_default(), l["object"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(allowed, ["import assets", "apply sandboxconfig/next"]);
}

#[test]
fn beyond_loopback_the_api_is_encrypted_or_not_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let refused = std::process::Command::new(ate_e2e::binary("ate"))
        .args(["up", "--empty", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path().join("data"))
        .output()
        .expect("ate up");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--tls-self-signed"), "{said}");

    let node = Node::start_with(&["--listen", "0.0.0.0:0", "--tls-self-signed"]);
    assert!(node.open().starts_with("https://127.0.0.1:"), "{}", node.open());
    let token = node.token("far", "viewer", &[]);
    let ca = node.data().join("tls/cert.pem").display().to_string();
    node.ate_as(Some(&token), &["--ca-file", &ca, "get", "actors"]).ok();
    unknown(node.ate_as(None, &["--ca-file", &ca, "get", "actors"]));
    // A server that nobody vouches for is not spoken to, so it does not learn the token either.
    let untrusted = node.ate_as(Some(&token), &["get", "actors"]);
    assert_eq!(untrusted.code, 6, "{}", untrusted.stderr);
    let clear = node.open().replace("https://", "http://");
    assert_ne!(node.ate_as(Some(&token), &["--server", &clear, "get", "actors"]).code, 0);
    // The audit log knows from where, through the encryption too.
    let denial = node.audit().into_iter().find(|l| l["reason"] == "UNAUTHENTICATED").expect("a denial");
    assert!(denial["caller"]["peer"].as_str().is_some_and(|p| p.starts_with("127.0.0.1:")), "{denial}");
}

/// Serves one file over HTTP for as long as the test runs, and counts who asks.
fn serve(body: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/runsc", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    (url, asked)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}
