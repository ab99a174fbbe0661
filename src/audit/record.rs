//! What is remembered of one call. A contract: `schema/audit-entry.schema.json` is made from these types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One call and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was called, as gRPC names it: `ragward.retrieval.v1.RetrievalService/Retrieve`; `unknown` for a path that is
    /// not served.
    pub call: String,
    /// The gRPC status code of the answer, such as `OK` or `PERMISSION_DENIED`; `CANCELLED` when the caller was gone first.
    pub code: String,
    /// The trace that the call belongs to: 32 hexadecimal digits (W3C Trace Context).
    pub trace_id: String,
    /// Which check the token did not pass, a fixed word. The caller was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// For whom. Missing when the caller was refused before it was known, or was believed and named nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<AuditedPrincipal>,
    /// What was asked for. Missing when the request was refused before it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<AuditedRequest>,
    /// How it was decided. Missing when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What left. Missing when nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Released>,
    /// How long it took.
    pub latency_us: Latencies,
}

/// Who was answered, and everybody who had a part in asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedPrincipal {
    /// The user whose rights bound the answer, `user:anne`. Missing when a client speaks for itself and is no user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Those that act for the subject, the outermost first (RFC 8693, section 4.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
    /// The OAuth client that the token was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Who issued the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Keyed digest of the token's `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// Who named the subject, when the token itself does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asserted_by: Option<String>,
    /// What the token was given for (`authorization_details`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedRequest {
    /// Where.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub collection: String,
    /// `text`, `vector` or `hybrid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_kind: Option<String>,
    /// Keyed digest of the query: the same for the same query, and no help to whoever has not the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_digest: Option<String>,
    /// What was explained: user, relation and object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How many chunks, documents or ids were asked for or sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Whether the caller set a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filtered: Option<bool>,
    /// `minimize_latency`, `at_least_as_fresh` or `higher_consistency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// How it was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Decision {
    /// The authorization model that was decided under; where nothing was decided, the one that was known right after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// How far the relationships were behind their authority, in milliseconds; 0: not at all. Missing when an `OpenFGA`
    /// server decided and may have used its own or our cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
    /// How it was searched; the last plan, where it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Searches that were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Chunks that were found and then withheld, at least. What a search over the visible set never looked at is not
    /// counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<u64>,
    /// `complete`, `exhausted` or `limited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
}

/// What left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Released {
    /// The chunks, by id, in the order of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunk_ids: Vec<String>,
    /// Documents that were written, deleted or counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
}

/// Microseconds of the stages, each summed over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Latencies {
    /// From the arrival to the record.
    pub total: u64,
    /// Decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize: Option<u64>,
    /// Searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<u64>,
    /// Reading what is permitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydrate: Option<u64>,
}
