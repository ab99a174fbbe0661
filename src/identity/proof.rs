//! Proofs of possession (DPoP, RFC 9449): a client that holds the key of a token signs a small token for each request. Whoever
//! copies the access token alone, from a log or a cache, cannot use it.
//!
//! INVARIANT (no proof twice): a proof is taken once in this process. Other replicas do not know that, so a copied proof counts
//! there for as long as its time and its nonce are good.
//!
//! INVARIANT (own key alone): the key stands in the proof itself, and its thumbprint is that of the access token. Nothing in a
//! proof leads to a key elsewhere.

mod nonce;
mod url;

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

pub use self::nonce::{NonceAge, NonceKey, NonceKeyError};
use super::confirmation::KeyThumbprint;
use super::key_set::{Algorithm, PublicKey};
use super::once::{NotOnce, OnceLimits, OnceOnly};
use crate::strict_json;

/// The longest proof in bytes. The key and the signature of RSA with 8,192 bits take 2,800 of them.
const PROOF_BYTES_MAX: usize = 8 * 1_024;
/// The deepest nesting of a proof: the header holds a key, which holds a list of uses.
const DEPTH_MAX: usize = 8;
/// The longest id of a proof in bytes. Clients take 16 to 36.
const ID_BYTES_MAX: usize = 256;
/// The greatest age of a proof in seconds, beside the difference between clocks. A client makes it right before its one request.
const AGE_SECONDS_MAX: u64 = 60;
/// The proofs that are remembered until they are too old. A proof takes about a hundred bytes. One key has room for 300 requests
/// a second, with a leeway of the default length.
const USED: OnceLimits = OnceLimits { entries_max: 400_000, entries_per_owner_max: 50_000 };
/// The type of a proof (RFC 9449, section 4.2).
const TYPE: &str = "dpop+jwt";
/// Header parameters that lead to a key elsewhere, or that change what is signed and how it is read.
const REFUSED_PARAMETERS: [&str; 7] = ["crit", "jku", "x5u", "x5c", "b64", "zip", "enc"];
/// The members that the key of a proof may have: those of a public key, and what programs add that export one.
const KEY_MEMBERS: [&str; 11] = ["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops", "ext"];

/// The algorithms that may sign proofs.
pub const PROOF_ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256];

/// The check that a proof failed. It goes to the log and a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProofFault {
    /// The request has no proof, or more than one.
    Absent,
    /// The proof is not three parts of base64url, its JSON is not strict, or it is too long.
    Form,
    /// The header has a parameter that Ragward never follows.
    Header,
    /// The header's `typ` is not that of a proof.
    Type,
    /// The algorithm is unknown, or is not one for proofs.
    Algorithm,
    /// There is no public key in the header, or more than a public key.
    Key,
    /// The key is not the one that the access token is bound to.
    OtherKey,
    /// The signature does not match the key.
    Signature,
    /// The proof has no id, or one that is too long.
    Id,
    /// The proof is for another method (`htm`).
    Method,
    /// The proof is for another URL (`htu`).
    Url,
    /// The proof is for another access token (`ath`).
    Token,
    /// The proof is too old, or from the future.
    Time,
    /// The proof has no nonce, or one that is too old.
    Nonce,
    /// The proof was used before.
    Used,
    /// There is no room to remember the proof.
    Full,
}

impl ProofFault {
    /// Returns the label of the fault in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "proof_absent",
            Self::Form => "proof_form",
            Self::Header => "proof_header",
            Self::Type => "proof_type",
            Self::Algorithm => "proof_algorithm",
            Self::Key => "proof_key",
            Self::OtherKey => "proof_other_key",
            Self::Signature => "proof_signature",
            Self::Id => "proof_id",
            Self::Method => "proof_method",
            Self::Url => "proof_url",
            Self::Token => "proof_token",
            Self::Time => "proof_time",
            Self::Nonce => "proof_nonce",
            Self::Used => "proof_used",
            Self::Full => "proof_full",
        }
    }
}

/// A request whose sender has to prove that it holds a key.
#[derive(Clone, Copy, Debug)]
pub struct ProvenRequest<'r> {
    /// The method of HTTP.
    pub method: &'r str,
    /// The URL of the request as its client knows it, without query.
    pub url: &'r str,
    /// The access token, as it stands in the request.
    pub token: &'r str,
    /// The key that the token is bound to.
    pub key: KeyThumbprint,
}

/// Checks proofs, and remembers those that were used.
#[derive(Debug)]
pub struct ProofChecker {
    leeway_seconds: u64,
    used: Mutex<OnceOnly>,
}

