//! The record of one call. `schema/audit-entry.schema.json` is generated from these types, and is a contract.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One call, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The call, as gRPC names it: `ragward.retrieval.v1.RetrievalService/Retrieve`, or `unknown` for a path that is not served.
    pub call: String,
    /// The door through which the call came. Missing in records of versions that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
    /// The gRPC status code of the answer, such as `OK` or `PERMISSION_DENIED`; `CANCELLED` if the caller had gone, and `DEADLINE_EXCEEDED` if its deadline had passed. A streamed answer has `UNKNOWN`, because its record is kept before the answer ends.
    pub code: String,
    /// The trace that the call belongs to: 32 hexadecimal digits (W3C Trace Context).
    pub trace_id: String,
    /// The reason why the token was refused, as one of a fixed set of words. The caller does not learn it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The principal. Missing if the caller was refused before it was identified, or if the server believes its callers
    /// and this one named no user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<AuditedPrincipal>,
    /// The request, as far as it is recorded. Missing if the call was refused before the request was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<AuditedRequest>,
    /// The basis of the decision. Missing if nothing was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<AuditedDecision>,
    /// The chunks that an observing re-check asked about and that its user may not see. The caller does not learn them.
    /// Missing for every other call, and if nothing was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// The content that left with the answer. Missing if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Released>,
    /// The approval that the request needs or has. Missing if it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<AuditedApproval>,
    /// The models that texts were sent to. They count as sent even if the model did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<AuditedModel>,
    /// The time that the call and its stages took.
    pub latency_us: Latencies,
}

/// A way into the server. Path and content type of a request tell it, and nothing else that a caller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// A call of gRPC.
    Grpc,
    /// A call of Connect, or another request over plain HTTP to the path of an RPC.
    Connect,
    /// A request to the HTTP routes of Ragward's own services, or to a path that no door knows.
    Rest,
    /// A request to `OpenFGA`'s HTTP API.
    #[serde(rename = "openfga_http")]
    OpenFgaHttp,
    /// A request of MCP: a tool's call, or a question of the protocol itself.
    Mcp,
    /// A call from within the server's own process.
    InProcess,
}

impl Door {
    /// Returns the name of the door in records and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Connect => "connect",
            Self::Rest => "rest",
            Self::OpenFgaHttp => "openfga_http",
            Self::Mcp => "mcp",
            Self::InProcess => "in_process",
        }
    }
}

/// The user whose rights bound the answer, and everybody who took part in the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedPrincipal {
    /// The user whose rights bound the answer, such as `user:anne`. Missing if a client acts for itself and is not a
    /// user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The actors who act for the subject, the outermost first (RFC 8693, section 4.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
    /// The OAuth client that the token was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The issuer of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The keyed digest of the token's `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// The bearer who named the subject, if the token itself does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asserted_by: Option<String>,
    /// The purposes that the token states (`authorization_details`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<String>,
}

/// The parts of a request that are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedRequest {
    /// The collection that the call is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub collection: String,
    /// `text`, `vector`, `hybrid` or `semantic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_kind: Option<String>,
    /// The keyed digest of the query: equal for equal queries, and of no use without the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_digest: Option<String>,
    /// The question that was explained: user, relation and object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The purpose of a re-check: `observe` if the caller uses chunks that Ragward does not filter. Missing for every other
    /// call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The number of chunks, documents or ids that were asked for or sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Whether the caller set a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filtered: Option<bool>,
    /// `minimize_latency`, `at_least_as_fresh` or `higher_consistency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// The parameters of conditions that the caller set (`context`), without their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context_keys: Vec<String>,
}

impl AuditedRequest {
    /// The purpose of an observing re-check, as [`AuditedRequest::purpose`] names it.
    pub const OBSERVE: &str = "observe";

    /// Returns whether this is a re-check whose caller uses chunks that Ragward does not filter.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.purpose.as_deref() == Some(Self::OBSERVE)
    }
}

