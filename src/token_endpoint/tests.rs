use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;

use super::sample::{Answer, Endpoint, SampleKey};
use super::*;
use crate::settings::SecretFile;

const CANARY: &str = "canary-93";

/// A token endpoint, and a folder with the secret of its client.
struct World {
    served: Endpoint,
    directory: TempDir,
}

impl World {
    async fn start(answer: Answer) -> Self {
        let world = Self { served: Endpoint::start(answer).await, directory: tempfile::tempdir().unwrap() };
        world.write("secret", &format!("{CANARY}\n"));
        world
    }

    fn write(&self, name: &str, text: &str) -> SecretFile {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        SecretFile::new(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn endpoint(&self, change: impl FnOnce(&mut OAuthClientConfig)) -> TokenEndpoint {
        let mut client = OAuthClientConfig::with_secret("ragward", SecretFile::new(self.path("secret")));
        change(&mut client);
        TokenEndpoint::new(settings(&self.served.url, &client)).unwrap()
    }
}

fn settings<'s>(token_url: &'s str, client: &'s OAuthClientConfig) -> TokenEndpointSettings<'s> {
    TokenEndpointSettings { table: "the.setting", token_url, client, ca_file: None }
}

#[tokio::test]
async fn an_answer_is_a_token_or_a_fault() {
    let token = |more: Value| {
        let mut answer = json!({"access_token": "token-1", "token_type": "Bearer", "expires_in": 60});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Answer::Json(answer)
    };
    let elsewhere = Endpoint::start(Answer::Token(60)).await;
    let rows = [
        ("a token", token(json!({})), true),
        ("a type in small letters", token(json!({"token_type": "bearer"})), true),
        ("no lifetime", token(json!({"expires_in": null})), true),
        ("a lifetime as a text", token(json!({"expires_in": "60"})), true),
        ("a lifetime of a year", token(json!({"expires_in": 31_536_000})), true),
        ("a lifetime past all time", token(json!({"expires_in": u64::MAX})), true),
        ("more members", token(json!({"scope": "a", "refresh_token": "r"})), true),
        ("no lifetime at all", token(json!({"expires_in": 0})), true),
        ("a negative lifetime", token(json!({"expires_in": -1})), false),
        ("a lifetime of words", token(json!({"expires_in": "soon"})), false),
        ("a token that is bound to a key", token(json!({"token_type": "DPoP"})), false),
        ("a token of no use", token(json!({"token_type": "N_A"})), false),
        ("no type", token(json!({"token_type": null})), false),
        ("a type that is a list", token(json!({"token_type": ["Bearer"]})), false),
        ("no token", token(json!({"access_token": null})), false),
        ("an empty token", token(json!({"access_token": ""})), false),
        ("a token with a line break", token(json!({"access_token": "a\r\nx: y"})), false),
        ("a token with a space", token(json!({"access_token": "a b"})), false),
        ("a token that is too long", token(json!({"access_token": "a".repeat(TOKEN_BYTES_MAX + 1)})), false),
        ("a token that is a number", token(json!({"access_token": 7})), false),
        ("a list", Answer::Text(200, "[]".to_owned()), false),
        (
            "a doubled member",
            Answer::Text(200, r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#.to_owned()),
            false,
        ),
        ("a page of HTML", Answer::Text(200, "<html>Sign in</html>".to_owned()), false),
        ("nothing", Answer::Text(200, String::new()), false),
        ("an answer that is too large", token(json!({"x": "a".repeat(BYTES_MAX)})), false),
        ("ten megabytes", Answer::Text(200, " ".repeat(10 << 20)), false),
        ("a refusal", Answer::Text(400, r#"{"error":"invalid_scope"}"#.to_owned()), false),
        ("a wrong secret", Answer::Text(401, r#"{"error":"invalid_client"}"#.to_owned()), false),
        ("too many requests", Answer::Text(429, String::new()), false),
        ("a fault", Answer::Text(500, String::new()), false),
        (
            "a token with status 201",
            Answer::Text(201, r#"{"access_token":"a","token_type":"Bearer"}"#.to_owned()),
            false,
        ),
        ("a redirect", Answer::Redirect(elsewhere.url.clone()), false),
        ("a connection that ends", Answer::Close, false),
    ];
    for (row, answer, expected) in rows {
        let world = World::start(answer).await;
        let answered = world.endpoint(|_client| {}).ask(Form::default()).await;
        match answered {
            Ok(granted) => {
                let value = granted.authorization().unwrap();
                assert!(expected && value == "Bearer token-1" && value.is_sensitive(), "{row}: {granted:?}");
                assert!(granted.lifetime <= LIFETIME_MAX, "{row}: {granted:?}");
            }
            Err(fault) => assert!(!expected && !fault.to_string().contains(CANARY), "{row}: {fault}"),
        }
        assert_eq!(world.served.asked().len(), 1, "{row}");
    }
    assert_eq!(elsewhere.asked().len(), 0, "no redirect is followed: the secret would go along");
}

#[tokio::test]
async fn the_secret_may_change_between_two_requests() {
    let world = World::start(Answer::Token(300)).await;
    let endpoint = world.endpoint(|_client| {});
    let rows = [
        ("the first", Some(CANARY), CANARY),
        ("a new secret", Some("second"), "second"),
        ("an empty file", Some(""), "second"),
        ("no file", None, "second"),
        ("another secret", Some("third"), "third"),
    ];
    for (row, content, expected) in rows {
        match content {
            Some(content) => drop(world.write("secret", content)),
            None => std::fs::remove_file(world.path("secret")).unwrap(),
        }
        endpoint.ask(Form::default()).await.unwrap();
        assert_eq!(world.served.asked().pop().unwrap().form["client_secret"], expected, "{row}");
    }
}

#[tokio::test]
async fn a_secret_stands_where_the_settings_say() {
    let world = World::start(Answer::Token(300)).await;
    let form = || Form::default().with("a", "1 2").with("b", None::<&str>);
    let fields = |fields: &[(&str, &str)]| -> HashMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let endpoint = world.endpoint(|_client| {});
    endpoint.ask(form()).await.unwrap();
    let asked = world.served.asked().pop().unwrap();
    assert_eq!(asked.form, fields(&[("a", "1 2"), ("client_id", "ragward"), ("client_secret", CANARY)]));
    assert!(asked.head.starts_with("post /token http/1.1") && !asked.head.contains("authorization"), "{}", asked.head);

    let endpoint = world.endpoint(|client| {
        client.client_id = "a client:1".to_owned();
        client.secret_in = SecretPlace::Header;
    });
    endpoint.ask(form()).await.unwrap();
    let asked = world.served.asked().pop().unwrap();
    assert_eq!(asked.form, fields(&[("a", "1 2")]));
    let expected = format!("authorization: basic {}", STANDARD.encode(format!("a+client%3A1:{CANARY}")).to_lowercase());
    assert!(asked.head.contains(&expected), "{}", asked.head);
    assert!(!format!("{endpoint:?}").contains(CANARY));
    let request = endpoint.client.request(&endpoint.http, &endpoint.url, form()).unwrap().build().unwrap();
    assert!(request.headers()["authorization"].is_sensitive(), "no log shows the header");
}

#[tokio::test]
async fn a_client_with_a_key_signs_each_request() {
    let world = World::start(Answer::Token(300)).await;
    let file = world.write("key.pem", &SampleKey::p256().pem);
    let endpoint = world.endpoint(|client| {
        client.client_secret_file = None;
        client.private_key_file = Some(file);
        client.key_id = Some("mine".to_owned());
    });
    let mut ids = Vec::new();
    // The key changes while it is used, too.
    for key in [SampleKey::p256(), SampleKey::p384(), SampleKey::ed25519(), SampleKey::rsa()] {
        let algorithm = key.algorithm;
        world.write("key.pem", &key.pem);
        endpoint.ask(Form::default()).await.unwrap();
        let form = world.served.asked().pop().unwrap().form;
        assert_eq!(form["client_assertion_type"], assertion::TYPE, "{algorithm}");
        assert!(form["client_id"] == "ragward" && !form.contains_key("client_secret"), "{algorithm}");
        let sample::Assertion { header, claims } = key.verified(&form["client_assertion"]).expect(algorithm);
        assert_eq!(header, json!({"typ": "JWT", "alg": algorithm, "kid": "mine"}));
        let of_client = [&claims["iss"], &claims["sub"], &claims["aud"]];
        assert_eq!(of_client, [&json!("ragward"), &json!("ragward"), &json!(world.served.url)], "{algorithm}");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60, "{algorithm}");
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "no assertion equals another one");
}

#[tokio::test]
async fn settings_that_get_no_token_are_refused_at_the_start() {
    let world = World::start(Answer::Close).await;
    let by_secret = |file| OAuthClientConfig::with_secret("ragward", file);
    let by_key = |file| OAuthClientConfig {
        client_secret_file: None,
        private_key_file: Some(file),
        ..OAuthClientConfig::with_secret("ragward", SecretFile::new("/nowhere"))
    };
    let good = by_secret(SecretFile::new(world.path("secret")));
    let url = "https://login.example/token?tenant=a";
    assert!(TokenEndpoint::new(settings(url, &good)).is_ok());
    let neither = OAuthClientConfig { client_secret_file: None, ..good.clone() };
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let rows = [
        ("no TLS", "http://login.example/token", good.clone(), "the.setting.token_url"),
        ("no URL", "login.example", good.clone(), "the.setting.token_url"),
        ("a user in the URL", "https://a:b@login.example/token", good.clone(), "the.setting.token_url"),
        ("a fragment", "https://login.example/token#a", good.clone(), "the.setting.token_url"),
        ("another scheme", "ftp://login.example/token", good.clone(), "the.setting.token_url"),
        ("no credential", url, neither, "the.setting.client_secret_file"),
        ("an empty secret", url, by_secret(world.write("empty", "")), "it is empty"),
        ("no file", url, by_secret(SecretFile::new("/nowhere")), "/nowhere"),
        ("a secret as the key", url, by_key(world.write("text", CANARY)), "no private key in PEM form"),
        ("a key of another form", url, by_key(world.write("sec1", sec1)), "no private key in PEM form"),
        ("a damaged key", url, by_key(world.write("damaged", damaged)), "no key of RSA"),
    ];
    for (row, url, client, expected) in rows {
        let error = TokenEndpoint::new(settings(url, &client)).map(drop).expect_err(row);
        assert!(error.contains(expected) && !error.contains(CANARY), "{row}: {error}");
    }
    let ca_file = Some(Path::new("/nowhere/ca"));
    let error = TokenEndpoint::new(TokenEndpointSettings { ca_file, ..settings(url, &good) }).map(drop);
    assert!(error.is_err_and(|error| error.contains("`the.setting.ca_file`") && error.contains("/nowhere/ca")));
}