impl ProofChecker {
    /// Creates a checker that tolerates this difference between clocks.
    #[must_use]
    pub fn new(leeway_seconds: u64) -> Self {
        Self { leeway_seconds, used: Mutex::new(OnceOnly::new(USED)) }
    }

    /// Checks the proof of a request at the time `now`, in seconds since 1970, and uses it up. With `nonces`, the proof has to
    /// repeat a nonce.
    ///
    /// # Errors
    /// When the proof is not one for this request, or was used before.
    pub fn check(
        &self,
        proof: &str,
        request: ProvenRequest<'_>,
        nonces: Option<&NonceKey>,
        now: u64,
    ) -> Result<NonceAge, ProofFault> {
        let proof = Proof::parse(proof)?;
        // This stands before all work with a key that the caller chose.
        if proof.thumbprint != request.key {
            return Err(ProofFault::OtherKey);
        }
        if !proof.key.verifies(proof.algorithm, proof.signed.as_bytes(), &proof.signature) {
            return Err(ProofFault::Signature);
        }
        let id = proof.text("jti").filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX).ok_or(ProofFault::Id)?;
        if proof.text("htm") != Some(request.method) {
            return Err(ProofFault::Method);
        }
        if !proof.text("htu").is_some_and(|url| self::url::are_equal(url, request.url)) {
            return Err(ProofFault::Url);
        }
        if proof.text("ath") != Some(URL_SAFE_NO_PAD.encode(sha256(request.token)).as_str()) {
            return Err(ProofFault::Token);
        }
        let issued_at = proof.claims.get("iat").and_then(Value::as_u64).ok_or(ProofFault::Time)?;
        let ends_at = issued_at.saturating_add(AGE_SECONDS_MAX).saturating_add(self.leeway_seconds);
        if issued_at > now.saturating_add(self.leeway_seconds) || ends_at < now {
            return Err(ProofFault::Time);
        }
        let nonce_age = match nonces {
            None => NonceAge::Current,
            Some(nonces) => proof.text("nonce").and_then(|nonce| nonces.age(nonce, now)).ok_or(ProofFault::Nonce)?,
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.begin(request.key.0, sha256(id), ends_at.saturating_add(1), now) {
            Ok(()) => Ok(nonce_age),
            Err(NotOnce::Used) => Err(ProofFault::Used),
            Err(NotOnce::Full) => Err(ProofFault::Full),
        }
    }
}

/// The parts of a proof. None of them is believed yet.
struct Proof<'p> {
    signed: &'p str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key: PublicKey,
    thumbprint: KeyThumbprint,
    claims: Map<String, Value>,
}

impl<'p> Proof<'p> {
    fn parse(proof: &'p str) -> Result<Self, ProofFault> {
        if proof.len() > PROOF_BYTES_MAX {
            return Err(ProofFault::Form);
        }
        let (signed, signature) = proof.rsplit_once('.').ok_or(ProofFault::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(ProofFault::Form)?;
        let (header, claims) = (object(header)?, object(payload)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_malformed| ProofFault::Form)?;
        if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
            return Err(ProofFault::Header);
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if text("typ") != Some(TYPE) {
            return Err(ProofFault::Type);
        }
        let algorithm = text("alg").and_then(Algorithm::parse).filter(|named| PROOF_ALGORITHMS.contains(named));
        let algorithm = algorithm.ok_or(ProofFault::Algorithm)?;
        let jwk = header.get("jwk").and_then(Value::as_object).ok_or(ProofFault::Key)?;
        // A client that sends its private key has lost it.
        if !jwk.keys().all(|name| KEY_MEMBERS.contains(&name.as_str())) {
            return Err(ProofFault::Key);
        }
        let key = PublicKey::embedded(jwk).ok_or(ProofFault::Key)?;
        let canonical = canonical(jwk).ok_or(ProofFault::Key)?;
        Ok(Self { signed, signature, algorithm, key, thumbprint: KeyThumbprint(sha256(&canonical)), claims })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }
}

fn object(part: &str) -> Result<Map<String, Value>, ProofFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_malformed| ProofFault::Form)?;
    strict_json::object(&bytes, DEPTH_MAX).map_err(|_malformed| ProofFault::Form)
}

/// Returns the canonical form of a key (RFC 7638, section 3). Its values are base64url and names of curves, as
/// [`PublicKey::embedded`] has found out, so none of them needs an escape.
fn canonical(jwk: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    Some(match text("kty")? {
        "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text("e")?, text("n")?),
        "EC" => format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, text("crv")?, text("x")?, text("y")?),
        "OKP" => format!(r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#, text("crv")?, text("x")?),
        _ => return None,
    })
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests;
