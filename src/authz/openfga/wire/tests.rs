//! The account finds every way to answer a batch wrongly.

use std::time::Duration;

use openfga_client::client::{BatchCheckItem, CheckError, ErrorCode, InternalErrorCode, check_error::Code};
use serde_json::json;

use super::*;

use crate::authz::decider::Inquiry;
use crate::language::{Object, Relation, TupleCondition};

/// Makes the checks at positions 3 and 4 of a batch.
fn checks() -> Vec<Check> {
    let check = |object| Check {
        user: Object::parse("user:anne").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse(object).expect("an object"),
    };
    vec![check("document:1"), check("document:2")]
}

fn decision(id: &str, allowed: bool) -> ResultEntry {
    let result = SingleResult { allowed: Some(allowed), error: None };
    ResultEntry { correlation_id: id.to_owned(), result: Some(result) }
}

fn error(id: &str, code: Code, message: &str) -> ResultEntry {
    let error = CheckError { message: message.to_owned(), code: Some(code) };
    let result = SingleResult { allowed: None, error: Some(error) };
    ResultEntry { correlation_id: id.to_owned(), result: Some(result) }
}

fn invalid(id: &str, message: &str) -> ResultEntry {
    error(id, Code::InputError(ErrorCode::ValidationError.into()), message)
}

