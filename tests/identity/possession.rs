//! Tokens that are bound to a key, whose clients prove with each request that they hold it (DPoP, RFC 9449): at every door, and by
//! a client of its own for a token of a real provider.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ragward::identity::config::ProofNonces;
use ragward::server_config::{McpConfig, McpSearchBy};
use ragward::settings::SecretFile;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::identity::rpcs::records;
use crate::identity::world::{ANNES, RETRIEVE, about_leave, identity, start_with};
use crate::support::http::{Call, Reply};
use crate::support::issuer::{AUDIENCE, SigningKey, TestIssuer, now};
use crate::support::running::Running;

/// The server as its clients know it.
const PUBLIC: &str = "https://ragward.example";
const RPC: &str = "/ragward.retrieval.v1.RetrievalService/Retrieve";
const REST: &str = "/v1/collections/handbook/retrieve";
const MCP: &str = "https://ragward.example/mcp";

/// A server that takes bound tokens, its issuer, and a client with a key.
struct World {
    issuer_key: SigningKey,
    issuer: TestIssuer,
    client: SigningKey,
    running: Running,
    data: tempfile::TempDir,
    /// The number of proofs so far.
    proofs: AtomicUsize,
}

/// The settings that differ between servers of these tests.
#[derive(Clone, Debug)]
struct Settings {
    public_url: Option<&'static str>,
    nonces: ProofNonces,
    nonce_key_file: Option<SecretFile>,
}

const WITHOUT_NONCES: Settings =
    Settings { public_url: Some(PUBLIC), nonces: ProofNonces::Unused, nonce_key_file: None };
const WITH_NONCES: Settings =
    Settings { public_url: Some(PUBLIC), nonces: ProofNonces::Required, nonce_key_file: None };

impl World {
    async fn start(settings: Settings) -> Self {
        let issuer_key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&issuer_key]).await;
        let data = tempfile::tempdir().unwrap();
        let running = start_with(data.path(), identity(&issuer), |config| {
            config.server.public_url = settings.public_url.map(str::to_owned);
            config.server.mcp = Some(McpConfig {
                url: MCP.to_owned(),
                collection: Some("handbook".to_owned()),
                url_key: None,
                url_hosts: Vec::new(),
                search_by: McpSearchBy::Words,
                explain: false,
            });
            config.identity.dpop.nonces = settings.nonces;
            config.identity.dpop.nonce_key_file = settings.nonce_key_file;
        });
        let running = running.await;
        Self { issuer_key, issuer, client: SigningKey::es256("mine"), running, data, proofs: AtomicUsize::new(0) }
    }

    fn token_for(&self, audience: &str, confirmation: Option<Value>) -> String {
        let mut claims = self.issuer.claims("anne", RETRIEVE);
        claims["aud"] = json!(audience);
        if let Some(confirmation) = confirmation {
            claims["cnf"] = confirmation;
        }
        self.issuer_key.sign(&claims)
    }

    /// Returns a token that is bound to the client's key.
    fn bound(&self) -> String {
        self.token_for(AUDIENCE, Some(json!({"jkt": thumbprint(&self.client)})))
    }

    fn bearer(&self) -> String {
        self.token_for(AUDIENCE, None)
    }

    /// Returns the claims of a good proof, which no other proof has.
    fn claims(&self, method: &str, url: &str, token: &str) -> Value {
        let id = format!("proof-{}", self.proofs.fetch_add(1, Ordering::Relaxed));
        json!({"jti": id, "htm": method, "htu": url, "ath": hash(token), "iat": now()})
    }

    fn proof(&self, method: &str, url: &str, token: &str) -> String {
        signed(&self.client, &self.claims(method, url, token))
    }

    async fn send(&self, call: &Call) -> Reply {
        call.send(&self.running.address.to_string()).await
    }

    /// Asks by gRPC with these headers. Returns the ids of the chunks, or the refusal.
    async fn over_grpc(&self, headers: &[(&'static str, &str)]) -> Result<Vec<String>, tonic::Status> {
        let mut request = Request::new(about_leave(""));
        for (name, value) in headers {
            request.metadata_mut().append(*name, MetadataValue::try_from(*value).unwrap());
        }
        let answer = self.running.client.retrieval().retrieve(request).await?;
        let mut ids: Vec<String> = answer.into_inner().chunks.into_iter().map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Ends the server, and returns why calls were refused, with their numbers.
    async fn refusals(self) -> BTreeMap<String, usize> {
        self.running.stop().await.unwrap();
        let mut counted = BTreeMap::new();
        for record in records(self.data.path()) {
            if let Some(refusal) = record.refusal {
                *counted.entry(refusal).or_default() += 1;
            }
        }
        counted
    }
}

pub(crate) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn public_jwk(key: &SigningKey) -> Value {
    let jwk = key.jwk();
    json!({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]})
}

pub(crate) fn thumbprint(key: &SigningKey) -> String {
    let jwk = public_jwk(key);
    let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
    hash(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#))
}

pub(crate) fn signed(key: &SigningKey, claims: &Value) -> String {
    let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(key)});
    key.sign_text(&header.to_string(), &claims.to_string())
}

