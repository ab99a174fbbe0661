//! The credential of Ragward's own at a real `OpenFGA` server that asks for one: an access token by client credentials, and a
//! pre-shared key, both of which change while they are used.

use std::path::Path;
use std::time::Duration;

use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore};
use ragward::authz::{Authorizer, AuthzError};
use ragward::settings::{ClientCredentials, OAuthClientConfig, SecretFile};
use serde_json::{Value, json};

use crate::support::authorizer_suite;
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer, now};
use crate::support::openfga::OpenFga;

const AUDIENCE: &str = "https://openfga.example";
const TOKENS: &str = "/token";
/// Longer than a secret is used without a look at its file, and than the pause after a request for a token that failed.
const A_WHILE: Duration = Duration::from_secs(11);

/// An authorization server and a client of it.
struct World {
    key: SigningKey,
    issuer: TestIssuer,
    directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        // OpenFGA takes no other algorithm.
        let key = SigningKey::rs256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        issuer.serve_metadata("/.well-known/openid-configuration");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("secret"), "canary-93").expect("written");
        Self { key, issuer, directory }
    }

    fn credentials(&self) -> ClientCredentials {
        ClientCredentials {
            token_url: format!("{}{TOKENS}", self.issuer.url),
            client: OAuthClientConfig::with_secret("ragward", SecretFile::new(self.directory.path().join("secret"))),
            audience: Some(AUDIENCE.to_owned()),
            scopes: Vec::new(),
            ca_file: None,
        }
    }

    fn claims(&self, audience: &str) -> Value {
        let now = now();
        json!({"iss": self.issuer.url, "aud": audience, "sub": "ragward", "iat": now - 10, "exp": now + 600})
    }

    /// Makes the token endpoint give a token with these claims.
    fn give(&self, claims: &Value) {
        let answer = json!({"access_token": self.key.sign(claims), "token_type": "Bearer", "expires_in": 300});
        self.issuer.set(TOKENS, HttpAnswer::Json(answer));
    }
}

/// Lets this much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn authorizer(config: &OpenFgaConfig) -> OpenFgaAuthorizer {
    OpenFgaAuthorizer::new(config).expect("an authorizer")
}

#[tokio::test]
async fn a_server_is_asked_with_access_tokens() {
    let world = World::start().await;
    let issuer = format!("--authn-oidc-issuer={}", world.issuer.url);
    let audience = format!("--authn-oidc-audience={AUDIENCE}");
    let flags = ["--authn-method=oidc", issuer.as_str(), audience.as_str()];
    let Some(server) = OpenFga::start_with(&flags).await else { return };
    let config = OpenFgaConfig { client_credentials: Some(world.credentials()), ..server.config("tokens") };

    world.give(&world.claims(AUDIENCE));
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&authorizer_suite::tuples()).await.expect("tuples");
    authorizer_suite::run("a server that asks for tokens", &authorizer(&config)).await;

    let expired = {
        let mut claims = world.claims(AUDIENCE);
        claims["exp"] = json!(now() - 60);
        claims
    };
    let rows = [
        ("a token for another server", Some(world.claims("https://other.example")), false),
        ("a token that has ended", Some(expired), false),
        ("no token", None, true),
    ];
    for (row, claims, is_unavailable) in rows {
        match &claims {
            Some(claims) => world.give(claims),
            None => world.issuer.set(TOKENS, HttpAnswer::Status(500)),
        }
        let authorizer = authorizer(&config);
        let refused = authorizer.readiness().await.expect_err(row);
        assert_eq!(matches!(refused, AuthzError::Unavailable(_)), is_unavailable, "{row}: {refused:?}");
        assert_eq!(matches!(refused, AuthzError::Refused(_)), !is_unavailable, "{row}: {refused:?}");
        assert!(!refused.to_string().contains("canary-93"), "{row}: {refused:?}");
        // Without a new start, the authorizer asks for another token.
        world.give(&world.claims(AUDIENCE));
        pass(A_WHILE).await;
        let again = authorizer.readiness().await;
        let second = authorizer.readiness().await;
        assert!(again.is_ok() || second.is_ok(), "{row}: {again:?}, {second:?}");
    }
}

#[tokio::test]
async fn a_preshared_key_changes_while_it_is_used() {
    let flags = ["--authn-method=preshared", "--authn-preshared-keys=first-key,second-key"];
    let Some(server) = OpenFga::start_with(&flags).await else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("key");
    let write = |path: &Path, key: &str| std::fs::write(path, key).expect("written");
    write(&path, "first-key\n");
    let config = OpenFgaConfig { api_token_file: Some(SecretFile::new(&path)), ..server.config("keys") };
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(authorizer_suite::model()).await.expect("a model");
    let authorizer = authorizer(&config);
    let rows = [
        ("the first key", "first-key", true),
        ("the second key", "second-key", true),
        ("a key that the server does not know", "another-key", false),
        ("the first key again", "first-key\n", true),
        ("an empty file", "", true),
    ];
    for (row, key, expected) in rows {
        write(&path, key);
        pass(A_WHILE).await;
        let found = authorizer.readiness().await;
        assert_eq!(found.is_ok(), expected, "{row}: {found:?}");
    }
}
