//! Which binaries may run (I4): those a `SandboxConfig` of this installation names or once named, and nobody revoked.
//!
//! What a manifest or a template says never adds to this set.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ate_api::{Error, Reason, id::Digest};

use crate::{PinnedAsset, Revocations, SandboxRef};

/// The admitted binaries. Built from records, never changed: build anew when the records change.
#[derive(Debug, Clone, Default)]
pub struct Admitted {
    /// (class, asset name) → digests. A kernel is not admitted as a launcher because it is admitted as a kernel.
    assets: BTreeMap<(String, String), BTreeSet<Digest>>,
    revoked: Arc<Revocations>,
}

impl Admitted {
    /// From every stored revision of every configuration, the current ones and those before.
    pub fn new<'a>(revisions: impl IntoIterator<Item = &'a SandboxRef>, revoked: Arc<Revocations>) -> Self {
        let mut assets = BTreeMap::<_, BTreeSet<_>>::new();
        for revision in revisions {
            for asset in &revision.assets {
                let key = (revision.class.clone(), asset.name.clone());
                assets.entry(key).or_default().insert(asset.sha256.clone());
            }
        }
        Admitted { assets, revoked }
    }

    /// Whether everything this sandbox runs is admitted.
    ///
    /// # Errors
    /// `ASSET_REVOKED`, or `ASSET_NOT_ADMITTED` for the first asset that never was admitted.
    pub fn check(&self, sandbox: &SandboxRef) -> Result<(), Error> {
        self.revoked.check(sandbox)?;
        sandbox.assets.iter().try_for_each(|asset| {
            let Err((message, hint)) = self.check_asset(&sandbox.class, asset) else { return Ok(()) };
            let object = format!("sandboxconfig/{}", sandbox.config.name);
            Err(Error::new(Reason::AssetNotAdmitted, message).on(object).hint(hint))
        })
    }

    fn check_asset(&self, class: &str, asset: &PinnedAsset) -> Result<(), (String, String)> {
        let what = format!("{} with digest {} ({})", asset.name, asset.sha256.short(), asset.sha256);
        let key = (class.to_owned(), asset.name.clone());
        match self.assets.get(&key).is_some_and(|digests| digests.contains(&asset.sha256)) {
            true => Ok(()),
            false => Err((
                format!("no SandboxConfig of class {class} names or ever named {what}"),
                "a sandbox administrator can admit it by applying a SandboxConfig that names it".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use ate_api::time::Timestamp;

    use super::*;
    use crate::{ConfigRef, Revocation, asset};

    fn sandbox(class: &str, assets: &[(&str, &str)]) -> SandboxRef {
        let pin = |(name, bytes): &(&str, &str)| PinnedAsset {
            name: (*name).to_owned(),
            sha256: Digest::of(bytes.as_bytes()),
            size: None,
            media_type: asset::PLAIN.to_owned(),
            urls: Vec::new(),
        };
        let config = ConfigRef { name: "c".into(), revision: 1, digest: Digest::of(b""), values: Default::default() };
        SandboxRef { class: class.into(), config, assets: assets.iter().map(pin).collect() }
    }

    #[test]
    fn every_revision_that_ever_was_admits_its_binaries() {
        let (old, new) = (sandbox("g", &[("runsc", "1")]), sandbox("g", &[("runsc", "2")]));
        let admitted = Admitted::new([&old, &new], Arc::default());
        assert_eq!((admitted.check(&old), admitted.check(&new)), (Ok(()), Ok(())));
    }

    #[test]
    fn nothing_else_may_run() {
        let admitted = Admitted::new([&sandbox("m", &[("kernel", "k"), ("vmm", "v")])], Arc::default());
        for stranger in [
            sandbox("m", &[("kernel", "k"), ("vmm", "evil")]),
            sandbox("m", &[("vmm", "k")]),
            sandbox("g", &[("kernel", "k")]),
        ] {
            let e = admitted.check(&stranger).unwrap_err();
            assert_eq!(e.reason, Reason::AssetNotAdmitted);
            assert!(e.message.contains("ever named"), "{e}");
        }
        assert!(Admitted::default().check(&sandbox("g", &[("runsc", "1")])).is_err());
    }

    #[test]
    fn a_revoked_binary_may_not_run_whoever_names_it() {
        let one = sandbox("g", &[("runsc", "1")]);
        let revocation = Revocation { reason: "CVE".into(), at: Timestamp::UNIX_EPOCH };
        let revoked = Revocations { version: 1, digests: BTreeMap::from([(Digest::of(b"1"), revocation)]) };
        let e = Admitted::new([&one], Arc::new(revoked)).check(&one).unwrap_err();
        assert_eq!(e.reason, Reason::AssetRevoked);
    }
}
