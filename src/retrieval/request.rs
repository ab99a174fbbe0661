//! Requests that are valid by construction: sizes, numbers and names are checked here, and nowhere else.
//!
//! A refusal names the wrong fields that one pass over the request finds. These may not be all: the refusal of a
//! re-check names only its first wrong id, and a filter that is too deep or too large is not looked at further.

mod stated_query;

use std::collections::HashSet;
use std::num::NonZeroUsize;

pub use self::stated_query::StatedQuery;
use crate::authz::Consistency;
use crate::chunk::{ID_BYTES_MAX, Value};
use crate::identity::Principal;
use crate::identity::details::OneOf;
use crate::vector_store::Filter;
use crate::vector_store::validation::COLLECTION_BYTES_MAX;

/// The most levels of a filter.
pub const FILTER_DEPTH_MAX: usize = 8;
/// The most conditions and values that a filter may have together.
pub const FILTER_NODES_MAX: usize = 256;
/// The longest metadata key or text value that a filter may have, in bytes.
pub const FILTER_TEXT_BYTES_MAX: usize = 1_024;
/// The most chunk ids that one re-check may ask about.
pub const RECHECK_IDS_MAX: usize = 1_000;
/// The most ids of chunks and documents that one fetch may name together. Each document costs several checks.
pub const FETCH_IDS_MAX: usize = 1_000;

/// How many chunks [`RetrievalParts::new`] asks for.
pub const TOP_K: u32 = 10;

/// A field of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field in the request message.
    pub field: String,
    /// The problem with the value, and what would be right. The text continues a sentence that begins with the field's
    /// name.
    pub description: String,
}

impl FieldViolation {
    /// Makes a violation from the name of a field and the problem with it.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Writes violations as one line.
pub(crate) fn join(violations: &[FieldViolation]) -> String {
    let lines: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    lines.join("; ")
}

/// The principal that a request is for, or the wrong field that keeps it from being known.
#[derive(Clone, Debug)]
pub enum NamedPrincipal {
    /// The principal is known, and its rights bound the answer.
    Known(Principal),
    /// A field that names or bounds the principal is wrong. The refusal names it together with the request's other wrong
    /// fields.
    Invalid(FieldViolation),
}

impl NamedPrincipal {
    /// Takes the name of a user that a caller states without any proof.
    #[must_use]
    pub fn stated(user: &str) -> Self {
        match Principal::stated(user) {
            Ok(principal) => Self::Known(principal),
            Err(error) => Self::Invalid(FieldViolation::new("user", error.to_string())),
        }
    }

    /// Adds a condition that every chunk must meet. The principal can only lose by it.
    #[must_use]
    pub fn on_condition(self, condition: &OneOf) -> Self {
        match self {
            Self::Known(principal) => Self::Known(principal.on_condition(condition)),
            Self::Invalid(violation) => Self::Invalid(violation),
        }
    }

