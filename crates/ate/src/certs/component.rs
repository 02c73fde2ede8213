//! Who gets a certificate, and what it says: DNS names, by which components know each other and by which the API is reached.

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
            Component::Control => ate_fleet::CONTROL,
            Component::Node => ate_fleet::NODE,
        }
    }

    /// What its DNS names begin with. The first, bare, is what other components ask for at its end, whatever address they
    /// came by.
    fn services(self) -> &'static [&'static str] {
        match self {
            Component::Control => &[ate_fleet::CONTROL, "api"],
            Component::Node => &[ate_fleet::NODE],
        }
    }

    /// Says the same to people and to programs of others. Components ask each other for DNS names only.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_cluster::api_name;

    const NAMESPACE: &str = "ate-system";

    /// What the others ask for in its certificate.
    fn asked(component: Component) -> Vec<String> {
        match component {
            Component::Control => vec![ate_fleet::CONTROL.to_owned(), api_name(NAMESPACE)],
            Component::Node => vec![ate_fleet::NODE.to_owned()],
        }
    }

    #[test]
    fn ours_have_the_names_that_are_asked_for() {
        for component in Component::ALL {
            let names = component.names(NAMESPACE, &[]);
            assert!(asked(component).iter().all(|n| names.contains(n)), "{component:?}: {names:?}");
        }
    }

    /// Every `kind: Certificate` of the documentation, from its own YAML blocks.
    fn documented() -> Vec<serde_json::Value> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md");
        let text = std::fs::read_to_string(file).unwrap();
        let blocks = text.split("<<YAML\n").skip(1).map(|rest| rest.split("\n    YAML").next().unwrap());
        let documents = blocks.filter(|b| b.contains("kind: Certificate")).flat_map(|b| b.split("\n    ---\n"));
        documents.map(|d| serde_saphyr::from_str(d).unwrap()).collect()
    }

    #[test]
    fn those_of_cert_manager_as_documented_have_them_too() {
        let found = documented();
        assert_eq!(found.len(), Component::ALL.len());
        for component in Component::ALL {
            let secret = format!("ate-{}-tls", component.name());
            let certificate = found.iter().find(|c| c["spec"]["secretName"] == secret.as_str());
            let spec = &certificate.unwrap_or_else(|| panic!("nobody makes {secret}"))["spec"];
            let has = |list: &str, one: &str| spec[list].as_array().is_some_and(|all| all.iter().any(|v| v == one));
            for name in asked(component) {
                assert!(has("dnsNames", &name), "{secret} lacks {name}: {spec}");
            }
            for usage in ["server auth", "client auth"] {
                assert!(has("usages", usage), "{secret} is not for {usage}");
            }
            // Whoever has a name of the other can be the other.
            let others = Component::ALL.into_iter().filter(|c| *c != component).flat_map(asked);
            others.for_each(|name| assert!(!has("dnsNames", &name), "{secret} has {name}"));
        }
    }
}
