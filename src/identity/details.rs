//! Rich authorization requests (RFC 9396): objects of one type in a token's `authorization_details`, which narrow what
//! its bearer gets. `schema/authorization_details.md` is the contract.
//!
//! INVARIANT (only narrower): an object takes away and never gives. A chunk must fit one object, and must fit
//! everything inside that object. An object that is malformed or unknown refuses the token.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::Refusal;
pub use super::approvable::Action;
use super::approvable::{ApprovableRequest, Grant};
use crate::chunk::{Metadata, Value};
use crate::language::{Object, Relation};

/// The number of objects of our type that a token may have.
const OBJECTS_MAX: usize = 32;

/// How `authorization_details` (RFC 9396) are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetailsConfig {
    /// The type of the objects that are meant for this server.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The metadata key that `datatypes` are compared with. When unset, they are compared with the type of the guard.
    pub datatype_key: Option<String>,
    /// The metadata key that holds a chunk's classification.
    pub classification_key: Option<String>,
    /// The classifications from the lowest to the highest. Without them, a token that names a ceiling is refused.
    pub classifications: Vec<String>,
}

/// The facts about a request that are known before anything is searched.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The action that is asked for.
    pub action: Action,
    /// The collection that is searched.
    pub collection: &'a str,
    /// The relation that decides who may see a chunk.
    pub relation: &'a Relation,
    /// The text of the query, if it has one.
    pub query_text: Option<&'a str>,
}

/// The objects of our type in a token. There is at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationDetails {
    objects: Vec<Detail>,
}

/// One object. A field that is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq)]
struct Detail {
    /// Whether the object is for this server: false if `locations` names other resource servers only.
    is_for_us: bool,
    actions: Option<BTreeSet<String>>,
    collections: Option<BTreeSet<String>>,
    privileges: Option<BTreeSet<String>>,
    query_sha256: Option<String>,
    approval: Option<ApprovalMark>,
    identifiers: Option<BTreeSet<String>>,
    guard_types: Option<BTreeSet<String>>,
    metadata: Vec<OneOf>,
    /// Whether the object itself names a ceiling (`classification_max`). The condition for it is in `metadata`.
    names_ceiling: bool,
    chunks_max: Option<u64>,
    single_use: bool,
    purpose: Option<String>,
}

/// The mark of an object that approves one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApprovalMark {
    /// The digest of the approved request and of the nonce, in hexadecimal.
    pub(super) request_sha256: String,
    /// The nonce of the server that asked for the approval.
    pub(super) nonce: String,
    /// Whether the object was found to approve the request at hand. Until then it fits nothing.
    is_of_request: bool,
}

/// The details of a principal that gets pages: one object, whose token of a page is bound to these parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedDetails<'d> {
    /// The nonce of the approval, if the object is one.
    pub nonce: Option<&'d str>,
    /// The conditions that every chunk must meet.
    pub conditions: &'d [OneOf],
}

/// A condition on metadata: the text under a key is one of these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOf {
    /// The key of the metadata.
    pub key: String,
    /// The values that it may have.
    pub values: BTreeSet<String>,
}

impl Default for DetailsConfig {
    fn default() -> Self {
        Self {
            type_name: "ragward_retrieval".to_owned(),
            datatype_key: None,
            classification_key: None,
            classifications: Vec::new(),
        }
    }
}

impl DetailsConfig {
    /// Returns the rank of a classification, 0 for the lowest. Returns `None` if it is unknown.
    pub(super) fn rank(&self, classification: &str) -> Option<usize> {
        self.classifications.iter().position(|known| known == classification)
    }

    /// Returns the `count` lowest classifications.
    pub(super) fn lowest(&self, count: usize) -> BTreeSet<String> {
        self.classifications.iter().take(count).cloned().collect()
    }
}

impl AuthorizationDetails {
    /// Reads the claim. Returns `None` if no object is of our type. Objects of other types are meant for other servers
    /// (RFC 9396, section 2) and are ignored.
    pub(super) fn parse(claim: &Json, config: &DetailsConfig, audience: &str) -> Result<Option<Self>, Refusal> {
        let listed = claim.as_array().filter(|listed| !listed.is_empty()).ok_or(Refusal::Details)?;
        let mut objects = Vec::new();
        for value in listed {
            let object = value.as_object().ok_or(Refusal::Details)?;
            let type_name = object.get("type").and_then(Json::as_str).ok_or(Refusal::Details)?;
            if type_name == config.type_name {
                objects.push(Detail::parse(object, config, audience).ok_or(Refusal::Details)?);
            }
        }
        if objects.len() > OBJECTS_MAX {
            return Err(Refusal::Details);
        }
        Ok((!objects.is_empty()).then_some(Self { objects }))
    }

