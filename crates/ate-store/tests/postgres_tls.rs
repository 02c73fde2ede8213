//! An encrypted connection to a server that proves who it is, over a real one.

use std::path::Path;

use ate_store::{OpenError, PostgresStore, Store, Transaction};
use postgres_harness::{Server, Tuning};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The server has a certificate of this authority for its address.
fn certify(server: &Server, authority: &Authority) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    server.use_certificate(&certificate.pem(), &key.serialize_pem());
}

fn trusting(url: &str, root: &Path) -> String {
    format!("{url}?sslmode=verify-full&sslrootcert={}&application_name=encrypted", root.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_must_prove_who_it_is_and_its_authority_may_change_while_we_run() {
    let server = Server::start(Tuning::Test);
    let url = server.database();
    let directory = tempfile::tempdir().unwrap();
    let (root, other_root) = (directory.path().join("ca.crt"), directory.path().join("other.crt"));
    let (ours, other) = (authority(), authority());
    std::fs::write(&root, ours.pem()).unwrap();
    std::fs::write(&other_root, other.pem()).unwrap();

    let unencrypted = PostgresStore::connect(&trusting(&url, &root)).await.err();
    assert!(matches!(unencrypted, Some(OpenError::Database(_))), "a server without TLS was taken: {unencrypted:?}");
    certify(&server, &ours);
    let stranger = PostgresStore::connect(&trusting(&url, &other_root)).await.err();
    assert!(matches!(stranger, Some(OpenError::Database(_))), "{stranger:?}");
    let misnamed = url.replace("127.0.0.1", "localhost");
    let misnamed = PostgresStore::connect(&trusting(&misnamed, &root)).await.err();
    assert!(matches!(misnamed, Some(OpenError::Database(_))), "{misnamed:?}");

    let store = PostgresStore::connect(&trusting(&url, &root)).await.unwrap();
    let (store, _lease) = store.lead("test").await.unwrap();
    store.commit(Transaction::new().put("k", "1")).await.unwrap();
    let plain = "SELECT count(*) FILTER (WHERE NOT ssl) || ' of ' || (count(*) > 0)::text
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'encrypted'";
    assert_eq!(server.sql("postgres", plain).trim(), "0 of true");

    certify(&server, &other);
    std::fs::write(&root, other.pem()).unwrap();
    server.end_connections();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, "1");
    store.commit(Transaction::new().put("k", "2")).await.unwrap();
    assert_eq!(server.sql("postgres", plain).trim(), "0 of true");
}
