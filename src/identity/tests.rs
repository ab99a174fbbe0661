//! Shows what no token can do, whatever is in it. These tests take the issuer's signature for granted.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

use super::claims;
use super::config::{
    CheckedConfig, DelegationConfig, DetailsConfig, IdentityConfig, IssuerConfig, PeopleConfig, ProviderProfile,
};
use super::details::{Action, RequestFacts};
use super::jws::Jws;
use super::key_set::{KeySet, PublicKey};
use super::{Algorithm, Caller, DelegationOn, LoginError, Refusal, StepUp, StepUpRules, VerifiedToken};
use crate::chunk;
use crate::language::{Object, Relation};

const NOW: u64 = 1_800_000_000;

fn details() -> DetailsConfig {
    DetailsConfig {
        classification_key: Some("class".to_owned()),
        classifications: ["low", "middle", "high"].map(str::to_owned).to_vec(),
        ..DetailsConfig::default()
    }
}

fn config() -> CheckedConfig {
    let relation = Some(Relation::parse("can_act_for").unwrap());
    let settings = IdentityConfig {
        audience: Some("ragward".to_owned()),
        delegation: DelegationConfig { relation, on: DelegationOn::User },
        details: details(),
        ..IdentityConfig::default()
    };
    CheckedConfig::new(&settings).unwrap()
}

fn good() -> Map<String, Value> {
    let claims = json!({
        "iss": "https://issuer.example", "aud": ["x", "ragward"], "sub": "anne", "client_id": "app", "jti": "1",
        "iat": NOW, "exp": NOW + 60, "auth_time": NOW, "scope": "ragward:retrieve",
    });
    claims.as_object().unwrap().clone()
}

fn check(claims: &Map<String, Value>, now: u64) -> Result<VerifiedToken, Refusal> {
    check_by(&config(), claims, now)
}

fn check_by(config: &CheckedConfig, claims: &Map<String, Value>, now: u64) -> Result<VerifiedToken, Refusal> {
    let people = PeopleConfig { clients_alone: true, clients: vec!["app".to_owned()], ..PeopleConfig::default() };
    let issuer = IssuerConfig { people, encode_subjects: true, ..IssuerConfig::new("https://issuer.example") };
    claims::check(claims, &issuer, config, now)
}

/// Returns the bearer of a token, who may name another user if the token permits it.
fn caller(token: VerifiedToken) -> Caller {
    Caller::Verified { other_users: token.other_users(), token: token.into() }
}

#[test]
fn a_barred_audience_refuses_a_token() {
    let barring = CheckedConfig { barred_audience: Some("ragward/mcp".to_owned()), ..config() };
    let rows = [
        ("ours as a text", json!("ragward"), true),
        ("ours in a list", json!(["ragward"]), true),
        ("another beside ours", json!(["x", "ragward"]), true),
        ("the barred one after ours", json!(["ragward", "ragward/mcp"]), false),
        ("the barred one before ours", json!(["ragward/mcp", "ragward"]), false),
        ("the barred one alone", json!("ragward/mcp"), false),
    ];
    for (row, audience, is_taken) in rows {
        let mut claims = good();
        claims.insert("aud".to_owned(), audience);
        let taken = check_by(&barring, &claims, NOW).map(drop);
        assert_eq!(taken, if is_taken { Ok(()) } else { Err(Refusal::Audience) }, "{row}");
    }
}

