//! What no token can do, whatever is in it. The issuer's signature is taken for granted here.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::claims::{self, DelegationRule, IssuerRules, Rules};
use super::details::{Action, Classification, DetailsRules, RequestFacts};
use super::{Algorithm, Caller, DelegationOn, Refusal, VerifiedToken};
use crate::chunk;
use crate::relationship::{Object, Relation, TypeName};

const NOW: u64 = 1_800_000_000;

fn rules() -> Rules {
    let type_name = |name: &str| TypeName::parse(name).unwrap();
    Rules {
        audience: "ragward".to_owned(),
        leeway_seconds: 30,
        user_type: type_name("user"),
        machine_type: None,
        actor_type: type_name("agent"),
        delegation: Some(DelegationRule { relation: Relation::parse("can_act_for").unwrap(), on: DelegationOn::User }),
        actors_max: 4,
        claim_tuples: Vec::new(),
        claim_context: Vec::new(),
        details: DetailsRules {
            type_name: "ragward_retrieval".to_owned(),
            datatype_key: None,
            classification: Some(Classification {
                metadata_key: "class".to_owned(),
                order: ["low", "middle", "high"].map(str::to_owned).to_vec(),
            }),
        },
    }
}

fn good() -> Map<String, Value> {
    let claims = json!({
        "iss": "https://issuer.example", "aud": ["x", "ragward"], "sub": "anne", "client_id": "app", "jti": "1",
        "iat": NOW, "exp": NOW + 60, "scope": "ragward:retrieve",
    });
    claims.as_object().unwrap().clone()
}

fn check(claims: &Map<String, Value>, now: u64) -> Result<VerifiedToken, Refusal> {
    let issuer =
        IssuerRules { issuer: "https://issuer.example".into(), namespace: None, algorithms: vec![Algorithm::Es256] };
    claims::check(claims, &issuer, &rules(), now)
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

/// A value of any shape.
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

/// One object of details, well-formed, over a small world.
fn any_detail() -> impl Strategy<Value = Value> {
    let names = |names: &'static [&'static str]| prop::option::of(prop::sample::subsequence(names, 0..=names.len()));
    let limits = (prop::option::of(prop::sample::select(vec!["low", "middle", "high"])), prop::option::of(0u64..4));
    let sets = (
        names(&["retrieve", "recheck"]),
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

/// Which of a small world's chunks the details of a token leave, by their place.
fn left(details: &[Value]) -> Vec<usize> {
    let mut claims = good();
    claims.insert("authorization_details".to_owned(), json!(details));
    let caller = Caller::Verified(check(&claims, NOW).unwrap().into());
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
        // The guard alone never refuses what guard and metadata together permit.
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

proptest! {
    /// A claim that is not understood changes nothing of what is believed.
    #[test]
    fn unknown_claims_change_nothing(name in "[a-z_]{1,12}", value in any_json()) {
        const KNOWN: [&str; 14] = [
            "iss", "aud", "sub", "client_id", "jti", "iat", "exp", "nbf", "scope", "act", "cnf", "acr", "auth_time",
            "authorization_details",
        ];
        prop_assume!(!KNOWN.contains(&name.as_str()));
        let mut claims = good();
        claims.insert(name, value);
        prop_assert_eq!(check(&claims, NOW), check(&good(), NOW));
    }

    /// A claim that is understood, with any value, is refused or still about the same user.
    #[test]
    fn no_value_of_another_claim_changes_the_user(
        name in prop::sample::select(vec!["scope", "act", "cnf", "acr", "auth_time", "authorization_details", "nbf"]),
        value in any_json(),
    ) {
        let mut claims = good();
        claims.insert(name.to_owned(), value);
        if let Ok(token) = check(&claims, NOW) {
            let caller = Caller::Verified(token.into());
            let principal = caller.principal("").unwrap();
            prop_assert_eq!(principal.subject().as_str(), "user:anne");
            prop_assert!(caller.principal("user:bob").is_err());
        }
    }

    /// Details leave at most what there is without them, and more conditions leave less.
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
