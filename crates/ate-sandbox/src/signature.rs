//! Signatures on assets: who may bring binaries in, beyond whoever may write a `SandboxConfig`.
//!
//! A configuration may name public keys (Ed25519, in the format of minisign). Then each of its assets must carry a
//! signature by one of them over its bytes, made in minisign's prehashed mode (the default since 0.10), or nothing of the
//! configuration is admitted.

use std::{collections::BTreeMap, io::Read};

use ate_api::{Error, Reason, resource::SandboxConfigSpec};
use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// Read at a time; large enough that hashing is the slow part.
const CHUNK: usize = 1 << 20;

/// Keys and signatures of the assets of one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Any of these may have signed.
    pub public_keys: Vec<String>,
    /// Asset name → the text of its `.minisig` file.
    pub signatures: BTreeMap<String, String>,
}

/// What the assets for `arch` have to be checked against; nothing if the configuration names no key.
///
/// Checks all that can be said without the bytes, for every architecture.
///
/// # Errors
/// `INVALID` for a key that is none; `ASSET_SIGNATURE_INVALID` for an asset without a signature by one of the keys.
pub fn required(spec: &SandboxConfigSpec, arch: &str) -> Result<Option<Verification>, Error> {
    let Some(given) = spec.verification.as_ref().filter(|v| !v.public_keys.is_empty()) else { return Ok(None) };
    let keys = given.public_keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
    let mut signatures = BTreeMap::new();
    for (of, assets) in &spec.assets {
        for (name, asset) in assets {
            let Some(text) = &asset.signature else {
                return Err(invalid(format!(
                    "asset {name} for {of} has no signature, and the configuration names keys"
                )));
            };
            let signature = signature(name, text)?;
            check_key(name, &keys, &signature)?;
            if of == arch {
                signatures.insert(name.clone(), text.clone());
            }
        }
    }
    Ok(Some(Verification { public_keys: given.public_keys.clone(), signatures }))
}

impl Verification {
    /// Whether these bytes are what was signed for the asset. Blocks while it reads.
    ///
    /// # Errors
    /// `ASSET_SIGNATURE_INVALID` if not; `INTERNAL` if they cannot be read.
    pub fn verify(&self, asset: &str, mut bytes: impl Read) -> Result<(), Error> {
        let keys = self.public_keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
        let text = self.signatures.get(asset).ok_or_else(|| invalid(format!("asset {asset} has no signature")))?;
        let signature = signature(asset, text)?;
        check_key(asset, &keys, &signature)?;
        let mut verifiers: Vec<_> = keys.iter().filter_map(|key| key.verify_stream(&signature).ok()).collect();
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = bytes
                .read(&mut chunk)
                .map_err(|e| Error::new(Reason::Internal, format!("cannot read asset {asset}: {e}")))?;
            if n == 0 {
                break;
            }
            verifiers.iter_mut().for_each(|v| v.update(&chunk[..n]));
        }
        match verifiers.iter_mut().any(|v| v.finalize().is_ok()) {
            true => Ok(()),
            false => Err(invalid(format!("the signature of asset {asset} is not of these bytes"))),
        }
    }
}

/// A key as `minisign.pub` has it, or only its second line.
fn key(text: &str) -> Result<PublicKey, Error> {
    let line = text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default();
    PublicKey::from_base64(line).map_err(|e| {
        let message = format!("a public key is not one of minisign: {}", e.to_string().to_lowercase());
        Error::new(Reason::Invalid, message).hint("spec.verification.publicKeys takes what is in a minisign.pub")
    })
}

fn signature(asset: &str, text: &str) -> Result<Signature, Error> {
    Signature::decode(text.trim_start()).map_err(|e| {
        invalid(format!("the signature of asset {asset} cannot be read: {}", e.to_string().to_lowercase()))
    })
}

/// The id of the key is in the signature, so a wrong one is seen at once.
fn check_key(asset: &str, keys: &[PublicKey], signature: &Signature) -> Result<(), Error> {
    use minisign_verify::Error as E;
    let tried: Vec<_> = keys.iter().map(|key| key.verify_stream(signature).err()).collect();
    if tried.iter().any(Option::is_none) {
        return Ok(());
    }
    let legacy = tried.iter().flatten().any(|e| matches!(e, E::UnsupportedLegacyMode));
    Err(invalid(match legacy {
        true => format!("the signature of asset {asset} is of the legacy kind, which is not over a hash of the bytes"),
        false => format!("the signature of asset {asset} is by a key that the configuration does not name"),
    }))
}

