//! What configurations, herders and signers may say.

use std::collections::BTreeMap;

use ate_api::{Error, id::Digest, resource::SandboxConfigSpec};
use ate_fuzz::Target;
use minisign::KeyPair;
use serde_json::json;

use crate::{
    ClassDescriptor, Revocation, Revocations, Verification, asset,
    config::{self, tests::toy},
    registry,
};

#[test]
fn configurations() {
    Target::named("sandbox.config")
        .sample("complete", || {
            let asset = |url: &str| json!({ "url": url, "sha256": "0".repeat(64), "size": 12 });
            let spec = json!({
                "sandboxClass": "toy", "config": {"debug": true, "memoryMiB": 64, "mode": "fast", "note": "x"},
                "assets": { "amd64": { "kernel": asset("file:///k"), "vmm": asset("https://h/v") } },
            });
            spec.to_string().into_bytes()
        })
        .run(|bytes| {
            let spec: SandboxConfigSpec = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            let class = toy();
            if let Some(violation) = config::check(&class, &spec).first() {
                return Err(violation.message.clone());
            }
            let pinned = config::pin(&class, "c", 1, &spec, "amd64").map_err(|e| e.message)?;
            assert_eq!(pinned.config.values.len(), class.config.len(), "complete, and nothing else");
            let written = serde_json::to_vec(&pinned).unwrap();
            assert_eq!(serde_json::from_slice::<crate::SandboxRef>(&written).unwrap(), pinned);
            Ok(())
        });
}

#[test]
fn descriptions_of_classes() {
    Target::named("sandbox.descriptor").sample("toy", || serde_json::to_vec(&toy()).unwrap()).run(|bytes| {
        let class: ClassDescriptor = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let herder = registry::Herder { descriptor: class.clone(), program: "/x".into() };
        registry::Registry::of([herder], 1).map_err(|e| e.to_string())?;
        // What was checked can be used.
        let values = config::effective(&class, None);
        assert_eq!(values.len(), class.config.len());
        Ok::<_, String>(())
    });
}

#[test]
fn urls_of_assets() {
    Target::named("sandbox.asset-url").sample("https", || b"https://h:8443/x?y=1".to_vec()).run(|bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
        let checked = asset::check_url(text);
        assert!(!asset::is_name(text) || !text.contains('/'));
        checked
    });
}

/// A key, a signature and the bytes, parted by lines of their own.
const PART: &str = "\n=====\n";

#[test]
fn signatures() {
    Target::named("sandbox.signature")
        .sample("signed", || {
            let pair = KeyPair::generate_unencrypted_keypair().unwrap();
            let signature = minisign::sign(None, &pair.sk, &b"the bytes"[..], Some("trusted"), Some("not")).unwrap();
            [pair.pk.to_box().unwrap().to_string(), signature.to_string(), "the bytes".into()].join(PART).into_bytes()
        })
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut parts = text.splitn(3, PART);
            let mut part = || parts.next().unwrap_or_default().to_owned();
            let (key, signature, signed) = (part(), part(), part());
            let verification =
                Verification { public_keys: vec![key], signatures: BTreeMap::from([("a".to_owned(), signature)]) };
            let verified = verification.verify("a", signed.as_bytes());
            if verified.is_ok() {
                let other = [signed.as_bytes(), b"!"].concat();
                assert!(verification.verify("a", &other[..]).is_err(), "a signature is of one text");
            }
            verified
        });
}

#[test]
fn lists_of_revoked_binaries() {
    Target::named("sandbox.revocations")
        .sample("one", || {
            let at = ate_api::time::Timestamp::UNIX_EPOCH;
            let digests = BTreeMap::from([(Digest::of(b"x"), Revocation { reason: "CVE".into(), at })]);
            serde_json::to_vec(&Revocations { version: 3, digests }).unwrap()
        })
        .run(|bytes| {
            let list: Revocations = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            list.validate().map_err(|e: Error| e.message)?;
            let written = serde_json::to_vec(&list).unwrap();
            assert_eq!(serde_json::from_slice::<Revocations>(&written).unwrap(), list);
            Ok::<_, String>(())
        });
}