    /// Returns the objects that fit a request, or `None` if no object does and the request is not permitted.
    #[must_use]
    pub(super) fn for_request(&self, facts: &RequestFacts<'_>) -> Option<Self> {
        let objects: Vec<Detail> = self.objects.iter().filter(|object| object.fits(facts)).cloned().collect();
        (!objects.is_empty()).then_some(Self { objects })
    }

    /// Adds one more condition that every chunk must meet.
    #[must_use]
    pub(super) fn with_condition(details: Option<&Self>, condition: &OneOf) -> Self {
        let unlimited = || vec![Detail { is_for_us: true, ..Detail::default() }];
        let mut objects = details.map_or_else(unlimited, |details| details.objects.clone());
        for object in &mut objects {
            object.metadata.push(condition.clone());
        }
        Self { objects }
    }

    /// Returns whether chunks of this guard may fit at all.
    #[must_use]
    pub(super) fn fits_guard(&self, guard: &Object) -> bool {
        self.objects.iter().any(|object| object.fits_guard(guard))
    }

    /// Returns whether the token is good for one request only.
    #[must_use]
    pub fn is_single_use(&self) -> bool {
        self.objects.iter().any(|object| object.single_use)
    }

    /// Returns whether an object approves a request, be it the one at hand or another one.
    pub(super) fn holds_approval(&self) -> bool {
        self.objects.iter().any(|object| object.approval.is_some())
    }

    /// Keeps one object that approves this request, and drops the others. `is_of_request` says whether an object's mark is
    /// that of the request. Returns `None` if no object approves it.
    ///
    /// The object must itself name what the person has seen: the action, the collection, a ceiling if the request names one, and
    /// a number of chunks, which may be lower than the one that was asked for.
    pub(super) fn approving(
        &self,
        request: &ApprovableRequest,
        chunks_max: u64,
        is_of_request: impl Fn(&ApprovalMark) -> bool,
    ) -> Option<Self> {
        let names = |set: &Option<BTreeSet<String>>, name: &str| set.as_ref().is_some_and(|set| set.contains(name));
        let approves = |object: &&Detail| {
            object.single_use
                && object.is_for_us
                && names(&object.actions, request.action.as_str())
                && names(&object.collections, &request.collection)
                && (object.names_ceiling || request.classification_max.is_none())
                && object.chunks_max.is_some_and(|max| max <= chunks_max)
                && object.approval.as_ref().is_some_and(&is_of_request)
        };
        let object = self.objects.iter().find(approves)?;
        let approval = object.approval.clone().map(|mark| ApprovalMark { is_of_request: true, ..mark });
        Some(Self { objects: vec![Detail { approval, ..object.clone() }] })
    }

    /// Returns the most chunks that these details approve, which may be fewer than were asked for. Returns `None` if no object is
    /// the one that was asked for. An object may differ in the purpose, and may name fewer chunks. With any other difference it
    /// approves something else, be it more or less.
    pub(super) fn consents_to(&self, asked: &Self) -> Option<u64> {
        let [asked] = asked.objects.as_slice() else { return None };
        let terms = |object: &Detail| Detail { chunks_max: None, purpose: None, ..object.clone() };
        let consented = self.objects.iter().find(|object| terms(object) == terms(asked))?;
        consented.chunks_max.filter(|max| asked.chunks_max.is_some_and(|asked_max| *max <= asked_max))
    }

    /// Adds an approval that Ragward asked for to the details of the caller's token, if it has any. Returns `None` if there are
    /// several objects.
    pub(super) fn granted(details: Option<&Self>, grant: &Grant) -> Option<Self> {
        let object = match details.map(|details| details.objects.as_slice()) {
            None => Detail { is_for_us: true, ..Detail::default() },
            Some([object]) if object.approval.is_none() => object.clone(),
            Some(_) => return None,
        };
        let Grant { nonce, request_sha256, chunks_max } = grant.clone();
        let chunks_max = object.chunks_max.map_or(chunks_max, |own| own.min(chunks_max));
        let approval = Some(ApprovalMark { request_sha256, nonce, is_of_request: true });
        Some(Self { objects: vec![Detail { approval, chunks_max: Some(chunks_max), ..object }] })
    }

