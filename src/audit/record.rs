//! What is remembered of one call. A contract: `schema/audit-entry.schema.json` is made from these types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One call and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was called.
    pub call: Call,
    /// The gRPC status code of the answer, such as `OK` or `PERMISSION_DENIED`; `CANCELLED` when the caller was gone first.
    pub code: String,
    /// The trace that the call belongs to: 32 hexadecimal digits (W3C Trace Context).
    pub trace_id: String,
    /// For whom. Missing when the caller was refused before it was known.
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

/// The RPCs that are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `RetrievalService.Retrieve`.
    Retrieve,
    /// `RetrievalService.Recheck`.
    Recheck,
    /// `RetrievalService.Explain`.
    Explain,
    /// `IngestService.UpsertDocuments`.
    UpsertDocuments,
    /// `IngestService.DeleteDocuments`.
    DeleteDocuments,
    /// `IngestService.GetIngestStatus`.
    GetIngestStatus,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Retrieve,
        Self::Recheck,
        Self::Explain,
        Self::UpsertDocuments,
        Self::DeleteDocuments,
        Self::GetIngestStatus,
    ];

    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Recheck => "recheck",
            Self::Explain => "explain",
            Self::UpsertDocuments => "upsert_documents",
            Self::DeleteDocuments => "delete_documents",
            Self::GetIngestStatus => "get_ingest_status",
        }
    }

    /// The path under which gRPC calls it.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Retrieve => "/ragward.retrieval.v1.RetrievalService/Retrieve",
            Self::Recheck => "/ragward.retrieval.v1.RetrievalService/Recheck",
            Self::Explain => "/ragward.retrieval.v1.RetrievalService/Explain",
            Self::UpsertDocuments => "/ragward.ingest.v1.IngestService/UpsertDocuments",
            Self::DeleteDocuments => "/ragward.ingest.v1.IngestService/DeleteDocuments",
            Self::GetIngestStatus => "/ragward.ingest.v1.IngestService/GetIngestStatus",
        }
    }
}

/// Who was answered, and everybody who had a part in asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditedPrincipal {
    /// The user whose rights bound the answer, `user:anne`.
    pub subject: String,
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
    /// `minimize_latency` or `higher_consistency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// How it was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Decision {
    /// The authorization model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// The most that the relationships may have been behind their authority, in milliseconds; 0: not at all. Missing when
    /// it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
    /// How it was searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Searches that were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Chunks that were found and then withheld. What a search over the visible set never looked at is not counted.
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