    /// Returns the principal, or adds the wrong field to `violations`.
    fn known(self, violations: &mut Vec<FieldViolation>) -> Option<Principal> {
        match self {
            Self::Known(principal) => Some(principal),
            Self::Invalid(violation) => {
                violations.push(violation);
                None
            }
        }
    }
}

/// The parts of a retrieval as they arrive, before they are checked.
#[derive(Clone, Debug)]
pub struct RetrievalParts {
    /// The principal that the retrieval is for.
    pub principal: NamedPrincipal,
    /// The collection to search.
    pub collection: String,
    /// What to search for.
    pub query: Option<StatedQuery>,
    /// How many chunks are wanted.
    pub top_k: u32,
    /// The filter that chunks must pass.
    pub filter: Option<Filter>,
    /// The lowest score that a chunk may have.
    pub min_score: Option<f64>,
    /// The most chunks of one document; 0 for no limit.
    pub per_document_max: u32,
    /// How fresh the tuples that decide must be.
    pub consistency: Consistency,
    /// The token of the page that is wanted, empty for the first page. `None` if no pages are wanted.
    pub page_token: Option<String>,
}

impl RetrievalParts {
    /// Asks for the [`TOP_K`] best chunks of a collection that `user` may see. The other fields have their defaults.
    #[must_use]
    pub fn new(user: &str, collection: &str, query: impl Into<StatedQuery>) -> Self {
        Self {
            principal: NamedPrincipal::stated(user),
            collection: collection.to_owned(),
            query: Some(query.into()),
            top_k: TOP_K,
            filter: None,
            min_score: None,
            per_document_max: 0,
            consistency: Consistency::default(),
            page_token: None,
        }
    }
}

/// A retrieval that can be carried out.
#[derive(Clone, Debug)]
pub struct RetrievalRequest {
    pub(super) principal: Principal,
    pub(super) collection: String,
    pub(super) query: StatedQuery,
    pub(super) top_k: usize,
    pub(super) filter: Option<Filter>,
    pub(super) min_score: Option<f64>,
    pub(super) per_document_max: Option<NonZeroUsize>,
    pub(super) consistency: Consistency,
    /// The token of the page that is wanted, empty for the first page. `None` if no pages are wanted.
    pub(super) page: Option<String>,
}

impl RetrievalRequest {
    /// Checks the parts of a retrieval.
    ///
    /// # Errors
    /// Returns the wrong fields that were found, at least one.
    pub fn new(parts: RetrievalParts, top_k_max: u32) -> Result<Self, Vec<FieldViolation>> {
        let mut violations = Vec::new();
        let principal = parts.principal.known(&mut violations);
        check_collection(&parts.collection, &mut violations);
        if parts.top_k == 0 || parts.top_k > top_k_max {
            let found = if parts.top_k == 0 { "missing or 0".to_owned() } else { parts.top_k.to_string() };
            let description = format!("is {found}, must be from 1 to {top_k_max}");
            violations.push(FieldViolation::new("top_k", description));
        }
        match &parts.query {
            Some(query) => query.check(&mut violations),
            None => {
                violations
                    .push(FieldViolation::new("query", "is missing; set `text`, `vector`, `hybrid` or `semantic`"));
            }
        }
        if parts.min_score.is_some_and(|score| !score.is_finite()) {
            violations.push(FieldViolation::new("min_score", "is not a finite number"));
        }
        if let Some(filter) = &parts.filter {
            check_filter(filter, &mut violations);
        }
        if parts.page_token.is_some() && parts.per_document_max > 0 {
            // A token would have to hold how many chunks of each document were returned.
            violations.push(FieldViolation::new("page_token", "cannot be combined with `per_document_max`"));
        }
        match (principal, parts.query, usize::try_from(parts.top_k)) {
            (Some(principal), Some(query), Ok(top_k)) if violations.is_empty() => Ok(Self {
                principal,
                collection: parts.collection,
                query,
                top_k,
                filter: parts.filter,
                min_score: parts.min_score,
                per_document_max: usize::try_from(parts.per_document_max).ok().and_then(NonZeroUsize::new),
                consistency: parts.consistency,
                page: parts.page_token,
            }),
            _ => Err(violations),
        }
    }

    /// Returns the collection to search.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Returns what to search for.
    #[must_use]
    pub fn query(&self) -> &StatedQuery {
        &self.query
    }

    /// Returns how many chunks are wanted.
    #[must_use]
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// Returns whether scores depend on what else the principal may see: on the statistics of its chunks (BM25), or on
    /// their ranks.
    pub(super) fn needs_visible_set(&self) -> bool {
        self.query.is_by_words()
    }

    /// Returns the keys of the values that the request states for conditions, in alphabetical order.
    #[must_use]
    pub fn context_keys(&self) -> &[String] {
        self.principal.stated_keys()
    }

    /// Returns whether the request has a filter.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Returns how fresh the tuples that decide must be.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }
}

/// A re-check that can be carried out.
#[derive(Clone, Debug)]
pub struct RecheckRequest {
    pub(super) principal: Principal,
    pub(super) collection: String,
    pub(super) chunk_ids: Vec<String>,
    pub(super) consistency: Consistency,
}

impl RecheckRequest {
    /// Checks the parts of a re-check.
    ///
    /// # Errors
    /// Returns the wrong fields that were found, at least one.
    pub fn new(
        principal: NamedPrincipal,
        collection: String,
        chunk_ids: Vec<String>,
        consistency: Consistency,
    ) -> Result<Self, Vec<FieldViolation>> {
        let mut violations = Vec::new();
        let principal = principal.known(&mut violations);
        check_collection(&collection, &mut violations);
        if chunk_ids.len() > RECHECK_IDS_MAX {
            let description = format!("has {} ids, at most {RECHECK_IDS_MAX} are allowed", chunk_ids.len());
            violations.push(FieldViolation::new("chunk_ids", description));
        }
        check_ids("chunk_ids", chunk_ids.iter().take(RECHECK_IDS_MAX), &mut violations);
        match principal {
            Some(principal) if violations.is_empty() => Ok(Self { principal, collection, chunk_ids, consistency }),
            _ => Err(violations),
        }
    }

