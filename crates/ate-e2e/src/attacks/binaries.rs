//! Binaries that are not, or not any more, what an administrator admitted.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Range, Stopped, Table, payload};
use crate::{RUNSC_A, RUNSC_B, eventually, node, runsc, user};

pub(super) const ATTACKS: Table = &[
    ("a template that names a binary", named_in_a_template),
    ("an admitted url that now serves other bytes", changed_url),
    ("an actor whose binary was revoked", revoked),
    ("a configuration set back to a revision whose binary was revoked", set_back),
];

fn named_in_a_template(range: &mut Range) -> Stopped {
    let evil = range.evil();
    let line = format!("  runsc: {{url: \"file://{}\", sha256: \"{}\"}}\n", evil.display(), payload::digest(&evil));
    let stopped = range.refused(range.apply(&node::counter("sly", &line)), "UNKNOWN_FIELD", 2);
    assert!(range.list("templates").iter().all(|t| t["metadata"]["name"] != "sly"));
    stopped
}

fn changed_url(range: &mut Range) -> Stopped {
    let good = runsc(RUNSC_B);
    let digest = payload::digest(&good);
    let served = Arc::new(Mutex::new(fs::read(&good).expect("a binary")));
    let url = serve(served.clone());
    let config = |settings: &str| {
        format!(
            "apiVersion: ate.dev/v1alpha1\nkind: SandboxConfig\nmetadata: {{name: remote}}\nspec:\n  sandboxClass: gvisor\n{settings}  \
             assets: {{{}: {{runsc: {{url: \"{url}\", sha256: \"{digest}\"}}}}}}\n",
            arch()
        )
    };
    range.apply(&config("")).ok();
    eventually("the configuration to be ready", user::ANSWER, || {
        let conditions = range.get("sandboxconfig", "remote")["status"]["conditions"].clone();
        conditions.as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    });
    *served.lock().unwrap_or_else(PoisonError::into_inner) = fs::read(range.evil()).expect("the payload");
    // As on a node that never had it; and another revision of the same binary.
    fs::remove_file(range.data().join(format!("node/assets/files/sha256-{digest}"))).expect("the node's copy");
    range.apply(&config("  config: {netRaw: true}\n")).ok();
    let stopped = range.told("sandboxconfig", "remote", "ASSET_DIGEST_MISMATCH");
    range.ate(&["delete", "sandboxconfig", "remote"]).ok();
    stopped
}

fn revoked(range: &mut Range) -> Stopped {
    range.sleeper("revoked");
    let digest = payload::digest(&runsc(RUNSC_A));
    range.ate(&["sandbox", "revoke", &digest, "--reason", "the attack suite"]).ok();
    let stopped = range.refuses_late("revoked", "ASSET_REVOKED", 5);
    range.ate(&["sandbox", "unrevoke", &digest]).ok();
    stopped
}

/// Who may write a configuration brings an old binary back, not what was revoked.
fn set_back(range: &mut Range) -> Stopped {
    let import = |range: &Range, build: &str| {
        let asset = format!("runsc={}", runsc(build).display());
        range.ate(&["sandbox", "import", "--class", "gvisor", "--name", "old", &asset])
    };
    import(range, RUNSC_B).ok();
    import(range, RUNSC_A).ok();
    let digest = payload::digest(&runsc(RUNSC_B));
    range.ate(&["sandbox", "revoke", &digest, "--reason", "the attack suite"]).ok();
    let stopped = range.refused(import(range, RUNSC_B), "ASSET_REVOKED", 5);
    range.ate(&["sandbox", "unrevoke", &digest]).ok();
    range.ate(&["delete", "sandboxconfig", "old"]).ok();
    stopped
}

/// A server that answers every request with the same bytes, for as long as this process lives.
fn serve(bytes: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/runsc", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A client that goes away is its own business.
            let _ = answer(stream, &body);
        }
    });
    url
}

fn answer(mut stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}

/// As a configuration names it.
fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
