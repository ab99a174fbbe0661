//! Binds a page token to the search that it belongs to: the MAC of a token covers a digest of the whole search.
//!
//! INVARIANT (injective): two searches have the same bytes only if they are the same search. Every part is typed by its
//! position or by a tag, and every text and list carries its length. The tests read the bytes back.

use ring::digest::{Digest, SHA256, digest};

use crate::authz::Consistency;
use crate::authz::decision_key::{write_contextual, write_count, write_text};
use crate::chunk::Value;
use crate::engine::Contextual;
use crate::identity::details::{OneOf, PagedDetails};
use crate::identity::{Actor, Delegation, DelegationOn, Principal, Scope, TokenFacts};
use crate::language::{Object, Relation};
use crate::retrieval::request::{RetrievalRequest, StatedQuery};
use crate::vector_store::{Filter, Query};

/// The length of a digest, that of SHA-256.
pub(super) const DIGEST_BYTES: usize = 32;
/// The first byte. It changes whenever the form of the bytes does.
const VERSION: u8 = 4;

const NONE: u8 = 0;
const SOME: u8 = 1;

const ON_USER: u8 = 0;
const ON_GUARD: u8 = 1;

const QUERY_TEXT: u8 = 0;
const QUERY_VECTOR: u8 = 1;
const QUERY_HYBRID: u8 = 2;
const QUERY_SEMANTIC: u8 = 3;
const QUERY_HYBRID_TEXT: u8 = 4;

const FILTER_ALL: u8 = 0;
const FILTER_ANY: u8 = 1;
const FILTER_NOT: u8 = 2;
const FILTER_ONE_OF: u8 = 3;
const FILTER_BETWEEN: u8 = 4;
const FILTER_DURING: u8 = 5;

const VALUE_BOOL: u8 = 0;
const VALUE_INT: u8 = 1;
const VALUE_FLOAT: u8 = 2;
const VALUE_TEXT: u8 = 3;
const VALUE_LIST: u8 = 4;

const MINIMIZE_LATENCY: u8 = 0;
const AT_LEAST_AS_FRESH: u8 = 1;
const HIGHER_CONSISTENCY: u8 = 2;

/// A digest of one search.
pub(in crate::retrieval) struct Binding(pub(super) [u8; DIGEST_BYTES]);

impl Binding {
    /// Binds a token to the search of a request. `principal` is the request's own, after the details of its token were
    /// applied. Returns `None` if these allow no pages ([`Principal::paged_details`]).
    pub(in crate::retrieval) fn new(
        request: &RetrievalRequest,
        principal: &Principal,
        relation: &Relation,
    ) -> Option<Self> {
        let details = if principal.is_narrowed() { Some(principal.paged_details()?) } else { None };
        let mut bytes = vec![VERSION];
        write_principal(&mut bytes, &BoundPrincipal::of(principal));
        write_option(&mut bytes, details, write_details);
        write_search(&mut bytes, request);
        write_text(&mut bytes, relation.as_str());
        Some(Self(digest_bytes(&digest(&SHA256, &bytes))))
    }
}

/// Returns the bytes of a digest made with SHA-256.
pub(super) fn digest_bytes(digest: &Digest) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Everything that distinguishes one principal from another, beside what narrows it.
struct BoundPrincipal<'p> {
    subject: &'p Object,
    contextual: &'p Contextual,
    token: Option<&'p TokenFacts>,
    is_asserted: bool,
    delegation: Option<&'p Delegation>,
}

impl<'p> BoundPrincipal<'p> {
    fn of(principal: &'p Principal) -> Self {
        Self {
            subject: principal.subject(),
            contextual: principal.contextual(),
            token: principal.token(),
            is_asserted: principal.asserted_by().is_some(),
            delegation: principal.delegation(),
        }
    }
}

fn write_principal(out: &mut Vec<u8>, principal: &BoundPrincipal<'_>) {
    let BoundPrincipal { subject, contextual, token, is_asserted, delegation } = principal;
    write_text(out, subject.as_str());
    write_contextual(out, contextual);
    write_option(out, *token, write_token);
    out.push(u8::from(*is_asserted));
    write_option(out, *delegation, write_delegation);
}

fn write_details(out: &mut Vec<u8>, details: PagedDetails<'_>) {
    let PagedDetails { nonce, conditions } = details;
    write_option(out, nonce, write_text);
    write_count(out, conditions.len());
    for OneOf { key, values } in conditions {
        write_text(out, key);
        write_count(out, values.len());
        for value in values {
            write_text(out, value);
        }
    }
}

fn write_token(out: &mut Vec<u8>, token: &TokenFacts) {
    // The id and the end of the token are left out, so that a client goes on with its next token when this one expires
    // between two pages. Its `sub` may be a login name, which says nothing beside the subject.
    let TokenFacts { issuer, subject, standard_subject: _, client_id, token_id: _, scopes, actors, expires_at: _ } =
        token;
    for text in [&**issuer, subject, client_id] {
        write_text(out, text);
    }
    // One byte for each scope that exists, in a fixed order.
    out.extend(Scope::ALL.map(|scope| u8::from(scopes.contains(scope))));
    write_count(out, actors.len());
    for Actor { object } in actors {
        write_text(out, object.as_str());
    }
}