    /// Returns the collection that has the chunks.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Returns the keys of the values that the request states for conditions, in alphabetical order.
    #[must_use]
    pub fn context_keys(&self) -> &[String] {
        self.principal.stated_keys()
    }

    /// Returns the ids of the chunks, as they were sent.
    #[must_use]
    pub fn chunk_ids(&self) -> &[String] {
        &self.chunk_ids
    }

    /// Returns how fresh the tuples that decide must be.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }
}

/// The parts of a fetch as they arrive, before they are checked.
#[derive(Clone, Debug)]
pub struct FetchParts {
    /// The principal that the fetch is for.
    pub principal: NamedPrincipal,
    /// The collection of the chunks.
    pub collection: String,
    /// The ids of chunks.
    pub chunk_ids: Vec<String>,
    /// The ids of documents, whose chunks are all wanted.
    pub document_ids: Vec<String>,
    /// How fresh the tuples must be that decide.
    pub consistency: Consistency,
}

/// A fetch that can be carried out.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    pub(super) principal: Principal,
    pub(super) collection: String,
    /// The distinct ids of chunks, in their order.
    pub(super) chunk_ids: Vec<String>,
    /// The distinct ids of documents, in their order.
    pub(super) document_ids: Vec<String>,
    pub(super) consistency: Consistency,
}

impl FetchRequest {
    /// Checks the parts of a fetch.
    ///
    /// # Errors
    /// Returns the wrong fields that were found, at least one.
    pub fn new(parts: FetchParts) -> Result<Self, Vec<FieldViolation>> {
        let FetchParts { principal, collection, chunk_ids, document_ids, consistency } = parts;
        let mut violations = Vec::new();
        let principal = principal.known(&mut violations);
        check_collection(&collection, &mut violations);
        let ids_total = chunk_ids.len().saturating_add(document_ids.len());
        if ids_total > FETCH_IDS_MAX {
            let field = if chunk_ids.len() > FETCH_IDS_MAX { "chunk_ids" } else { "document_ids" };
            let description =
                format!("makes {ids_total} ids; at most {FETCH_IDS_MAX} of chunks and documents are allowed");
            violations.push(FieldViolation::new(field, description));
        }
        check_ids("chunk_ids", chunk_ids.iter().take(FETCH_IDS_MAX), &mut violations);
        check_ids("document_ids", document_ids.iter().take(FETCH_IDS_MAX), &mut violations);
        match principal {
            Some(principal) if violations.is_empty() => {
                let (chunk_ids, document_ids) = (distinct(chunk_ids), distinct(document_ids));
                Ok(Self { principal, collection, chunk_ids, document_ids, consistency })
            }
            _ => Err(violations),
        }
    }

    /// Returns the collection that has the chunks.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Returns the keys of the values that the request states for conditions, in alphabetical order.
    #[must_use]
    pub fn context_keys(&self) -> &[String] {
        self.principal.stated_keys()
    }

    /// Returns how many distinct chunks and documents the request names.
    #[must_use]
    pub fn ids_total(&self) -> usize {
        self.chunk_ids.len().saturating_add(self.document_ids.len())
    }

    /// Returns the largest number of chunks that its answer may have, if an answer has at most `chunks_max`.
    #[must_use]
    pub fn chunks_max(&self, chunks_max: usize) -> usize {
        if self.document_ids.is_empty() { chunks_max.min(self.chunk_ids.len()) } else { chunks_max }
    }

    /// Returns how fresh the tuples must be that decide.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }
}

/// Keeps the first of equal ids.
fn distinct(mut ids: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    ids
}

/// Checks the ids of chunks or documents, and names the first wrong one, which shows the rule.
fn check_ids<'i>(field: &str, ids: impl Iterator<Item = &'i String>, violations: &mut Vec<FieldViolation>) {
    let is_wrong = |id: &String| id.is_empty() || id.len() > ID_BYTES_MAX;
    if let Some((position, _)) = ids.enumerate().find(|(_, id)| is_wrong(id)) {
        let description = format!("must have 1 to {ID_BYTES_MAX} bytes");
        violations.push(FieldViolation::new(format!("{field}[{position}]"), description));
    }
}

