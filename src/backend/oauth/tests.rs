use std::collections::HashMap;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::settings::SecretFile;

const SETTING: &str = "the.setting";
const CANARY: &str = "canary-93";

/// The answer to a request for a token.
#[derive(Clone, Debug)]
enum Answer {
    /// A token with a number that no other one has, which lives for so many seconds.
    Token(u64),
    Json(Value),
    Text(u16, String),
    Redirect(String),
    Hang,
    Close,
}

/// The name of an algorithm, a private key, its public half, and what verifies its signatures.
type KeyRow = (&'static str, String, Vec<u8>, &'static dyn VerificationAlgorithm);

/// A request for a token.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    form: HashMap<String, String>,
}

/// A token endpoint of a test. Its tasks end with the test's runtime.
#[derive(Clone)]
struct Endpoint {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    async fn start(answer: Answer) -> Self {
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

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> Vec<Asked> {
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

/// A client of an endpoint, with its secret in a file.
struct World {
    endpoint: Endpoint,
    source: TokenSource,
    directory: TempDir,
}

impl World {
    async fn start(answer: Answer) -> Self {
        Self::start_with(answer, |_settings| {}).await
    }

    async fn start_with(answer: Answer, change: impl FnOnce(&mut ClientCredentials)) -> Self {
        let endpoint = Endpoint::start(answer).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), format!("{CANARY}\n")).unwrap();
        let mut settings = settings(&endpoint.url, &directory);
        change(&mut settings);
        Self { source: TokenSource::new(SETTING, &settings).unwrap(), endpoint, directory }
    }

    async fn token(&self) -> Result<String, NoToken> {
        Ok(self.source.authorization().await?.to_str().unwrap().to_owned())
    }