fn invalid(message: String) -> Error {
    Error::new(Reason::AssetSignatureInvalid, message).hint(
        "sign the file with `minisign -S -m FILE` under one of spec.verification.publicKeys, and put the text of \
         FILE.minisig into the asset's `signature`",
    )
}

#[cfg(test)]
mod tests {
    use minisign::KeyPair;
    use serde_json::json;

    use super::*;

    fn sign(key: &KeyPair, bytes: &[u8]) -> String {
        minisign::sign(None, &key.sk, bytes, None, None).unwrap().to_string()
    }

    fn keys() -> (KeyPair, KeyPair) {
        (KeyPair::generate_unencrypted_keypair().unwrap(), KeyPair::generate_unencrypted_keypair().unwrap())
    }

    fn spec(public: &[&KeyPair], amd64: Option<String>, arm64: Option<String>) -> SandboxConfigSpec {
        let asset = |signature: Option<String>| json!({ "runsc": { "url": "file:///r", "sha256": "0".repeat(64), "signature": signature } });
        let keys: Vec<_> = public.iter().map(|k| k.pk.to_box().unwrap().to_string()).collect();
        serde_json::from_value(json!({
            "sandboxClass": "toy", "verification": { "publicKeys": keys },
            "assets": { "amd64": asset(amd64), "arm64": asset(arm64) },
        }))
        .unwrap()
    }

    fn refusal(spec: &SandboxConfigSpec) -> String {
        let e = required(spec, "amd64").unwrap_err();
        assert_eq!(e.reason, Reason::AssetSignatureInvalid, "{e}");
        assert!(!e.hint.is_empty());
        e.message
    }

    #[test]
    fn bytes_signed_by_one_of_the_keys_pass_and_no_others() {
        let (a, b) = keys();
        let bytes = vec![7; CHUNK + 3];
        let spec = spec(&[&a, &b], Some(sign(&b, &bytes)), Some(sign(&a, b"other")));
        let v = required(&spec, "amd64").unwrap().unwrap();
        v.verify("runsc", bytes.as_slice()).unwrap();
        let mut flipped = bytes.clone();
        flipped[CHUNK] ^= 1;
        for wrong in [&flipped[..], &bytes[..CHUNK], b""] {
            let e = v.verify("runsc", wrong).unwrap_err();
            assert_eq!(e.reason, Reason::AssetSignatureInvalid);
            assert!(e.message.contains("not of these bytes"), "{e}");
        }
        assert!(v.verify("kernel", &b""[..]).is_err());
    }

    #[test]
    fn an_asset_without_a_signature_or_by_a_stranger_is_refused_before_its_bytes_are_seen() {
        let (a, stranger) = keys();
        let good = Some(sign(&a, b"x"));
        assert!(refusal(&spec(&[&a], None, good.clone())).contains("for amd64 has no signature"));
        assert!(refusal(&spec(&[&a], good.clone(), None)).contains("for arm64 has no signature"));
        assert!(refusal(&spec(&[&a], Some(sign(&stranger, b"x")), good.clone())).contains("does not name"));
        assert!(refusal(&spec(&[&a], Some("nonsense".into()), good.clone())).contains("cannot be read"));
        // `ED` (prehashed) turned into `Ed` (legacy): other bytes would have been signed.
        let legacy = good.clone().unwrap().replacen("\nRU", "\nRW", 1);
        assert_ne!(Some(&legacy), good.as_ref());
        assert!(refusal(&spec(&[&a], Some(legacy), good)).contains("legacy"));
    }

    #[test]
    fn without_keys_nothing_is_asked_and_a_key_that_is_none_is_an_error() {
        assert_eq!(required(&spec(&[], None, None), "amd64"), Ok(None));
        let mut broken = spec(&[], None, None);
        broken.verification.as_mut().unwrap().public_keys = vec!["untrusted comment: x\nAAAA".into()];
        assert_eq!(required(&broken, "amd64").unwrap_err().reason, Reason::Invalid);
    }
}
