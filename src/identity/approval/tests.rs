//! Tests which requests need an approval, and which tokens hold none.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::identity::approvable::Action;
use crate::identity::remembered::UsedTokens;
use crate::identity::sample::{self, NOW};
use crate::identity::{Caller, Refusal};
use crate::language::{Relation, TypeName};

fn settings() -> IdentityConfig {
    let rule = |collection: Option<&str>, classification: Option<&str>, chunks_max| ApprovalConfig {
        collection: collection.map(str::to_owned),
        classification: classification.map(str::to_owned),
        chunks_max,
    };
    IdentityConfig {
        audience: Some("ragward".to_owned()),
        details: DetailsConfig {
            classification_key: Some("class".to_owned()),
            classifications: ["open", "secret", "sealed"].map(str::to_owned).to_vec(),
            ..DetailsConfig::default()
        },
        approval: vec![rule(Some("hr"), None, None), rule(None, Some("secret"), Some(5))],
        ..IdentityConfig::default()
    }
}

fn request(collection: &str, ceiling: &str, encoded: &[u8]) -> ApprovableRequest {
    ApprovableRequest {
        action: Action::Retrieve,
        collection: collection.to_owned(),
        classification_max: Some(ceiling.to_owned()).filter(|name| !name.is_empty()),
        chunks_max: 10,
        words: None,
        encoded: encoded.to_vec(),
        page_token: None,
    }
}

/// Returns the principal of a token's bearer, or of the user that the bearer names.
fn principal(token: &Arc<VerifiedToken>, user: &str) -> Principal {
    let caller = Caller::Verified { other_users: token.other_users(), token: Arc::clone(token) };
    caller.principal(user).unwrap()
}

fn judge(
    rules: &ApprovalRules,
    claims: &Value,
    request: &ApprovableRequest,
    now: u64,
) -> Result<Judged, ApprovalError> {
    let token = sample::token_with(&settings(), claims);
    rules.judge(&token, &principal(&token, ""), request, now)
}

/// Asks for an approval, and returns the object to ask the issuer for.
fn asked(rules: &ApprovalRules, request: &ApprovableRequest) -> Value {
    match judge(rules, &json!({}), request, NOW) {
        Err(ApprovalError::Required(RequiredApproval { authorization_details, .. })) => {
            authorization_details[0].clone()
        }
        other => panic!("{other:?}"),
    }
}

fn approved_by(object: &Value) -> Value {
    json!({ "authorization_details": [object], "jti": "approved" })
}

#[test]
fn what_is_asked_for_decides() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let rows = [
        ("no rule", "handbook", "open", None),
        ("no ceiling", "handbook", "", None),
        ("the lowest ceiling of the rule", "handbook", "secret", Some(5)),
        ("a higher ceiling", "handbook", "sealed", Some(5)),
        ("an unknown ceiling", "handbook", "cosmic", Some(5)),
        ("the collection", "hr", "", Some(10)),
        ("the collection, a low ceiling", "hr", "open", Some(10)),
        ("both", "hr", "sealed", Some(5)),
    ];
    for (row, collection, ceiling, chunks_max) in rows {
        let asked = request(collection, ceiling, b"a");
        match (judge(&rules, &json!({}), &asked, NOW), chunks_max) {
            (Ok(Judged { approval: None, principal }), None) => {
                let values = principal.on_condition(&OneOf { key: "any".to_owned(), values: [].into() });
                let conditions = values.metadata_conditions().unwrap()[0].to_vec();
                let is_bounded = conditions.iter().any(|c| c.key == "class" && c.values.iter().eq(["open"]));
                assert_eq!(is_bounded, ceiling.is_empty(), "{row}: {conditions:?}");
            }
            (Err(ApprovalError::Required(required)), Some(chunks_max)) => {
                let object = &required.authorization_details[0];
                assert_eq!(required.chunks_max, chunks_max, "{row}");
                assert_eq!(object["chunks_max"], chunks_max, "{row}");
                assert_eq!(
                    object.get("classification_max").and_then(Value::as_str).unwrap_or_default(),
                    ceiling,
                    "{row}"
                );
                assert_eq!(
                    (&object["collections"], &object["single_use"]),
                    (&json!([collection]), &json!(true)),
                    "{row}"
                );
            }
            (judged, expected) => panic!("{row}: {judged:?}, not {expected:?}"),
        }
    }
}

