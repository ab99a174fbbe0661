//! These tests show which certificates a gRPC connection trusts, and which files of certificates are accepted. The tests
//! of `identity::issuer` show it for HTTP.

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::sample::{Authority, Certified};
use super::*;

/// Serves gRPC over TLS as `localhost`, until the test's runtime ends. Returns the port.
async fn serve(authority: &Authority) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let Certified { certificate, key } = authority.certify("localhost");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().tls_config(tls).unwrap().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    port
}

/// Returns whether a server answers a client that trusts these authorities.
async fn is_answered(address: &str, trusted: &TrustedAuthorities) -> bool {
    // A machine without any certificates refuses here.
    let Ok(endpoint) = trusted.endpoint(address) else { return false };
    let mut client = HealthClient::new(endpoint.connect_lazy());
    client.check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn a_connection_trusts_the_authorities_of_its_file_alone() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let both = ours.file_with("both.pem", &format!("{}\n{}", other.pem, ours.pem));
    let port = serve(&ours).await;
    let named = format!("https://localhost:{port}");
    let rows = [
        ("the authority of the server", &named, Some(ours.file()), true),
        ("a file with it as the second", &named, Some(both), true),
        ("another authority", &named, Some(other.file()), false),
        ("the authorities of the system", &named, None, false),
        ("a name that the certificate lacks", &format!("https://127.0.0.1:{port}"), Some(ours.file()), false),
    ];
    for (name, address, ca_file, expected) in rows {
        let trusted = TrustedAuthorities::read(ca_file.as_deref()).unwrap();
        assert_eq!(is_answered(address, &trusted).await, expected, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_when_it_is_read() {
    let authority = Authority::new("ours");
    let Certified { certificate, key } = authority.certify("localhost");
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let rows = [
        ("no file", authority.directory().join("absent.pem"), "cannot read the certificates in"),
        ("a directory", authority.directory().to_owned(), "cannot read the certificates in"),
        ("an empty file", authority.file_with("empty.pem", ""), "holds no certificate in PEM form"),
        ("a key alone", authority.file_with("key.pem", &key), "holds no certificate in PEM form"),
        ("no PEM", authority.file_with("text.pem", "trust me"), "holds no certificate in PEM form"),
        ("a cut file", authority.file_with("cut.pem", certificate.split_at(60).0), "cannot read the certificates in"),
        (
            "a damaged second certificate",
            authority.file_with("damaged.pem", &format!("{}{begin}AAAA\n-----END CERTIFICATE-----\n", authority.pem)),
            "certificate 2 of",
        ),
    ];
    for (name, path, expected) in rows {
        let refused = TrustedAuthorities::read(Some(&path)).map(drop).expect_err(name).to_string();
        let shown = path.display().to_string();
        assert!(refused.contains(expected) && refused.contains(&shown), "{name}: {refused}");
    }
}

#[tokio::test]
async fn certificates_need_an_address_with_tls() {
    let authority = Authority::new("ours");
    let of_file = TrustedAuthorities::read(Some(&authority.file())).unwrap();
    let rows = [
        ("TLS", &of_file, "https://localhost:1", None),
        ("without TLS", &of_file, "http://localhost:1", Some("only an `https://` address uses")),
        ("without TLS and certificates", &TrustedAuthorities::System, "http://localhost:1", None),
        ("another scheme", &of_file, "ftp://localhost:1", Some("must have the form")),
        ("no scheme", &of_file, "localhost:1", Some("must have the form")),
    ];
    for (name, trusted, address, expected) in rows {
        let refused = trusted.endpoint(address).err().map(|e| e.to_string());
        match (refused, expected) {
            (None, None) => {}
            (Some(refused), Some(expected)) => assert!(refused.contains(expected), "{name}: {refused}"),
            (refused, _) => panic!("{name}: {refused:?}"),
        }
    }
}
