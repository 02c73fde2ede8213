//! Signatures: the bytes in the cache are those that were signed, or the asset is refused before it is of any use.

use std::collections::BTreeMap;

use ate_api::{Error, Reason};
use ate_sandbox::{PinnedAsset, Verification};
use minisign::KeyPair;

use crate::{Bed, archive, large, pinned, server::Server, support::names};

/// `asset` signed by a key that is trusted, over `bytes`.
fn signed(bytes: &[u8]) -> Verification {
    let key = KeyPair::generate_unencrypted_keypair().unwrap();
    let signature = minisign::sign(None, &key.sk, bytes, None, None).unwrap().to_string();
    Verification {
        public_keys: vec![key.pk.to_box().unwrap().to_string()],
        signatures: BTreeMap::from([("runsc".to_owned(), signature)]),
    }
}

async fn check(bed: &Bed, asset: &PinnedAsset, v: &Verification, fetch: bool) -> Result<(), Error> {
    bed.cache.check_signature(asset, v, fetch).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_checked_against_the_bytes_that_came() {
    let bed = Bed::new().await;
    let bytes = large();
    let imported = bed.import("application/octet-stream", &bytes).await.unwrap();
    let asset = pinned(&bytes, &[&imported.url]);
    check(&bed, &asset, &signed(&bytes), false).await.unwrap();
    let e = check(&bed, &asset, &signed(b"other bytes"), false).await.unwrap_err();
    assert_eq!(e.reason, Reason::AssetSignatureInvalid, "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_is_fetched_only_if_that_is_asked_for() {
    let bed = Bed::new().await;
    let bytes = large();
    let server = Server::start(bytes.clone(), 0, true, std::time::Duration::ZERO).await;
    let asset = pinned(&bytes, &[&server.url]);
    check(&bed, &asset, &signed(b"other bytes"), false).await.unwrap();
    assert!(bed.cache.report().is_empty());
    let e = check(&bed, &asset, &signed(b"other bytes"), true).await.unwrap_err();
    assert_eq!(e.reason, Reason::AssetSignatureInvalid, "{e}");
    check(&bed, &asset, &signed(&bytes), true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_signed_is_not_even_unpacked() {
    let bed = Bed::new().await;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    tar.append_data(&mut header, "a", &b"x"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    let asset = archive(&bytes, &bed.source("guest.tar", &bytes));
    let e = check(&bed, &asset, &signed(b"other bytes"), true).await.unwrap_err();
    assert_eq!(e.reason, Reason::AssetSignatureInvalid, "{e}");
    assert_eq!(names(&bed.path("assets/trees")), Vec::<String>::new());
}