/// Without an audience, a token opens the doors that `identity.audience` names, or those that its scopes name, and never both.
#[test]
fn a_token_without_audience_opens_one_kind_of_door() {
    let (own, mcp) = ("ragward:retrieve", "ragward/mcp");
    let (for_us, for_mcp) = (format!("ragward/{own}"), format!("{mcp}/{own}"));
    let both = format!("{for_us} {for_mcp}");
    let doors = [
        config(),
        CheckedConfig { barred_audience: Some(mcp.to_owned()), ..config() },
        CheckedConfig { audience: mcp.to_owned(), ..config() },
    ];
    let keycloak =
        |change: Value| (ProviderProfile::Keycloak, json!({"typ": "Bearer", "azp": "app", "sid": "s"}), change);
    let cognito = |scope: &str| {
        (ProviderProfile::Cognito, json!({"token_use": "access", "username": "anne"}), json!({"scope": scope}))
    };
    let open = [true, true, false];
    let rows = [
        ("Keycloak", keycloak(json!({"scope": own})), open),
        ("Keycloak, for its own account", keycloak(json!({"scope": own, "aud": "account"})), open),
        ("Keycloak, for its own account in a list", keycloak(json!({"scope": own, "aud": ["account"]})), open),
        ("Keycloak, for two", keycloak(json!({"scope": own, "aud": ["account", "x"]})), [false; 3]),
        ("Keycloak, for us", keycloak(json!({"scope": own, "aud": ["account", "ragward"]})), open),
        ("Keycloak, for MCP", keycloak(json!({"scope": own, "aud": mcp})), [false, false, true]),
        ("Keycloak without a scope", keycloak(json!({"scope": "openid"})), [false; 3]),
        ("Keycloak, of another client", keycloak(json!({"scope": own, "azp": "other"})), [false; 3]),
        ("Cognito", cognito(&for_us), open),
        ("Cognito, for MCP", cognito(&for_mcp), [false, false, true]),
        ("Cognito, for both", cognito(&both), [true, false, true]),
        ("Cognito without a server", cognito(own), [false; 3]),
        ("Cognito, for another server", cognito("other/ragward:retrieve"), [false; 3]),
    ];
    for (row, (profile, more, change), expected) in rows {
        let clients = vec!["app".to_owned()];
        let issuer = IssuerConfig {
            profile,
            clients: clients.clone(),
            direct_clients: Some(clients),
            ..IssuerConfig::new("https://issuer.example")
        };
        let mut claims = good();
        claims.remove("aud");
        claims.remove("scope");
        claims.extend([more, change].into_iter().flat_map(|claims| claims.as_object().unwrap().clone()));
        // Keycloak's tokens of people name the client once.
        if profile == ProviderProfile::Keycloak {
            claims.remove("client_id");
        }
        let found = doors.each_ref().map(|door| claims::check(&claims, &issuer, door, NOW).is_ok());
        assert_eq!(found, expected, "{row}");
    }
}

#[test]
fn times_hold_to_the_second() {
    let with = |name: &str, value: u64| {
        let mut claims = good();
        claims.insert(name.to_owned(), json!(value));
        claims
    };
    let rows = [
        (good(), NOW, true),
        (good(), NOW + 60 + 29, true),
        (good(), NOW + 60 + 30, false),
        (good(), NOW - 30, true),
        (good(), NOW - 31, false),
        (with("nbf", NOW + 10), NOW - 20, true),
        (with("nbf", NOW + 11), NOW - 20, false),
        (with("exp", u64::MAX), NOW, true),
        (with("iat", NOW + 61), NOW + 61, false),
        (good(), u64::MAX, false),
    ];
    for (claims, now, expected) in rows {
        assert_eq!(check(&claims, now).is_ok(), expected, "{claims:?} at {now}");
    }
}

#[test]
fn a_login_is_fresh_for_as_long_as_asked() {
    let login = |at: Value| {
        let mut claims = good();
        claims.insert("auth_time".to_owned(), at);
        check(&claims, NOW)
    };
    let required = StepUp { acr_values: Vec::new(), max_age: Some(60) };
    let rows = [
        ("now", NOW, true),
        ("a minute ago", NOW - 60, true),
        ("a second more", NOW - 61, false),
        ("as far ahead as clocks may be apart", NOW + 30, true),
        ("a second further", NOW + 31, false),
        ("in a year", NOW + 31_536_000, false),
        ("at the end of time", u64::MAX, false),
        ("in 1970", 0, false),
    ];
    for (row, at, expected) in rows {
        assert_eq!(login(json!(at)).unwrap().satisfies(&required, NOW, 30), expected, "{row}");
    }
    assert!(!check(&without("auth_time"), NOW).unwrap().satisfies(&required, NOW, 30), "no login");
    for wrong in [json!(-1), json!(1.5), json!(1e300), json!("1800000000"), json!(null), json!([NOW])] {
        assert_eq!(login(wrong.clone()), Err(Refusal::Claim), "{wrong}");
    }
    // The age of a login is compared when it is needed: a remembered token becomes no fresher.
    let ahead = login(json!(NOW + 100)).unwrap();
    let times = [NOW, NOW + 69, NOW + 70, NOW + 160, NOW + 161];
    assert_eq!(times.map(|now| ahead.satisfies(&required, now, 30)), [false, false, true, true, false]);
}

fn without(name: &str) -> Map<String, Value> {
    let mut claims = good();
    claims.remove(name);
    claims
}

