//! Decides which requests a person has to approve, and whether a token shows that the person did.
//!
//! INVARIANT (per request): whether an approval is needed depends on the request and the configuration, never on what a
//! search finds. So a refusal does not tell what is there.
//!
//! INVARIANT (one request): an approval holds a digest of one request, and a nonce that this process made for one person.
//! It is good for that request alone. An object of `authorization_details` that nobody compared with the request fits
//! nothing.

pub(crate) mod desk;
pub(crate) mod notification;
pub(crate) mod sealed;

use std::collections::BTreeMap;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value as Json, json};

use super::approvable::{ApprovableRequest, Approval, Grant, length, request_sha256};
use super::config::{ApprovalConfig, CheckedConfig, IdentityConfig, IdentityConfigError};
use super::details::{ApprovalMark, AuthorizationDetails, DetailsConfig, OneOf};
use super::principal::Principal;
use super::token::{TokenFacts, VerifiedToken};

/// The time within which an approval can be asked for and used, in seconds. A person has minutes to say yes, and a token for one request
/// rarely lives longer than an hour.
const LIFETIME_SECONDS: u64 = 3_600;
const KEY_BYTES: usize = 32;
const RANDOM_BYTES: usize = 16;
const EXPIRY_BYTES: usize = 8;
const MAC_BYTES: usize = 32;

/// The requests that a person has to approve.
#[derive(Debug, Default)]
pub struct ApprovalRules {
    /// The most chunks of one approval, by collection.
    collections: BTreeMap<String, Option<u64>>,
    /// The most chunks of one approval, by the rank of the lowest classification that the rule is about.
    classifications: BTreeMap<usize, Option<u64>>,
    details: DetailsConfig,
    /// The maker of nonces. Without it, no approval is good.
    nonces: Option<Nonces>,
}

/// A principal whose request is let through, with the approval if there is one.
#[derive(Debug)]
pub struct Judged {
    /// The principal. Its rights are bounded to what needs no approval, or to what was approved.
    pub principal: Principal,
    /// The approval; `None` if the request needs none.
    pub approval: Option<Approval>,
}

/// The reason why a request is not let through.
#[derive(Clone, Debug, PartialEq)]
pub enum ApprovalError {
    /// A person has to approve the request. The client asks for a token with these details.
    Required(RequiredApproval),
    /// The token approves another request.
    AnotherRequest,
    /// Nobody can approve the request: only people approve, and only their own requests.
    NotOwn,
    /// The system gives no random numbers for a nonce.
    NoNonce,
}

/// The facts that a person reads before they say yes, beside those that the approval is bound to. They decide nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownFacts {
    /// The purpose that the caller states.
    pub purpose: Option<String>,
    /// The actors who act for the person, the outermost one first, and the client that asks. Empty if the issuer knows them.
    pub requested_by: Vec<String>,
    /// The words of the request, if the person is to read them.
    pub query: Option<String>,
}

/// The approval that a request needs.
#[derive(Clone, Debug, PartialEq)]
pub struct RequiredApproval {
    /// The value of `authorization_details` (RFC 9396) to ask for: a list of one object.
    pub authorization_details: Json,
    /// The digest of the request, in hexadecimal.
    pub request_sha256: String,
    /// The most chunks, on all pages.
    pub chunks_max: u64,
}

