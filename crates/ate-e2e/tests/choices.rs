//! Which sandbox is chosen, and why: defaults, explanations and signatures, on a real node.

use std::fs;

use ate_e2e::{Node, RUNSC_A, RUNSC_B, eventually, node, runsc, user};
use minisign::KeyPair;
use serde_json::Value;

fn explained(node: &Node, kind: &str, name: &str) -> Value {
    let out = node.ate(&["explain", kind, name, "-o", "json"]).ok();
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn a_default_class_is_set_with_one_command_and_existing_templates_keep_theirs() {
    let mut node = Node::with_pool(1);
    node.template(&node::counter("before", ""), "before");
    node.actor("a", "before");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();

    assert!(node.ate(&["sandbox", "set-default", "process"]).refused().contains("NOT_A_SANDBOX"));
    assert!(node.ate(&["sandbox", "set-default", "teapot"]).refused().contains("UNKNOWN_SANDBOX_CLASS"));
    let said = node.ate(&["sandbox", "set-default", "microvm"]).refused();
    assert!(said.contains("NO_SANDBOX_CONFIG") && said.contains("import --class microvm"), "{said}");
    let said = node.ate(&["sandbox", "set-default", "gvisor"]).ok();
    assert!(said.contains("gvisor is the default class of the cluster (sandboxconfig/gvisor-default)"), "{said}");
    assert!(node.ate(&["get", "sandboxconfigs"]).ok().contains("yes,class"));
    let said = node.ate(&["sandbox", "set-default", "gvisor", "--atespace", "default"]).ok();
    assert!(said.contains("of atespace/default"), "{said}");
    assert!(node.ate(&["get", "atespaces"]).ok().contains("gvisor"));

    node.apply(&node::counter("after", "")).ok();
    assert_eq!(explained(&node, "template", "after")["class"]["rule"], "atespaceDefault");
    let said = node.ate(&["sandbox", "set-default", "--none", "-a", "default"]).ok();
    assert!(said.contains("atespace/default has no default class any more (it was gvisor)"), "{said}");
    assert_eq!(explained(&node, "template", "after")["class"]["rule"], "atespaceDefault");
    assert_eq!(explained(&node, "template", "before")["class"]["rule"], "builtIn");
    node.stop();
    node.up();
    assert_eq!(explained(&node, "actor", "a")["class"]["rule"], "builtIn");
    assert_eq!(node.count("a"), 2);
    node.template_ready("after");
}

#[test]
fn an_explanation_names_the_rule_the_binaries_the_next_worker_and_what_would_change_it() {
    let node = Node::with_pool(1);
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
    node.ate(&["suspend", "actor", "a"]).ok();
    node.workers_ready(1);
    let facts = explained(&node, "actor", "a");
    assert_eq!(facts["config"]["rule"], "snapshot");
    assert!(facts["binaries"][0]["version"].as_str().is_some_and(|v| v.contains("20240729")), "{facts:#}");
    assert_eq!(facts["binaries"][0]["phase"], "Verified");
    assert_eq!(facts["next"]["pool"], "default/pool");
    assert!(facts["obstacles"].is_null() && facts["changes"].is_null(), "{facts:#}");

    // Another build: the actor stays where its memory can be read, and is told the way out.
    node.import("gvisor-next", RUNSC_B, false).ok();
    let said = node.ate(&["sandbox", "set-default-config", "gvisor-next"]).ok();
    assert!(said.contains("in place of gvisor-default"), "{said}");
    eventually("the way out to be named", user::ANSWER, || {
        let text = node.ate(&["explain", "actor", "a"]).ok();
        text.contains("$ ate resume actor a -a default --boot") && text.contains("gvisor-next@1")
    });
    let text = node.ate(&["explain", "actor", "a"]).ok();
    for part in ["Class       gvisor", "Config      gvisor-default@1", "In the way  nothing", "verified on the node"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(node.count("a"), 2);
    assert!(node.ate(&["explain", "actor", "a"]).ok().contains("Runs        on worker"));
    assert_eq!(node.ate(&["explain", "actor", "nobody"]).code, 3);
    assert_eq!(node.ate(&["explain", "pool", "pool"]).code, 2);
}

#[test]
fn with_a_key_only_what_it_signed_is_imported_and_runs() {
    let node = Node::start();
    let key = KeyPair::generate_unencrypted_keypair().expect("a key");
    let stranger = KeyPair::generate_unencrypted_keypair().expect("a key");
    let binary = runsc(RUNSC_A);
    let bytes = fs::read(&binary).expect("runsc");
    let path = |name: &str| node.dir().join(name).display().to_string();
    fs::write(path("minisign.pub"), key.pk.to_box().expect("a key").to_string()).expect("write");
    for (name, key, bytes) in [("good", &key, &bytes[..]), ("stranger", &stranger, &bytes), ("other", &key, b"other")] {
        let signature = minisign::sign(None, &key.sk, bytes, None, None).expect("a signature");
        fs::write(path(name), signature.to_string()).expect("write");
    }
    let asset = format!("runsc={}", binary.display());
    let import = |more: &[&str]| {
        let mut args = vec!["sandbox", "import", "--name", "signed", "--default", &asset];
        args.extend(more);
        node.ate(&args)
    };
    let public = path("minisign.pub");
    for signature in [None, Some("stranger"), Some("other")] {
        let signature = signature.map(|name| format!("runsc={}", path(name)));
        let mut more = vec!["--public-key", &public];
        if let Some(signature) = &signature {
            more.extend(["--signature", signature]);
        }
        let out = import(&more);
        assert_eq!(out.code, 5, "{}", out.stderr);
        assert!(out.stderr.contains("ASSET_SIGNATURE_INVALID"), "{}", out.stderr);
    }
    assert!(node.list("sandboxconfigs").is_empty());
    let good = format!("runsc={}", path("good"));
    import(&["--public-key", &public, "--signature", &good]).ok();
    // The key stays with the configuration: the next import has to be signed as well.
    assert!(import(&[]).refused().contains("ASSET_SIGNATURE_INVALID"));

    node.apply(&node::pool("pool", 1, "")).ok();
    node.ate(&["create", "atespace", "default"]).ok();
    node.template(&node::counter("counter", ""), "counter");
    node.actor("a", "counter");
    assert_eq!(node.count("a"), 1);
}

#[test]
fn a_binary_from_a_url_that_nobody_signed_never_reaches_a_worker() {
    let node = Node::start();
    let key = KeyPair::generate_unencrypted_keypair().expect("a key");
    let bytes = fs::read(runsc(RUNSC_A)).expect("runsc");
    let signature = minisign::sign(None, &key.sk, &b"other"[..], None, None).expect("a signature").to_string();
    let config = serde_json::json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "SandboxConfig", "metadata": {"name": "signed"},
        "spec": {"sandboxClass": "gvisor", "default": true,
            "verification": {"publicKeys": [key.pk.to_box().expect("a key").to_string()]},
            "assets": {"amd64": {"runsc": {"url": format!("file://{}", runsc(RUNSC_A).display()),
                "sha256": hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)), "signature": signature}}}},
    });
    node.apply(&config.to_string()).ok();
    node.apply(&node::pool("pool", 1, "")).ok();
    eventually("the configuration to be refused", user::ANSWER, || {
        node.get("sandboxconfig", "signed").to_string().contains("AssetSignatureInvalid")
    });
    node.apply(&node::counter("counter", "")).ok();
    let text = node.ate(&["explain", "template", "counter"]).ok();
    assert!(text.contains("ASSET_SIGNATURE_INVALID"), "{text}");
    assert!(node.list("workers").is_empty());
}
