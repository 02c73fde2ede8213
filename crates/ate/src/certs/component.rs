//! Who gets a certificate, and what it says: names to be reached by, and one URI that says which component it is.

use std::{path::Path, time::SystemTime};

use ate_api::{Error, Reason};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::{
    authority::{Authority, parsed},
    files::{self, Pair},
};
use crate::up::tls::CLOCKS_DIFFER;

/// What must be able to prove who it is to the others. Herders are reached over unix sockets and need none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    /// Control plane, API and router.
    Control,
    /// The node agent.
    Node,
}

impl Component {
    pub(crate) const ALL: [Component; 2] = [Component::Control, Component::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Component::Control => "control",
            Component::Node => "node",
        }
    }

    /// Services in front of it. The first is what others expect at its end, whatever address they came by.
    fn services(self) -> &'static [&'static str] {
        match self {
            Component::Control => &["control", "api"],
            Component::Node => &["node"],
        }
    }

    /// Peers are told apart by this, not by DNS names.
    pub(crate) fn identity(self) -> String {
        format!("spiffe://ate/{}", self.name())
    }

    /// Every alternative name of its certificate, sorted.
    fn names(self, namespace: &str, further: &[String]) -> Vec<String> {
        let mut names = vec![self.identity()];
        for service in self.services() {
            for tail in
                ["", &format!(".{namespace}"), &format!(".{namespace}.svc"), &format!(".{namespace}.svc.cluster.local")]
            {
                names.push(format!("{service}{tail}"));
            }
        }
        if self == Component::Control {
            names.extend_from_slice(further);
        }
        names.sort();
        names.dedup();
        names
    }
}

/// What a certificate is asked for with.
pub(crate) struct Wanted<'a> {
    pub namespace: &'a str,
    /// Further names of the API.
    pub further: &'a [String],
    pub lifetime: std::time::Duration,
    /// One that ends within this time is made anew.
    pub renew_before: std::time::Duration,
}

/// Brings one component's folder up to date. Says why there is a new certificate, if there is.
pub(crate) fn bring(
    dir: &Path,
    component: Component,
    authority: &Authority,
    wanted: &Wanted<'_>,
) -> Result<Option<&'static str>, Error> {
    let dir = dir.join(component.name());
    let names = component.names(wanted.namespace, wanted.further);
    let why = match files::read_pair(&dir)? {
        None => Some("there was none"),
        Some(pair) => reason_to_renew(&pair, authority, &names, wanted.renew_before),
    };
    if why.is_some() {
        files::write_pair(&dir, &issue(component, authority, &names, wanted.lifetime)?)?;
    }
    files::write(&dir.join(files::AUTHORITY), authority.bundle().as_bytes(), files::PUBLIC)?;
    Ok(why)
}

fn reason_to_renew(
    pair: &Pair,
    authority: &Authority,
    names: &[String],
    before: std::time::Duration,
) -> Option<&'static str> {
    let read = parsed(&pair.certificate, |certificate| {
        if !authority.signed(certificate) {
            return Some("another authority had signed it");
        }
        if ends_within(certificate, before) {
            return Some("it ends soon");
        }
        (alternative_names(certificate) != names).then_some("its names changed")
    });
    read.unwrap_or(Some("it could not be read"))
}

pub(super) fn ends_within(certificate: &X509Certificate<'_>, before: std::time::Duration) -> bool {
    let end = SystemTime::now() + before;
    let end = end.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    certificate.validity().not_after.timestamp() <= i64::try_from(end).unwrap_or(i64::MAX)
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |n: &GeneralName<'_>| match n {
        GeneralName::DNSName(n) | GeneralName::URI(n) => Some((*n).to_owned()),
        GeneralName::IPAddress(b) => match b.len() {
            4 => <[u8; 4]>::try_from(*b).ok().map(|b| std::net::IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*b).ok().map(|b| std::net::IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    let mut names: Vec<String> = extension.value.general_names.iter().filter_map(name).collect();
    names.sort();
    names
}

fn issue(
    component: Component,
    authority: &Authority,
    names: &[String],
    lifetime: std::time::Duration,
) -> Result<Pair, Error> {
    let invalid = |e: rcgen::Error| Error::new(Reason::Invalid, e.to_string()).hint("see --dns");
    let mut params = CertificateParams::default();
    for name in names {
        let text = || Ia5String::try_from(name.as_str()).map_err(invalid);
        params.subject_alt_names.push(match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if name.contains("://") => SanType::URI(text()?),
            Err(_) => SanType::DnsName(text()?),
        });
    }
    params.distinguished_name.push(DnType::OrganizationName, "Agent Substrate");
    params.distinguished_name.push(DnType::CommonName, format!("ate-{}", component.name()));
    // Each of them answers calls and makes calls.
    params.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + lifetime).into();
    let key = KeyPair::generate().map_err(invalid)?;
    Ok(Pair { certificate: authority.sign(&params, &key)?, key: key.serialize_pem() })
}