/// Returns a JSON value of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        "[ -~]{0,12}".prop_map(Value::String),
        prop_oneof![Just("user:bob"), Just("*"), Just("ragward:administer"), Just("bob")].prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns a well-formed object of details over a small world.
fn any_detail() -> impl Strategy<Value = Value> {
    let names = |names: &'static [&'static str]| prop::option::of(prop::sample::subsequence(names, 0..=names.len()));
    let limits = (prop::option::of(prop::sample::select(vec!["low", "middle", "high"])), prop::option::of(0u64..4));
    let sets = (
        names(&["retrieve", "recheck", "fetch"]),
        names(&["handbook", "other"]),
        names(&["can_read", "can_edit"]),
        names(&["document:a", "document:b"]),
        names(&["document", "page"]),
    );
    (sets, limits).prop_map(|((actions, collections, privileges, identifiers, datatypes), (ceiling, chunks_max))| {
        let mut object = json!({"type": "ragward_retrieval"});
        let sets = [
            ("actions", actions),
            ("collections", collections),
            ("privileges", privileges),
            ("identifiers", identifiers),
            ("datatypes", datatypes),
        ];
        for (name, set) in sets {
            if let Some(set) = set {
                object[name] = json!(set);
            }
        }
        if let Some(ceiling) = ceiling {
            object["classification_max"] = json!(ceiling);
        }
        if let Some(chunks_max) = chunks_max {
            object["chunks_max"] = json!(chunks_max);
        }
        object
    })
}

/// Returns the positions of the chunks in a small world that a token's details leave.
fn left(details: &[Value]) -> Vec<usize> {
    let mut claims = good();
    claims.insert("authorization_details".to_owned(), json!(details));
    let caller = caller(check(&claims, NOW).unwrap());
    let principal = caller.principal("").unwrap();
    let relation = Relation::parse("can_read").unwrap();
    let facts = RequestFacts {
        action: Action::Retrieve,
        collection: "handbook",
        relation: &relation,
        query_text: Some("leave"),
    };
    let chunks =
        ["document:a", "document:b", "page:a", "document:a"].into_iter().zip(["low", "middle", "high", "none"]);
    let chunks = chunks.map(|(guard, class)| {
        let metadata = chunk::Metadata::from([("class".to_owned(), chunk::Value::Text(class.to_owned()))]);
        (Object::parse(guard).unwrap(), metadata)
    });
    let Ok(narrowed) = principal.for_request(&facts) else { return Vec::new() };
    let mut ledger = narrowed.ledger();
    let admitted = chunks.enumerate().filter(|(_, (guard, metadata))| {
        // The guard alone never refuses a chunk that guard and metadata together permit.
        let admitted = ledger.admit(guard, metadata);
        assert!(!admitted || narrowed.details_fit_guard(guard));
        admitted
    });
    let admitted: Vec<usize> = admitted.map(|(place, _)| place).collect();
    assert!(narrowed.chunks_max().is_none_or(|max| admitted.len() as u64 <= max));
    // Details that were not compared with a request leave nothing.
    assert!(!principal.ledger().admit(&Object::parse("document:a").unwrap(), &chunk::Metadata::new()));
    admitted
}

/// Returns a key, and a token that it signed.
fn signed() -> (Arc<PublicKey>, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "key", "x": encode(pair.public_key().as_ref())});
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": "key"}).to_string();
    let message = format!("{}.{}", encode(header.as_bytes()), encode(Value::Object(good()).to_string().as_bytes()));
    let token = format!("{message}.{}", encode(pair.sign(message.as_bytes()).as_ref()));
    (keys.key("key", Algorithm::EdDsa).unwrap(), token)
}

fn is_verified(key: &PublicKey, token: &str) -> bool {
    Jws::parse(token).is_ok_and(|jws| jws.algorithm == Algorithm::EdDsa && jws.verify(key).is_ok())
}

