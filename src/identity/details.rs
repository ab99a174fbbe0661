//! Rich authorization requests (RFC 9396): objects of one type in a token's `authorization_details` that narrow what its
//! bearer gets. `schema/authorization_details.md` is the contract.
//!
//! INVARIANT (only narrower): an object takes away and never gives. Inside one object everything must fit; a chunk needs one
//! object that fits. What is not understood refuses the token.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::Refusal;
use crate::chunk::{Metadata, Value};
use crate::language::{Object, Relation};

/// Most objects of our type in one token.
const OBJECTS_MAX: usize = 32;

/// What an operator decides about details.
#[derive(Clone, Debug)]
pub struct DetailsRules {
    /// The type of an object that speaks to us.
    pub type_name: String,
    /// The metadata key of a chunk that `datatypes` is compared with; the type of its guard when there is none.
    pub datatype_key: Option<String>,
    /// What `classification_max` means; without it a token that has one is refused.
    pub classification: Option<Classification>,
}

/// An order of classifications.
#[derive(Clone, Debug)]
pub struct Classification {
    /// The metadata key that holds a chunk's. A chunk without it, or with one that is not in the order, fits no ceiling.
    pub metadata_key: String,
    /// From the lowest to the highest.
    pub order: Vec<String>,
}

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Search.
    Retrieve,
    /// Ask whether held chunks may still be seen.
    Recheck,
}

/// What is known of a request before anything is searched.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// What it does.
    pub action: Action,
    /// Where.
    pub collection: &'a str,
    /// The relation that decides.
    pub relation: &'a Relation,
    /// The text of the query, if it is one.
    pub query_text: Option<&'a str>,
}

/// The objects of our type in a token; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationDetails {
    objects: Vec<Detail>,
}

/// One object. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq)]
struct Detail {
    /// False when `locations` names other resource servers only.
    is_for_us: bool,
    actions: Option<BTreeSet<String>>,
    collections: Option<BTreeSet<String>>,
    privileges: Option<BTreeSet<String>>,
    query_sha256: Option<String>,
    identifiers: Option<BTreeSet<String>>,
    guard_types: Option<BTreeSet<String>>,
    metadata: Vec<OneOf>,
    chunks_max: Option<u64>,
    single_use: bool,
    purpose: Option<String>,
}

/// The text under a metadata key is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOf {
    /// The key.
    pub key: String,
    /// The texts.
    pub values: BTreeSet<String>,
}

impl Action {
    /// As a token spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Recheck => "recheck",
        }
    }
}

impl AuthorizationDetails {
    /// Reads the claim. `None` when no object is of our type: those of other types speak to other servers (RFC 9396,
    /// section 2), and say nothing here.
    pub(super) fn parse(claim: &Json, rules: &DetailsRules, audience: &str) -> Result<Option<Self>, Refusal> {
        let listed = claim.as_array().filter(|listed| !listed.is_empty()).ok_or(Refusal::Details)?;
        let mut objects = Vec::new();
        for value in listed {
            let object = value.as_object().ok_or(Refusal::Details)?;
            let type_name = object.get("type").and_then(Json::as_str).ok_or(Refusal::Details)?;
            if type_name == rules.type_name {
                objects.push(Detail::parse(object, rules, audience).ok_or(Refusal::Details)?);
            }
        }
        if objects.len() > OBJECTS_MAX {
            return Err(Refusal::Details);
        }
        Ok((!objects.is_empty()).then_some(Self { objects }))
    }

    /// The objects that fit a request; `None` when none does, and then the request is not permitted.
    #[must_use]
    pub(super) fn for_request(&self, facts: &RequestFacts<'_>) -> Option<Self> {
        let objects: Vec<Detail> = self.objects.iter().filter(|object| object.fits(facts)).cloned().collect();
        (!objects.is_empty()).then_some(Self { objects })
    }

    /// These details, or none, with one more condition that every chunk must meet.
    #[must_use]
    pub(super) fn with_condition(details: Option<&Self>, condition: &OneOf) -> Self {
        let unlimited = || vec![Detail { is_for_us: true, ..Detail::default() }];
        let mut objects = details.map_or_else(unlimited, |details| details.objects.clone());
        for object in &mut objects {
            object.metadata.push(condition.clone());
        }
        Self { objects }
    }

    /// Whether chunks of this guard may fit at all.
    #[must_use]
    pub(super) fn fits_guard(&self, guard: &Object) -> bool {
        self.objects.iter().any(|object| object.fits_guard(guard))
    }

    /// Whether the token serves one request only.
    #[must_use]
    pub fn is_single_use(&self) -> bool {
        self.objects.iter().any(|object| object.single_use)
    }

    /// What the token was given for, as its objects say.
    pub fn purposes(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().filter_map(|object| object.purpose.as_deref())
    }

