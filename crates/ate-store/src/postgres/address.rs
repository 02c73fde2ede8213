//! Where the database is, and how to speak with it: a URL as libpq takes it.
//!
//! What libpq knows and `tokio-postgres` does not: `sslrootcert` (the CAs that are trusted, in place of the system's),
//! `sslcert` and `sslkey` (who we are), and the modes `verify-ca` and `verify-full`. We check the server's
//! certificate and its name wherever TLS is spoken, so both mean `require`. The files are read at each connection, so a
//! certificate that was replaced counts from the next one on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

use super::trouble::Trouble;
use crate::OpenError;

/// Longest a connection may take to come about, with all that is said on it before it is of use.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Sent and not acknowledged for so long: the other end is gone. Well below the life of a lease.
const UNACKNOWLEDGED: Duration = Duration::from_secs(4);

pub(super) struct Address {
    config: Config,
    root: Option<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Address, OpenError> {
        let (mut root, mut certificate, mut key) = (None, None, None);
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else { continue };
            match (&*name, &*value) {
                ("sslrootcert", _) => root = Some(PathBuf::from(&*value)),
                ("sslcert", _) => certificate = Some(PathBuf::from(&*value)),
                ("sslkey", _) => key = Some(PathBuf::from(&*value)),
                ("sslmode", "verify-ca" | "verify-full") => rest.push("sslmode=require"),
                _ => rest.push(pair),
            }
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(OpenError::Address("sslcert and sslkey go together".to_owned())),
        };
        // Never the URL itself in a message: it holds the password.
        let mut config: Config = match rest.is_empty() {
            true => base.parse(),
            false => format!("{base}?{}", rest.join("&")).parse(),
        }
        .map_err(|e: tokio_postgres::Error| OpenError::Address(super::trouble::describe(&e)))?;
        config.tcp_user_timeout(UNACKNOWLEDGED).keepalives_idle(UNACKNOWLEDGED);
        if config.get_application_name().is_none() {
            config.application_name("ate");
        }
        Ok(Address { config, root, identity })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Client, Trouble> {
        let tls = self.tls().map_err(Trouble::Broken)?;
        let (client, connection) = self.config.connect(MakeRustlsConnect::new(tls)).await?;
        tokio::spawn(async move {
            // Whoever uses the client is told as well.
            if let Err(e) = connection.await {
                tracing::debug!("a connection to the database ended: {}", super::trouble::describe(&e));
            }
        });
        Ok(client)
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        match &self.root {
            Some(path) => {
                let unreadable = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", path.display());
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                    roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
                }
            }
            // Without any, a connection that needs TLS says that it trusts nobody.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|e| format!("cannot read {}: {e}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("cannot read {}: {e}", key.display()))?;
        config.with_client_auth_cert(chain, key).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libpq_knows_is_taken_out_and_the_rest_is_left() {
        let address = Address::parse(
            "postgres://ate:secret@db.example:5433/state?sslmode=verify-full&sslrootcert=%2Fpki%2Fca.crt&connect_timeout=2",
        )
        .unwrap();
        assert_eq!(address.root, Some(PathBuf::from("/pki/ca.crt")));
        assert_eq!(address.config.get_dbname(), Some("state"));
        assert_eq!(address.config.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        assert_eq!(address.config.get_connect_timeout(), Some(&Duration::from_secs(2)));
    }

    #[test]
    fn an_address_that_makes_no_sense_is_refused_without_showing_the_password() {
        for url in ["postgres://ate:secret@db/state?colour=blue", "postgres://ate:secret@db/state?sslcert=/a"] {
            let Err(e) = Address::parse(url) else { panic!("{url} was taken") };
            assert!(matches!(e, OpenError::Address(_)) && !e.to_string().contains("secret"), "{e}");
        }
    }
}