fn outcome(results: Vec<ResultEntry>) -> String {
    let checks = checks();
    let sent: Vec<(usize, &Check)> = (3..).zip(&checks).collect();
    let answers = account(&sent, Instant::now(), BatchCheckAnswer { results });
    let asked = Inquiry { at: Instant::now(), source: Source::Authority, behind_max: Duration::ZERO };
    let answer = |answered: NumberedOutcome| answered.into_decision(&asked);
    let decided = answers.and_then(|answers| answers.into_iter().map(answer).collect::<Result<Vec<_>, _>>());
    match decided {
        Ok(answers) => {
            let shown: Vec<String> = answers.iter().map(|a| format!("{}={}", a.position, a.allowed)).collect();
            shown.join(" ")
        }
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn check(results: Vec<ResultEntry>, expected: &str) {
    let outcome = outcome(results);
    assert!(outcome.contains(expected), "expected `{expected}`, got `{outcome}`");
}

#[test]
fn each_question_is_answered_once_or_the_call_fails() {
    let (yes, no) = (|id| decision(id, true), |id| decision(id, false));
    check(vec![yes("3"), no("4")], "3=true 4=false");
    check(vec![no("4"), yes("3")], "4=false 3=true");

    check(vec![], "0 of 2");
    check(vec![yes("3")], "1 of 2");
    check(vec![yes("3"), yes("3")], "`3` twice");
    check(vec![no("3"), yes("3"), yes("4")], "`3` twice");
    for foreign in ["", "0", "2", "5", "-3", "+3", "03", " 3", "3.0", "99999999999999999999999999", "x"] {
        check(vec![yes("3"), yes("4"), yes(foreign)], "was not asked");
        check(vec![yes("3"), yes(foreign)], "was not asked");
    }

    let empty = |result| ResultEntry { correlation_id: "4".to_owned(), result };
    check(vec![yes("3"), empty(None)], "not a decision");
    check(vec![yes("3"), empty(Some(SingleResult { allowed: None, error: None }))], "not a decision");
    let both = SingleResult { allowed: Some(true), error: Some(CheckError::default()) };
    check(vec![yes("3"), empty(Some(both))], "not a decision");
}

#[test]
fn only_what_the_model_lacks_is_denied() {
    let first = decision("3", true);
    let with = |second| vec![first.clone(), second];
    let denied = "3=true 4=false";
    check(with(invalid("4", "invalid relation: type 'user' not found")), denied);
    check(with(invalid("4", "invalid relation: type 'document' not found")), denied);
    check(with(invalid("4", "invalid relation: relation 'document#can_read' not found")), denied);

    let refused = "refused the request";
    check(with(invalid("4", "invalid relation: type 'folder' not found")), refused);
    check(with(invalid("4", "invalid relation: relation 'folder#can_read' not found")), refused);
    check(with(invalid("4", "invalid relation: relation 'document#can_read' not found for tuple 'x'")), refused);
    check(with(invalid("4", "invalid relation: the 'user' field is malformed")), refused);
    check(with(invalid("4", "")), refused);
    let internal = Code::InternalError(InternalErrorCode::InternalError.into());
    check(with(error("4", internal, "type 'document' not found")), "out of reach");
}

#[test]
fn an_item_error_says_what_can_be_done() {
    let with = |code: Code, message| vec![decision("3", true), error("4", code, message)];
    // A check that can never be decided is denied, so that it does not fail the request that came across it.
    let too_complex = Code::InputError(ErrorCode::AuthorizationModelResolutionTooComplex.into());
    check(with(too_complex, "resolution depth exceeded"), "3=true 4=false");
    let invalid = Code::InputError(ErrorCode::ValidationError.into());
    let failed = "failed to evaluate relationship condition: 'at_work' - tuple 'document:2#viewer@user:anne' is missing \
                  context parameters '[hour]'";
    check(with(invalid, failed), "3=true 4=false");
    check(with(Code::InputError(ErrorCode::InvalidTuple.into()), failed), "refused the request");
    check(with(Code::InternalError(InternalErrorCode::InternalError.into()), failed), "out of reach");
    let of_the_request = format!("invalid context: {failed}");
    check(with(invalid, &of_the_request), "refused the request");
    check(with(invalid, "failed to evaluate"), "refused the request");
    check(with(Code::InternalError(InternalErrorCode::DeadlineExceeded.into()), ""), "before the deadline");
    check(with(Code::InternalError(-1), "broken"), "out of reach: broken");
    check(with(Code::InputError(ErrorCode::ValidationError.into()), "throttled: later"), "out of reach: throttled");
    check(with(Code::InputError(-1), "strange"), "refused the request: strange");
}

#[test]
fn a_message_that_is_too_large_is_told_from_a_server_in_trouble() {
    let rows = [
        (
            tonic::Code::ResourceExhausted,
            "grpc: received message larger than max (665700 vs. 616448)",
            "no message of this size",
        ),
        (tonic::Code::OutOfRange, "Error, decoded message length too large: found 9 bytes", "no message of this size"),
        (tonic::Code::ResourceExhausted, "too many requests", "out of reach"),
        (tonic::Code::Unavailable, "grpc: received message larger than max (665700 vs. 616448)", "out of reach"),
        (tonic::Code::OutOfRange, "past the end", "answered wrongly"),
    ];
    for (code, message, expected) in rows {
        let error = failed(&Status::new(code, message)).to_string();
        assert!(error.contains(expected), "{code} {message}: {error}");
    }
}

#[test]
fn what_a_request_adds_is_measured_as_it_is_sent() {
    let plain = RelationshipTuple::parse("user:anne", "member", "group:1").expect("a tuple");
    let with = |context| plain.clone().with_condition(TupleCondition::parse("at_work", context).expect("a condition"));
    let long = RelationshipTuple::parse("user:anne", "member", &format!("group:{:0>240}", 1)).expect("a tuple");
    let usersets = RelationshipTuple::parse("group:2#member", "member", "group:1").expect("a tuple");
    let tuples =
        [vec![], vec![plain.clone()], vec![long; 100], vec![usersets, with(""), with(r#"{"hour": [1, "x"]}"#)]];
    let contexts = [json!({}), json!({ "hour": 9, "who": { "is": [null, true, "x".repeat(300)] } })];
    for tuples in tuples {
        for context in &contexts {
            let context = context.as_object().expect("an object").clone();
            let contextual = Contextual { tuples: tuples.clone(), context };
            let (contextual_tuples, context) = new_contextual(&contextual).expect("to be sent");
            let item = BatchCheckItem { contextual_tuples, context, ..BatchCheckItem::default() };
            assert_eq!(contextual.wire_bytes(), item.encoded_len(), "{contextual:?}");
        }
    }
}