#[test]
fn only_the_approval_of_this_request_by_this_person_counts() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let restarted = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let object = asked(&rules, &this);
    let with = |name: &str, value: Value| {
        let mut object = object.clone();
        object[name] = value;
        object
    };
    let of_bob = {
        let token = sample::token_with(&settings(), &json!({ "sub": "bob" }));
        match rules.judge(&token, &principal(&token, ""), &this, NOW) {
            Err(ApprovalError::Required(required)) => required.authorization_details[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    let rows = [
        ("as it was asked for", object.clone(), &rules, NOW, true),
        ("fewer chunks", with("chunks_max", json!(1)), &rules, NOW, true),
        ("narrower", with("identifiers", json!(["document:a"])), &rules, NOW, true),
        ("at the last moment", object.clone(), &rules, NOW + LIFETIME_SECONDS - 1, true),
        ("too late", object.clone(), &rules, NOW + LIFETIME_SECONDS, false),
        ("after a restart, or at another replica", object.clone(), &restarted, NOW, false),
        ("of another request", asked(&rules, &request("handbook", "secret", b"that")), &rules, NOW, false),
        ("of another person", of_bob, &rules, NOW, false),
        ("more chunks than asked for", with("chunks_max", json!(6)), &rules, NOW, false),
        ("another digest", with("request_sha256", json!("0".repeat(64))), &rules, NOW, false),
        ("another nonce", with("nonce", asked(&rules, &this)["nonce"].clone()), &rules, NOW, false),
        ("a nonce of nobody", with("nonce", json!("0".repeat(112))), &rules, NOW, false),
        (
            "a nonce in capitals",
            with("nonce", json!(object["nonce"].as_str().unwrap().to_uppercase())),
            &rules,
            NOW,
            false,
        ),
        ("another collection", with("collections", json!(["hr"])), &rules, NOW, false),
        ("another action", with("actions", json!(["fetch"])), &rules, NOW, false),
        ("another server", with("locations", json!(["elsewhere"])), &rules, NOW, false),
    ];
    for (row, object, rules, now, is_approved) in rows {
        let judged = judge(rules, &approved_by(&object), &this, now);
        match judged {
            Ok(Judged { approval, .. }) => assert!(is_approved && approval.is_some(), "{row}: {approval:?}"),
            Err(ApprovalError::Required(_)) => assert!(!is_approved, "{row}"),
            Err(other) => panic!("{row}: {other:?}"),
        }
    }
    for member in ["chunks_max", "collections", "actions", "classification_max"] {
        let mut object = object.clone();
        object.as_object_mut().unwrap().remove(member);
        assert!(judge(&rules, &approved_by(&object), &this, NOW).is_err(), "without `{member}`");
    }
    // A request that needs no approval does not use one up.
    let open = judge(&rules, &approved_by(&object), &request("handbook", "open", b"open"), NOW);
    assert_eq!(open.unwrap_err(), ApprovalError::AnotherRequest);
}

#[test]
fn an_issuer_gives_the_object_that_was_asked_for() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let grant = Grant::of(&this, "nonce".to_owned(), 5);
    let shown = ShownFacts { purpose: Some("answer a question".to_owned()), ..ShownFacts::default() };
    let asked = rules.details("ragward", &this, &grant, &shown)[0].clone();
    let with = |name: &str, value: Value| {
        let mut object = asked.clone();
        object[name] = value;
        object
    };
    let without = |name: &str| {
        let mut object = asked.clone();
        object.as_object_mut().unwrap().remove(name);
        object
    };
    let rows = [
        ("as it was asked for", asked.clone(), Some(5)),
        ("without the purpose", without("purpose"), Some(5)),
        ("fewer chunks", with("chunks_max", json!(2)), Some(2)),
        ("more chunks", with("chunks_max", json!(6)), None),
        ("chunks without end", without("chunks_max"), None),
        ("a lower ceiling", with("classification_max", json!("open")), None),
        ("a higher ceiling", with("classification_max", json!("sealed")), None),
        ("no ceiling", without("classification_max"), None),
        ("some documents alone", with("identifiers", json!(["document:a"])), None),
        ("a type of documents alone", with("datatypes", json!(["document"])), None),
        ("another relation", with("privileges", json!(["can_write"])), None),
        ("another action", with("actions", json!(["fetch"])), None),
        ("two actions", with("actions", json!(["retrieve", "fetch"])), None),
        ("another collection", with("collections", json!(["hr"])), None),
        ("another server", with("locations", json!(["elsewhere"])), None),
        ("another nonce", with("nonce", json!("other")), None),
        ("another digest", with("request_sha256", json!("0".repeat(64))), None),
    ];
    for (row, object, expected) in rows {
        let token = sample::token_with(&settings(), &approved_by(&object));
        assert_eq!(rules.consented(&token, &this, &grant), expected, "{row}");
    }
    let no_object = sample::token_with(&settings(), &json!({}));
    assert_eq!(rules.consented(&no_object, &this, &grant), None, "no details at all");
}

#[test]
fn an_approval_leaves_nothing_beside_it() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let object = asked(&rules, &this);
    let claims = json!({ "authorization_details": [{ "type": "ragward_retrieval" }, object] });
    let Judged { principal, approval } = judge(&rules, &claims, &this, NOW).unwrap();
    assert_eq!((principal.chunks_max(), approval.unwrap().chunks_max), (Some(5), 5), "the unlimited object is gone");
    // Without a comparison nothing fits, even if a handler forgets to ask.
    let token = sample::token_with(&settings(), &approved_by(&object));
    let relation = Relation::parse("can_read").unwrap();
    let facts = crate::identity::details::RequestFacts {
        action: Action::Retrieve,
        collection: "handbook",
        relation: &relation,
        query_text: None,
    };
    assert!(self::principal(&token, "").for_request(&facts).is_err());
    assert!(principal.for_request(&facts).is_ok());
}