fn asked() -> Value {
    json!({ "collection": "handbook", "text": "leave", "topK": 10 })
}

fn searched() -> Call {
    let params = json!({ "name": "search", "arguments": { "query": "leave" } });
    Call::json("/mcp", &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
}

fn url(path: &str) -> String {
    format!("{PUBLIC}{path}")
}

/// Returns all challenges of an answer.
fn challenges(reply: &Reply) -> Vec<&str> {
    let found = reply.headers.iter().filter(|(name, _)| name == "www-authenticate");
    found.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn every_door_takes_a_bound_token_with_a_proof_for_it() {
    let world = World::start(WITHOUT_NONCES).await;
    let token = world.bound();
    let authorization = format!("DPoP {token}");
    let proof = world.proof("POST", &url(RPC), &token);
    let seen = world.over_grpc(&[("authorization", &authorization), ("dpop", &proof)]).await;
    assert_eq!(seen.unwrap(), ANNES, "gRPC");

    let of_mcp = world.token_for(MCP, Some(json!({"jkt": thumbprint(&world.client)})));
    let rows = [
        ("REST", Call::json(REST, &asked()), &token, "POST", url(REST), 200),
        ("Connect", Call::json(RPC, &asked()), &token, "POST", url(RPC), 200),
        ("OpenFGA's API", Call::new("GET", "/stores?page_size=5"), &token, "GET", url("/stores"), 403),
        ("MCP", searched(), &of_mcp, "POST", MCP.to_owned(), 200),
        ("a path that nobody knows", Call::new("GET", "/nothing/here"), &token, "GET", url("/nothing/here"), 404),
        ("a method that a path lacks", Call::new("PATCH", REST), &token, "PATCH", url(REST), 405),
    ];
    for (row, call, token, method, url, status) in rows {
        let with = |scheme: &str, proof: String| {
            call.clone().with("authorization", format!("{scheme} {token}")).with("dpop", proof)
        };
        let reply = world.send(&with("DPoP", world.proof(method, &url, token))).await;
        assert_eq!(reply.status, status, "{row}: {reply:?}");
        let reply = world.send(&with("dpop", world.proof(method, &format!("{url}?a=b"), token))).await;
        assert_eq!(reply.status, status, "{row}, in small letters and with a query: {reply:?}");
        let reply = world.send(&with("Bearer", world.proof(method, &url, token))).await;
        assert_eq!(reply.status, 401, "{row}, as a plain bearer with a good proof: {reply:?}");
        let reply = world.send(&call.clone().bearer(token)).await;
        assert_eq!(reply.status, 401, "{row}, as a plain bearer: {reply:?}");
        let reply = world.send(&with("DPoP", world.proof("DELETE", &url, token))).await;
        assert_eq!(reply.status, 401, "{row}, with a proof for another method: {reply:?}");
        let reply = world.send(&with("DPoP", world.proof(method, &format!("{url}/a"), token))).await;
        assert_eq!(reply.status, 401, "{row}, with a proof for another path: {reply:?}");
    }
}

/// A name of a wrong thing, the headers that come with it, and the word of the record.
type WrongRow<'w> = (&'w str, Vec<(&'static str, String)>, &'w str);

/// Rows in which one thing of the request around the proof is wrong. What may be wrong inside of a proof has rows beside its code.
fn wrong(world: &World, token: &str) -> Vec<WrongRow<'static>> {
    let good = || world.proof("POST", &url(REST), token);
    let claims = |name: &str, value: Value| {
        let mut claims = world.claims("POST", &url(REST), token);
        claims[name] = value;
        ("dpop", signed(&world.client, &claims))
    };
    let bound = ("authorization", format!("DPoP {token}"));
    let of = |token: &str| ("authorization", format!("DPoP {token}"));
    let (bearer, other) = (world.bearer(), SigningKey::es256("mine"));
    let of_other = world.token_for(AUDIENCE, Some(json!({"jkt": thumbprint(&other)})));
    let for_bearer = world.proof("POST", &url(REST), &bearer);
    let by_other = signed(&other, &world.claims("POST", &url(REST), token));
    let of_mcp = world.token_for(MCP, Some(json!({"jkt": thumbprint(&world.client)})));
    let for_mcp = world.proof("POST", &url(REST), &of_mcp);
    let certificate = json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0"});
    let by_certificate = world.token_for(AUDIENCE, Some(certificate));
    let expired = {
        let mut claims = world.issuer.claims("anne", RETRIEVE);
        claims["cnf"] = json!({"jkt": thumbprint(&world.client)});
        claims["exp"] = json!(now() - 60);
        world.issuer_key.sign(&claims)
    };
    let proven = |token: &str| ("dpop", world.proof("POST", &url(REST), token));
    vec![
        ("no proof", vec![bound.clone()], "proof_absent"),
        ("an empty proof", vec![bound.clone(), ("dpop", String::new())], "proof_form"),
        ("two proofs", vec![bound.clone(), ("dpop", good()), ("dpop", good())], "proof_absent"),
        ("a proof in another header", vec![bound.clone(), ("x-dpop", good())], "proof_absent"),
        ("two proofs in one header", vec![bound.clone(), ("dpop", format!("{}, {}", good(), good()))], "proof_form"),
        ("the token as its proof", vec![bound.clone(), ("dpop", token.to_owned())], "proof_type"),
        ("another key", vec![bound.clone(), ("dpop", by_other)], "proof_other_key"),
        ("the token of another key", vec![of(&of_other), proven(&of_other)], "proof_other_key"),
        ("a proof for another token", vec![bound.clone(), ("dpop", for_bearer.clone())], "proof_token"),
        ("another method", vec![bound.clone(), claims("htm", json!("GET"))], "proof_method"),
        ("another door", vec![bound.clone(), claims("htu", json!(url(RPC)))], "proof_url"),
        (
            "the address of the server itself",
            vec![bound.clone(), claims("htu", json!(format!("http://{}{REST}", world.running.address)))],
            "proof_url",
        ),
        (
            "a host that the header names",
            vec![
                bound.clone(),
                claims("htu", json!(format!("https://localhost{REST}"))),
                ("x-forwarded-host", "localhost".to_owned()),
                ("x-forwarded-proto", "https".to_owned()),
                ("forwarded", "host=localhost;proto=https".to_owned()),
            ],
            "proof_url",
        ),
        ("no TLS", vec![bound.clone(), claims("htu", json!(url(REST).replace("https", "http")))], "proof_url"),
        ("a minute and a half old", vec![bound.clone(), claims("iat", json!(now() - 100))], "proof_time"),
        ("an hour ahead", vec![bound.clone(), claims("iat", json!(now() + 3_600))], "proof_time"),
        ("a token that is not bound, with a proof", vec![of(&bearer), ("dpop", for_bearer)], "confirmation"),
        ("a token that is not bound, without a proof", vec![of(&bearer)], "confirmation"),
        ("a token that is bound to a certificate", vec![of(&by_certificate), proven(&by_certificate)], "confirmation"),
        ("a token for MCP", vec![of(&of_mcp), ("dpop", for_mcp)], "audience"),
        ("a token that has expired", vec![of(&expired), proven(&expired)], "time"),
        ("a token that is none", vec![of("nonsense"), proven("nonsense")], "form"),
        (
            "both schemes",
            vec![bound.clone(), ("authorization", format!("Bearer {token}")), ("dpop", good())],
            "invalid",
        ),
        ("a scheme that nobody knows", vec![("authorization", format!("PoP {token}")), ("dpop", good())], "invalid"),
        (
            "the scheme of a bearer",
            vec![("authorization", format!("Bearer {token}")), ("dpop", good())],
            "confirmation",
        ),
    ]
}

#[tokio::test]
async fn one_wrong_thing_refuses_a_bound_token() {
    let world = World::start(WITHOUT_NONCES).await;
    let token = world.bound();
    let rows = wrong(&world, &token);
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for (row, headers, refusal) in rows {
        let mut call = Call::json(REST, &asked());
        for (name, value) in headers {
            call = call.with(name, value);
        }
        let reply = world.send(&call).await;
        assert_eq!(reply.status, 401, "{row}: {reply:?}");
        // The token alone is told apart from its proof, and no reason is told.
        let error = if refusal.starts_with("proof_") { "invalid_dpop_proof" } else { "invalid_token" };
        let found = challenges(&reply);
        assert!(found.len() == 1 && found[0].contains(&format!("error=\"{error}\"")), "{row}: {found:?}");
        let is_of_dpop = refusal.starts_with("proof_") || refusal == "confirmation";
        assert_eq!(found[0].starts_with("DPoP ") && found[0].contains("algs=\"ES256 "), is_of_dpop, "{row}: {found:?}");
        assert!(reply.header("dpop-nonce").is_none(), "{row}");
        *expected.entry(refusal.to_owned()).or_default() += 1;
    }
    let proof = world.proof("POST", &url(REST), &token);
    let call = Call::json(REST, &asked()).with("authorization", format!("DPoP {token}")).with("dpop", proof);
    assert_eq!(world.send(&call).await.status, 200, "nothing wrong");
    assert_eq!(world.send(&call).await.status, 401, "the same proof again");
    *expected.entry("proof_used".to_owned()).or_default() += 1;
    // A proof that was used at one door is used at all of them.
    let proof = world.proof("POST", &url(RPC), &token);
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", proof)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(world.over_grpc(&headers).await.unwrap(), ANNES);
    let again = headers.into_iter().fold(Call::json(RPC, &asked()), |call, (name, value)| call.with(name, value));
    assert_eq!(world.send(&again).await.status, 401, "at another door");
    let refused = world.over_grpc(&headers).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "at the same door");
    let challenge = refused.metadata().get("www-authenticate").unwrap().to_str().unwrap();
    assert!(challenge.starts_with("DPoP error=\"invalid_dpop_proof\", algs="), "{challenge}");
    *expected.entry("proof_used".to_owned()).or_default() += 2;
    assert_eq!(world.refusals().await, expected, "the record says why");
}