    /// Returns the mark of the one object, if it approves the request at hand.
    pub(super) fn approval(&self) -> Option<&ApprovalMark> {
        let [object] = self.objects.as_slice() else { return None };
        object.approval.as_ref().filter(|mark| mark.is_of_request)
    }

    /// Returns what is bound to the token of a page, or `None` if there are no pages under these details. An object that
    /// limits the number of chunks counts them over all pages only if it is an approval.
    pub(super) fn paged(&self) -> Option<PagedDetails<'_>> {
        let [object] = self.objects.as_slice() else { return None };
        let conditions = object.metadata.as_slice();
        if let Some(mark) = self.approval() {
            return Some(PagedDetails { nonce: Some(&mark.nonce), conditions });
        }
        let looks_at_metadata_alone = object.identifiers.is_none()
            && object.guard_types.is_none()
            && object.chunks_max.is_none()
            && object.query_sha256.is_none()
            && object.approval.is_none();
        looks_at_metadata_alone.then_some(PagedDetails { nonce: None, conditions })
    }

    /// Returns the details after chunks were taken from them.
    #[must_use]
    pub(super) fn after(&self, taken: u64) -> Self {
        let left = |object: &Detail| Detail {
            chunks_max: object.chunks_max.map(|max| max.saturating_sub(taken)),
            ..object.clone()
        };
        Self { objects: self.objects.iter().map(left).collect() }
    }

    /// Returns the purposes that the objects state.
    pub fn purposes(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().filter_map(|object| object.purpose.as_deref())
    }

    /// Returns whether a chunk with this guard and this metadata fits an object. Limits on the number of chunks are not
    /// considered.
    #[must_use]
    pub fn admits(&self, guard: &Object, metadata: &Metadata) -> bool {
        self.objects
            .iter()
            .any(|object| object.chunks_max != Some(0) && object.fits_guard(guard) && object.fits_metadata(metadata))
    }

    /// Returns the number of chunks that all objects together permit, or `None` if one of them has no limit.
    #[must_use]
    pub(super) fn chunks_max(&self) -> Option<u64> {
        self.objects.iter().try_fold(0u64, |sum, object| Some(sum.saturating_add(object.chunks_max?)))
    }

    /// Returns whether a guard is not enough to decide: an object has conditions on metadata, or limits the number of
    /// chunks.
    #[must_use]
    pub(super) fn ask_for_chunks(&self) -> bool {
        self.objects.iter().any(|object| !object.metadata.is_empty() || object.chunks_max.is_some())
    }

    /// Returns one list of conditions for each object. A permitted chunk meets all conditions of at least one list.
    /// Returns `None` if an object has no condition.
    #[must_use]
    pub(super) fn metadata_conditions(&self) -> Option<Vec<&[OneOf]>> {
        let conditions: Vec<&[OneOf]> = self.objects.iter().map(|object| object.metadata.as_slice()).collect();
        conditions.iter().all(|list| !list.is_empty()).then_some(conditions)
    }
}

/// Counts the chunks that one answer takes from each object.
#[derive(Debug)]
pub(super) struct Budget<'d> {
    /// Objects without a limit come first, so that a limited object is spent only on chunks that no unlimited one
    /// permits.
    allowances: Vec<Allowance<'d>>,
}

/// An object, and the number of chunks that it still permits: `None` if it sets no limit.
#[derive(Debug)]
struct Allowance<'d> {
    object: &'d Detail,
    chunks_left: Option<u64>,
}

impl<'d> Budget<'d> {
    pub(super) fn new(details: &'d AuthorizationDetails) -> Self {
        let allowances = details.objects.iter().map(|object| Allowance { object, chunks_left: object.chunks_max });
        let mut allowances: Vec<Allowance<'_>> = allowances.collect();
        allowances.sort_by_key(|allowance| allowance.chunks_left.is_some());
        Self { allowances }
    }

    /// Spends one chunk of an object that permits this chunk. Returns false if no object permits it or has any left.
    pub(super) fn admit(&mut self, guard: &Object, metadata: &Metadata) -> bool {
        for Allowance { object, chunks_left } in &mut self.allowances {
            if !object.fits_guard(guard) || !object.fits_metadata(metadata) {
                continue;
            }
            match chunks_left {
                None => return true,
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    return true;
                }
            }
        }
        false
    }
}

