//! A token endpoint of the tests' own, and keys of clients with what verifies their signatures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;

/// The answer to a request for a token.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A token with a number that no other one has, which lives for so many seconds.
    Token(u64),
    Json(Value),
    Text(u16, String),
    Redirect(String),
    Hang,
    Close,
}

/// A request for a token.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) form: HashMap<String, String>,
}

/// A token endpoint of a test. Its tasks end with the test's runtime.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A private key of a client.
pub(crate) struct SampleKey {
    pub(crate) algorithm: &'static str,
    pub(crate) pem: String,
    public: Vec<u8>,
    verification: &'static dyn VerificationAlgorithm,
}

/// An assertion whose signature is good.
pub(crate) struct Assertion {
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

impl Endpoint {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let endpoint = Self { url, answer: Arc::new(Mutex::new(answer)), asked: Arc::default() };
        let served = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(served.clone().serve(connection));
            }
        });
        endpoint
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn serve(self, mut connection: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?.to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.ok()?;
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(Asked { head, form: form_urlencoded::parse(&body).into_owned().collect() });
            asked.len()
        };
        let answer = self.answer.lock().unwrap().clone();
        let (status, body, more) = match answer {
            Answer::Token(seconds) => {
                let token = format!("token-{number}");
                (
                    200,
                    json!({"access_token": token, "token_type": "Bearer", "expires_in": seconds}).to_string(),
                    String::new(),
                )
            }
            Answer::Json(json) => (200, json.to_string(), String::new()),
            Answer::Text(status, text) => (status, text, String::new()),
            Answer::Redirect(to) => (302, String::new(), format!("location: {to}\r\n")),
            Answer::Hang => std::future::pending().await,
            Answer::Close => return None,
        };
        let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n", body.len());
        connection.write_all(head.as_bytes()).await.ok()?;
        connection.write_all(body.as_bytes()).await.ok()?;
        connection.shutdown().await.ok()
    }
}

impl SampleKey {
    pub(crate) fn p256() -> Self {
        Self::ecdsa("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED)
    }

    pub(crate) fn p384() -> Self {
        Self::ecdsa("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED)
    }

    pub(crate) fn ed25519() -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        Self::of("EdDSA", der.as_ref(), &pair, &ED25519)
    }

    pub(crate) fn rsa() -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2_048).unwrap();
        let der = rsa::pkcs8::EncodePrivateKey::to_pkcs8_der(&key).unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).unwrap();
        Self::of("RS256", der.as_bytes(), &pair, &RSA_PKCS1_2048_8192_SHA256)
    }

    fn ecdsa(
        algorithm: &'static str,
        signing: &'static EcdsaSigningAlgorithm,
        verification: &'static dyn VerificationAlgorithm,
    ) -> Self {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(signing, der.as_ref(), &random).unwrap();
        Self::of(algorithm, der.as_ref(), &pair, verification)
    }

    fn of(
        algorithm: &'static str,
        der: &[u8],
        pair: &impl KeyPair,
        verification: &'static dyn VerificationAlgorithm,
    ) -> Self {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        Self { algorithm, pem, public: pair.public_key().as_ref().to_vec(), verification }
    }

    /// Returns the content of an assertion; `None` if this key did not sign it.
    pub(crate) fn verified(&self, assertion: &str) -> Option<Assertion> {
        let (signed, signature) = assertion.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(self.verification, &self.public).verify(signed.as_bytes(), &signature).ok()?;
        let (header, claims) = signed.split_once('.')?;
        let part = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Assertion { header: part(header)?, claims: part(claims)? })
    }
}
