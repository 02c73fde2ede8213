//! The certificates of a test's API server and of its users: one authority, made for the test and gone with it.

use std::{fs, io, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

/// Name and group of the user who may do everything.
pub const ADMIN: &str = "admin";
pub const MASTERS: &str = "system:masters";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

fn other(e: rcgen::Error) -> io::Error {
    io::Error::other(e.to_string())
}

impl Authority {
    /// Writes `ca.crt`, `apiserver.crt`, `apiserver.key` and `sa.key` into a directory.
    pub(crate) fn new(dir: &Path) -> io::Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "ate-kube-harness");
        let key = KeyPair::generate().map_err(other)?;
        let authority = Authority(CertifiedIssuer::self_signed(params, key).map_err(other)?);
        fs::write(dir.join("ca.crt"), authority.pem())?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut server = CertificateParams::new(names).map_err(other)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let (certificate, key) = authority.sign(server)?;
        fs::write(dir.join("apiserver.crt"), certificate)?;
        fs::write(dir.join("apiserver.key"), key)?;
        // Tokens of service accounts are signed with RSA.
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(other)?;
        fs::write(dir.join("sa.key"), key.serialize_pem())?;
        Ok(authority)
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key by which the API server knows a user and his groups.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> io::Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> io::Result<(String, String)> {
        let key = KeyPair::generate().map_err(other)?;
        let certificate = params.signed_by(&key, &self.0).map_err(other)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
