//! What encrypts the API's address: certificate and key from files, or a certificate made here.
//!
//! A certificate made here vouches for itself, so clients are given it as the authority to trust. It is kept in the data
//! directory and stays the same for as long as the names it is made for do.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ate_api::{Error, Reason, id::Digest};
use base64::Engine as _;
use rcgen::{CertificateParams, DnType, KeyPair};
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::settings::{Listen, Settings, Tls};
use crate::failure::{Outcome, Trying as _};

/// Certificates are made for so long; clients trust this one by name, so nobody else can prolong it.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A client whose clock is behind takes it too.
pub(crate) const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 3600);

/// What the API is served with, checked.
pub(crate) struct Encryption {
    pub config: ServerTlsConfig,
    /// sha256 of the certificate, for whoever compares it by eye.
    pub fingerprint: Digest,
    /// What clients need as --ca-file; none for a certificate from outside.
    pub authority: Option<PathBuf>,
}

impl Encryption {
    pub(crate) fn of(settings: &Settings, host_name: &str) -> Outcome<Option<Encryption>> {
        let (cert, key, own) = match &settings.tls {
            Tls::Off => return Ok(None),
            Tls::Files { cert, key } => (cert.clone(), key.clone(), false),
            Tls::SelfSigned(names) => {
                let dir = settings.data_dir.join("tls");
                let names = all_names(names, &settings.listen, host_name);
                let what = || format!("cannot make a certificate in {}", dir.display());
                let (cert, key) = self_signed(&dir, &names).trying(what)?;
                (cert, key, true)
            }
        };
        let read = |file: &Path| fs::read(file).trying(|| format!("cannot read {}", file.display()));
        let (cert_pem, key_pem) = (read(&cert)?, read(&key)?);
        let what = || format!("cannot use the certificate {} with the key {}", cert.display(), key.display());
        let unusable = |why: String| Error::new(Reason::Invalid, why).hint("both are PEM files, and belong together");
        let fingerprint = fingerprint(&cert_pem).ok_or_else(|| unusable("it is no certificate".into())).trying(what)?;
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&cert_pem, &key_pem));
        // Known now, rather than when the first client comes.
        Server::builder().tls_config(config.clone()).map_err(|e| unusable(chain(&e))).trying(what)?;
        Ok(Some(Encryption { config, fingerprint, authority: own.then_some(cert) }))
    }
}

/// Every name and address by which clients may come, as far as one can know.
fn all_names(further: &[String], listen: &Listen, host_name: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), host_name.to_owned()];
    if let Listen::Tcp(address) = listen
        && !address.ip().is_unspecified()
    {
        names.push(address.ip().to_string());
    }
    names.extend_from_slice(further);
    names.sort();
    names.dedup();
    names
}

fn self_signed(dir: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), Error> {
    let (cert, key, made_for) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("names"));
    let broken = |e: std::io::Error| Error::new(Reason::Internal, e.to_string().to_lowercase());
    let listed = names.join("\n");
    if fs::read_to_string(&made_for).is_ok_and(|n| n == listed) {
        return Ok((cert, key));
    }
    let invalid = |e: rcgen::Error| Error::new(Reason::Invalid, e.to_string()).hint("see --tls-name");
    let mut params = CertificateParams::new(names.to_vec()).map_err(invalid)?;
    params.distinguished_name.push(DnType::CommonName, "Agent Substrate");
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + LIFETIME).into();
    let pair = KeyPair::generate().map_err(invalid)?;
    let made = params.self_signed(&pair).map_err(invalid)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(broken)?;
    // The names last: without them the next start makes both anew.
    let _ = fs::remove_file(&made_for);
    write(&key, pair.serialize_pem().as_bytes(), 0o600).map_err(broken)?;
    write(&cert, made.pem().as_bytes(), 0o644).map_err(broken)?;
    write(&made_for, listed.as_bytes(), 0o600).map_err(broken)?;
    Ok((cert, key))
}

pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Of the first certificate in a PEM file.
fn fingerprint(pem: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    Some(Digest::of(&base64::engine::general_purpose::STANDARD.decode(body).ok()?))
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut e = e;
    while let Some(source) = e.source() {
        text += &format!(": {source}");
        e = source;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_certificate_stays_until_its_names_change_and_its_key_is_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let made = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
            let (cert, key) = self_signed(&dir, &names).unwrap();
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
            fingerprint(&fs::read(cert).unwrap()).unwrap()
        };
        let first = made(&["localhost"]);
        assert_eq!(made(&["localhost"]), first);
        assert_ne!(made(&["localhost", "10.0.0.1"]), first);
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, _) = self_signed(&dir.path().join("a"), &["localhost".into()]).unwrap();
        let (_, key) = self_signed(&dir.path().join("b"), &["localhost".into()]).unwrap();
        let given = super::super::settings::Given { tls_cert: Some(cert), tls_key: Some(key), ..Default::default() };
        let settings = Settings::resolve(given, None).unwrap();
        assert_eq!(Encryption::of(&settings, "host").err().unwrap().reason(), Some(Reason::Invalid));
    }
}