/// Checks the name of a collection. It may have letters, digits, `_`, `-` and `.`, which every store takes.
pub(crate) fn check_collection(name: &str, violations: &mut Vec<FieldViolation>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > COLLECTION_BYTES_MAX || !name.chars().all(allowed) {
        let description = format!("must have 1 to {COLLECTION_BYTES_MAX} of the characters A-Z a-z 0-9 _ - .");
        violations.push(FieldViolation::new("collection", description));
    }
}

fn check_filter(filter: &Filter, violations: &mut Vec<FieldViolation>) {
    let mut nodes = 0usize;
    // This uses a stack instead of recursion, because the caller chooses the depth.
    let mut open: Vec<(&Filter, usize)> = vec![(filter, 1)];
    while let Some((filter, depth)) = open.pop() {
        nodes += 1;
        if depth > FILTER_DEPTH_MAX {
            let description = format!("is nested more than {FILTER_DEPTH_MAX} deep");
            violations.push(FieldViolation::new("filter", description));
            return;
        }
        match filter {
            Filter::All(filters) | Filter::Any(filters) => open.extend(filters.iter().map(|f| (f, depth + 1))),
            Filter::Not(filter) => open.push((filter, depth + 1)),
            Filter::OneOf { key, values } => {
                nodes += values.len();
                check_filter_key(key, violations);
                check_filter_values(values, violations);
            }
            Filter::Between { key, low, high } => {
                check_filter_key(key, violations);
                if low.is_nan() || high.is_nan() {
                    violations.push(FieldViolation::new("filter.range", "has a bound that is not a number"));
                }
            }
            Filter::During { key, from: _, until: _ } => check_filter_key(key, violations),
        }
        if nodes > FILTER_NODES_MAX {
            let description = format!("has more than {FILTER_NODES_MAX} conditions and values");
            violations.push(FieldViolation::new("filter", description));
            return;
        }
    }
}

fn check_filter_key(key: &str, violations: &mut Vec<FieldViolation>) {
    if key.is_empty() || key.len() > FILTER_TEXT_BYTES_MAX {
        let description = format!("must have 1 to {FILTER_TEXT_BYTES_MAX} bytes");
        violations.push(FieldViolation::new("filter.key", description));
    }
}

