//! Signatures on assets: with keys on a configuration, nothing that they did not sign is admitted.

mod support;

use ate_api::{Reason, id::Digest};
use minisign::KeyPair;
use serde_json::{Value, json};
use support::world::{World, atespace, eventually, options, pool, sandbox_config, template};

const BINARY: &[u8] = b"the bytes of the binary";

fn key() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

/// The configuration of [`BINARY`], which must be signed by `signer`.
fn config(name: &str, signer: &KeyPair, signature: Option<String>) -> Value {
    let mut config = sandbox_config(name, 'a', true);
    let asset = &mut config["spec"]["assets"]["amd64"]["runsc"];
    asset["sha256"] = json!(Digest::of(BINARY));
    asset["signature"] = json!(signature);
    config["spec"]["verification"] = json!({ "publicKeys": [signer.pk.to_box().unwrap().to_string()] });
    config
}

fn sign(key: &KeyPair, bytes: &[u8]) -> Option<String> {
    Some(minisign::sign(None, &key.sk, bytes, None, None).unwrap().to_string())
}

/// A node that has the bytes, or gets them only when it fetches.
async fn world(here: bool) -> World {
    let w = World::empty(options()).await;
    w.node.with(|s| s.bytes.insert(Digest::of(BINARY), (BINARY.to_vec(), here)));
    w.apply(atespace("default")).await.unwrap();
    w
}

async fn ready(w: &World, name: &str) -> Value {
    let conditions = w.get("SandboxConfig", name).await.unwrap()["status"]["conditions"].clone();
    conditions.as_array().unwrap().iter().find(|c| c["type"] == "Ready").cloned().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsigned_and_wrongly_signed_assets_are_refused_when_the_configuration_is_written() {
    let w = world(true).await;
    let (ours, stranger) = (key(), key());
    for (what, signature) in [
        ("no signature", None),
        ("a stranger's", sign(&stranger, BINARY)),
        ("of other bytes", sign(&ours, b"other bytes")),
        ("nonsense", Some("nonsense".to_owned())),
    ] {
        let e = w.apply(config("signed", &ours, signature)).await.unwrap_err();
        assert_eq!((e.reason, e.object.as_str()), (Reason::AssetSignatureInvalid, "sandboxconfig/signed"), "{what}");
        assert!(e.hint.contains("minisign"), "{what}: {e:?}");
        assert!(w.list("SandboxConfig").await.is_empty(), "{what}");
    }
    w.apply(config("signed", &ours, sign(&ours, BINARY))).await.unwrap();
    eventually("it is ready", async || ready(&w, "signed").await["status"] == "True").await;

    // An edit cannot take the signature away again; the old revision stays as it was.
    let e = w.apply(config("signed", &ours, None)).await.unwrap_err();
    assert_eq!(e.reason, Reason::AssetSignatureInvalid);
    assert_eq!(w.get("SandboxConfig", "signed").await.unwrap()["status"]["revision"], 1);
    let mut broken = config("signed", &ours, sign(&ours, BINARY));
    broken["spec"]["verification"]["publicKeys"] = json!(["not a key"]);
    assert_eq!(w.apply(broken).await.unwrap_err().reason, Reason::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_come_from_a_url_are_checked_when_they_came_and_used_by_nobody_before() {
    let w = world(false).await;
    let ours = key();
    w.apply(pool("pool", 1)).await.unwrap();
    w.apply(config("signed", &ours, sign(&ours, b"other bytes"))).await.unwrap();
    eventually("the condition says why", async || ready(&w, "signed").await["reason"] == "AssetSignatureInvalid").await;
    w.apply(template("counter")).await.unwrap();
    eventually("so does the explanation", async || {
        let e = w.explain("ActorTemplate", "counter").await.unwrap();
        e.obstacles.iter().any(|o| o.message.contains("ASSET_SIGNATURE_INVALID"))
    })
    .await;
    for call in ["probe", "set_pool", "activate"] {
        assert_eq!(w.node.count(call), 0, "{call}");
    }
    // Nor after a restart.
    let w = w.restart().await;
    w.node.with(|s| s.bytes.insert(Digest::of(BINARY), (BINARY.to_vec(), false)));
    eventually("it is tried again", async || w.node.count("check_signatures") > 0).await;
    assert_eq!((w.node.count("probe"), w.node.count("set_pool")), (0, 0));

    w.apply(config("signed", &ours, sign(&ours, BINARY))).await.unwrap();
    w.template_ready("counter").await;
    assert_eq!(w.get("ActorTemplate", "counter").await.unwrap()["status"]["sandboxConfig"], "signed@2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_was_found_signed_is_not_asked_again() {
    let w = world(true).await;
    let ours = key();
    w.apply(config("signed", &ours, sign(&ours, BINARY))).await.unwrap();
    w.apply(pool("pool", 1)).await.unwrap();
    w.apply(template("counter")).await.unwrap();
    w.template_ready("counter").await;
    let w = w.restart().await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    assert_eq!(w.node.count("check_signatures"), 0);
}