#[tokio::test]
async fn without_a_token_both_schemes_are_named() {
    let world = World::start(WITHOUT_NONCES).await;
    let reply = world.send(&Call::json(REST, &asked())).await;
    let found = challenges(&reply);
    assert!(found.len() == 2 && found[0].starts_with("Bearer ") && found[1].starts_with("DPoP algs="), "{found:?}");
    let path = "/.well-known/oauth-protected-resource/api";
    let document = world.send(&Call::new("GET", path)).await.json();
    assert_eq!(document["dpop_signing_alg_values_supported"], json!(["ES256", "ES384", "EdDSA", "PS256", "RS256"]));
    assert_eq!(document["dpop_bound_access_tokens_required"], false);
    // A scope that lacks is asked for with the scheme of the token.
    let token = world.bound();
    let call = Call::new("GET", "/stores").with("authorization", format!("DPoP {token}"));
    let reply = world.send(&call.with("dpop", world.proof("GET", &url("/stores"), &token))).await;
    let found = challenges(&reply);
    assert_eq!(reply.status, 403);
    assert!(found.len() == 1 && found[0].starts_with("DPoP error=\"insufficient_scope\""), "{found:?}");
}

#[tokio::test]
async fn without_a_public_url_only_the_door_for_mcp_takes_bound_tokens() {
    let world = World::start(Settings { public_url: None, ..WITHOUT_NONCES }).await;
    let token = world.bound();
    let bound = Call::json(REST, &asked()).with("authorization", format!("DPoP {token}"));
    let urls = [url(REST), format!("http://{}{REST}", world.running.address), REST.to_owned()];
    for url in urls {
        let reply = world.send(&bound.clone().with("dpop", world.proof("POST", &url, &token))).await;
        let found = challenges(&reply);
        assert_eq!(reply.status, 401, "{url}");
        assert!(found.len() == 1 && found[0].starts_with("Bearer error=\"invalid_token\""), "{url}: {found:?}");
    }
    let found = world.send(&Call::json(REST, &asked())).await;
    assert_eq!(challenges(&found).len(), 1, "{found:?}");
    let path = "/.well-known/oauth-protected-resource/api";
    let document = world.send(&Call::new("GET", path)).await.json();
    assert_eq!(document["dpop_signing_alg_values_supported"], Value::Null, "{document}");

    let of_mcp = world.token_for(MCP, Some(json!({"jkt": thumbprint(&world.client)})));
    let call = searched().with("authorization", format!("DPoP {of_mcp}"));
    let reply = world.send(&call.with("dpop", world.proof("POST", MCP, &of_mcp))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn a_client_gets_a_nonce_and_repeats_it() {
    let world = World::start(WITH_NONCES).await;
    let token = world.bound();
    let with_nonce = |nonce: Option<&str>| {
        let mut claims = world.claims("POST", &url(REST), &token);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let call = Call::json(REST, &asked()).with("authorization", format!("DPoP {token}"));
        call.with("dpop", signed(&world.client, &claims))
    };
    let mut nonce = String::new();
    for (row, first) in [("none", None), ("an invented one", Some("invented")), ("an empty one", Some(""))] {
        let reply = world.send(&with_nonce(first)).await;
        let found = challenges(&reply);
        assert_eq!(reply.status, 401, "{row}");
        assert!(found.len() == 1 && found[0].starts_with("DPoP error=\"use_dpop_nonce\""), "{row}: {found:?}");
        reply.header("dpop-nonce").expect(row).clone_into(&mut nonce);
    }
    assert_eq!(world.send(&with_nonce(Some(&nonce))).await.status, 200);
    assert_eq!(world.send(&with_nonce(Some(&nonce))).await.status, 200, "one nonce is good for many proofs");
    // A proof with another fault gets no nonce.
    let reply = world.send(&Call::json(REST, &asked()).with("authorization", format!("DPoP {token}"))).await;
    assert!(reply.status == 401 && reply.header("dpop-nonce").is_none(), "{reply:?}");

    // In gRPC it is metadata.
    let authorization = format!("DPoP {token}");
    let headers = |proof: String| [("authorization", authorization.clone()), ("dpop", proof)];
    let first = headers(world.proof("POST", &url(RPC), &token));
    let refused = world.over_grpc(&first.each_ref().map(|(name, value)| (*name, value.as_str()))).await.unwrap_err();
    let given = refused.metadata().get("dpop-nonce").unwrap().to_str().unwrap();
    let mut claims = world.claims("POST", &url(RPC), &token);
    claims["nonce"] = json!(given);
    let second = headers(signed(&world.client, &claims));
    let seen = world.over_grpc(&second.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    assert_eq!(seen.unwrap(), ANNES);
    assert_eq!(world.refusals().await, BTreeMap::from([("proof_nonce".to_owned(), 4), ("proof_absent".to_owned(), 1)]));
}

#[tokio::test]
async fn replicas_with_one_secret_take_each_others_nonces() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, secret: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, secret).unwrap();
        Some(SecretFile::new(path))
    };
    let (shared, other) = (file("shared", &"a".repeat(32)), file("other", &"b".repeat(32)));
    let rows = [
        ("the same secret", shared.clone(), shared.clone(), true),
        ("another secret", shared.clone(), other, false),
        ("a random secret", shared, None, false),
    ];
    for (row, of_first, of_second, is_taken) in rows {
        let first = World::start(Settings { nonce_key_file: of_first, ..WITH_NONCES }).await;
        let second = World::start(Settings { nonce_key_file: of_second, ..WITH_NONCES }).await;
        let (of_first, of_second) = (first.bound(), second.bound());
        let call = |token: &str, proof: String| {
            Call::json(REST, &asked()).with("authorization", format!("DPoP {token}")).with("dpop", proof)
        };
        let reply = first.send(&call(&of_first, first.proof("POST", &url(REST), &of_first))).await;
        let nonce = reply.header("dpop-nonce").expect("a nonce");
        let mut claims = second.claims("POST", &url(REST), &of_second);
        claims["nonce"] = json!(nonce);
        let reply = second.send(&call(&of_second, signed(&second.client, &claims))).await;
        assert_eq!(reply.status == 200, is_taken, "{row}: {reply:?}");
    }
}
