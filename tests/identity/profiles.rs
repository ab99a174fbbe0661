//! Provider profiles: tokens in the form in which each provider issues them, and the same tokens with one thing wrong.

use std::collections::BTreeSet;

use ragward::identity::DelegationOn;
use ragward::identity::config::{ClaimTuple, DelegationConfig, IdentityConfig, IssuerConfig, ShortName};
use ragward::language::{Relation, TypeName};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::identity::provider_shapes::{DESK, JOB, MACHINE, PERSON, Shape, TENANT, changed, shapes};
use crate::identity::world::{ANNES, retrieve, seen, start};
use crate::support::issuer::{AUDIENCE, SigningKey, TestIssuer, now};
use crate::support::running::Running;

/// The chunks that everybody may see, and no machine.
const WELCOME: [&str; 2] = ["document:welcome#0", "document:welcome#1"];

/// The fewest wrong tokens of one provider, and of all of them. With fewer, rows got lost.
const ROWS_MIN: usize = 95;
const ROWS_OF_ALL_MIN: usize = 750;

/// A server that accepts the tokens of one issuer.
struct Served {
    running: Running,
    _data: tempfile::TempDir,
}

async fn serve(issuers: Vec<IssuerConfig>, change: impl FnOnce(&mut IdentityConfig)) -> Served {
    let data = tempfile::tempdir().unwrap();
    let mut identity = IdentityConfig { audience: Some(AUDIENCE.to_owned()), issuers, ..IdentityConfig::default() };
    change(&mut identity);
    Served { running: start(data.path(), identity).await, _data: data }
}

impl Served {
    async fn seen(&self, token: &str) -> Result<Vec<String>, Status> {
        seen(&self.running, "", token).await
    }