impl ApprovalRules {
    /// Makes the rules of a section `[identity]`.
    ///
    /// # Errors
    /// If the section's settings cannot be used together, or the system gives no random numbers.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let IdentityConfig { details, approval, .. } = CheckedConfig::new(config)?.settings;
        let mut rules = Self { nonces: Some(Nonces::new()?), ..Self::default() };
        for ApprovalConfig { collection, classification, chunks_max } in &approval {
            if *chunks_max == Some(0) {
                return Err(IdentityConfigError::new(
                    "`chunks_max` of `identity.approval` must be at least 1: an approval of nothing is none",
                ));
            }
            let (named, before) = match (collection, classification) {
                (Some(collection), None) => (collection, rules.collections.insert(collection.clone(), *chunks_max)),
                (None, Some(classification)) => {
                    let rank = details.rank(classification).ok_or_else(|| {
                        IdentityConfigError::new(format!(
                            "`identity.approval` names classification `{classification}`, which is not among \
                             `identity.details.classifications`"
                        ))
                    })?;
                    (classification, rules.classifications.insert(rank, *chunks_max))
                }
                (None, None) | (Some(_), Some(_)) => {
                    return Err(IdentityConfigError::new(
                        "each of `identity.approval` names either a `collection` or a `classification`",
                    ));
                }
            };
            if before.is_some() {
                return Err(IdentityConfigError::new(format!("`identity.approval` names `{named}` twice")));
            }
        }
        Ok(Self { details, ..rules })
    }

    /// Compares a request with the approval that its token may hold. A request that needs no approval is bounded to chunks
    /// that need none. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// If the request needs an approval that the token does not hold, or the token holds one of another request.
    pub fn judge(
        &self,
        token: &VerifiedToken,
        principal: &Principal,
        request: &ApprovableRequest,
        now: u64,
    ) -> Result<Judged, ApprovalError> {
        // A person approves only their own requests. A pipeline that names a person cannot say yes for them.
        let is_own = token.is_of_person() && principal.asserted_by().is_none();
        let needed = self.chunks_max(request);
        if token.holds_approval()
            && is_own
            && let Some(judged) = self.approved(token, principal, request, needed.unwrap_or(request.chunks_max), now)
        {
            return Ok(judged);
        }
        match needed {
            Some(chunks_max) if is_own => Err(self.required(token, request, chunks_max, now)),
            Some(_) => Err(ApprovalError::NotOwn),
            None if token.holds_approval() => Err(ApprovalError::AnotherRequest),
            None => Ok(Judged { principal: self.bounded(principal.clone(), request), approval: None }),
        }
    }

    /// Returns the most chunks of the approval that a request needs; `None` if it needs none.
    #[must_use]
    pub fn chunks_max(&self, request: &ApprovableRequest) -> Option<u64> {
        // Callers refuse an unknown ceiling before they ask. Here it counts as the highest one, so that it never needs less.
        let rank_of = |name: &str| self.details.rank(name).unwrap_or(usize::MAX);
        let rank = request.classification_max.as_deref().map(rank_of);
        let reaches = |lowest: usize| rank.is_some_and(|rank| rank >= lowest);
        let of_ceiling = self.classifications.iter().filter(|(lowest, _)| reaches(**lowest)).map(|(_, max)| *max);
        let of_collection = self.collections.get(&request.collection).copied();
        let asking: Vec<Option<u64>> = of_collection.into_iter().chain(of_ceiling).collect();
        if asking.is_empty() {
            return None;
        }
        Some(asking.into_iter().flatten().fold(request.chunks_max, u64::min))
    }

    /// Bounds a principal whose request names no ceiling to the classifications that need no approval. A chunk without a
    /// classification is above all of them.
    fn bounded(&self, principal: Principal, request: &ApprovableRequest) -> Principal {
        match self.classifications.first_key_value() {
            Some((lowest, _)) if request.classification_max.is_none() => {
                let key = self.details.classification_key.clone().unwrap_or_default();
                principal.on_condition(&OneOf { key, values: self.details.lowest(*lowest) })
            }
            Some(_) | None => principal,
        }
    }

    /// Returns the principal with the approval of this very request, if its token holds it.
    fn approved(
        &self,
        token: &VerifiedToken,
        principal: &Principal,
        request: &ApprovableRequest,
        chunks_max: u64,
        now: u64,
    ) -> Option<Judged> {
        let nonces = self.nonces.as_ref()?;
        let is_of_request = |mark: &ApprovalMark| {
            let digest = request_sha256(&request.encoded, &mark.nonce);
            mark.request_sha256 == digest && nonces.expiry(&mark.nonce, token.facts(), now).is_some()
        };
        let mut found = None;
        let principal = principal.approved(|details| {
            let details = details.approving(request, chunks_max, is_of_request)?;
            found = details.approval().map(|mark| (mark.clone(), details.chunks_max().unwrap_or(chunks_max)));
            Some(details)
        })?;
        let (ApprovalMark { request_sha256, nonce, .. }, chunks_max) = found?;
        let expires_at = nonces.expiry(&nonce, token.facts(), now)?;
        let approval = Some(Approval { nonce, request_sha256, chunks_max, expires_at });
        Some(Judged { principal: self.bounded(principal, request), approval })
    }

    /// Returns the refusal that names the approval which a request needs.
    fn required(&self, token: &VerifiedToken, request: &ApprovableRequest, chunks_max: u64, now: u64) -> ApprovalError {
        let nonce = self.nonces.as_ref().and_then(|nonces| nonces.make(token.facts(), now));
        let Some(nonce) = nonce else { return ApprovalError::NoNonce };
        let grant = Grant::of(request, nonce, chunks_max);
        // A client asks the issuer itself, so the issuer knows who asks.
        let shown = ShownFacts::default();
        let authorization_details = self.details(token.audience(), request, &grant, &shown);
        let Grant { request_sha256, .. } = grant;
        ApprovalError::Required(RequiredApproval { authorization_details, request_sha256, chunks_max })
    }

    /// Returns the value of `authorization_details` by which a token for `audience` shows that a person has approved a request.
    #[must_use]
    pub fn details(&self, audience: &str, request: &ApprovableRequest, grant: &Grant, shown: &ShownFacts) -> Json {
        let ShownFacts { purpose, requested_by, query } = shown;
        let mut object = json!({
            "type": self.details.type_name,
            "locations": [audience],
            "actions": [request.action.as_str()],
            "collections": [request.collection],
            "chunks_max": grant.chunks_max,
            "request_sha256": grant.request_sha256,
            "nonce": grant.nonce,
            "single_use": true,
        });
        if let Json::Object(object) = &mut object {
            let texts = [("classification_max", &request.classification_max), ("purpose", purpose), ("query", query)];
            for (name, value) in texts {
                if let Some(value) = value {
                    object.insert(name.to_owned(), value.as_str().into());
                }
            }
            if !requested_by.is_empty() {
                object.insert("requested_by".to_owned(), requested_by.as_slice().into());
            }
        }
        Json::Array(vec![object])
    }

    /// Returns the most chunks that a token's subject has approved of a request, which may be fewer than were asked for. Returns
    /// `None` if the token lacks the details that were asked for.
    #[must_use]
    pub fn consented(&self, token: &VerifiedToken, request: &ApprovableRequest, grant: &Grant) -> Option<u64> {
        let asked = self.details(token.audience(), request, grant, &ShownFacts::default());
        let asked = AuthorizationDetails::parse(&asked, &self.details, token.audience()).ok()??;
        token.details.as_deref()?.consents_to(&asked)
    }

    /// Returns the principal of an approved request, bounded to what was approved. Returns `None` if its token has several
    /// objects of details, whose limits nobody could count together.
    #[must_use]
    pub fn granted(&self, principal: &Principal, request: &ApprovableRequest, grant: &Grant) -> Option<Principal> {
        Some(self.bounded(principal.granted(|details| AuthorizationDetails::granted(details, grant))?, request))
    }
}