#[test]
fn what_a_person_reads_stands_in_approvals_alone() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let grant = Grant::of(&this, "0".repeat(32), 5);
    let shown = ShownFacts {
        purpose: Some("answer a question".to_owned()),
        requested_by: vec!["agent:helper".to_owned(), "desk".to_owned()],
        query: Some("leave".to_owned()),
    };
    let approval = rules.details("ragward", &this, &grant, &shown)[0].clone();
    assert_eq!(
        (&approval["purpose"], &approval["requested_by"], &approval["query"]),
        (&json!("answer a question"), &json!(["agent:helper", "desk"]), &json!("leave"))
    );
    let with = |object: &Value, member: &str, value: Value| {
        let mut object = object.clone();
        object[member] = value;
        object
    };
    let plain = json!({ "type": "ragward_retrieval" });
    let rows = [
        ("an approval", approval.clone(), true),
        (
            "an approval without a word",
            rules.details("ragward", &this, &grant, &ShownFacts::default())[0].clone(),
            true,
        ),
        ("names that are no list", with(&approval, "requested_by", json!("desk")), false),
        ("a query that is no text", with(&approval, "query", json!(["leave"])), false),
        ("somebody who asks, without a request", with(&plain, "requested_by", json!(["desk"])), false),
        ("a query, without a request", with(&plain, "query", json!("leave")), false),
    ];
    for (row, object, is_read) in rows {
        let details = AuthorizationDetails::parse(&json!([object]), &settings().details, "ragward");
        assert_eq!(details.is_ok_and(|details| details.is_some()), is_read, "{row}");
    }
}