    /// Returns what a token sees, or the code of its refusal.
    async fn outcome(&self, token: &str) -> Result<Vec<String>, Code> {
        self.seen(token).await.map_err(|status| status.code())
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns two keys and an issuer that has both. A token must name its key.
async fn keys() -> (SigningKey, TestIssuer) {
    let (key, other) = (SigningKey::rs256("key"), SigningKey::es256("other"));
    let issuer = TestIssuer::start(&[&key, &other]).await;
    (key, issuer)
}

#[tokio::test]
async fn people_and_machines_are_known_in_the_form_of_their_provider() {
    let (key, issuer) = keys().await;
    for shape in shapes(&issuer) {
        let name = shape.name;
        let served = serve(vec![shape.issuer.clone()], |_| {}).await;
        let person = shape.sign(&key, &shape.person);
        assert_eq!(served.outcome(&person).await, Ok(owned(&WELCOME)), "{name}");
        // The user may be named, and no other one.
        let named = seen(&served.running, &shape.user, &person).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(named, WELCOME, "{name}");
        for other in ["user:anne", "user:anne@example.com", "user:*", DESK] {
            let refused = seen(&served.running, other, &person).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{name} as {other}: {refused:?}");
        }
        let machine = shape.sign(&key, &shape.machine);
        assert_eq!(served.outcome(&machine).await, Err(Code::PermissionDenied), "{name}: a machine");
        // With a type of its own, a machine may ask, and `user:*` is not for it.
        let client = |identity: &mut IdentityConfig| identity.machine_type = Some(TypeName::parse("client").unwrap());
        let mapped = serve(vec![shape.issuer.clone()], client).await;
        assert_eq!(mapped.outcome(&machine).await, Ok(Vec::new()), "{name}: a machine with a type");
        assert_eq!(mapped.outcome(&person).await, Ok(owned(&WELCOME)), "{name}");
        // Without a scope of Ragward, the token opens nothing.
        let claim = shape.scope_claim();
        let scopeless = if shape.person[claim].is_array() { json!(["openid"]) } else { json!("openid") };
        let scopeless = shape.sign(&key, &changed(&shape.person, json!({claim: scopeless})));
        assert!(served.outcome(&scopeless).await.is_err(), "{name}");
    }
}

/// No claim more or less makes a machine's token a person's.
#[tokio::test]
async fn no_machine_of_any_provider_is_everybody() {
    let additions = [
        ("auth_time", json!(now())),
        ("sid", json!("s1")),
        ("sub", json!("anne")),
        ("uid", json!("00u1")),
        ("oid", json!(PERSON)),
        ("username", json!("anne")),
        ("preferred_username", json!("anne")),
        ("email", json!("anne@example.com")),
        ("name", json!("Anne")),
        ("scp", json!("ragward:retrieve")),
        ("scp", json!(["ragward:retrieve"])),
        ("amr", json!(["pwd"])),
        ("acr", json!("1")),
        ("idtyp", json!("user")),
        ("azp", json!(DESK)),
        ("client_id", json!(DESK)),
    ];
    let (key, issuer) = keys().await;
    for shape in shapes(&issuer) {
        let client = |identity: &mut IdentityConfig| identity.machine_type = Some(TypeName::parse("client").unwrap());
        let served = serve(vec![shape.issuer.clone()], client).await;
        let mut variants = vec![("as it is".to_owned(), shape.machine.clone())];
        for name in shape.machine.as_object().unwrap().keys() {
            variants.push((format!("without {name}"), changed(&shape.machine, json!({name: null}))));
        }
        // A claim that is there would be changed, not added.
        for (name, value) in additions.iter().filter(|(name, _)| shape.machine.get(name).is_none()) {
            variants.push((format!("with {name}"), changed(&shape.machine, json!({*name: value}))));
        }
        for (variant, claims) in variants {
            let found = served.outcome(&shape.sign(&key, &claims)).await;
            assert!(found.as_ref().is_ok_and(Vec::is_empty) || found.is_err(), "{} {variant}: {found:?}", shape.name);
        }
    }
}

/// Returns claims of a person's token with one thing wrong each.
fn wrong_claims(shape: &Shape) -> Vec<(String, Value)> {
    let (now, good) = (now(), &shape.person);
    let mut rows: Vec<(String, Value)> = Vec::new();
    for name in shape.required {
        rows.push((format!("{name} is missing"), changed(good, json!({*name: null}))));
        for value in [json!(null), json!(true), json!(""), json!([]), json!({}), json!(-1)] {
            let mut claims = good.clone();
            claims[*name] = value.clone();
            rows.push((format!("{name} is {value}"), claims));
        }
    }
    let iss = &shape.issuer.issuer;
    let more = [
        json!({"iss": format!("{iss}x")}),
        json!({"iss": "https://evil.example/"}),
        json!({"iss": iss.to_uppercase()}),
        json!({"aud": "https://other.example"}),
        json!({"aud": ["https://other.example", DESK]}),
        json!({"aud": ["account", "https://other.example"]}),
        json!({"aud": DESK}),
        json!({"exp": now - 31}),
        json!({"exp": "2099-01-01"}),
        json!({"exp": 1e300}),
        json!({"iat": now + 3_600}),
        json!({"nbf": now + 3_600}),
        json!({"nbf": -1}),
        json!({"nbf": "now"}),
        json!({"auth_time": "now"}),
        json!({"acr": 7}),
        json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
        json!({"cnf": {}}),
        json!({"act": {"sub": "helper"}}),
        json!({"act": "helper"}),
        json!({"authorization_details": {}}),
        json!({"authorization_details": []}),
        json!({shape.scope_claim(): 7}),
        json!({shape.scope_claim(): {"ragward:retrieve": true}}),
        json!({shape.scope_claim(): [7]}),
    ];
    rows.extend(more.into_iter().map(|change| (change.to_string(), changed(good, change))));
    // `changed` takes null for a claim that is left out.
    for name in ["cnf", "act", "authorization_details"] {
        let mut claims = good.clone();
        claims[name] = json!(null);
        rows.push((format!("{name} is null"), claims));
    }
    for name in ["at_hash", "c_hash"].into_iter().filter(|_| shape.name != "Duende") {
        rows.push((format!("{name} of an ID token"), changed(good, json!({name: "cpqKfdQA5eH891Ff5oJr_Q"}))));
    }
    rows.extend(wrong_for_provider(shape));
    rows
}

/// Returns what is wrong for one provider only.
fn wrong_for_provider(shape: &Shape) -> Vec<(String, Value)> {
    let good = &shape.person;
    let with_null = |name: &str| {
        let mut claims = good.clone();
        claims[name] = json!(null);
        claims
    };
    let row = |name: &str, change: Value| (name.to_owned(), changed(good, change));
    match shape.name {
        "Keycloak" => vec![
            row("another client of the realm", json!({"azp": "other"})),
            row("the client in capitals", json!({"azp": "DESK"})),
            row("two clients", json!({"client_id": JOB})),
            row("no scope of ours", json!({"scope": "openid profile email"})),
            row("no scope at all", json!({"scope": null})),
            row("a refresh token", json!({"typ": "Refresh"})),
            row(
                "a token of the kind for keys, as a plain bearer",
                json!({"typ": "DPoP", "cnf": {"jkt": "A".repeat(43)}}),
            ),
            row("the kind in small letters", json!({"typ": "bearer"})),
            // An exchanged token: the client acts, and no delegation is configured.
            row("a client that acts", json!({"azp": JOB})),
        ],
        "Cognito" => vec![
            row("another client of the pool", json!({"client_id": "other"})),
            row("no scope of ours", json!({"scope": "openid"})),
            row("the scope without its server", json!({"scope": "ragward:retrieve"})),
            row("another server", json!({"scope": "https://b.example/ragward:retrieve"})),
            row("the use of an ID token", json!({"token_use": "id"})),
        ],
        "Entra v1" | "Entra v2" => vec![
            row("another tenant", json!({"tid": MACHINE})),
            row("the tenant in capitals", json!({"tid": TENANT.to_uppercase()})),
            row("roles without scp", json!({"scp": null, "roles": ["ragward:retrieve"]})),
            row("a client that acts", json!({"azp": null, "appid": JOB})),
            row("two clients", json!({"azp": DESK, "appid": JOB})),
            row("a nonce", json!({"nonce": "678910"})),
        ],
        "Okta" => vec![
            row("the id of an ID token", json!({"jti": "ID.4eAWJOCMB3SX8XewDfVR"})),
            row("the id in small letters", json!({"jti": "at.0mP4JKAZX1iACIT4vbEDF7Lp"})),
            row("a client that acts", json!({"cid": JOB})),
            row("a nonce", json!({"nonce": "9c34"})),
        ],
        "Auth0" => vec![
            ("an id that is null".to_owned(), with_null("jti")),
            row("a nonce", json!({"nonce": "n-0S6"})),
            row("userinfo alone", json!({"aud": [format!("{}userinfo", shape.issuer.issuer)]})),
        ],
        "Duende" => {
            vec![("a subject that is null".to_owned(), with_null("sub")), row("an empty subject", json!({"sub": ""}))]
        }
        other => panic!("no rows for {other}"),
    }
}

/// Returns tokens of a person with one thing wrong each.
fn wrong_tokens(shape: &Shape, key: &SigningKey) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> =
        wrong_claims(shape).into_iter().map(|(name, claims)| (name, shape.sign(key, &claims))).collect();
    let (text, header) = (shape.person.to_string(), shape.header(key));
    let mut headers = vec![("no key id".to_owned(), changed(&header, json!({"kid": null})))];
    let types =
        [json!(null), json!(7), json!(""), json!("id+jwt"), json!("logout+jwt"), json!("dpop+jwt"), json!(["JWT"])];
    let changes = types.into_iter().map(|value| ("typ", value)).chain([
        ("kid", json!("nobody's")),
        ("kid", json!("other")),
        ("kid", json!("")),
        ("kid", json!(null)),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("jku", json!("https://evil.example/keys")),
        ("jwk", key.jwk()),
        ("crit", json!(["exp"])),
    ]);
    for (name, value) in changes {
        let mut header = header.clone();
        header[name] = value.clone();
        headers.push((format!("header {name} is {value}"), header));
    }
    if header.get("typ").is_some() {
        headers.push(("a header without typ".to_owned(), changed(&header, json!({"typ": null}))));
    }
    rows.extend(headers.into_iter().map(|(name, header)| (name, key.sign_text(&header.to_string(), &text))));
    let extra = |members: &str| format!("{},{members}}}", text.strip_suffix('}').unwrap());
    let texts = [
        ("two issuers", extra("\"iss\":\"https://evil.example\"")),
        ("a doubled name", extra("\"x\":1,\"x\":1")),
        ("a doubled name below", extra("\"x\":{\"y\":1,\"y\":2}")),
        ("a doubled name further below", extra("\"x\":[{\"y\":{\"z\":1,\"z\":2}}]")),
        ("a doubled name that is escaped", extra("\"x\":1,\"\\u0078\":2")),
    ];
    rows.extend(texts.map(|(name, text)| (name.to_owned(), key.sign_text(&header.to_string(), &text))));
    // An ID token stays one, whomever it is for and whatever a client adds to it.
    let audience = shape.person.get("aud").cloned().unwrap_or_else(|| json!(DESK));
    // Entra never puts the scopes of an API into an ID token, and roles it does.
    let granted = if shape.name.starts_with("Entra") {
        json!({"aud": audience})
    } else {
        json!({"aud": audience, shape.scope_claim(): "ragward:retrieve"})
    };
    let id_tokens = [
        ("an ID token", shape.id_token.clone()),
        ("an ID token for us", changed(&shape.id_token, json!({"aud": AUDIENCE}))),
        ("an ID token with our scope", changed(&shape.id_token, granted)),
    ];
    rows.extend(id_tokens.map(|(name, claims)| (name.to_owned(), shape.sign_id_token(key, &claims))));
    rows.push(("another issuer's key".to_owned(), shape.sign(&SigningKey::es256("key"), &shape.person)));
    rows
}

/// Returns everything that a refusal says.
fn shown(status: &Status) -> String {
    let challenge = status.metadata().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    format!("{:?} {} {:?} {challenge:?}", status.code(), status.message(), status.details())
}

#[tokio::test]
async fn whatever_is_wrong_with_a_providers_token_is_refused_in_one_way() {
    let (key, issuer) = keys().await;
    let (mut refusals, mut count) = (BTreeSet::new(), 0);
    for shape in shapes(&issuer) {
        let served = serve(vec![shape.issuer.clone()], |_| {}).await;
        let good = shape.sign(&key, &shape.person);
        assert_eq!(served.outcome(&good).await, Ok(owned(&WELCOME)), "{}", shape.name);
        let rows = wrong_tokens(&shape, &key);
        let names: BTreeSet<&String> = rows.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), rows.len(), "{}: each row has a name", shape.name);
        for (row, token) in &rows {
            let told = format!("{}: {row}", shape.name);
            let refused = retrieve(&served.running, "", token).await.expect_err(&told);
            assert_eq!(refused.code(), Code::Unauthenticated, "{told}: {refused:?}");
            refusals.insert(shown(&refused));
        }
        assert!(rows.len() >= ROWS_MIN, "{}: {} rows", shape.name, rows.len());
        count += rows.len();
    }
    assert!(count >= ROWS_OF_ALL_MIN, "{count} rows");
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
}