#[test]
fn logins_are_asked_by_what_is_read() {
    type Expected<'r> = Result<&'r [&'r str], LoginError<'r>>;
    let asked = |acr: &str| StepUp { acr_values: vec![acr.to_owned()], max_age: None };
    let rules = StepUpRules {
        collections: [("hr".to_owned(), asked("mfa"))].into(),
        classifications: [("middle".to_owned(), asked("mfa")), ("high".to_owned(), asked("key"))].into(),
        details: details(),
        leeway_seconds: 30,
    };
    let login = |acr: &str| {
        let mut claims = good();
        claims.insert("acr".to_owned(), json!(acr));
        check(&claims, NOW).unwrap()
    };
    let (mfa, key) = (&asked("mfa"), &asked("key"));
    let rows: [(&str, &str, Option<&str>, Expected<'_>); 10] = [
        ("pwd", "handbook", None, Ok(&["low"])),
        ("pwd", "handbook", Some("low"), Ok(&["low"])),
        ("pwd", "handbook", Some("middle"), Err(LoginError::StepUp(mfa))),
        ("pwd", "handbook", Some("high"), Err(LoginError::StepUp(mfa))),
        ("pwd", "hr", None, Err(LoginError::StepUp(mfa))),
        ("mfa", "hr", None, Ok(&["low", "middle"])),
        ("mfa", "handbook", Some("high"), Err(LoginError::StepUp(key))),
        // A higher classification requires at least as much as a lower one.
        ("key", "handbook", None, Ok(&["low"])),
        ("pwd", "handbook", Some("highest"), Err(LoginError::UnknownClassification)),
        ("pwd", "handbook", Some(""), Err(LoginError::UnknownClassification)),
    ];
    for (acr, collection, ceiling, expected) in rows {
        let found = rules.condition(&login(acr), collection, ceiling, NOW);
        let found = found.map(|condition| condition.unwrap().values);
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(found, expected, "{acr}, {collection}, {ceiling:?}");
    }
    assert_eq!(StepUpRules::default().condition(&login("pwd"), "hr", None, NOW), Ok(None));
}

proptest! {
    /// Only the token itself is believed, with no character changed, left out or added.
    #[test]
    fn only_the_token_itself_is_verified(place in any::<prop::sample::Index>(), other in "[A-Za-z0-9_.=-]{0,2}") {
        let (key, token) = signed();
        prop_assert!(is_verified(&key, &token));
        let mut changed = token.clone().into_bytes();
        let place = place.index(changed.len());
        changed.splice(place..=place, other.bytes());
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(is_verified(&key, &changed), changed == token);
    }

    /// Any text is answered, and nothing panics.
    #[test]
    fn any_text_is_refused(token in any::<String>(), parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 3)) {
        let (key, _) = signed();
        prop_assert!(!is_verified(&key, &token) && !is_verified(&key, &parts.join(".")));
    }

    /// An unknown claim does not change what is believed.
    #[test]
    fn unknown_claims_change_nothing(name in "[a-z_]{1,12}", value in any_json()) {
        const KNOWN: [&str; 22] = [
            "iss", "aud", "sub", "client_id", "jti", "iat", "exp", "nbf", "scope", "act", "cnf", "acr", "auth_time",
            "authorization_details", "azp", "appid", "cid", "gty", "grant_type", "idtyp", "username", "_claim_names",
        ];
        prop_assume!(!KNOWN.contains(&name.as_str()));
        let mut claims = good();
        claims.insert(name, value);
        prop_assert_eq!(check(&claims, NOW), check(&good(), NOW));
    }

    /// A known claim with any value is refused, or the token is still about the same user.
    #[test]
    fn no_value_of_another_claim_changes_the_user(
        name in prop::sample::select(vec!["scope", "act", "cnf", "acr", "auth_time", "authorization_details", "nbf"]),
        value in any_json(),
    ) {
        let mut claims = good();
        claims.insert(name.to_owned(), value);
        if let Ok(token) = check(&claims, NOW) {
            let caller = caller(token);
            let principal = caller.principal("").unwrap();
            prop_assert_eq!(principal.subject().as_str(), "user:anne");
            prop_assert!(caller.principal("user:bob").is_err());
        }
    }

    /// Details never add chunks, and more conditions leave fewer.
    #[test]
    fn details_only_take_away(objects in prop::collection::vec(any_detail(), 1..4)) {
        let all = left(&[json!({"type": "ragward_retrieval"})]);
        prop_assert_eq!(&all, &[0, 1, 2, 3]);
        let some = left(&objects);
        prop_assert!(some.iter().all(|place| all.contains(place)));
        let narrower: Vec<Value> = objects
            .iter()
            .cloned()
            .map(|mut object| {
                object["identifiers"] = json!(["document:b"]);
                object
            })
            .collect();
        prop_assert!(left(&narrower).iter().all(|place| *place == 1));
        prop_assert!(objects.iter().all(|object| left(std::slice::from_ref(object)).len() <= 4));
    }
}
