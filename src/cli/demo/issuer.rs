//! An issuer of tokens for the demo. Its key lives as long as the process. It serves its metadata and its key set on
//! loopback, where the server reads them like any other issuer's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use url::form_urlencoded;

use crate::cli::Failure;

const METADATA: &str = "/.well-known/oauth-authorization-server";
const KEYS: &str = "/keys";
const ASK: &str = "/ask";
const TOKEN: &str = "/token";
const KEY_ID: &str = "demo";
/// The id of every question. One question can have it at a time: the next begins when the one before has ended.
const QUESTION_ID: &str = "question";
/// The lifetime of a token, in seconds, which is longer than the demo takes.
const LIFETIME_SECONDS: u64 = 300;

/// Signs tokens with one key, and has an address.
pub(super) struct Issuer {
    listener: TcpListener,
    signer: Signer,
}

struct Signer {
    url: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// The device of the one person of the demo, on which the issuer asks them (CIBA).
#[derive(Default)]
pub(super) struct Device(Mutex<Question>);

/// The last question, and whether the person said yes; `None` if they have not answered.
#[derive(Default)]
struct Question {
    form: HashMap<String, String>,
    is_approved: Option<bool>,
}

impl Device {
    /// Returns what the person sees: the code, and the details of what they would approve.
    pub(super) fn question(&self) -> Value {
        let question = self.lock();
        let field = |name: &str| question.form.get(name).cloned().unwrap_or_default();
        let details = serde_json::from_str(&field("authorization_details")).unwrap_or(Value::Null);
        json!({ "code": field("binding_message"), "authorization_details": details })
    }

    /// Answers the question.
    pub(super) fn answer(&self, is_approved: bool) {
        self.lock().is_approved = Some(is_approved);
    }

    fn lock(&self) -> MutexGuard<'_, Question> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a question from the form of a client.
    fn ask(&self, form: &str) -> Reply {
        let form = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        *self.lock() = Question { form, is_approved: None };
        let asked = json!({ "auth_req_id": QUESTION_ID, "expires_in": LIFETIME_SECONDS, "interval": 1 });
        reply(StatusCode::OK, &asked)
    }

    /// Gives a token to the client once the person has said yes. It is given once.
    fn token(&self, signer: &Signer) -> Reply {
        let mut question = self.lock();
        let refused = |code: &str| reply(StatusCode::BAD_REQUEST, &json!({ "error": code }));
        match question.is_approved {
            None if question.form.is_empty() => return refused("invalid_grant"),
            None => return refused("authorization_pending"),
            Some(false) => return refused("access_denied"),
            Some(true) => {}
        }
        let form = std::mem::take(&mut *question).form;
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let claims = json!({
            "sub": field("login_hint"),
            "aud": field("resource"),
            "client_id": field("client_id"),
            "scope": field("scope"),
            "authorization_details": serde_json::from_str(&field("authorization_details")).unwrap_or(Value::Null),
        });
        match signer.token("of the approval", &claims) {
            Ok(token) => reply(StatusCode::OK, &json!({ "access_token": token, "token_type": "Bearer" })),
            Err(_failure) => refused("server_error"),
        }
    }
}

type Reply = (StatusCode, [(HeaderName, &'static str); 1], String);

fn reply(status: StatusCode, json: &Value) -> Reply {
    (status, [(CONTENT_TYPE, "application/json")], json.to_string())
}

impl Issuer {
    /// Creates an issuer with a new key and an address of its own. It does not answer yet.
    pub(super) async fn new() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(key_failure)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        Ok(Self { listener, signer: Signer { url, key: key.map_err(key_failure)?, random } })
    }

    /// Returns the value of `iss` in its tokens.
    pub(super) fn url(&self) -> &str {
        &self.signer.url
    }

    /// Makes an access token (RFC 9068) with these claims, in addition to those that every token has.
    pub(super) fn token(&self, token_id: &str, claims: &Value) -> Result<String, Failure> {
        self.signer.token(token_id, claims)
    }

    /// Serves the metadata (RFC 8414) and the keys (RFC 7517).
    pub(super) fn serve(self) -> impl Future<Output = Result<(), tonic::transport::Error>> {
        let pages = self.signer.documents(&json!({}));
        serve(self.listener, pages)
    }

    /// Like [`Issuer::serve`], and asks the person on a device when a client asks for that.
    pub(super) fn serve_asking(self, device: Arc<Device>) -> impl Future<Output = Result<(), tonic::transport::Error>> {
        let Self { listener, signer } = self;
        let endpoints = json!({
            "backchannel_authentication_endpoint": format!("{}{ASK}", signer.url),
            "token_endpoint": format!("{}{TOKEN}", signer.url),
        });
        let pages = signer.documents(&endpoints);
        let (asked, signer) = (Arc::clone(&device), Arc::new(signer));
        let ask = move |form: String| std::future::ready(asked.ask(&form));
        let token = move |_form: String| std::future::ready(device.token(&signer));
        serve(listener, pages.route(ASK, post(ask)).route(TOKEN, post(token)))
    }
}

impl Signer {
    fn token(&self, token_id: &str, claims: &Value) -> Result<String, Failure> {
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

    /// Returns the pages with the keys, and with the metadata and these additional members of it.
    fn documents(&self, more: &Value) -> Router {
        let mut metadata = json!({"issuer": self.url, "jwks_uri": format!("{}{KEYS}", self.url)});
        if let (Some(metadata), Some(more)) = (metadata.as_object_mut(), more.as_object()) {
            metadata.extend(more.clone());
        }
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
        Router::new().route(METADATA, page(metadata)).route(KEYS, page(keys))
    }
}

fn serve(listener: TcpListener, pages: Router) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    Server::builder()
        .accept_http1(true)
        .add_routes(Routes::from(pages))
        .serve_with_incoming(TcpListenerStream::new(listener))
}

fn key_failure(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the demo's issuer has no key: {error}"))
}