/// Returns a time that lies half a second after this one.
fn half_past(seconds: u64) -> Value {
    serde_json::from_str(&format!("{seconds}.5")).unwrap()
}

#[tokio::test]
async fn json_and_key_sets_are_read_as_the_rfcs_say() {
    let key = SigningKey::rs256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    for shape in shapes(&issuer) {
        let served = serve(vec![shape.issuer.clone()], |_| {}).await;
        let text = |claims: &Value| key.sign_text(&shape.header(&key).to_string(), &claims.to_string());
        let with = |name: &str, value: Value| {
            let mut claims = shape.person.clone();
            claims[name] = value;
            text(&claims)
        };
        let without_key = changed(&shape.header(&key), json!({"kid": null})).to_string();
        let rows = [
            ("no key id, and one key", key.sign_text(&without_key, &shape.person.to_string())),
            ("a fraction of an end", with("exp", half_past(now() + 60))),
            ("a fraction of a start", with("nbf", half_past(now() - 1))),
            ("no start", with("nbf", json!(null))),
            ("no class of login", with("acr", json!(null))),
        ];
        for (row, token) in rows {
            assert_eq!(served.outcome(&token).await, Ok(owned(&WELCOME)), "{}: {row}", shape.name);
        }
    }
}

/// Keycloak's standard exchange gives a client a token of a person in which nothing but the client tells who acts.
#[tokio::test]
async fn a_client_that_exchanged_a_token_is_the_actor() {
    let (key, issuer) = keys().await;
    let shape = shapes(&issuer).into_iter().find(|shape| shape.name == "Keycloak").unwrap();
    let settings = IssuerConfig { clients: owned(&[DESK, "helper", "stranger", "anne", JOB]), ..shape.issuer.clone() };
    let delegated = |identity: &mut IdentityConfig| {
        let relation = Some(Relation::parse("can_act_for").unwrap());
        identity.delegation = DelegationConfig { relation, on: DelegationOn::User };
    };
    let served = serve(vec![settings.clone()], delegated).await;
    let of = |client: &str, more: Value| {
        let anne = changed(&shape.person, json!({"sub": "anne", "azp": client}));
        shape.sign(&key, &changed(&anne, more))
    };
    let annes: Result<Vec<String>, Code> = Ok(owned(&ANNES));
    let rows = [
        ("her own front end", of(DESK, json!({})), annes.clone()),
        ("an agent that may act for her", of("helper", json!({})), annes.clone()),
        ("an agent that may not", of("stranger", json!({})), Ok(Vec::new())),
        ("a front end with an actor", of(DESK, json!({"act": {"sub": "stranger"}})), Ok(Vec::new())),
        ("an agent that names another", of("stranger", json!({"act": {"sub": "helper"}})), annes),
        ("a client that is not listed", of("other", json!({})), Err(Code::Unauthenticated)),
        ("a client that is called like her", of("anne", json!({})), Err(Code::PermissionDenied)),
    ];
    for (row, token, expected) in rows {
        assert_eq!(served.outcome(&token).await, expected, "{row}");
    }
    // A person who calls herself like a client's account is no machine of that client.
    let named = of("stranger", json!({"preferred_username": "service-account-stranger"}));
    assert_ne!(served.outcome(&named).await, Ok(owned(&ANNES)));
    // Without a relation for actors, nobody acts.
    let closed = serve(vec![settings], |_| {}).await;
    assert_eq!(closed.outcome(&of("helper", json!({}))).await, Err(Code::Unauthenticated));
    assert!(closed.outcome(&of(DESK, json!({}))).await.is_ok());
}