/// Makes nonces and knows them again. A nonce carries its own expiry and a MAC, so nothing is kept for a request that nobody
/// approves. The key is this process's own: after a restart and at another replica, a nonce is unknown.
#[derive(Debug)]
struct Nonces(hmac::Key);

impl Nonces {
    fn new() -> Result<Self, IdentityConfigError> {
        let mut secret = [0; KEY_BYTES];
        let filled = SystemRandom::new().fill(&mut secret);
        filled.map_err(|_unspecified| IdentityConfigError::new("the system gives no random numbers for approvals"))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// Makes a nonce for the subject of a token.
    fn make(&self, person: &TokenFacts, now: u64) -> Option<String> {
        let mut nonce = vec![0_u8; RANDOM_BYTES];
        SystemRandom::new().fill(&mut nonce).ok()?;
        nonce.extend(now.saturating_add(LIFETIME_SECONDS).to_be_bytes());
        let mac = hmac::sign(&self.0, &authenticated(&nonce, person));
        nonce.extend(mac.as_ref());
        Some(base16ct::lower::encode_string(&nonce))
    }

    /// Returns when a nonce expires, in seconds since 1970; `None` if it has expired, or was not made here for the subject of
    /// this token.
    fn expiry(&self, nonce: &str, person: &TokenFacts, now: u64) -> Option<u64> {
        if nonce.len() != 2 * (RANDOM_BYTES + EXPIRY_BYTES + MAC_BYTES) {
            return None;
        }
        // Upper-case digits are refused, so that a nonce has only one spelling.
        let nonce = base16ct::lower::decode_vec(nonce).ok()?;
        let (content, mac) = nonce.split_at_checked(RANDOM_BYTES + EXPIRY_BYTES)?;
        hmac::verify(&self.0, &authenticated(content, person), mac).ok()?;
        let (_random, expires_at) = content.split_last_chunk::<EXPIRY_BYTES>()?;
        let expires_at = u64::from_be_bytes(*expires_at);
        (now < expires_at).then_some(expires_at)
    }
}

/// Returns the bytes under the MAC of a nonce: its content, which has a fixed length, and the person.
fn authenticated(content: &[u8], person: &TokenFacts) -> Vec<u8> {
    let mut bytes = content.to_vec();
    for text in [&*person.issuer, person.subject.as_str()] {
        bytes.extend(length(text.as_bytes()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
