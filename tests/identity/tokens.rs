//! Tokens with one thing wrong each: all are refused, and all in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::identity::rpcs::records;
use crate::identity::secrets::http_get;
use crate::identity::world::{RETRIEVE, about_leave, identity, retrieve, start, with_token};
use crate::support::held_port::HeldPort;
use crate::support::http::Call;
use crate::support::issuer::{SigningKey, TestIssuer, now};
use crate::support::running::config;
use crate::support::served::Served;

/// Returns everything that a refusal says.
fn shown(status: &Status) -> (Code, String, Vec<u8>, String) {
    let challenge = status.metadata().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    (status.code(), status.message().to_owned(), status.details().to_vec(), challenge.unwrap_or_default())
}

fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[name] = value;
    object
}

fn without(object: &Value, name: &str) -> Value {
    let mut members: Map<String, Value> = object.as_object().unwrap().clone();
    members.remove(name);
    Value::Object(members)
}

/// Returns tokens with one thing wrong each, and a name that says which.
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_tokens(issuer: &TestIssuer, key: &SigningKey, rsa: &SigningKey) -> Vec<(String, String)> {
    let good = issuer.claims("anne", RETRIEVE);
    let now = now();
    let mut claims: Vec<(String, Value)> = Vec::new();
    for name in ["iss", "aud", "sub", "client_id", "jti", "exp", "iat"] {
        claims.push((format!("{name} is missing"), without(&good, name)));
        let wrong =
            [json!(null), json!(true), json!(""), json!([]), json!({}), json!([1]), json!([[]]), json!(-1), json!(1.5)];
        for value in wrong {
            claims.push((format!("{name} is {value}"), with(&good, name, value)));
        }
    }
    for name in ["exp", "iat", "nbf"] {
        for value in [json!("1"), json!(1e300), json!("2099-01-01"), json!([now])] {
            claims.push((format!("{name} is {value}"), with(&good, name, value)));
        }
    }
    let url = &issuer.url;
    let rows: Vec<(&str, Value)> = vec![
        ("iss", json!(format!("{url}/"))),
        ("iss", json!(url.to_uppercase())),
        ("iss", json!(format!(" {url}"))),
        ("iss", json!("https://evil.example")),
        ("iss", json!([url])),
        ("aud", json!("https://ragward.example/api/")),
        ("aud", json!("https://ragward.example")),
        ("aud", json!("HTTPS://RAGWARD.EXAMPLE/api")),
        ("aud", json!(["https://other.example"])),
        ("aud", json!(["https://ragward.example/api", 1])),
        ("aud", json!({"https://ragward.example/api": true})),
        ("aud", json!(7)),
        ("aud", json!(vec!["https://ragward.example/api"; 65])),
        ("exp", json!(now - 31)),
        ("exp", json!(0)),
        ("iat", json!(now + 3_600)),
        ("nbf", json!(now + 3_600)),
        ("nbf", json!(-5)),
        ("nbf", json!(null)),
        ("sub", json!("a".repeat(508))),
        ("sub", json!("a".repeat(4_096))),
        ("sub", json!("*".repeat(200))),
        ("sub", json!("*")),
        ("sub", json!("user:anne")),
        ("sub", json!("anne:*")),
        ("sub", json!("eng#member")),
        ("sub", json!("anne ")),
        ("sub", json!("an\tne")),
        ("sub", json!("anne\u{0}")),
        ("sub", json!("an\u{a0}ne")),
        ("client_id", json!("a".repeat(1_025))),
        ("jti", json!("a".repeat(1_025))),
        ("jti", json!(12)),
        ("cnf", json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
        ("cnf", json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"})),
        ("cnf", json!({})),
        ("cnf", json!(null)),
        ("scope", json!([RETRIEVE])),
        ("scope", json!(null)),
        ("scope", json!({})),
        ("acr", json!(3)),
        ("auth_time", json!("now")),
        ("auth_time", json!(-1)),
        ("auth_time", json!(1.5)),
        ("auth_time", json!(1e300)),
        ("auth_time", json!(null)),
        // These claims would say what narrows the token.
        ("_claim_names", json!({"act": "src1"})),
        ("_claim_names", json!({"authorization_details": "src1"})),
        ("_claim_names", json!({"scope": "src1"})),
        ("_claim_names", json!("groups")),
        ("_claim_sources", json!({"src1": {"endpoint": "https://login.example"}})),
        // No delegation is configured.
        ("act", json!({"sub": "helper"})),
        ("act", json!({})),
        ("act", json!("helper")),
        ("act", json!(null)),
        ("act", json!([])),
        ("authorization_details", json!([])),
        ("authorization_details", json!({})),
        ("authorization_details", json!("[]")),
        ("authorization_details", json!(null)),
        ("authorization_details", json!([1])),
        ("authorization_details", json!([{}])),
        ("authorization_details", json!([{"type": 1}])),
        ("authorization_details", json!(vec![json!({"type": "ragward_retrieval"}); 33])),
    ];
    claims.extend(rows.into_iter().map(|(name, value)| {
        let short: String = value.to_string().chars().take(60).collect();
        (format!("{name} is {short} ({} bytes)", value.to_string().len()), with(&good, name, value))
    }));
    let details = [
        json!({"unknown": true}),
        json!({"action": ["retrieve"]}),
        json!({"actions": "retrieve"}),
        json!({"actions": [1]}),
        json!({"collections": "handbook"}),
        json!({"collections": {}}),
        json!({"collections": null}),
        json!({"identifiers": "document:welcome"}),
        json!({"identifier": "document:welcome"}),
        json!({"privileges": [null]}),
        json!({"locations": "here"}),
        json!({"datatypes": 1}),
        // No classifications are configured.
        json!({"classification_max": "internal"}),
        json!({"chunks_max": -1}),
        json!({"chunks_max": "3"}),
        json!({"chunks_max": 1.5}),
        json!({"query_sha256": "abc"}),
        json!({"query_sha256": "A".repeat(64)}),
        json!({"single_use": "yes"}),
        json!({"single_use": true}),
        json!({"purpose": 1}),
        json!({"Type": "ragward_retrieval"}),
    ];
    for detail in details {
        let object = with(&detail, "type", json!("ragward_retrieval"));
        claims.push((format!("details with {detail}"), with(&good, "authorization_details", json!([object]))));
        let both = json!([{"type": "ragward_retrieval"}, object]);
        claims.push((format!("details with {detail} beside good ones"), with(&good, "authorization_details", both)));
    }
    let mut tokens: Vec<(String, String)> =
        claims.into_iter().map(|(name, claims)| (name, key.sign(&claims))).collect();

    let header = key.header();
    let mut headers: Vec<(String, Value)> = Vec::new();
    for name in ["alg", "typ", "kid"] {
        headers.push((format!("header without {name}"), without(&header, name)));
    }
    let rows: Vec<(&str, Value)> = vec![
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("")),
        ("alg", json!(null)),
        ("alg", json!(["ES256"])),
        ("alg", json!("HS256")),
        ("alg", json!("es256")),
        ("alg", json!("ES256 ")),
        ("alg", json!("ES384")),
        ("alg", json!("ES512")),
        ("alg", json!("ES256K")),
        ("alg", json!("RS256")),
        ("alg", json!("PS256")),
        ("alg", json!("EdDSA")),
        ("alg", json!("RS1")),
        ("typ", json!("JWT")),
        ("typ", json!("jwt")),
        ("typ", json!("")),
        ("typ", json!(null)),
        ("typ", json!("id+jwt")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!("at+jwt ")),
        ("typ", json!("application/jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!(["at+jwt"])),
        ("kid", json!("")),
        ("kid", json!(null)),
        ("kid", json!(1)),
        ("kid", json!("nobody's")),
        ("kid", json!("RSA")),
        ("kid", json!("../../keys")),
        ("kid", json!("' OR 1=1")),
        ("kid", json!("k".repeat(257))),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("jku", json!("https://evil.example/keys")),
        ("jku", json!(format!("{url}/keys"))),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("jwk", key.jwk()),
        ("jwk", json!({})),
    ];
    headers.extend(
        rows.into_iter().map(|(name, value)| (format!("header {name} is {value}"), with(&header, name, value))),
    );
    let text = good.to_string();
    tokens.extend(headers.into_iter().map(|(name, header)| (name, key.sign_text(&header.to_string(), &text))));

    let head = header.to_string();
    let extra = |members: &str| format!("{},{members}}}", text.strip_suffix('}').unwrap());
    let end = good["exp"].to_string();
    let ends = |at: &str| text.replace(&format!("\"exp\":{end}"), &format!("\"exp\":{at}"));
    let actors = format!("\"act\":{}{}", "{\"sub\":\"a\",\"act\":".repeat(1_000), "{}".to_owned() + &"}".repeat(1_000));
    let nested = format!("\"deep\":{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let texts: Vec<(&str, String, String)> = vec![
        ("two subjects", head.clone(), extra("\"sub\":\"bob\"")),
        ("two equal subjects", head.clone(), extra("\"sub\":\"anne\"")),
        ("two subjects, one escaped", head.clone(), extra("\"\\u0073ub\":\"bob\"")),
        ("two audiences", head.clone(), extra("\"aud\":\"x\"")),
        ("two unknown claims", head.clone(), extra("\"x\":1,\"x\":2")),
        ("a doubled name below", head.clone(), extra("\"x\":{\"y\":1,\"y\":2}")),
        ("nested 1,000 deep", head.clone(), extra(&nested)),
        ("nested 17 deep", head.clone(), extra(&format!("\"deep\":{}{}", "[".repeat(17), "]".repeat(17)))),
        ("a number of 10^400", head.clone(), extra("\"x\":1e400")),
        ("two algorithms", format!("{},\"alg\":\"ES256\"}}", head.strip_suffix('}').unwrap()), text.clone()),
        ("claims that are a list", head.clone(), format!("[{text}]")),
        ("claims that are a text", head.clone(), "\"anne\"".to_owned()),
        ("no claims", head.clone(), String::new()),
        ("two claim sets", head.clone(), format!("{text}{text}")),
        ("a header that is a list", "[]".to_owned(), text.clone()),
        ("a header that is not JSON", "{alg: ES256}".to_owned(), text.clone()),
        ("more than 16 KiB", head.clone(), extra(&format!("\"x\":\"{}\"", "x".repeat(12_000)))),
        ("a mark of byte order", head.clone(), format!("\u{feff}{text}")),
        ("half a pair of surrogates", head.clone(), extra("\"x\":\"\\ud800\"")),
        ("a comment", head.clone(), format!("{text}//")),
        ("an end of 10^300 in digits", head.clone(), ends(&format!("1{}", "0".repeat(300)))),
        ("an end of 2^64", head.clone(), ends("18446744073709551616")),
        ("an end of 1e9", head.clone(), ends("1e9")),
        ("an end before 1970", head.clone(), ends("-1")),
        ("actors 1,000 deep", head.clone(), extra(&actors)),
        ("two kinds of actor", head.clone(), extra("\"act\":{\"sub\":\"a\"},\"act\":{\"sub\":\"b\"}")),
    ];
    tokens.extend(texts.into_iter().map(|(name, head, text)| (name.to_owned(), key.sign_text(&head, &text))));

    let token = key.sign(&good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (first, payload) = signed.split_once('.').unwrap();
    let flipped = |part: &str| {
        let mut bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        bytes[10] ^= 1;
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let public = URL_SAFE_NO_PAD.decode(rsa.jwk()["n"].as_str().unwrap()).unwrap();
    let mac_header = with(&rsa.header(), "alg", json!("HS256")).to_string();
    let mac_signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(mac_header), payload);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), mac_signed.as_bytes());
    let unsigned_header = URL_SAFE_NO_PAD.encode(with(&header, "alg", json!("none")).to_string());
    let other = SigningKey::es256(&key.id);
    let forms = [
        ("nothing", String::new()),
        ("one dot", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("one part", first.to_owned()),
        ("two parts", signed.to_owned()),
        ("no signature", format!("{signed}.")),
        ("four parts", format!("{token}.{signature}")),
        ("five parts", format!("{first}.{payload}.{signature}.{payload}.{signature}")),
        ("a padded signature", format!("{token}==")),
        ("a space behind", format!("{token} ")),
        ("a space before", format!(" {token}")),
        ("a comma and another", format!("{token},{token}")),
        ("standard base64", format!("{first}.{payload}.+/{signature}")),
        ("a short signature", format!("{signed}.{}", signature.get(..40).unwrap())),
        (
            "a signature in DER",
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(der(&URL_SAFE_NO_PAD.decode(signature).unwrap()))),
        ),
        ("a signature of zeros", format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        ("a long signature", format!("{signed}.{signature}AAAA")),
        ("a bit of the signature", format!("{signed}.{}", flipped(signature))),
        ("a bit of the claims", format!("{first}.{}.{signature}", flipped(payload))),
        ("a bit of the header", format!("{}.{payload}.{signature}", flipped(first))),
        ("another key of the same id", other.sign(&good)),
        ("the public key as a secret", format!("{mac_signed}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))),
        ("none and no signature", format!("{unsigned_header}.{payload}.")),
        ("none with a signature", format!("{unsigned_header}.{payload}.{signature}")),
        ("an RSA key's header on a curve's signature", key.sign_text(&rsa.header().to_string(), &text)),
        ("a curve's header on an RSA signature", rsa.sign_text(&head, &text)),
    ];
    tokens.extend(forms.map(|(name, token)| (name.to_owned(), token)));
    tokens
}

/// Encodes the two numbers of an elliptic signature in ASN.1, which is right in a certificate and wrong in a token (RFC
/// 7518, section 3.4).
fn der(signature: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = digits.first().is_some_and(|first| first & 0x80 != 0).then_some(0);
        let digits: Vec<u8> = sign.into_iter().chain(digits).collect();
        [vec![2, u8::try_from(digits.len()).unwrap()], digits].concat()
    };
    let (r, s) = signature.split_at(32);
    let numbers = [number(r), number(s)].concat();
    [vec![0x30, u8::try_from(numbers.len()).unwrap()], numbers].concat()
}

#[tokio::test]
async fn a_token_of_a_megabyte_ends_at_the_connection() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let good = issuer.claims("anne", RETRIEVE);
    for bytes in [100_000, 1_000_000] {
        let status = retrieve(&running, "", &key.sign(&with(&good, "x", json!("x".repeat(bytes))))).await.unwrap_err();
        assert_ne!(status.code(), Code::Ok, "{bytes} bytes: {status:?}");
        // The refused token does not affect other tokens.
        assert_eq!(retrieve(&running, "", &key.sign(&good)).await.unwrap().chunks.len(), 6, "{bytes} bytes");
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_refused_in_one_way() {
    let (key, rsa) = (SigningKey::es256("key"), SigningKey::rs256("RSA"));
    let issuer = TestIssuer::start(&[&key, &rsa]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;

    let good = issuer.claims("anne", RETRIEVE);
    for key in [&key, &rsa] {
        let answer = retrieve(&running, "", &key.sign(&good)).await.unwrap();
        assert_eq!(answer.chunks.len(), 6, "{}", key.algorithm());
    }
    let rows = wrong_tokens(&issuer, &key, &rsa);
    let names: BTreeSet<&String> = rows.iter().map(|(name, _)| name).collect();
    assert!(names.len() == rows.len() && rows.len() >= 150, "{} rows, {} of them different", rows.len(), names.len());
    let mut refusals = BTreeSet::new();
    for (name, token) in &rows {
        let status = retrieve(&running, "", token).await.expect_err(name);
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status:?}");
        refusals.insert(format!("{:?}", shown(&status)));
    }
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    let refusal = refusals.first().unwrap();
    let url = "https://ragward.example/.well-known/oauth-protected-resource/api";
    assert!(
        refusal.contains(&format!("Bearer error=\\\"invalid_token\\\", resource_metadata=\\\"{url}\\\"")),
        "{refusal}"
    );
    let challenge = format!("Bearer error=\"invalid_token\", resource_metadata=\"{url}\"");
    let asked = json!({ "collection": "handbook", "text": "leave", "topK": 10 });
    let doors = [
        ("REST", Call::json("/v1/collections/handbook/retrieve", &asked), 200),
        ("Connect", Call::json("/ragward.retrieval.v1.RetrievalService/Retrieve", &asked), 200),
        ("OpenFGA's API", Call::new("GET", "/stores"), 403),
    ];
    let address = running.address.to_string();
    for (door, call, of_a_good_token) in doors {
        assert_eq!(call.clone().bearer(&key.sign(&good)).send(&address).await.status, of_a_good_token, "{door}");
        let mut refusals = BTreeSet::new();
        // White space at the end of a line is no part of a header's value over HTTP/1.1 (RFC 9110, section 5.5).
        for (name, token) in rows.iter().filter(|(_, token)| !token.ends_with(' ')) {
            let reply = call.clone().bearer(token).send(&address).await;
            assert_eq!(reply.status, 401, "{door}: {name}: {reply:?}");
            assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()), "{door}: {name}");
            refusals.insert(reply.json().to_string());
        }
        assert_eq!(refusals.len(), 1, "{door}: {refusals:#?}");
    }
}

/// A refusal does not tell the caller which check failed. The operator finds it in a metric and in the record.
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_counted_and_recorded() {
    let (key, rsa) = (SigningKey::es256("key"), SigningKey::rs256("RSA"));
    let issuer = TestIssuer::start(&[&key, &rsa]).await;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // The exporter does not take port 0, which means any free port.
    let metrics_port = HeldPort::new();
    let mut settings = config(&data);
    settings.server.insecure_identity = false;
    settings.identity = identity(&issuer);
    settings.telemetry.metrics_listen = Some(metrics_port.address);
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(["--config", file.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    let served = Served::start(command);
    let rows = wrong_tokens(&issuer, &key, &rsa);
    for (name, token) in &rows {
        let request = with_token(about_leave(""), token);
        served.client.retrieval().retrieve(request).await.expect_err(name);
    }
    let metrics = http_get(metrics_port.address, "/metrics");
    let counted: BTreeMap<String, usize> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("ragward_tokens_refused_total{check=\"")?.split_once("\"} "))
        .map(|(check, count)| (check.to_owned(), count.parse().unwrap()))
        .collect();
    served.stop().await;
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    for record in records(&data) {
        let told = (record.code.as_str(), &record.principal, &record.released);
        assert_eq!(told, ("UNAUTHENTICATED", &None, &None), "{:?}", record.refusal);
        *recorded.entry(record.refusal.unwrap()).or_default() += 1;
    }
    assert_eq!(counted, recorded);
    assert_eq!(counted.values().sum::<usize>(), rows.len(), "{counted:?}");
    assert!(counted.len() > 8, "checks are told apart: {counted:?}");
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let key = SigningKey::ed25519("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let good = issuer.claims("anne", RETRIEVE);
    let plain = retrieve(&running, "", &key.sign(&good)).await.unwrap();
    let rows = [
        ("roles", json!(["admin"])),
        ("admin", json!(true)),
        ("user", json!("user:bob")),
        ("username", json!("bob")),
        ("email", json!("bob@example.com")),
        ("scp", json!("ragward:administer")),
        ("groups", json!(["hr"])),
        ("may_act", json!({"sub": "helper"})),
        ("azp", json!("bob")),
        ("permissions", json!(["*"])),
        ("entitlements", json!(["ragward:assert_user"])),
        ("*", json!("*")),
        ("authorization_details", json!([{"type": "payment", "anything": 1}])),
    ];
    for (name, value) in rows {
        let token = key.sign(&with(&good, name, value));
        assert_eq!(retrieve(&running, "", &token).await.unwrap(), plain, "{name}");
        assert_eq!(retrieve(&running, "user:bob", &token).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
    }
}