#[tokio::test]
async fn tenants_of_entra_keep_their_people_apart() {
    let (key, issuer) = keys().await;
    let all = shapes(&issuer);
    let of = |name: &str| all.iter().find(|shape| shape.name == name).unwrap();
    let (v1, v2) = (of("Entra v1"), of("Entra v2"));
    // A second tenant, whose people may have the ids of the first one's.
    let foreign = MACHINE;
    let in_foreign = |text: &str| text.replace(TENANT, foreign);
    let named = |shape: &Shape, name: &str| IssuerConfig { name: ShortName::parse(name), ..shape.issuer.clone() };
    let other = IssuerConfig {
        issuer: in_foreign(&v2.issuer.issuer),
        jwks_url: Some(format!("{}/keys", issuer.url)),
        ..named(v2, "globex")
    };
    let served = serve(vec![named(v1, "acme"), named(v2, "acme"), other.clone()], |_| {}).await;
    let theirs = changed(&v2.person, json!({"iss": other.issuer, "tid": foreign}));
    let guest = changed(
        &v2.person,
        json!({"acct": 1, "idp": format!("https://sts.windows.net/{foreign}/"), "oid": "11111111-2222-4333-8444-555555555555"}),
    );
    let rows = [
        ("version 1", v1.sign(&key, &v1.person), format!("user:acme/{PERSON}")),
        ("version 2", v2.sign(&key, &v2.person), format!("user:acme/{PERSON}")),
        ("the same id in another tenant", v2.sign(&key, &theirs), format!("user:globex/{PERSON}")),
        ("a guest", v2.sign(&key, &guest), "user:acme/11111111-2222-4333-8444-555555555555".to_owned()),
    ];
    let users: BTreeSet<&String> = rows.iter().map(|(_, _, user)| user).collect();
    for (row, token, user) in &rows {
        for asked in &users {
            let found = seen(&served.running, asked, token).await;
            assert_eq!(found.is_ok(), asked == &user, "{row} as {asked}: {found:?}");
        }
    }
    let mixed = [
        ("a tenant that is not the issuer's", changed(&v2.person, json!({"tid": foreign}))),
        ("an issuer that is not the tenant's", changed(&v2.person, json!({"iss": other.issuer}))),
        ("an unknown tenant", changed(&v2.person, json!({"iss": v2.issuer.issuer.replace('5', "6")}))),
    ];
    for (row, claims) in mixed {
        assert_eq!(served.outcome(&v2.sign(&key, &claims)).await, Err(Code::Unauthenticated), "{row}");
    }
}