impl Detail {
    /// Reads one object. Returns `None` for anything malformed or unknown.
    fn parse(object: &Map<String, Json>, config: &DetailsConfig, audience: &str) -> Option<Self> {
        let mut detail = Self { is_for_us: true, ..Self::default() };
        let (mut request_sha256, mut nonce) = (None, None);
        let mut is_told_of_request = false;
        for (member, value) in object {
            match member.as_str() {
                "type" => {}
                "locations" => detail.is_for_us = texts(value)?.contains(audience),
                "actions" => detail.actions = Some(texts(value)?),
                "collections" => detail.collections = Some(texts(value)?),
                "privileges" => detail.privileges = Some(texts(value)?),
                "identifiers" => detail.identifiers = Some(texts(value)?),
                "datatypes" => match &config.datatype_key {
                    Some(key) => detail.metadata.push(OneOf { key: key.clone(), values: texts(value)? }),
                    None => detail.guard_types = Some(texts(value)?),
                },
                "classification_max" => {
                    let key = config.classification_key.clone()?;
                    let rank = config.rank(value.as_str()?)?;
                    detail.metadata.push(OneOf { key, values: config.lowest(rank + 1) });
                    detail.names_ceiling = true;
                }
                "chunks_max" => detail.chunks_max = Some(value.as_u64()?),
                "query_sha256" => detail.query_sha256 = Some(digest_text(value)?),
                "request_sha256" => request_sha256 = Some(digest_text(value)?),
                "nonce" => nonce = Some(value.as_str()?.to_owned()),
                "single_use" => detail.single_use = value.as_bool()?,
                "purpose" => detail.purpose = Some(value.as_str()?.to_owned()),
                // These are for the person who approves.
                "requested_by" => is_told_of_request = texts(value).map(|_names| true)?,
                "query" => is_told_of_request = value.as_str().map(|_words| true)?,
                _ => return None,
            }
        }
        detail.approval = match (request_sha256, nonce) {
            (Some(request_sha256), Some(nonce)) => Some(ApprovalMark { request_sha256, nonce, is_of_request: false }),
            (None, None) => None,
            // One of them binds nothing without the other.
            (Some(_), None) | (None, Some(_)) => return None,
        };
        // Without the digest, nothing compares these members with the request, and their writer may have meant them to narrow.
        if is_told_of_request && detail.approval.is_none() {
            return None;
        }
        // A token for one request must name its query or the request, and an approval is for one request.
        let names_request = detail.query_sha256.is_some() || detail.approval.is_some();
        let fits_together = if detail.single_use { names_request } else { detail.approval.is_none() };
        fits_together.then_some(detail)
    }

    fn fits(&self, facts: &RequestFacts<'_>) -> bool {
        let RequestFacts { action, collection, relation, query_text } = *facts;
        let allows = |set: &Option<BTreeSet<String>>, name: &str| set.as_ref().is_none_or(|set| set.contains(name));
        let query_fits =
            self.query_sha256.as_ref().is_none_or(|expected| query_text.is_some_and(|t| sha256(t) == *expected));
        self.is_for_us
            && allows(&self.actions, action.as_str())
            && allows(&self.collections, collection)
            && allows(&self.privileges, relation.as_str())
            && query_fits
            && self.approval.as_ref().is_none_or(|mark| mark.is_of_request)
    }

    fn fits_guard(&self, guard: &Object) -> bool {
        self.identifiers.as_ref().is_none_or(|identifiers| identifiers.contains(guard.as_str()))
            && self.guard_types.as_ref().is_none_or(|types| types.contains(guard.type_name()))
    }

    fn fits_metadata(&self, metadata: &Metadata) -> bool {
        self.metadata.iter().all(|OneOf { key, values }| match metadata.get(key) {
            Some(Value::Text(text)) => values.contains(text),
            // A list is no one value, so nobody can say that it is one of the permitted ones.
            Some(Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_)) | None => false,
        })
    }
}

/// Reads a SHA-256 in lower-case hexadecimal, or returns `None` for anything else.
fn digest_text(value: &Json) -> Option<String> {
    let is_digest = |text: &&str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    value.as_str().filter(is_digest).map(str::to_owned)
}

/// Reads a list of texts, or returns `None` for anything else.
fn texts(value: &Json) -> Option<BTreeSet<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Returns the SHA-256 of a text in hexadecimal.
fn sha256(text: &str) -> String {
    base16ct::lower::encode_string(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}
