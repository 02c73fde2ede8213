//! `--public-key` and `--signature` of an import: files of minisign on their way into a `SandboxConfig`. Whether they are
//! right is the server's to say, which has the bytes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use ate_api::{
    Error, Reason,
    resource::{Asset, SandboxConfigSpec},
};

use crate::failure::{Failure, Outcome, Trying as _};

/// A key or a signature has a few hundred bytes.
const MAX_FILE: u64 = 4096;

pub(super) struct Signing {
    keys: Vec<String>,
    /// Asset → text of its signature.
    signatures: BTreeMap<String, String>,
}

impl Signing {
    pub(super) fn read(keys: &[PathBuf], signatures: &[(String, String)]) -> Outcome<Signing> {
        let keys = keys.iter().map(|path| text(path)).collect::<Outcome<_>>()?;
        let signature = |(asset, path): &(String, String)| Ok((asset.clone(), text(Path::new(path))?));
        Ok(Signing { keys, signatures: signatures.iter().map(signature).collect::<Outcome<_>>()? })
    }

    /// Puts each signature beside its asset.
    pub(super) fn sign(&self, assets: &mut BTreeMap<String, Asset>) -> Outcome {
        for (name, signature) in &self.signatures {
            let names: Vec<_> = assets.keys().cloned().collect();
            let Some(asset) = assets.get_mut(name) else {
                let names = names.join(", ");
                return Err(Failure::Usage(format!("there is a signature for {name}, but only {names} is imported")));
            };
            asset.signature = Some(signature.clone());
        }
        Ok(())
    }

    /// Adds the keys that the configuration does not have yet.
    pub(super) fn add_keys(&self, spec: &mut SandboxConfigSpec) {
        for key in &self.keys {
            let keys = &mut spec.verification.get_or_insert_default().public_keys;
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
}

fn text(path: &Path) -> Outcome<String> {
    let what = || format!("cannot read {}", path.display());
    let mut text = String::new();
    File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text)).trying(what)?;
    if text.len() as u64 > MAX_FILE {
        let message = format!("more than {MAX_FILE} bytes are no key or signature of minisign");
        return Err(Error::new(Reason::Invalid, message)).trying(what);
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_once_and_a_signature_needs_its_asset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("minisign.pub");
        std::fs::write(&path, "untrusted comment: x\nRWQ\n").unwrap();
        let path_text = path.to_str().unwrap().to_owned();
        let signing = Signing::read(&[path.clone(), path], &[("runsc".to_owned(), path_text)]).unwrap();
        let mut spec: SandboxConfigSpec = serde_json::from_str("{}").unwrap();
        signing.add_keys(&mut spec);
        assert_eq!(spec.verification.unwrap().public_keys, ["untrusted comment: x\nRWQ"]);
        assert_eq!(signing.sign(&mut BTreeMap::new()).unwrap_err().code(), 2);
    }

    #[test]
    fn a_file_that_is_too_large_to_be_one_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert_eq!(Signing::read(&[path], &[]).map(drop).unwrap_err().code(), 2);
    }
}
