//! An issuer's keys over their life, and issuers that answer badly.

use std::time::Duration;

use ragward::identity::config::IdentityConfig;
use serde_json::json;
use tokio::time::{advance, pause, resume};
use tonic::Code;

use crate::identity::world::{RETRIEVE, identity, seen, start};
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";

/// Advances the time of the server, which runs in this test's runtime.
async fn later(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

#[tokio::test]
async fn a_rotated_key_is_read_once() {
    let (first, second) = (SigningKey::es256("first"), SigningKey::ed25519("second"));
    let issuer = TestIssuer::start(&[&first]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let token = |key: &SigningKey, id: usize| {
        let mut claims = issuer.claims("anne", RETRIEVE);
        claims["jti"] = json!(id);
        claims["jti"] = json!(format!("token {id}"));
        key.sign(&claims)
    };

    assert!(seen(&running, "", &token(&first, 0)).await.is_ok());
    assert_eq!(issuer.key_reads(), 1);
    issuer.serve_keys(&[&second]);
    later(11).await;
    let (some, more) = (token(&second, 1), token(&second, 2));
    let (a, b) = tokio::join!(seen(&running, "", &some), seen(&running, "", &more));
    assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    assert_eq!(issuer.key_reads(), 2, "one fetch serves all who wait for it");
    // The old key is gone, and unknown keys are not fetched again and again.
    for id in 3..50 {
        let status = seen(&running, "", &token(&first, id)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{id}");
    }
    assert_eq!(issuer.key_reads(), 2, "forged key ids do not reach the issuer");
}

#[tokio::test]
async fn old_keys_are_used_for_an_hour_and_no_longer() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let token = |id: &str| {
        let mut claims = issuer.claims("anne", RETRIEVE);
        claims["jti"] = json!(id);
        key.sign(&claims)
    };
    assert!(seen(&running, "", &token("1")).await.is_ok());
    issuer.set(KEYS, HttpAnswer::Status(500));
    later(59 * 60).await;
    assert!(seen(&running, "", &token("2")).await.is_ok());
    later(2 * 60).await;
    assert_eq!(seen(&running, "", &token("3")).await.unwrap_err().code(), Code::Unavailable);
    issuer.serve_keys(&[&key]);
    later(11).await;
    assert!(seen(&running, "", &token("4")).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_answers_badly_lets_nobody_in() {
    let key = SigningKey::es256("key");
    let elsewhere = TestIssuer::start(&[&key]).await;
    let elsewhere_keys = format!("{}{KEYS}", elsewhere.url);
    let twice = json!({"keys": [key.jwk(), key.jwk()]});
    let many: Vec<serde_json::Value> = (0..65).map(|_| key.jwk()).collect();
    let without_id = {
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().remove("kid");
        json!({"keys": [jwk]})
    };
    let for_encryption = {
        let mut jwk = key.jwk();
        jwk["use"] = json!("enc");
        json!({"keys": [jwk]})
    };
    let secret = json!({"keys": [{"kty": "oct", "kid": "key", "k": "AAAA"}]});
    let changed = |name: &str, value: &str| {
        let mut jwk = key.jwk();
        jwk[name] = json!(value);
        jwk
    };
    let (beside, for_another) = (changed("x", &"A".repeat(43)), changed("alg", "ES384"));
    // `self` stands for the issuer of the row.
    let metadata = |keys: &str| HttpAnswer::Json(json!({"issuer": "self", "jwks_uri": keys}));
    let rows: Vec<(&str, &str, HttpAnswer)> = vec![
        ("no metadata", OAUTH, HttpAnswer::Status(404)),
        ("metadata in HTML", OAUTH, HttpAnswer::Html),
        ("metadata elsewhere", OAUTH, HttpAnswer::Redirect(format!("{}{OAUTH}", elsewhere.url))),
        (
            "metadata of another issuer",
            OAUTH,
            HttpAnswer::Json(json!({"issuer": elsewhere.url, "jwks_uri": elsewhere_keys})),
        ),
        ("metadata without keys", OAUTH, HttpAnswer::Json(json!({"issuer": "self"}))),
        ("keys in HTML", KEYS, HttpAnswer::Html),
        ("keys elsewhere", KEYS, HttpAnswer::Redirect(elsewhere_keys.clone())),
        ("keys of 10 MB", KEYS, HttpAnswer::Bytes(10_000_000)),
        ("an error", KEYS, HttpAnswer::Status(503)),
        ("no keys", KEYS, HttpAnswer::Json(json!({"keys": []}))),
        ("keys that are no list", KEYS, HttpAnswer::Json(json!({"keys": {}}))),
        ("too many keys", KEYS, HttpAnswer::Json(json!({"keys": many}))),
        ("a key without an id", KEYS, HttpAnswer::Json(without_id)),
        ("a key for encryption", KEYS, HttpAnswer::Json(for_encryption)),
        ("a secret", KEYS, HttpAnswer::Json(secret)),
        ("a key set that is a list", KEYS, HttpAnswer::Json(json!([key.jwk()]))),
        ("two keys of one id", KEYS, HttpAnswer::Json(twice)),
        ("a key of 1,024 bits", KEYS, HttpAnswer::Json(json!({"keys": [small_rsa_key()]}))),
        ("a point beside the curve", KEYS, HttpAnswer::Json(json!({"keys": [beside]}))),
        ("a key for another algorithm", KEYS, HttpAnswer::Json(json!({"keys": [for_another]}))),
        ("keys 1,000 deep", KEYS, HttpAnswer::Text(format!("{{\"keys\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000)))),
        (
            "two lists of keys",
            KEYS,
            HttpAnswer::Text(format!("{{\"keys\":[{jwk}],\"keys\":[{jwk}]}}", jwk = key.jwk())),
        ),
        ("metadata that lead round in a circle", OAUTH, HttpAnswer::Redirect(OAUTH.to_owned())),
        ("keys over HTTP from elsewhere", OAUTH, metadata("http://keys.example/keys")),
        ("keys behind a password", OAUTH, metadata("https://a:b@keys.example/keys")),
        ("keys in a file", OAUTH, metadata("file:///etc/passwd")),
    ];
    for (what, path, answer) in rows {
        let issuer = TestIssuer::start(&[&key]).await;
        let answer = if let HttpAnswer::Json(json) = answer {
            HttpAnswer::Text(json.to_string().replace("\"self\"", &format!("\"{}\"", issuer.url)))
        } else {
            answer
        };
        issuer.set(path, answer);
        let data = tempfile::tempdir().unwrap();
        let running = start(data.path(), identity(&issuer)).await;
        let status = seen(&running, "", &key.sign(&issuer.claims("anne", RETRIEVE))).await.expect_err(what);
        assert!(matches!(status.code(), Code::Unavailable | Code::Unauthenticated), "{what}: {status:?}");
        assert!(!status.message().contains("127.0.0.1"), "{what}: {status:?}");
    }
    assert_eq!(elsewhere.key_reads(), 0, "nobody was led elsewhere");
}

/// Returns an RSA key of 1,024 bits, which nobody should trust any more.
fn small_rsa_key() -> serde_json::Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rsa::traits::PublicKeyParts;
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1_024).unwrap();
    let (n, e) = (URL_SAFE_NO_PAD.encode(key.n().to_bytes_be()), URL_SAFE_NO_PAD.encode(key.e().to_bytes_be()));
    json!({"kty": "RSA", "kid": "key", "use": "sig", "n": n, "e": e})
}

#[tokio::test]
async fn an_issuer_that_hangs_is_waited_for_once() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    issuer.set(OAUTH, HttpAnswer::Hang);
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let token = key.sign(&issuer.claims("anne", RETRIEVE));
    let asking = seen(&running, "", &token);
    tokio::pin!(asking);
    // The timeouts of both documents pass.
    let status = loop {
        tokio::select! {
            answer = &mut asking => break answer.unwrap_err(),
            () = later(6) => {}
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn openid_discovery_and_a_given_address_serve_too() {
    let key = SigningKey::ps256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    issuer.set(OAUTH, HttpAnswer::Status(404));
    let given = {
        let mut identity = identity(&issuer);
        identity.issuers[0].jwks_url = Some(format!("{}{KEYS}", issuer.url));
        identity
    };
    let token = key.sign(&issuer.claims("anne", RETRIEVE));
    let check = async |identity: IdentityConfig| {
        let data = tempfile::tempdir().unwrap();
        let running = start(data.path(), identity).await;
        seen(&running, "", &token).await.unwrap();
    };
    check(given).await;
    issuer.serve_metadata(OPENID);
    check(identity(&issuer)).await;
}
