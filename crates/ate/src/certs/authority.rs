//! The authority that signs: made once, and replaced in three steps during which everybody trusts both.
//!
//! `ca/` holds the one that signs. While it is replaced there are two: first `ca-next/` is trusted and does not sign yet;
//! then it signs, and the former one, now `ca-former/`, is still trusted; at last only the new one is left. Between two
//! steps every component must have read the files of the step before.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ate_api::{Error, Reason};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::X509Certificate;

use super::{
    component::ends_within,
    files::{self, Pair, broken},
};
use crate::up::tls::CLOCKS_DIFFER;

const CURRENT: &str = "ca";
const NEXT: &str = "ca-next";
const FORMER: &str = "ca-former";

/// It signs certificates that live for months; replacing it takes three deliberate steps.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(crate) struct Authority {
    current: Pair,
    /// Also trusted, while one replaces the other.
    other: Option<Pair>,
}

/// How far a replacement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Trusted,
    Signs,
    Done,
}

impl Authority {
    /// The one in the directory, or a new one. The second: whether it is new.
    pub(crate) fn open(dir: &Path) -> Result<(Authority, bool), Error> {
        let (current, new) = match files::read_pair(&dir.join(CURRENT))? {
            Some(pair) => (pair, false),
            None => {
                let pair = make()?;
                files::write_pair(&dir.join(CURRENT), &pair)?;
                (pair, true)
            }
        };
        let other = match files::read_pair(&dir.join(NEXT))? {
            Some(next) => Some(next),
            None => files::read_pair(&dir.join(FORMER))?,
        };
        Ok((Authority { current, other }, new))
    }

    /// One step of replacing it. A run that ended in between is gone on with.
    pub(crate) fn replace(dir: &Path) -> Result<Step, Error> {
        let (current, next, former): (PathBuf, PathBuf, PathBuf) =
            (dir.join(CURRENT), dir.join(NEXT), dir.join(FORMER));
        if former.exists() && current.exists() {
            fs::remove_dir_all(&former).map_err(broken)?;
            return Ok(Step::Done);
        }
        if next.exists() {
            if current.exists() {
                fs::rename(&current, &former).map_err(broken)?;
            }
            fs::rename(&next, &current).map_err(broken)?;
            return Ok(Step::Signs);
        }
        files::write_pair(&next, &make()?)?;
        Ok(Step::Trusted)
    }

    /// Whom everybody is to trust.
    pub(crate) fn bundle(&self) -> String {
        let other = self.other.as_ref().map_or("", |o| o.certificate.as_str());
        format!("{}{other}", self.current.certificate)
    }

    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        parsed(&self.current.certificate, |c| ends_within(c, time)).unwrap_or(true)
    }

    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        parsed(&self.current.certificate, |own| certificate.verify_signature(Some(own.public_key())).is_ok())
            .unwrap_or(false)
    }

    pub(super) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<String, Error> {
        let unusable =
            |e: rcgen::Error| Error::new(Reason::Invalid, format!("the authority in {CURRENT}/ cannot be used: {e}"));
        let own = KeyPair::from_pem(&self.current.key).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&self.current.certificate, own).map_err(unusable)?;
        Ok(params.signed_by(key, &issuer).map_err(unusable)?.pem())
    }
}

fn make() -> Result<Pair, Error> {
    let internal = |e: rcgen::Error| Error::new(Reason::Internal, e.to_string());
    let key = KeyPair::generate().map_err(internal)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Agent Substrate");
    // Two authorities of one name would be mistaken for each other while one replaces the other.
    let id: String = ate_api::id::Digest::of(key.public_key_raw()).to_string().chars().take(8).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Agent Substrate CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + LIFETIME).into();
    Ok(Pair { certificate: params.self_signed(&key).map_err(internal)?.pem(), key: key.serialize_pem() })
}

/// Looks at the first certificate in a PEM text.
pub(super) fn parsed<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(look(&pem.parse_x509().ok()?))
}