fn write_delegation(out: &mut Vec<u8>, delegation: &Delegation) {
    let Delegation { actor, relation, on } = delegation;
    write_text(out, actor.as_str());
    write_text(out, relation.as_str());
    out.push(match on {
        DelegationOn::User => ON_USER,
        DelegationOn::Guard => ON_GUARD,
    });
}

fn write_search(out: &mut Vec<u8>, request: &RetrievalRequest) {
    write_asked(out, request);
    // The moment of a consistency token is left out, because a later page may ask for fresher tuples than the page
    // before it.
    out.push(match request.consistency {
        Consistency::MinimizeLatency => MINIMIZE_LATENCY,
        Consistency::AtLeastAsFresh(_) => AT_LEAST_AS_FRESH,
        Consistency::HigherConsistency => HIGHER_CONSISTENCY,
    });
}

/// Writes what a request asks for: everything but who asks, how fresh the tuples must be, and which page it is.
pub(in crate::retrieval) fn write_asked(out: &mut Vec<u8>, request: &RetrievalRequest) {
    let RetrievalRequest {
        principal: _,
        collection,
        query,
        top_k,
        filter,
        min_score,
        per_document_max,
        consistency: _,
        page: _,
    } = request;
    write_text(out, collection);
    write_query(out, query);
    write_count(out, *top_k);
    write_option(out, filter.as_ref(), write_filter);
    write_option(out, min_score.as_ref(), |out, score| out.extend(score.to_bits().to_le_bytes()));
    write_option(out, per_document_max.as_ref(), |out, max| write_count(out, max.get()));
}

fn write_query(out: &mut Vec<u8>, query: &StatedQuery) {
    match query {
        StatedQuery::Searchable(Query::Text(text)) => {
            out.push(QUERY_TEXT);
            write_text(out, text);
        }
        StatedQuery::Searchable(Query::Vector(vector)) => {
            out.push(QUERY_VECTOR);
            write_vector(out, vector);
        }
        StatedQuery::Searchable(Query::Hybrid { text, vector }) => {
            out.push(QUERY_HYBRID);
            write_text(out, text);
            write_vector(out, vector);
        }
        StatedQuery::Semantic(text) => {
            out.push(QUERY_SEMANTIC);
            write_text(out, text);
        }
        StatedQuery::Hybrid(text) => {
            out.push(QUERY_HYBRID_TEXT);
            write_text(out, text);
        }
    }
}

fn write_vector(out: &mut Vec<u8>, vector: &[f32]) {
    write_count(out, vector.len());
    for value in vector {
        out.extend(value.to_bits().to_le_bytes());
    }
}

/// Recursion is bounded: the filter of a request is at most `FILTER_DEPTH_MAX` deep.
fn write_filter(out: &mut Vec<u8>, filter: &Filter) {
    match filter {
        Filter::All(filters) => write_filters(out, FILTER_ALL, filters),
        Filter::Any(filters) => write_filters(out, FILTER_ANY, filters),
        Filter::Not(filter) => {
            out.push(FILTER_NOT);
            write_filter(out, filter);
        }
        Filter::OneOf { key, values } => {
            out.push(FILTER_ONE_OF);
            write_text(out, key);
            write_count(out, values.len());
            for value in values {
                write_value(out, value);
            }
        }
        Filter::Between { key, low, high } => {
            out.push(FILTER_BETWEEN);
            write_text(out, key);
            out.extend(low.to_bits().to_le_bytes());
            out.extend(high.to_bits().to_le_bytes());
        }
        Filter::During { key, from, until } => {
            out.push(FILTER_DURING);
            write_text(out, key);
            for bound in [from, until] {
                write_option(out, *bound, |out, bound| out.extend(bound.microseconds().to_le_bytes()));
            }
        }
    }
}

fn write_filters(out: &mut Vec<u8>, tag: u8, filters: &[Filter]) {
    out.push(tag);
    write_count(out, filters.len());
    for filter in filters {
        write_filter(out, filter);
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(bool) => out.extend([VALUE_BOOL, u8::from(*bool)]),
        Value::Int(int) => {
            out.push(VALUE_INT);
            out.extend(int.to_le_bytes());
        }
        Value::Float(float) => {
            out.push(VALUE_FLOAT);
            out.extend(float.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(VALUE_TEXT);
            write_text(out, text);
        }
        Value::List(values) => {
            out.push(VALUE_LIST);
            write_count(out, values.len());
            for value in values {
                write_value(out, value);
            }
        }
    }
}

pub(in crate::retrieval) fn write_option<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(NONE),
        Some(value) => {
            out.push(SOME);
            write(out, value);
        }
    }
}

#[cfg(test)]
mod tests;
