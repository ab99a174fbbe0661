//! This bench measures what it costs to verify an access token, when the issuer's key is known and when the token was
//! seen before.
//!
//! *New*: the token was not seen before. The clock that the bench hands in moves past the time for which a token is
//! remembered. The baseline is the bare signature of the same token, checked by the same library. *Remembered*: the
//! same token again, at the same time. *Delegated*: a new token with two actors and details, whose claims take longer
//! to read.

mod support {
    #[expect(
        dead_code,
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "shared with the tests, which use all of it"
    )]
    pub(crate) mod issuer;
}

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use ragward::identity::config::{DelegationConfig, IdentityConfig, IssuerConfig, PeopleConfig};
use ragward::identity::{DelegationOn, TokenVerifier};
use ragward::language::Relation;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::support::issuer::{AUDIENCE, SigningKey, TestIssuer, now};

/// The seconds between verifications. They exceed the time for which a verified token is remembered.
const STEP_SECONDS: u64 = 301;
/// The number of steps by which the time can move in a run. The tokens are valid for longer.
const STEPS_MAX: u64 = 1 << 32;

fn main() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(5)).configure_from_args();
    let keys = [SigningKey::rs256("rsa"), SigningKey::es256("curve")];
    let issuer = runtime.block_on(TestIssuer::start(&[&keys[0], &keys[1]]));
    let verifier = verifier(&issuer)?;
    for key in &keys {
        measure(&runtime, &mut criterion, &verifier, &issuer, key)?;
    }
    criterion.final_summary();
    Ok(())
}

fn measure(
    runtime: &Runtime,
    criterion: &mut Criterion,
    verifier: &TokenVerifier,
    issuer: &TestIssuer,
    key: &SigningKey,
) -> Result<()> {
    let with = |claims: &Value, more: Value| -> Result<Value> {
        let mut all = claims.as_object().context("claims")?.clone();
        all.extend(more.as_object().context("more claims")?.clone());
        Ok(Value::Object(all))
    };
    let claims = issuer.claims("anne", "ragward:retrieve");
    let claims = with(&claims, json!({"exp": now() + STEP_SECONDS * STEPS_MAX}))?;
    let plain = key.sign(&claims);
    let details = json!({
        "type": "ragward_retrieval", "actions": ["retrieve"], "collections": ["handbook"], "chunks_max": 5,
        "purpose": "answer a question about parental leave",
    });
    let actors = json!({"sub": "assistant", "act": {"sub": "planner"}});
    let claims = with(&claims, json!({"act": actors, "authorization_details": [details]}))?;
    let delegated = key.sign(&claims);
    let verify = |token: &str, at: u64| runtime.block_on(verifier.verify(black_box(token), at));
    // The first verification reads the issuer's keys.
    verify(&plain, now()).context("a good token was refused")?;
    verify(&delegated, now()).context("a good token was refused")?;

    let time = Cell::new(now());
    let later = || {
        time.set(time.get() + STEP_SECONDS);
        time.get()
    };
    let mut group = criterion.benchmark_group(key.algorithm());
    let signature = bare_signature(key, &plain)?;
    group.bench_function("bare signature", |bencher| bencher.iter(|| assert!(signature())));
    group.bench_function("new", |bencher| bencher.iter(|| verify(&plain, later()).is_ok()));
    group.bench_function("new, delegated", |bencher| bencher.iter(|| verify(&delegated, later()).is_ok()));
    let now = time.get();
    verify(&plain, now).context("the token ended too soon")?;
    group.bench_function("remembered", |bencher| bencher.iter(|| verify(&plain, now).is_ok()));
    group.finish();
    Ok(())
}

/// Returns a function that checks the signature of a token and nothing else.
fn bare_signature(key: &SigningKey, token: &str) -> Result<Box<dyn Fn() -> bool>> {
    let (message, signature) = token.rsplit_once('.').context("a token")?;
    let (message, signature) = (message.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature)?);
    let jwk = key.jwk();
    let part = |name: &str| -> Result<Vec<u8>> {
        Ok(URL_SAFE_NO_PAD.decode(jwk.get(name).and_then(Value::as_str).context("a part of the key")?)?)
    };
    if key.algorithm() == "RS256" {
        let (n, e) = (part("n")?, part("e")?);
        return Ok(Box::new(move || {
            let key = RsaPublicKeyComponents { n: &n, e: &e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, black_box(&message), &signature).is_ok()
        }));
    }
    let point = [vec![4], part("x")?, part("y")?].concat();
    Ok(Box::new(move || {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(black_box(&message), &signature).is_ok()
    }))
}

fn verifier(issuer: &TestIssuer) -> Result<TokenVerifier> {
    let people = PeopleConfig { clients_alone: true, clients: vec!["assistant".to_owned()], ..PeopleConfig::default() };
    let issuer = IssuerConfig { people, ..IssuerConfig::new(&issuer.url) };
    let relation = Some(Relation::parse("can_act_for")?);
    Ok(TokenVerifier::new(&IdentityConfig {
        audience: Some(AUDIENCE.to_owned()),
        issuers: vec![issuer],
        delegation: DelegationConfig { relation, on: DelegationOn::User },
        ..IdentityConfig::default()
    })?)
}
