//! A request sets a parameter only if the configuration lists it for such a caller, whatever its token says.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::config::{CheckedConfig, ClaimContext, DelegationConfig, IssuerConfig};
use crate::identity::{Caller, DelegationOn, Principal, Refusal, claims};
use crate::language::Relation;

const NOW: u64 = 1_800_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Believed,
    User,
    Agent,
    Narrowed,
    Pipeline,
}

const KINDS: [Kind; 5] = [Kind::Believed, Kind::User, Kind::Agent, Kind::Narrowed, Kind::Pipeline];

fn listed(parameter: &str, settable_by: SettableBy) -> RequestContextKey {
    RequestContextKey { parameter: parameter.to_owned(), settable_by }
}

/// The claim `org` sets `tenant`. Requests set `purpose` and, with any token, `ip`.
fn settings() -> IdentityConfig {
    let relation = Some(Relation::parse("can_act_for").unwrap());
    IdentityConfig {
        audience: Some("ragward".to_owned()),
        delegation: DelegationConfig { relation, on: DelegationOn::User },
        claim_context: vec![ClaimContext { claim: "org".to_owned(), parameter: "tenant".to_owned(), absent: None }],
        request_context: vec![listed("purpose", SettableBy::Unbounded), listed("ip", SettableBy::Everyone)],
        ..IdentityConfig::default()
    }
}

fn rules() -> RequestContextRules {
    RequestContextRules::new(&settings()).unwrap()
}

/// Returns a caller of this kind, whose token may have the claim `org`.
fn caller(kind: Kind, org: Option<&Value>) -> Result<Caller, Refusal> {
    let mut claims = json!({
        "iss": "issuer", "aud": "ragward", "sub": "anne", "client_id": "app", "jti": "1", "iat": NOW, "exp": NOW + 60,
        "auth_time": NOW, "scope": "ragward:retrieve",
    });
    match kind {
        Kind::Believed => return Ok(Caller::Believed),
        Kind::User => {}
        Kind::Agent => claims["act"] = json!({ "sub": "helper" }),
        Kind::Narrowed => claims["authorization_details"] = json!([{ "type": "ragward_retrieval" }]),
        Kind::Pipeline => claims["scope"] = json!("ragward:retrieve ragward:assert_user"),
    }
    if let Some(org) = org {
        claims["org"] = org.clone();
    }
    let config = CheckedConfig::new(&settings()).unwrap();
    let token = claims::check(claims.as_object().unwrap(), &IssuerConfig::new("issuer"), &config, NOW)?;
    Ok(Caller::Verified { other_users: token.other_users(), token: Arc::new(token) })
}

fn principal(kind: Kind, caller: &Caller) -> Principal {
    let user = match kind {
        Kind::Believed => "user:anne",
        Kind::User | Kind::Agent | Kind::Narrowed => "",
        Kind::Pipeline => "user:bob",
    };
    caller.principal(user).unwrap()
}

fn values(stated: &Value) -> Map<String, Value> {
    stated.as_object().unwrap().clone()
}

#[test]
fn every_parameter_by_caller_and_claim() {
    // For each parameter: whether these callers may set it, in the order of `KINDS`.
    let rows = [
        ("purpose", [true, true, false, false, true]),
        ("ip", [true; 5]),
        // Set by a claim, and the name of that claim.
        ("tenant", [false; 5]),
        ("org", [false; 5]),
        // The server's own.
        ("now", [false; 5]),
        ("client_ip", [false; 5]),
        ("level", [false; 5]),
        ("Purpose", [false; 5]),
        ("purpose ", [false; 5]),
        ("", [false; 5]),
    ];
    let rules = rules();
    for (parameter, may_set) in rows {
        for (kind, may_set) in KINDS.into_iter().zip(may_set) {
            for org in [None, Some(json!("acme")), Some(Value::Null)] {
                let row = format!("`{parameter}` by {kind:?} with the claim {org:?}");
                let caller = match caller(kind, org.as_ref()) {
                    Ok(caller) => caller,
                    Err(refusal) => {
                        assert_eq!((refusal, &org), (Refusal::Mapping, &Some(Value::Null)), "{row}");
                        continue;
                    }
                };
                let of_token = match (kind, &org) {
                    (Kind::Believed, _) | (_, None) => Map::new(),
                    (_, Some(org)) => {
                        assert!(!org.is_null(), "{row}: such a token is refused");
                        values(&json!({ "tenant": org }))
                    }
                };
                let stated = values(&json!({ parameter: "x" }));
                match rules.admit(stated.clone(), caller.token()) {
                    Ok(admitted) => {
                        assert!(may_set, "{row}");
                        let principal = principal(kind, &caller).in_context(admitted);
                        let all: Map<String, Value> = of_token.into_iter().chain(stated).collect();
                        assert_eq!(principal.contextual().context, all, "{row}");
                        assert_eq!(principal.stated_keys(), [parameter], "{row}");
                    }
                    Err(error) => {
                        assert!(!may_set, "{row}: {error}");
                        assert!(error.to_string().contains(&format!("`{parameter}`")), "{row}: {error}");
                        assert_eq!(principal(kind, &caller).contextual().context, of_token, "{row}");
                    }
                }
            }
        }
    }
}

