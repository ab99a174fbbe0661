//! An issuer of tokens. It signs whatever a test asks for, and serves its metadata and keys, well or badly, on a port
//! of loopback.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The audience that tokens of these tests name.
pub(crate) const AUDIENCE: &str = "https://ragward.example/api";
const METADATA: &str = "/.well-known/oauth-authorization-server";
const KEYS: &str = "/keys";
const RSA_BITS: usize = 2_048;

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    kind: Kind,
}

enum Kind {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    Ps256(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub(crate) fn es256(id: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { id: id.to_owned(), kind: Kind::Es256(pair) }
    }

    pub(crate) fn ed25519(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id: id.to_owned(), kind: Kind::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    pub(crate) fn rs256(id: &str) -> Self {
        Self { id: id.to_owned(), kind: Kind::Rs256(rsa_pair()) }
    }

    pub(crate) fn ps256(id: &str) -> Self {
        Self { id: id.to_owned(), kind: Kind::Ps256(rsa_pair()) }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Es256(_) => "ES256",
            Kind::Rs256(_) => "RS256",
            Kind::Ps256(_) => "PS256",
            Kind::Ed25519(_) => "EdDSA",
        }
    }

    /// Returns the public half, as it stands in a key set.
    pub(crate) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.kind {
            Kind::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": encode(x), "y": encode(y)})
            }
            Kind::Rs256(pair) | Kind::Ps256(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": encode(&n), "e": encode(&e)})
            }
            Kind::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": encode(pair.public_key().as_ref())})
            }
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({"typ": "at+jwt", "alg": self.algorithm(), "kid": self.id})
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }

    /// Signs a token, whatever its header and claims are.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.kind {
            Kind::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Kind::Rs256(pair) | Kind::Ps256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = match self.kind {
                    Kind::Ps256(_) => pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature),
                    Kind::Es256(_) | Kind::Rs256(_) | Kind::Ed25519(_) => {
                        pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    }
                };
                signed.unwrap();
                signature
            }
        }
    }
}

/// Returns the one RSA key of this process: ring cannot make RSA keys, and making one takes a while.
fn rsa_pair() -> RsaKeyPair {
    static PKCS8: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).unwrap();
        rsa::pkcs8::EncodePrivateKey::to_pkcs8_der(&key).unwrap().as_bytes().to_vec()
    });
    RsaKeyPair::from_pkcs8(&PKCS8).unwrap()
}

/// The answer to every request for one path.
#[derive(Clone)]
pub(crate) enum HttpAnswer {
    Json(Value),
    /// JSON, exactly as it is written here.
    Text(String),
    Html,
    Redirect(String),
    Status(u16),
    /// JSON with another status than 200.
    Refusal(u16, Value),
    Bytes(usize),
    Hang,
}

/// A running issuer. Its task ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct TestIssuer {
    pub(crate) url: String,
    answers: Arc<Mutex<HashMap<String, HttpAnswer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// The forms that were posted, by path.
    forms: Arc<Mutex<Vec<(String, String)>>>,
}

impl TestIssuer {
    /// Starts an issuer with these keys.
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, answers: Arc::default(), asked: Arc::default(), forms: Arc::default() };
        issuer.serve_metadata(METADATA);
        issuer.serve_keys(keys);
        let served = issuer.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(answer(connection, served.clone()));
            }
        });
        issuer
    }

    pub(crate) fn set(&self, path: &str, answer: HttpAnswer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(crate) fn serve_metadata(&self, path: &str) {
        let keys = format!("{}{KEYS}", self.url);
        self.set(
            path,
            HttpAnswer::Json(json!({"issuer": self.url, "jwks_uri": keys, "response_types_supported": ["code"]})),
        );
    }

    pub(crate) fn serve_keys(&self, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.set(KEYS, HttpAnswer::Json(json!({"keys": keys})));
    }

    /// Returns how often the keys were read.
    pub(crate) fn key_reads(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| *path == KEYS).count()
    }

    /// Returns the forms that were posted to a path.
    pub(crate) fn forms(&self, path: &str) -> Vec<HashMap<String, String>> {
        let forms = self.forms.lock().unwrap();
        let of_path = forms.iter().filter(|(posted, _)| posted == path);
        of_path.map(|(_, form)| url::form_urlencoded::parse(form.as_bytes()).into_owned().collect()).collect()
    }

    /// Serves metadata with the endpoints by which a client asks people (CIBA).
    pub(crate) fn serve_backchannel(&self, ask: &str, token: &str) {
        let metadata = json!({
            "issuer": self.url, "jwks_uri": format!("{}{KEYS}", self.url),
            "backchannel_authentication_endpoint": format!("{}{ask}", self.url),
            "token_endpoint": format!("{}{token}", self.url),
        });
        self.set(METADATA, HttpAnswer::Json(metadata));
    }

    /// Returns the claims of a good token for this subject.
    pub(crate) fn claims(&self, subject: &str, scope: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": subject, "client_id": "assistant", "jti": format!("{subject}-{now}"),
            "iat": now - 10, "exp": now + 600, "scope": scope,
        })
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn answer(mut connection: TcpStream, issuer: TestIssuer) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let length = request.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut form = vec![0; length.unwrap_or_default()];
    connection.read_exact(&mut form).await.ok()?;
    if !form.is_empty() {
        issuer.forms.lock().unwrap().push((path.clone(), String::from_utf8(form).ok()?));
    }
    let answer = issuer.answers.lock().unwrap().get(&path).cloned();
    issuer.asked.lock().unwrap().push(path);
    let (status, kind, body, more) = match answer {
        Some(HttpAnswer::Json(value)) => (200, "application/json", value.to_string().into_bytes(), String::new()),
        Some(HttpAnswer::Text(text)) => (200, "application/json", text.into_bytes(), String::new()),
        Some(HttpAnswer::Html) => (200, "text/html", b"<html><body>Sign in</body></html>".to_vec(), String::new()),
        Some(HttpAnswer::Redirect(to)) => (302, "text/plain", Vec::new(), format!("location: {to}\r\n")),
        Some(HttpAnswer::Refusal(status, value)) => {
            (status, "application/json", value.to_string().into_bytes(), String::new())
        }
        Some(HttpAnswer::Status(status)) => (status, "text/plain", Vec::new(), String::new()),
        Some(HttpAnswer::Bytes(length)) => (200, "application/json", vec![b' '; length], String::new()),
        Some(HttpAnswer::Hang) => std::future::pending().await,
        None => (404, "text/plain", Vec::new(), String::new()),
    };
    let mut head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-type: {kind}\r\n{more}");
    write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
    connection.write_all(head.as_bytes()).await.ok()?;
    connection.write_all(&body).await.ok()?;
    connection.shutdown().await.ok()
}