    /// Waits until no request for a token runs.
    async fn settled(&self) {
        drop(self.source.0.fetching.lock().await);
    }
}

fn settings(url: &str, directory: &TempDir) -> ClientCredentials {
    ClientCredentials {
        token_url: url.to_owned(),
        client_id: "ragward".to_owned(),
        client_secret_file: Some(SecretFile::new(directory.path().join("secret"))),
        secret_in: SecretPlace::Body,
        private_key_file: None,
        key_id: None,
        audience: None,
        scopes: Vec::new(),
        ca_file: None,
    }
}

/// Lets this much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what a source of tokens returns")]
fn bearer(number: usize) -> Result<String, NoToken> {
    Ok(format!("Bearer token-{number}"))
}

#[tokio::test]
async fn an_answer_is_a_token_or_no_call_leaves() {
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
        ("the shortest lifetime", token(json!({"expires_in": 2})), true),
        ("a lifetime of a year", token(json!({"expires_in": 31_536_000})), true),
        ("a lifetime past all time", token(json!({"expires_in": u64::MAX})), true),
        ("more members", token(json!({"scope": "a", "refresh_token": "r"})), true),
        ("a lifetime of a second", token(json!({"expires_in": 1})), false),
        ("no lifetime at all", token(json!({"expires_in": 0})), false),
        ("a negative lifetime", token(json!({"expires_in": -1})), false),
        ("a lifetime of words", token(json!({"expires_in": "soon"})), false),
        ("another type", token(json!({"token_type": "DPoP"})), false),
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
        let found = world.token().await;
        assert_eq!(found, if expected { bearer(1) } else { Err(NoToken) }, "{row}");
        assert_eq!(world.endpoint.asked().len(), 1, "{row}");
    }
    assert_eq!(elsewhere.asked().len(), 0, "no redirect is followed: the secret would go along");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_keeps_no_call_for_long() {
    let world = World::start(Answer::Hang).await;
    let began = Instant::now();
    let found = join_all((0..100).map(|_| world.token())).await;
    assert!(found.iter().all(|found| *found == Err(NoToken)));
    assert!(began.elapsed() <= TIMEOUT + PAUSE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn many_calls_wait_for_one_request() {
    let world = World::start(Answer::Token(300)).await;
    for found in join_all((0..100).map(|_| world.token())).await {
        assert_eq!(found, bearer(1));
    }
    assert_eq!(world.endpoint.asked().len(), 1);
    // A call that is given up takes no request along.
    let world = World::start(Answer::Token(300)).await;
    assert!(futures::FutureExt::now_or_never(world.token()).is_none());
    world.settled().await;
    assert_eq!(world.token().await, bearer(1));
    assert_eq!(world.endpoint.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_asked_for_again_before_it_ends() {
    let world = World::start(Answer::Token(300)).await;
    assert_eq!(world.token().await, bearer(1));
    pass(Duration::from_secs(230)).await;
    assert_eq!(world.token().await, bearer(1), "long before its end");
    world.settled().await;
    assert_eq!(world.endpoint.asked().len(), 1);

    pass(Duration::from_secs(15)).await;
    assert_eq!(world.token().await, bearer(1), "the old token is still good, and nobody waits");
    world.settled().await;
    assert_eq!(world.token().await, bearer(2));

    // The endpoint is down for the whole last minute of the token.
    world.endpoint.set(Answer::Text(500, String::new()));
    pass(Duration::from_secs(250)).await;
    assert_eq!(world.token().await, bearer(2), "the old token stays while it is good");
    world.settled().await;
    assert_eq!(world.token().await, bearer(2));
    pass(Duration::from_mins(1)).await;
    assert_eq!(world.token().await, Err(NoToken), "after its end, no call leaves");
    let asked = world.endpoint.asked().len();
    assert_eq!(world.token().await, Err(NoToken));
    assert_eq!(world.endpoint.asked().len(), asked, "not again at once");

    world.endpoint.set(Answer::Token(2));
    pass(PAUSE).await;
    let number = asked + 1;
    assert_eq!(world.token().await, bearer(number), "the endpoint answers again");
    pass(Duration::from_millis(1_600)).await;
    assert_eq!(world.token().await, bearer(number + 1), "a short life is over soon");
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_replaced() {
    let world = World::start(Answer::Token(300)).await;
    let value = world.source.authorization().await.unwrap();
    world.source.refused(&value);
    assert_eq!(world.token().await, bearer(1), "another one would be refused as well");
    pass(PAUSE).await;
    world.source.refused(&HeaderValue::from_static("Bearer other"));
    assert_eq!(world.token().await, bearer(1), "the refusal of an older token says nothing of this one");
    world.source.refused(&value);
    assert_eq!(world.token().await, bearer(2));
}

#[tokio::test]
async fn the_secret_may_change_while_it_is_used() {
    let world = World::start(Answer::Token(300)).await;
    assert_eq!(world.token().await, bearer(1));
    let rows = [
        ("a new secret", Some("second"), "second"),
        ("an empty file", Some(""), "second"),
        ("no file", None, "second"),
        ("another secret", Some("third"), "third"),
    ];
    let path = world.directory.path().join("secret");
    for (number, (row, content, expected)) in (2..).zip(rows) {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        pass(Duration::from_mins(5)).await;
        assert_eq!(world.token().await, bearer(number), "{row}");
        assert_eq!(world.endpoint.asked().last().unwrap().form["client_secret"], expected, "{row}");
    }
    assert_eq!(world.endpoint.asked()[0].form["client_secret"], CANARY);
}

#[tokio::test]
async fn a_request_says_what_the_settings_say() {
    let world = World::start_with(Answer::Token(300), |settings| {
        settings.audience = Some("https://api.example/".to_owned());
        settings.scopes = vec!["read".to_owned(), "write".to_owned()];
    });
    let world = world.await;
    world.token().await.unwrap();
    let asked = world.endpoint.asked().remove(0);
    let expected = [
        ("grant_type", "client_credentials"),
        ("audience", "https://api.example/"),
        ("scope", "read write"),
        ("client_id", "ragward"),
        ("client_secret", CANARY),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked.form, HashMap::from(expected));
    assert!(asked.head.starts_with("post /token http/1.1") && !asked.head.contains("authorization"), "{}", asked.head);

    let world = World::start_with(Answer::Token(300), |settings| {
        settings.client_id = "a client:1".to_owned();
        settings.secret_in = SecretPlace::Header;
    });
    let world = world.await;
    world.token().await.unwrap();
    let asked = world.endpoint.asked().remove(0);
    assert_eq!(asked.form, HashMap::from([("grant_type".to_owned(), "client_credentials".to_owned())]));
    let expected = format!("authorization: basic {}", STANDARD.encode(format!("a+client%3A1:{CANARY}")).to_lowercase());
    assert!(asked.head.contains(&expected), "{}", asked.head);
    assert!(!format!("{:?}", world.source).contains(CANARY));
}

#[tokio::test]
async fn a_client_with_a_key_signs_each_request() {
    let pem =
        |der: &[u8]| format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    let random = SystemRandom::new();
    let ec = |algorithm| {
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
        (pem(der.as_ref()), pair.public_key().as_ref().to_vec())
    };
    let (p256, p256_public) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let (p384, p384_public) = ec(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let der = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed25519_public = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap().public_key().as_ref().to_vec();
    let rsa = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2_048).unwrap();
    let rsa = rsa::pkcs8::EncodePrivateKey::to_pkcs8_der(&rsa).unwrap();
    let rsa_public = ring::signature::RsaKeyPair::from_pkcs8(rsa.as_bytes()).unwrap().public_key().as_ref().to_vec();
    let rows: [KeyRow; 4] = [
        ("ES256", p256, p256_public, &ECDSA_P256_SHA256_FIXED),
        ("ES384", p384, p384_public, &ECDSA_P384_SHA384_FIXED),
        ("EdDSA", pem(der.as_ref()), ed25519_public, &ED25519),
        ("RS256", pem(rsa.as_bytes()), rsa_public, &RSA_PKCS1_2048_8192_SHA256),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    std::fs::write(&path, &rows[0].1).unwrap();
    let world = World::start_with(Answer::Token(300), |settings| {
        settings.client_secret_file = None;
        settings.private_key_file = Some(SecretFile::new(&path));
        settings.key_id = Some("mine".to_owned());
    });
    let world = world.await;
    let mut ids = Vec::new();
    // The key changes while it is used, too.
    for (number, (algorithm, pem, public, verification)) in (1..).zip(rows) {
        std::fs::write(&path, pem).unwrap();
        pass(Duration::from_mins(5)).await;
        assert_eq!(world.token().await, bearer(number), "{algorithm}");
        let form = world.endpoint.asked().pop().unwrap().form;
        assert_eq!(form["client_assertion_type"], assertion::TYPE, "{algorithm}");
        assert!(form["client_id"] == "ragward" && !form.contains_key("client_secret"), "{algorithm}");
        let (signed, signature) = form["client_assertion"].rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = UnparsedPublicKey::new(verification, public);
        assert!(key.verify(signed.as_bytes(), &signature).is_ok(), "{algorithm}");
        let part = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(part(header), json!({"typ": "JWT", "alg": algorithm, "kid": "mine"}));
        let claims = part(claims);
        let (issuer, subject) = (&claims["iss"], &claims["sub"]);
        assert_eq!(
            (issuer, subject, &claims["aud"]),
            (&json!("ragward"), &json!("ragward"), &json!(world.endpoint.url))
        );
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60, "{algorithm}");
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "no assertion equals another one");
}

#[tokio::test]
async fn settings_that_get_no_token_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(SecretFile::new(path))
    };
    write("secret", CANARY);
    let good = settings("https://login.example/token?tenant=a", &directory);
    assert!(TokenSource::new(SETTING, &good).is_ok());
    let at = |url: &str| settings(url, &directory);
    let by_key = |file| ClientCredentials { client_secret_file: None, private_key_file: file, ..good.clone() };
    let rows = [
        ("no TLS", at("http://login.example/token"), "the.setting.token_url"),
        ("no URL", at("login.example"), "the.setting.token_url"),
        ("a user in the URL", at("https://a:b@login.example/token"), "the.setting.token_url"),
        ("a fragment", at("https://login.example/token#a"), "the.setting.token_url"),
        ("another scheme", at("ftp://login.example/token"), "the.setting.token_url"),
        ("no credential", by_key(None), "the.setting.client_secret_file"),
        (
            "an empty secret",
            ClientCredentials { client_secret_file: write("empty", ""), ..good.clone() },
            "it is empty",
        ),
        (
            "no file",
            ClientCredentials { client_secret_file: Some(SecretFile::new("/nowhere")), ..good.clone() },
            "/nowhere",
        ),
        ("a secret as the key", by_key(write("text", CANARY)), "no private key in PEM form"),
        (
            "a key of another form",
            by_key(write("sec1", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n")),
            "no private key in PEM form",
        ),
        (
            "a damaged key",
            by_key(write("damaged", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
            "no key of RSA",
        ),
        ("no authorities", ClientCredentials { ca_file: Some("/nowhere/ca".into()), ..good.clone() }, "/nowhere/ca"),
    ];
    for (row, settings, expected) in rows {
        let error = TokenSource::new(SETTING, &settings).map(drop).expect_err(row).to_string();
        assert!(error.contains(expected) && !error.contains(CANARY), "{row}: {error}");
    }
}
