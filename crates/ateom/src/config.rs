//! What the node agent hands a herder of its class's own: settings and assets.

use std::path::PathBuf;

use ate_api::{Error, Reason, id::Digest};
use serde::{Deserialize, de::DeserializeOwned};

use crate::driver::Sandbox;

/// A configuration is a handful of words.
const MAX_BYTES: usize = 64 * 1024;

/// The configuration of a class that has no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Sandbox {
    /// These settings under the digest that names them, and no assets.
    pub fn with_config(config_json: impl Into<Vec<u8>>) -> Self {
        let config_json = config_json.into();
        Sandbox { config_digest: Digest::of(&config_json).to_string(), config_json, ..Sandbox::default() }
    }
}

/// Reads the configuration of a sandbox; refuses one whose bytes are not those the digest names (I4).
pub fn of<T: DeserializeOwned>(sandbox: &Sandbox) -> Result<T, Error> {
    let object = format!("sandboxconfig/{}", sandbox.config_name);
    if sandbox.config_json.len() > MAX_BYTES {
        return Err(Error::new(Reason::Invalid, "the configuration is larger than 64 KiB").on(object));
    }
    if Digest::of(&sandbox.config_json).as_str() != sandbox.config_digest {
        let message = "the configuration's bytes do not have the digest it came with";
        return Err(Error::new(Reason::Invalid, message).on(object));
    }
    // By way of a map: a list of values in the right order would do otherwise.
    let map = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&sandbox.config_json);
    map.and_then(|map| serde_json::from_value(map.into())).map_err(|e| {
        Error::new(Reason::Invalid, format!("not a configuration of this class: {e}"))
            .on(object)
            .hint("the herder's `describe` lists the keys and what they may be")
    })
}

/// Path and digest of an asset that the class requires.
pub fn asset<'a>(sandbox: &'a Sandbox, name: &str) -> Result<(PathBuf, &'a str), Error> {
    let missing = || Error::new(Reason::Invalid, format!("the sandbox has no asset `{name}`"));
    let path = PathBuf::from(sandbox.asset_paths.get(name).ok_or_else(missing)?);
    let digest = sandbox.asset_digests.get(name).filter(|d| !d.is_empty()).ok_or_else(missing)?;
    if !path.is_absolute() || !path.exists() {
        let message = format!("asset `{name}` is not at {}", path.display());
        return Err(Error::new(Reason::AssetUnavailable, message));
    }
    Ok((path, digest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn bytes_that_differ_from_the_digest_are_refused() {
        let mut sandbox = Sandbox::with_config("{}");
        of::<BTreeMap<String, bool>>(&sandbox).unwrap();
        sandbox.config_json = b"{\"gso\":false}".to_vec();
        assert!(of::<BTreeMap<String, bool>>(&sandbox).unwrap_err().message.contains("digest"));
    }
}