fn check_filter_values(values: &[Value], violations: &mut Vec<FieldViolation>) {
    for value in values {
        let description = match value {
            Value::Float(number) if !number.is_finite() => "has a number that is not finite".to_owned(),
            Value::Text(text) if text.len() > FILTER_TEXT_BYTES_MAX => {
                format!("has a text of {} bytes, at most {FILTER_TEXT_BYTES_MAX} are allowed", text.len())
            }
            Value::List(_) => "has a list; name its values one by one".to_owned(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => continue,
        };
        violations.push(FieldViolation::new("filter.one_of.values", description));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector_store::Query;

    fn parts() -> RetrievalParts {
        RetrievalParts {
            principal: NamedPrincipal::stated("user:anne"),
            collection: "handbook".to_owned(),
            query: Some(Query::Text("leave".to_owned()).into()),
            top_k: 10,
            filter: None,
            min_score: None,
            per_document_max: 0,
            consistency: Consistency::default(),
            page_token: None,
        }
    }

    fn nested(depth: usize) -> Filter {
        (1..depth).fold(Filter::All(Vec::new()), |filter, _| Filter::Not(Box::new(filter)))
    }

    #[test]
    fn each_wrong_field_is_named() {
        let vector = |values: &[f32]| Some(Query::Vector(values.to_vec()).into());
        let text = |text: &str| Some(Query::Text(text.to_owned()).into());
        let hybrid =
            |text: &str, vector: &[f32]| Some(Query::Hybrid { text: text.to_owned(), vector: vector.to_vec() }.into());
        let semantic = |text: &str| Some(StatedQuery::Semantic(text.to_owned()));
        let one_of = |values: Vec<Value>| Some(Filter::OneOf { key: "year".to_owned(), values });
        let rows: Vec<(&str, RetrievalParts, &[&str])> = vec![
            ("everything is right", parts(), &[]),
            ("no user", RetrievalParts { principal: NamedPrincipal::stated(""), ..parts() }, &["user"]),
            ("everybody", RetrievalParts { principal: NamedPrincipal::stated("user:*"), ..parts() }, &["user"]),
            (
                "a userset",
                RetrievalParts { principal: NamedPrincipal::stated("group:eng#member"), ..parts() },
                &["user"],
            ),
            (
                "a line break in the user",
                RetrievalParts { principal: NamedPrincipal::stated("user:an\nne"), ..parts() },
                &["user"],
            ),
            (
                "a long user",
                RetrievalParts { principal: NamedPrincipal::stated(&format!("user:{}", "a".repeat(600))), ..parts() },
                &["user"],
            ),
            ("no collection", RetrievalParts { collection: String::new(), ..parts() }, &["collection"]),
            ("a path for a collection", RetrievalParts { collection: "../etc".to_owned(), ..parts() }, &["collection"]),
            ("no chunks", RetrievalParts { top_k: 0, ..parts() }, &["top_k"]),
            ("more chunks than are allowed", RetrievalParts { top_k: 101, ..parts() }, &["top_k"]),
            ("no query", RetrievalParts { query: None, ..parts() }, &["query"]),
            ("an empty text", RetrievalParts { query: text(" \t"), ..parts() }, &["text"]),
            ("a long text", RetrievalParts { query: text(&"a".repeat(8_193)), ..parts() }, &["text"]),
            ("no vector", RetrievalParts { query: vector(&[]), ..parts() }, &["vector.values"]),
            (
                "a vector without direction",
                RetrievalParts { query: vector(&[0.0, 0.0]), ..parts() },
                &["vector.values"],
            ),
            ("a vector with NaN", RetrievalParts { query: vector(&[1.0, f32::NAN]), ..parts() }, &["vector.values"]),
            (
                "an infinite vector",
                RetrievalParts { query: vector(&[1.0, f32::INFINITY]), ..parts() },
                &["vector.values"],
            ),
            ("a long vector", RetrievalParts { query: vector(&vec![1.0; 4_097]), ..parts() }, &["vector.values"]),
            ("a hybrid query", RetrievalParts { query: hybrid("leave", &[1.0]), ..parts() }, &[]),
            (
                "a hybrid query without both parts",
                RetrievalParts { query: hybrid("", &[]), ..parts() },
                &["hybrid.text", "hybrid.vector.values"],
            ),
            ("a query by meaning", RetrievalParts { query: semantic("leave"), ..parts() }, &[]),
            ("a query by no meaning", RetrievalParts { query: semantic(" "), ..parts() }, &["semantic.text"]),
            (
                "a long query by meaning",
                RetrievalParts { query: semantic(&"a".repeat(8_193)), ..parts() },
                &["semantic.text"],
            ),
            (
                "words and their meaning, without words",
                RetrievalParts { query: Some(StatedQuery::Hybrid(String::new())), ..parts() },
                &["hybrid.text"],
            ),
            ("a negative lowest score", RetrievalParts { min_score: Some(-0.5), ..parts() }, &[]),
            ("a lowest score of NaN", RetrievalParts { min_score: Some(f64::NAN), ..parts() }, &["min_score"]),
            ("a first page", RetrievalParts { page_token: Some(String::new()), ..parts() }, &[]),
            (
                "pages beside a limit for each document",
                RetrievalParts { page_token: Some(String::new()), per_document_max: 1, ..parts() },
                &["page_token"],
            ),
            ("a deep filter", RetrievalParts { filter: Some(nested(8)), ..parts() }, &[]),
            ("a filter that is too deep", RetrievalParts { filter: Some(nested(9)), ..parts() }, &["filter"]),
            ("a large filter", RetrievalParts { filter: one_of(vec![Value::Int(1); 255]), ..parts() }, &[]),
            (
                "a filter that is too large",
                RetrievalParts { filter: one_of(vec![Value::Int(1); 256]), ..parts() },
                &["filter"],
            ),
            (
                "a filter with NaN",
                RetrievalParts { filter: one_of(vec![Value::Float(f64::NAN)]), ..parts() },
                &["filter.one_of.values"],
            ),
            (
                "three wrong fields",
                RetrievalParts { principal: NamedPrincipal::stated(""), top_k: 0, query: None, ..parts() },
                &["user", "top_k", "query"],
            ),
        ];
        for (row, parts, expected_fields) in rows {
            let violations = RetrievalRequest::new(parts, 100).err().unwrap_or_default();
            let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
            assert_eq!(fields, expected_fields, "{row}: {violations:?}");
        }
    }
}