/// The basis of a decision, and the search that it was made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Decision")]
pub struct AuditedDecision {
    /// The authorization model that decided; missing where nothing was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// The staleness of the relationships, in milliseconds: how far they were behind their authority; 0 means not at
    /// all. Missing if an `OpenFGA` server decided and a cache, its own or Ragward's, may have answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
    /// The plan of the search, or the last one if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The number of searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// A lower bound on the number of chunks that were found and then withheld. Chunks that a search over the visible
    /// set never looked at are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<u64>,
    /// The sources that were asked as the user, before anything was released.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<AuditedSource>,
    /// `complete`, `exhausted` or `limited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
}

/// The approval that a request needs or has: what it is of, and who gave it when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Approval")]
pub struct AuditedApproval {
    /// `required` if the request was refused because it lacked an approval, `requested` if Ragward asked the person, `given` if
    /// the person approved the request, `denied` if the person said no.
    pub state: String,
    /// The proof: `details` if a token of the issuer holds the details that were asked for, `code` if the issuer has no details, so
    /// that only its question to the person and the code bind the approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The person who approved the request, as its issuer spells the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// The issuer that asked the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The time of the approval, in seconds since 1970: the time at which the issuer gave the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<u64>,
    /// The digest of the request and of a random number, as in the details that the person approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<String>,
    /// The highest classification that the request asks for, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification_max: Option<String>,
    /// The most chunks, over all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_max: Option<u64>,
}

impl AuditedApproval {
    /// The state of an approval that a request lacks.
    pub const REQUIRED: &str = "required";
    /// The state of an approval that Ragward asks a person for.
    pub const REQUESTED: &str = "requested";
    /// The state of an approval that a person refused.
    pub const DENIED: &str = "denied";
    /// The state of an approval that a person gave.
    pub const GIVEN: &str = "given";
    /// The proof by a token with the details that were asked for.
    pub const DETAILS: &str = "details";
    /// The proof by the issuer's question and the code alone.
    pub const CODE: &str = "code";
}

/// A source that was asked as the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedSource {
    /// The name of the source (`sources.name`).
    pub name: String,
    /// The number of questions about a document. A question that a remembered answer decided counts, too.
    pub asked: u64,
    /// The number of documents that it withheld.
    pub withheld: u64,
}

/// A model that texts were sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedModel {
    /// `embed_query` for the text of a query, `embed_chunks` for chunks that were written, `rerank` for permitted chunks that were
    /// ordered.
    pub task: String,
    /// The name of the model in the settings.
    pub model: String,
    /// The host that the texts were sent to.
    pub host: String,
    /// The number of texts.
    pub texts: u64,
    /// The ids of the permitted chunks that were sent to be ordered, in the order in which they were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunk_ids: Vec<String>,
}

/// The content that left with an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Released {
    /// The ids of the chunks, in the order of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunk_ids: Vec<String>,
    /// The number of documents that were written, deleted or counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// The number of collections that were listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collections: Option<u64>,
}

/// Tells which chunks Ragward would have withheld from the user of an observing re-check. An id that the request names twice counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Observed {
    /// The number of chunks that exist and that the user may not see.
    pub withheld: u64,
    /// The number of ids that no chunk of the collection has.
    pub unknown: u64,
    /// The withheld chunks, if `audit.observed` is `ids`. There are fewer than `withheld` if a record had no room for more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld_chunks: Vec<ObservedChunk>,
    /// The unknown ids as the caller sent them, if `audit.observed` is `ids`. There are fewer than `unknown` if a record had
    /// no room for more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_ids: Vec<String>,
}

/// A chunk that an observing re-check asked about and that its user may not see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObservedChunk {
    /// The id of the chunk.
    pub chunk_id: String,
    /// The id of its document. Missing if the vector store did not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_id: Option<String>,
}

/// The time of each stage in microseconds, summed over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Latencies {
    /// The time from the arrival of the call to its record.
    pub total: u64,
    /// The time for decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize: Option<u64>,
    /// The time for searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<u64>,
    /// The time for reading permitted chunks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydrate: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_has_one_name() {
        for door in [Door::Grpc, Door::Connect, Door::Rest, Door::OpenFgaHttp, Door::Mcp, Door::InProcess] {
            assert_eq!(serde_json::to_value(door).unwrap(), door.name(), "in the record and in metrics");
        }
    }
}
