//! The messages of retrievals: requests in, answers out.

use crate::authz::Consistency;
use crate::authz::enforce::Permitted;
use crate::chunk::Chunk;
use crate::language::Relation;
use crate::proto::retrieval as message;
use crate::retrieval::request::{RetrievalParts, StatedQuery};
use crate::retrieval::{Completion, Fetched, FieldViolation, NamedPrincipal, Plan, PlanReport, Retrieval, Retrieved};
use crate::server::values;
use crate::vector_store::Query;

/// The longest recorded part of a question for an explanation, in characters. The question is recorded before it is validated.
const ASKED_CHARACTERS_MAX: usize = 512;

/// Returns the parts of a retrieval, as its message states them.
pub(super) fn retrieval_parts(
    message: message::RetrieveRequest,
    principal: NamedPrincipal,
    consistency: Consistency,
) -> Result<RetrievalParts, FieldViolation> {
    let query = message.query.map(|query| match query {
        message::retrieve_request::Query::Text(text) => Query::Text(text).into(),
        message::retrieve_request::Query::Vector(vector) => Query::Vector(vector.values).into(),
        message::retrieve_request::Query::Hybrid(message::Hybrid { text, vector: Some(vector) }) => {
            Query::Hybrid { text, vector: vector.values }.into()
        }
        message::retrieve_request::Query::Hybrid(message::Hybrid { text, vector: None }) => StatedQuery::Hybrid(text),
        message::retrieve_request::Query::Semantic(message::Semantic { text }) => StatedQuery::Semantic(text),
    });
    Ok(RetrievalParts {
        principal,
        collection: message.collection,
        query,
        top_k: message.top_k,
        filter: message.filter.map(values::filter).transpose()?,
        min_score: message.min_score,
        per_document_max: message.per_document_max,
        consistency,
        page_token: message.page_token,
    })
}

/// The purpose of a re-check. It decides what is recorded, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecheckPurpose {
    /// The caller uses only the chunks that the answer names.
    Answer,
    /// The caller uses chunks that are not filtered, and the record says what would have been withheld.
    Observe,
}

/// Returns the purpose that a request states.
pub(super) fn purpose(value: i32) -> Result<RecheckPurpose, FieldViolation> {
    match message::Purpose::try_from(value) {
        Ok(message::Purpose::Unspecified | message::Purpose::Answer) => Ok(RecheckPurpose::Answer),
        Ok(message::Purpose::Observe) => Ok(RecheckPurpose::Observe),
        Err(_) => Err(FieldViolation::new("purpose", format!("is {value}, which is not a purpose"))),
    }
}

/// Returns the question of an explanation, for the record. Nothing has been checked yet, so its parts are cut.
pub(super) fn asked_about(request: &message::ExplainRequest, relation: &Relation) -> Option<String> {
    let short = |text: &str| text.chars().take(ASKED_CHARACTERS_MAX).collect::<String>();
    let target = match request.target.as_ref()? {
        message::explain_request::Target::Chunk(chunk) => {
            format!("{}/{}", short(&chunk.collection), short(&chunk.chunk_id))
        }
        message::explain_request::Target::Object(object) => short(object),
    };
    let relation = if request.relation.is_empty() { relation.as_str() } else { request.relation.as_str() };
    Some(format!("{} {} {target}", short(&request.user), short(relation)))
}

/// Returns the name of a completion in the record.
pub(super) const fn completion_name(completion: Completion) -> &'static str {
    match completion {
        Completion::Complete => "complete",
        Completion::Exhausted => "exhausted",
        Completion::Limited => "limited",
    }
}

/// Returns the answer to a retrieval, without its plan and its consistency token.
pub(super) fn retrieve_response(retrieval: Retrieval) -> message::RetrieveResponse {
    let completion = completion_message(retrieval.completion);
    let recall = if retrieval.exact { message::Recall::Exact } else { message::Recall::Approximate };
    message::RetrieveResponse {
        chunks: retrieval.chunks.into_iter().map(retrieved_message).collect(),
        completion: completion.into(),
        recall: recall.into(),
        next_page_token: retrieval.next_page_token.unwrap_or_default(),
        plan: None,
        replica_lag_milliseconds: retrieval.replica_lag.map(|lag| lag.as_secs_f64() * 1_000.0),
        consistency_token: String::new(),
    }
}

/// Returns the answer to a fetch, without its consistency token.
pub(super) fn fetch_response(fetched: Fetched) -> message::FetchResponse {
    message::FetchResponse {
        chunks: fetched.chunks.into_iter().map(chunk_message).collect(),
        completion: completion_message(fetched.completion).into(),
        consistency_token: String::new(),
    }
}

const fn completion_message(completion: Completion) -> message::Completion {
    match completion {
        Completion::Complete => message::Completion::Complete,
        Completion::Exhausted => message::Completion::Exhausted,
        Completion::Limited => message::Completion::Limited,
    }
}

/// Returns the report of how a retrieval was searched. It counts chunks that the caller may not see.
pub(super) fn plan_report(report: &PlanReport) -> message::PlanReport {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let rounds = report.rounds.iter().map(|round| message::PlanRound {
        search_plan: plan_message(round.plan).into(),
        limit: count(round.limit),
        candidates: count(round.candidates),
        permitted: count(round.permitted),
        milliseconds: round.took.as_secs_f64() * 1_000.0,
    });
    message::PlanReport { estimated_share: report.estimate, rounds: rounds.collect() }
}

const fn plan_message(plan: Plan) -> message::Plan {
    match plan {
        Plan::VisibleSetSearch => message::Plan::VisibleSetSearch,
        Plan::ListThenSearch => message::Plan::ListThenSearch,
        Plan::SearchThenCheck => message::Plan::SearchThenCheck,
    }
}

fn retrieved_message(Retrieved { chunk, score, rerank_score }: Retrieved) -> message::Chunk {
    message::Chunk { score: f64::from(score), rerank_score, ..chunk_message(chunk) }
}

/// Returns the message of a permitted chunk, without a score.
fn chunk_message(chunk: Permitted<Chunk>) -> message::Chunk {
    let chunk = chunk.into_item();
    message::Chunk {
        id: chunk.id,
        document_id: chunk.document_id,
        guard: chunk.guard.to_string(),
        title: chunk.title,
        heading_path: chunk.heading_path,
        text: chunk.text,
        score: 0.0,
        metadata: values::metadata_message(chunk.metadata),
        rerank_score: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_one_name_on_the_wire_and_in_the_record() {
        for plan in [Plan::VisibleSetSearch, Plan::ListThenSearch, Plan::SearchThenCheck] {
            let on_the_wire = plan_message(plan).as_str_name().to_ascii_lowercase();
            assert_eq!(on_the_wire, format!("plan_{}", plan.name()), "{plan:?}");
        }
    }
}
