//! Which binaries must not run any more, whatever admitted them: one list with a version, kept by the control plane and
//! by each node for itself.

use std::collections::BTreeMap;

use ate_api::{Error, Reason, id::Digest, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::SandboxRef;

/// Entries a list may have. With the longest reasons it stays below 2 MiB, which every store and message takes.
pub const MAX_ENTRIES: usize = 2048;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 256;

/// The whole list. A later one replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocations {
    /// Grows with every change, and never goes back.
    pub version: u64,
    pub digests: BTreeMap<Digest, Revocation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// What the administrator said.
    pub reason: String,
    pub at: Timestamp,
}

impl Revocations {
    /// Whether everything this sandbox runs may still run.
    ///
    /// # Errors
    /// `ASSET_REVOKED`, for the first asset that may not.
    pub fn check(&self, sandbox: &SandboxRef) -> Result<(), Error> {
        sandbox.assets.iter().try_for_each(|asset| match self.digests.get(&asset.sha256) {
            None => Ok(()),
            Some(revocation) => Err(refusal(&asset.name, &asset.sha256, revocation)
                .on(format!("sandboxconfig/{}", sandbox.config.name))
                .hint("boot under another configuration, which keeps durable directories and gives up memory")),
        })
    }

    /// Whether any of these is revoked.
    pub fn touches<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> bool {
        digests.into_iter().any(|digest| self.digests.contains_key(digest))
    }

    /// Whether it keeps the limits.
    ///
    /// # Errors
    /// `INVALID`, with the limit that is passed.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::new(Reason::Invalid, message));
        if self.digests.len() > MAX_ENTRIES {
            return invalid(format!("more than {MAX_ENTRIES} binaries are revoked"));
        }
        let fits = |reason: &str| reason.len() <= MAX_REASON && !reason.chars().any(char::is_control);
        match self.digests.iter().find(|(_, r)| !fits(&r.reason)) {
            None => Ok(()),
            Some((digest, _)) => invalid(format!(
                "the reason for {} is longer than {MAX_REASON} bytes, or not plain text",
                digest.short()
            )),
        }
    }
}

fn refusal(asset: &str, digest: &Digest, revocation: &Revocation) -> Error {
    let Revocation { reason, at } = revocation;
    let what = format!("{asset} with digest {} ({digest})", digest.short());
    Error::new(Reason::AssetRevoked, format!("{what} was revoked at {at} and may not run any more: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfigRef, PinnedAsset, asset};

    fn list(digests: &[&str]) -> Revocations {
        let revocation = || Revocation { reason: "CVE".into(), at: Timestamp::UNIX_EPOCH };
        let digests = digests.iter().map(|d| (Digest::of(d.as_bytes()), revocation())).collect();
        Revocations { version: 1, digests }
    }

    #[test]
    fn a_sandbox_is_refused_for_any_of_its_binaries_with_reason_and_remedy() {
        let pin = |name: &str| PinnedAsset {
            name: name.into(),
            sha256: Digest::of(name.as_bytes()),
            size: None,
            media_type: asset::PLAIN.to_owned(),
            urls: Vec::new(),
        };
        let config = ConfigRef { name: "c".into(), revision: 1, digest: Digest::of(b""), values: Default::default() };
        let sandbox = SandboxRef { class: "m".into(), config, assets: vec![pin("kernel"), pin("vmm")] };
        assert_eq!(list(&["other"]).check(&sandbox), Ok(()));
        for name in ["kernel", "vmm"] {
            let e = list(&[name]).check(&sandbox).unwrap_err();
            assert_eq!((e.reason, e.object.as_str()), (Reason::AssetRevoked, "sandboxconfig/c"));
            assert!(e.message.starts_with(name) && e.message.contains("CVE"), "{e}");
            assert!(e.hint.contains("durable directories"), "{e:?}");
        }
    }

    #[test]
    fn a_list_that_is_too_large_is_refused() {
        let names: Vec<String> = (0..=MAX_ENTRIES).map(|i| i.to_string()).collect();
        let mut list = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(list.validate().unwrap_err().reason, Reason::Invalid);
        list.digests.pop_first();
        assert_eq!(list.validate(), Ok(()));
        for reason in ["x".repeat(MAX_REASON + 1), "a\u{1b}[2J".to_owned()] {
            list.digests.values_mut().next().unwrap().reason = reason;
            assert_eq!(list.validate().unwrap_err().reason, Reason::Invalid);
        }
    }

    #[test]
    fn a_full_list_fits_into_a_record() {
        let names: Vec<String> = (0..MAX_ENTRIES).map(|i| i.to_string()).collect();
        let mut list = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
        list.digests.values_mut().for_each(|r| r.reason = "\"".repeat(MAX_REASON));
        assert!(serde_json::to_vec(&list).unwrap().len() < 2 << 20);
    }
}