#[test]
fn by_default_no_parameter_is_settable() {
    let rules = RequestContextRules::new(&IdentityConfig::default()).unwrap();
    let refused = rules.admit(values(&json!({ "purpose": "x" })), None);
    assert_eq!(refused, Err(StatedContextError::NotSettable("purpose".to_owned())));
    let nothing = rules.admit(Map::new(), None).unwrap();
    let principal = Principal::stated("user:anne").unwrap();
    assert_eq!(principal.clone().in_context(nothing), principal);
}

#[test]
fn settings_that_would_let_a_caller_overrule_are_refused() {
    let one = |parameter: &str| vec![listed(parameter, SettableBy::Everyone)];
    let rows = [
        ("one that a claim sets", one("tenant"), Some("`identity.claim_context` sets")),
        ("the name of the claim", one("org"), None),
        ("the time", one("now"), Some("only the server")),
        ("the address", one("client_ip"), Some("only the server")),
        ("no name", one(""), Some("no name")),
        ("a line break", one("a\nb"), Some("no name")),
        ("one twice", [one("level"), vec![listed("level", SettableBy::Unbounded)]].concat(), Some("twice")),
    ];
    for (row, request_context, expected) in rows {
        let found = RequestContextRules::new(&IdentityConfig { request_context, ..settings() });
        let found = found.err().map(|error| error.to_string());
        assert_eq!(found.is_some(), expected.is_some(), "{row}: {found:?}");
        assert!(expected.is_none_or(|text| found.is_some_and(|found| found.contains(text))), "{row}");
    }
}

#[test]
fn values_are_bounded() {
    let nested = |levels: usize| (1..levels).fold(json!("x"), |inner, _| json!([inner]));
    let text = |length: usize| json!("x".repeat(length));
    let bytes = |value: &Value| fields_wire_bytes(&values(&json!({ "ip": value })));
    let longest = (0..REQUEST_CONTEXT_BYTES_MAX)
        .find(|length| bytes(&text(*length)) == REQUEST_CONTEXT_BYTES_MAX)
        .expect("a text that fills the context");
    let ip = || "ip".to_owned();
    let rows = [
        ("a text", json!("10.0.0.1"), None),
        ("a number", json!(1.5), None),
        ("an object", json!({ "a": [1, null] }), None),
        ("null", json!(null), Some(StatedContextError::NoValue(ip()))),
        ("a line break", json!("a\nb"), Some(StatedContextError::ControlCharacters(ip()))),
        ("a line break in a name", json!({ "a\nb": 1 }), Some(StatedContextError::ControlCharacters(ip()))),
        ("as deep as allowed", nested(REQUEST_CONTEXT_DEPTH_MAX), None),
        ("a level more", nested(REQUEST_CONTEXT_DEPTH_MAX + 1), Some(StatedContextError::TooDeep(ip()))),
        ("as large as allowed", text(longest), None),
        ("a byte more", text(longest + 1), Some(StatedContextError::TooLarge(REQUEST_CONTEXT_BYTES_MAX + 1))),
    ];
    for (row, value, expected) in rows {
        let found = rules().admit(values(&json!({ "ip": value })), None);
        assert_eq!(found.err(), expected, "{row}");
    }
}

/// The rules admit no such value. If one came nevertheless, a debug build would stop, and any other would keep the token's.
#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "both state `tenant`"))]
fn a_value_of_the_token_stands() {
    let caller = caller(Kind::User, Some(&json!("acme"))).unwrap();
    let stated = StatedContext(values(&json!({ "tenant": "globex" })));
    let principal = principal(Kind::User, &caller).in_context(stated);
    assert_eq!(principal.contextual().context, values(&json!({ "tenant": "acme" })));
}

fn any_stated() -> impl Strategy<Value = Map<String, Value>> {
    let names = ["purpose", "ip", "tenant", "org", "now", "client_ip", "sub"].map(str::to_owned).to_vec();
    let name = prop_oneof![4 => prop::sample::select(names), 1 => "[a-z_]{0,8}"];
    let value = prop_oneof![
        "[a-z]{0,4}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        Just(json!(["acme", { "tenant": "acme" }])),
    ];
    prop::collection::btree_map(name, value, 0..4).prop_map(|values| values.into_iter().collect())
}

proptest! {
    /// A context comes only through listed parameters, and changes nothing else of the principal.
    #[test]
    fn a_context_comes_only_through_listed_parameters(
        stated in any_stated(),
        kind in prop::sample::select(KINDS.to_vec()),
        has_claim in any::<bool>(),
    ) {
        let org = json!("acme");
        let caller = caller(kind, has_claim.then_some(&org)).unwrap();
        let before = principal(kind, &caller);
        let is_bounded = matches!(kind, Kind::Agent | Kind::Narrowed);
        let may_set = |name: &String| name == "ip" || (name == "purpose" && !is_bounded);
        let admitted = rules().admit(stated.clone(), caller.token());
        prop_assert_eq!(admitted.is_ok(), stated.keys().all(may_set), "{:?}", stated);
        let Ok(admitted) = admitted else { return Ok(()) };
        let after = before.clone().in_context(admitted);
        let mut of_token = after.contextual().context.clone();
        for (name, value) in &stated {
            let found = of_token.remove(name);
            prop_assert_eq!(found.as_ref(), Some(value));
        }
        prop_assert_eq!(&of_token, &before.contextual().context);
        prop_assert_eq!(&after.contextual().tuples, &before.contextual().tuples);
        prop_assert_eq!(after.subject(), before.subject());
        prop_assert_eq!(after.delegation(), before.delegation());
        prop_assert_eq!(after.is_narrowed(), before.is_narrowed());
    }
}
