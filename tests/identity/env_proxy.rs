//! The proxy that the environment of a server names: its issuer's keys come through it, by TLS from end to end.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::identity::world::{RETRIEVE, about_leave, identity, start, with_token};
use crate::support::certificates::{Authority, NAME, PairFiles};
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::config;
use crate::support::served::Served;

/// The variables that name proxies elsewhere, which this machine may have set.
const VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"];

/// An issuer that only a proxy reaches.
#[derive(Clone)]
struct Behind {
    tls: TlsAcceptor,
    keys: Value,
    carried: Arc<AtomicUsize>,
}

impl Behind {
    fn new(files: &PairFiles, key: &SigningKey) -> Self {
        let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
        let secret = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![certificate], secret).unwrap()));
        Self { tls, keys: json!({ "keys": [key.jwk()] }), carried: Arc::default() }
    }

    /// Starts the proxy, and returns its address. Its task ends with the test's runtime.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, behind) = (listener.local_addr().unwrap().to_string(), self.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(behind.clone().carry(connection));
            }
        });
        address
    }

    /// Opens the way to the issuer, which then answers by TLS.
    async fn carry(self, mut connection: TcpStream) -> Option<()> {
        let asked = head(&mut connection).await?;
        assert!(asked.starts_with(&format!("CONNECT {NAME}:443 ")), "{asked}");
        self.carried.fetch_add(1, Ordering::SeqCst);
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        let mut connection = self.tls.accept(connection).await.ok()?;
        loop {
            let asked = head(&mut connection).await?;
            let metadata = json!({ "issuer": format!("https://{NAME}"), "jwks_uri": format!("https://{NAME}/keys") });
            let document = if asked.starts_with("GET /keys ") { self.keys.to_string() } else { metadata.to_string() };
            let length = document.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{document}"
            );
            connection.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}

/// Reads the head of a request; `None` if the connection ends.
async fn head(connection: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await.ok()?);
    }
    String::from_utf8(request).ok()
}

/// Environment variables, what they are, and whether calls then go through the proxy.
type VariablesRow<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_through_the_proxy_of_the_environment() {
    let (authority, key) = (Authority::new(), SigningKey::es256("key"));
    let issuer = TestIssuer::start(&[&key]).await;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    start(&data, identity(&issuer)).await.stop().await.unwrap();
    let (ca_file, file) = (directory.path().join("ca.pem"), directory.path().join("ragward.toml"));
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let behind = Behind::new(&authority.issue().write(directory.path()), &key);
    let proxy_url = format!("http://{}", behind.serve().await);
    let proxy = proxy_url.as_str();

    let mut settings = config(&data);
    settings.server.insecure_identity = false;
    settings.identity = identity(&issuer);
    settings.identity.issuers[0].issuer = format!("https://{NAME}");
    settings.identity.issuers[0].ca_file = Some(ca_file);
    std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
    let mut claims = issuer.claims("anne", RETRIEVE);
    claims["iss"] = json!(format!("https://{NAME}"));
    let token = key.sign(&claims);

    let rows: [VariablesRow<'_>; 4] = [
        ("the variable", &[("HTTPS_PROXY", proxy)], true),
        ("the variable in small letters", &[("https_proxy", proxy)], true),
        ("its host is exempt", &[("HTTPS_PROXY", proxy), ("NO_PROXY", NAME)], false),
        ("the variable for calls without TLS", &[("HTTP_PROXY", proxy)], false),
    ];
    for (row, variables, is_carried) in rows {
        behind.carried.store(0, Ordering::SeqCst);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        command.args(["--config", file.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"]);
        let served = Served::start(command);
        let answered = served.client.retrieval().retrieve(with_token(about_leave(""), &token)).await;
        let code = answered.map_or_else(|status| status.code(), |_answer| Code::Ok);
        served.stop().await;
        assert_eq!(
            (code == Code::Ok, behind.carried.load(Ordering::SeqCst) > 0),
            (is_carried, is_carried),
            "{row}: {code:?}"
        );
    }
}