    /// Whether a chunk of this guard and with this metadata fits one of the objects, as long as few others were taken.
    #[must_use]
    pub fn admits(&self, guard: &Object, metadata: &Metadata) -> bool {
        self.objects
            .iter()
            .any(|object| object.chunks_max != Some(0) && object.fits_guard(guard) && object.fits_metadata(metadata))
    }

    /// Most chunks that all objects together can permit; `None` when one of them has no limit.
    #[must_use]
    pub(super) fn chunks_max(&self) -> Option<u64> {
        self.objects.iter().try_fold(0u64, |sum, object| Some(sum.saturating_add(object.chunks_max?)))
    }

    /// Whether a guard alone tells what is permitted.
    #[must_use]
    pub(super) fn ask_for_chunks(&self) -> bool {
        self.objects.iter().any(|object| !object.metadata.is_empty() || object.chunks_max.is_some())
    }

    /// Conditions on metadata of which every permitted chunk meets one list whole; `None` when one object has no condition.
    #[must_use]
    pub(super) fn metadata_conditions(&self) -> Option<Vec<&[OneOf]>> {
        let conditions: Vec<&[OneOf]> = self.objects.iter().map(|object| object.metadata.as_slice()).collect();
        conditions.iter().all(|list| !list.is_empty()).then_some(conditions)
    }
}

/// Counts the chunks that one answer takes from each object.
#[derive(Debug)]
pub(super) struct Budget<'d> {
    /// Each object with the chunks that are left to it; those without a limit first, so that none is spent in vain.
    objects: Vec<(&'d Detail, Option<u64>)>,
}

impl<'d> Budget<'d> {
    pub(super) fn new(details: &'d AuthorizationDetails) -> Self {
        let mut objects: Vec<(&Detail, Option<u64>)> = details.objects.iter().map(|o| (o, o.chunks_max)).collect();
        objects.sort_by_key(|(_, left)| left.is_some());
        Self { objects }
    }

    /// Whether one object permits this chunk and has one left; then it is spent.
    pub(super) fn admit(&mut self, guard: &Object, metadata: &Metadata) -> bool {
        for (object, left) in &mut self.objects {
            if !object.fits_guard(guard) || !object.fits_metadata(metadata) {
                continue;
            }
            match left {
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
    /// `None` on anything that is not understood.
    fn parse(object: &Map<String, Json>, rules: &DetailsRules, audience: &str) -> Option<Self> {
        let mut detail = Self { is_for_us: true, ..Self::default() };
        for (member, value) in object {
            match member.as_str() {
                "type" => {}
                "locations" => detail.is_for_us = texts(value)?.contains(audience),
                "actions" => detail.actions = Some(texts(value)?),
                "collections" => detail.collections = Some(texts(value)?),
                "privileges" => detail.privileges = Some(texts(value)?),
                "identifiers" => detail.identifiers = Some(texts(value)?),
                "datatypes" => match &rules.datatype_key {
                    Some(key) => detail.metadata.push(OneOf { key: key.clone(), values: texts(value)? }),
                    None => detail.guard_types = Some(texts(value)?),
                },
                "classification_max" => {
                    let Classification { metadata_key, order } = rules.classification.as_ref()?;
                    let ceiling = value.as_str()?;
                    let place = order.iter().position(|name| name == ceiling)?;
                    let values = order.iter().take(place + 1).cloned().collect();
                    detail.metadata.push(OneOf { key: metadata_key.clone(), values });
                }
                "chunks_max" => detail.chunks_max = Some(value.as_u64()?),
                "query_sha256" => {
                    let is_digest =
                        |text: &&str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                    detail.query_sha256 = Some(value.as_str().filter(is_digest)?.to_owned());
                }
                "single_use" => detail.single_use = value.as_bool()?,
                "purpose" => detail.purpose = Some(value.as_str()?.to_owned()),
                _ => return None,
            }
        }
        // A token that serves one request serves one query.
        (!detail.single_use || detail.query_sha256.is_some()).then_some(detail)
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
    }

    fn fits_guard(&self, guard: &Object) -> bool {
        self.identifiers.as_ref().is_none_or(|identifiers| identifiers.contains(guard.as_str()))
            && self.guard_types.as_ref().is_none_or(|types| types.contains(guard.type_name()))
    }

    fn fits_metadata(&self, metadata: &Metadata) -> bool {
        self.metadata.iter().all(|OneOf { key, values }| match metadata.get(key) {
            Some(Value::Text(text)) => values.contains(text),
            Some(Value::Bool(_) | Value::Int(_) | Value::Float(_)) | None => false,
        })
    }
}

/// A list of texts; `None` for anything else.
fn texts(value: &Json) -> Option<BTreeSet<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The SHA-256 of a text in hexadecimal.
fn sha256(text: &str) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text cannot fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}
