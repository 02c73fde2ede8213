//! `ate certs`: what it makes is trusted by those it is made for, stays while it is good, and is replaced in time.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn certs(dir: &Path, flags: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_ate")).arg("certs").arg("--dir").arg(dir).args(flags).output();
    output.expect("the program starts")
}

fn made(dir: &Path, flags: &[&str]) -> String {
    let output = certs(dir, flags);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

/// Every file below a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let folders = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    for folder in folders {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

fn pem(path: std::path::PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether a server with the files of one folder answers a client with those of another, each demanding the other's
/// certificate.
async fn speak(server: &Path, client: &Path, name: &str) -> bool {
    let identity = |dir: &Path| Identity::from_pem(pem(dir.join("tls.crt")), pem(dir.join("tls.key")));
    let trusted = |dir: &Path| Certificate::from_pem(pem(dir.join("ca.crt")));
    let tls = ServerTlsConfig::new().identity(identity(server)).client_ca_root(trusted(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let serving = Server::builder().tls_config(tls).unwrap().add_service(health);
    let serving = tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let tls = ClientTlsConfig::new().identity(identity(client)).ca_certificate(trusted(client)).domain_name(name);
    let endpoint = Endpoint::try_from(address).unwrap().tls_config(tls).unwrap().timeout(Duration::from_secs(10));
    let answered = match endpoint.connect().await {
        Ok(channel) => asked(channel).await,
        Err(_) => false,
    };
    serving.abort();
    answered
}

async fn asked(channel: Channel) -> bool {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn components_prove_who_they_are_to_each_other_under_the_names_of_their_services() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), &["--dns", "ate.example.com,192.0.2.7"]);
    let (control, node) = (dir.path().join("control"), dir.path().join("node"));
    for name in ["control.ate-system.svc", "api.ate-system.svc", "ate.example.com"] {
        assert!(speak(&control, &node, name).await, "{name}");
    }
    assert!(speak(&node, &control, "node.ate-system.svc").await);
    assert!(!speak(&control, &node, "node.ate-system.svc").await, "it has a name that is not its own");

    let stranger = tempfile::tempdir().unwrap();
    made(stranger.path(), &[]);
    assert!(!speak(&control, &stranger.path().join("node"), "control.ate-system.svc").await, "a stranger was let in");
}

#[test]
fn each_certificate_says_which_component_it_is() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), &["--system-namespace", "elsewhere"]);
    for component in ["control", "node"] {
        let text = pem(dir.path().join(component).join("tls.crt"));
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        assert!(names.iter().any(|n| n.contains(&format!("(spiffe://ate/{component})"))), "{names:?}");
        assert!(names.iter().any(|n| n.contains(&format!("({component}.elsewhere.svc)"))), "{names:?}");
    }
}

#[test]
fn keys_are_their_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), &[]);
    for folder in ["ca", "control", "node"] {
        let folder = dir.path().join(folder);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(folder.join("tls.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_second_run_changes_nothing_and_what_ends_soon_or_is_asked_otherwise_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), &[]);
    let first = files(dir.path());
    assert_eq!(made(dir.path(), &[]).matches("unchanged").count(), 2);
    assert_eq!(files(dir.path()), first);

    // 90 days are left, so they end within the last 100 of 200.
    let told = made(dir.path(), &["--days", "200", "--renew-before", "100"]);
    assert_eq!(told.matches("it ends soon").count(), 2, "{told}");
    let renewed = files(dir.path());
    assert_eq!(renewed["ca/tls.crt"], first["ca/tls.crt"]);
    assert_ne!(renewed["control/tls.crt"], first["control/tls.crt"]);

    let told = made(dir.path(), &["--dns", "ate.example.com"]);
    assert!(told.contains("control: a new certificate") && told.contains("node: unchanged"), "{told}");

    // They are remembered, until they are to be forgotten.
    assert_eq!(made(dir.path(), &[]).matches("unchanged").count(), 2);
    assert!(made(dir.path(), &["--dns", ""]).contains("control: a new certificate"));
    assert_eq!(made(dir.path(), &[]).matches("unchanged").count(), 2);

    // A run that ended between key and certificate.
    fs::remove_file(dir.path().join("node/tls.crt")).unwrap();
    let told = made(dir.path(), &[]);
    assert!(told.contains("node: a new certificate") && told.contains("control: unchanged"), "{told}");
}

#[tokio::test]
async fn while_the_authority_is_replaced_a_component_one_step_behind_still_speaks_with_one_ahead() {
    let mut steps = vec![tempfile::tempdir().unwrap()];
    made(steps[0].path(), &[]);
    for step in ["step 1 of 3", "step 2 of 3", "step 3 of 3"] {
        let next = tempfile::tempdir().unwrap();
        copy(steps.last().unwrap().path(), next.path());
        let told = made(next.path(), &["--replace-ca"]);
        assert!(told.contains(step), "{told}");
        steps.push(next);
    }
    for pair in steps.windows(2) {
        let (behind, ahead) = (pair[0].path(), pair[1].path());
        assert!(speak(&behind.join("control"), &ahead.join("node"), "control.ate-system.svc").await);
        assert!(speak(&ahead.join("control"), &behind.join("node"), "control.ate-system.svc").await);
    }
    let (first, last) = (steps[0].path(), steps[3].path());
    assert!(!speak(&last.join("control"), &first.join("node"), "control.ate-system.svc").await, "the former counts");
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(name), bytes).unwrap();
    }
}

#[test]
fn as_kubernetes_objects_they_are_secrets_as_cert_manager_makes_them_and_the_authoritys_key_stays_here() {
    let dir = tempfile::tempdir().unwrap();
    let output = certs(dir.path(), &["-o", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = list["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ate-ca", "ate-control-tls", "ate-node-tls"]);
    for item in items {
        assert_eq!(item["metadata"]["namespace"], "ate-system");
        if item["kind"] == "Secret" {
            assert_eq!(item["type"], "kubernetes.io/tls");
            let keys: Vec<_> = item["data"].as_object().unwrap().keys().collect();
            assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
        }
    }
    let key = fs::read_to_string(dir.path().join("ca/tls.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    use base64::Engine as _;
    for item in items.iter().filter(|i| i["kind"] == "Secret") {
        for value in item["data"].as_object().unwrap().values() {
            let text = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
            assert!(!String::from_utf8(text).unwrap().contains(line));
        }
    }
    let yaml = certs(dir.path(), &["-o", "yaml"]);
    let again: serde_json::Value = serde_saphyr::from_str(&String::from_utf8(yaml.stdout).unwrap()).unwrap();
    assert_eq!(again, list);
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["--days", "0"][..], &["--days", "10", "--renew-before", "10"], &["--system-namespace", "a.b"]] {
        assert_eq!(certs(dir.path(), flags).status.code(), Some(2), "{flags:?}");
    }
}