#[test]
fn only_people_approve_and_only_for_themselves() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let machine = IdentityConfig { machine_type: Some(TypeName::parse("client").unwrap()), ..settings() };
    let machine = sample::token_with(&machine, &json!({ "sub": "app" }));
    let pipeline = sample::token_with(&settings(), &json!({}));
    for (row, token, user) in [("a machine", &machine, ""), ("a person whom a pipeline names", &pipeline, "user:bob")] {
        let judged = rules.judge(token, &principal(token, user), &this, NOW);
        assert_eq!(judged.unwrap_err(), ApprovalError::NotOwn, "{row}");
    }
}

#[test]
fn each_page_of_an_approval_is_given_once() {
    let rules = ApprovalRules::new(&settings()).unwrap();
    let this = request("handbook", "secret", b"this");
    let claims = approved_by(&asked(&rules, &this));
    let approval = judge(&rules, &claims, &this, NOW).unwrap().approval.unwrap();
    let used = Arc::new(UsedTokens::default());
    let token = sample::token_with(&settings(), &claims);
    // The issuer may give a second token with the same details.
    let refreshed = sample::token_with(
        &settings(),
        &json!({
            "authorization_details": claims["authorization_details"], "jti": "refreshed",
        }),
    );
    let begin = |token: &VerifiedToken, page: Option<&str>| used.begin_approval(token, &approval, page, NOW);
    let first = begin(&token, None).unwrap();
    assert_eq!(begin(&refreshed, None).unwrap_err(), Refusal::Used, "while it is in use");
    first.text_read();
    drop(first);
    assert_eq!(begin(&refreshed, None).unwrap_err(), Refusal::Used, "after its text was read");
    let second = begin(&refreshed, Some("7f")).unwrap();
    assert_eq!(begin(&token, Some("7f")).unwrap_err(), Refusal::Used);
    drop(second);
    assert!(begin(&token, Some("7f")).is_ok(), "nothing of the page was read");
}

#[test]
fn a_token_for_one_request_is_used_up_together_with_its_approval() {
    let (nonce, request_sha256) = ("a".to_owned(), "b".to_owned());
    let approval = Approval { nonce, request_sha256, chunks_max: 1, expires_at: NOW + 60 };
    let token = sample::token_with(&settings(), &json!({}));
    for (row, reads_text, is_usable) in [("no text was read", false, true), ("text was read", true, false)] {
        let used = Arc::new(UsedTokens::default());
        let of_token = || used.begin(&token, 0, NOW).map(Arc::new);
        let of_approval = || used.begin_approval(&token, &approval, None, NOW).map(Arc::new);
        let both = principal(&token, "").with_one_use(of_token().ok()).with_one_use(of_approval().ok());
        if reads_text {
            both.reads_text();
        }
        drop(both);
        assert_eq!((of_token().is_ok(), of_approval().is_ok()), (is_usable, is_usable), "{row}");
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let rule = |collection: Option<&str>, classification: Option<&str>| ApprovalConfig {
        collection: collection.map(str::to_owned),
        classification: classification.map(str::to_owned),
        chunks_max: None,
    };
    let rows = [
        ("nothing", vec![rule(None, None)], "either"),
        ("both", vec![rule(Some("hr"), Some("secret"))], "either"),
        ("an unknown classification", vec![rule(None, Some("cosmic"))], "`cosmic`"),
        ("a collection twice", vec![rule(Some("hr"), None), rule(Some("hr"), None)], "twice"),
        ("no chunks", vec![ApprovalConfig { chunks_max: Some(0), ..rule(Some("hr"), None) }], "at least 1"),
    ];
    for (row, approval, expected) in rows {
        let error = ApprovalRules::new(&IdentityConfig { approval, ..settings() }).unwrap_err();
        assert!(error.to_string().contains(expected), "{row}: {error}");
    }
}