/// `null` in a mapped claim does not mean that there is nothing, whatever the profile says of other claims.
#[tokio::test]
async fn null_in_a_mapped_claim_is_refused() {
    let (key, issuer) = keys().await;
    for shape in shapes(&issuer) {
        let mapped = |identity: &mut IdentityConfig| {
            identity.claim_tuples = vec![ClaimTuple {
                claim: "groups".to_owned(),
                relation: Relation::parse("member").unwrap(),
                object_type: TypeName::parse("group").unwrap(),
                absent: None,
            }];
        };
        let served = serve(vec![shape.issuer.clone()], mapped).await;
        let mut claims = changed(&shape.person, json!({"groups": ["staff"]}));
        assert_eq!(served.outcome(&shape.sign(&key, &claims)).await, Ok(owned(&WELCOME)), "{}", shape.name);
        claims["groups"] = json!(null);
        assert_eq!(served.outcome(&shape.sign(&key, &claims)).await, Err(Code::Unauthenticated), "{}", shape.name);
    }
}

/// A new login name changes nothing, because no name is made of it.
#[tokio::test]
async fn a_renamed_login_is_the_same_user() {
    let (key, issuer) = keys().await;
    for shape in shapes(&issuer) {
        let served = serve(vec![shape.issuer.clone()], |_| {}).await;
        let mut renamed = shape.person.clone();
        for name in ["preferred_username", "upn", "unique_name", "email", "username", "name"] {
            if renamed.get(name).is_some() {
                renamed[name] = json!("berta@example.com");
            }
        }
        if shape.name == "Okta" {
            renamed["sub"] = json!("berta@example.com");
        }
        let found = seen(&served.running, &shape.user, &shape.sign(&key, &renamed)).await;
        assert!(found.is_ok(), "{}: {found:?}", shape.name);
    }
}
