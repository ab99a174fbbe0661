//! An issuer of tokens for the demo. Its key lives as long as the process. It serves its metadata and its key set on
//! loopback, where the server reads them like any other issuer's.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::cli::Failure;

const METADATA: &str = "/.well-known/oauth-authorization-server";
const KEYS: &str = "/keys";
const KEY_ID: &str = "demo";
/// The lifetime of a token, in seconds, which is longer than the demo takes.
const LIFETIME_SECONDS: u64 = 300;

/// Signs tokens with one key.
pub(super) struct Issuer {
    listener: TcpListener,
    url: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    /// Creates an issuer with a new key and an address of its own. It does not answer yet.
    pub(super) async fn new() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(key_failure)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        Ok(Self { listener, url, key: key.map_err(key_failure)?, random })
    }

    /// Returns the value of `iss` in its tokens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Makes an access token (RFC 9068) with these claims, in addition to those that every token has.
    pub(super) fn token(&self, token_id: &str, claims: &Value) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut all =
            json!({"iss": self.url, "jti": token_id, "iat": now, "exp": now + LIFETIME_SECONDS, "auth_time": now});
        if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
            all.extend(claims.clone());
        }
        let header = json!({"typ": "at+jwt", "alg": "ES256", "kid": KEY_ID});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&all));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(key_failure)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Serves the metadata (RFC 8414) and the keys (RFC 7517).
    pub(super) fn serve(self) -> impl Future<Output = Result<(), tonic::transport::Error>> {
        let metadata = json!({"issuer": self.url, "jwks_uri": format!("{}{KEYS}", self.url)});
        // An uncompressed point is one byte that marks it as uncompressed, followed by both coordinates (SEC 1, section
        // 2.3.3).
        let point = self.key.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(32).unwrap_or_default();
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y});
        let keys = json!({"keys": [key]});
        let page = |json: Value| {
            let text = json.to_string();
            get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], text.clone())))
        };
        let pages = Router::new().route(METADATA, page(metadata)).route(KEYS, page(keys));
        Server::builder()
            .accept_http1(true)
            .add_routes(Routes::from(pages))
            .serve_with_incoming(TcpListenerStream::new(self.listener))
    }
}

fn key_failure(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the demo's issuer has no key: {error}"))
}
