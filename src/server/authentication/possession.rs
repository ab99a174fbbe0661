//! The proof of possession that comes with a token which is bound to a key (DPoP, RFC 9449): where its parts are in a request,
//! and the nonces that it has to repeat.

use std::sync::Arc;

use tonic::codegen::http::{self, HeaderMap, HeaderValue};

use crate::identity::{
    KeyThumbprint, NonceAge, NonceKey, NonceKeyError, PROOF_ALGORITHMS, ProofChecker, ProofFault, ProvenRequest,
};
use crate::settings::{LiveSecret, SecretError, SecretFile};

/// The header of a proof (RFC 9449, section 4.1). In gRPC, it is metadata of this name.
pub(in crate::server) const PROOF_HEADER: &str = "dpop";

/// The method and the path of a request as it arrived at the port, which its proof names. A door changes both when it turns
/// the request into a gRPC call.
#[derive(Clone, Debug)]
pub(in crate::server) struct RequestTarget {
    method: http::Method,
    uri: http::Uri,
}

impl RequestTarget {
    pub(in crate::server) fn of<B>(request: &http::Request<B>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone() }
    }
}

/// Checks the proofs that come to a server. All doors have one of these together, so that no proof is taken at two of them.
#[derive(Debug)]
pub struct Possession {
    checker: ProofChecker,
    nonces: Nonces,
}

/// The nonces that proofs have to repeat.
#[derive(Debug)]
pub enum Nonces {
    /// Proofs repeat no nonce. Only its time bounds how long a proof can be used.
    Unused,
    /// The nonces of this process alone.
    Own(NonceKey),
    /// The nonces of all replicas that read this secret.
    Shared(LiveSecret),
}

/// The URLs of one resource, as its clients know them.
#[derive(Clone, Debug)]
pub(super) enum PublicUrls {
    /// A request's path follows this URL.
    Under(String),
    /// There is one URL.
    One(String),
}

/// The checks of proofs at the doors of one resource.
#[derive(Clone, Debug)]
pub(super) struct ResourceProofs {
    pub(super) urls: PublicUrls,
    pub(super) possession: Arc<Possession>,
}

/// A call whose token is bound to a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundCall<'c> {
    pub(super) headers: &'c HeaderMap,
    /// `None` for a call that came by no connection.
    pub(super) target: Option<&'c RequestTarget>,
    pub(super) token: &'c str,
    pub(super) key: KeyThumbprint,
}

/// The reason why a call is not proven, and the nonce for another try.
#[derive(Clone, Debug)]
pub(super) struct Unproven {
    pub(super) fault: ProofFault,
    pub(super) nonce: Option<HeaderValue>,
}

impl Nonces {
    /// Shares the nonces of all replicas that read the same file.
    ///
    /// # Errors
    /// When the file cannot be read, or its secret is too short.
    pub fn shared(file: &SecretFile) -> Result<Self, SecretError> {
        let fits = |text: &str| NonceKey::new(text.as_bytes()).map(drop).map_err(|error| error.to_string());
        LiveSecret::read(file, fits).map(Self::Shared)
    }

    /// Returns the key of now; `None` if proofs need no nonce.
    fn key(&self) -> Result<Option<NonceKey>, NonceKeyError> {
        match self {
            Self::Unused => Ok(None),
            Self::Own(key) => Ok(Some(key.clone())),
            Self::Shared(secret) => NonceKey::new(secret.current().expose().as_bytes()).map(Some),
        }
    }
}

impl Possession {
    /// Creates the checks for a server that tolerates this difference between clocks.
    #[must_use]
    pub fn new(leeway_seconds: u64, nonces: Nonces) -> Self {
        Self { checker: ProofChecker::new(leeway_seconds), nonces }
    }
}

impl ResourceProofs {
    /// Checks the proof of a call, and uses it up. Returns the nonce for the client's next proofs, if it needs a new one.
    pub(super) fn check(&self, call: BoundCall<'_>, now: u64) -> Result<Option<HeaderValue>, Unproven> {
        let Ok(nonces) = self.possession.nonces.key() else {
            return Err(Unproven { fault: ProofFault::Nonce, nonce: None });
        };
        let nonce = || HeaderValue::from_str(&nonces.as_ref()?.nonce(now)).ok();
        let unproven = |fault: ProofFault| {
            let nonce = if fault == ProofFault::Nonce { nonce() } else { None };
            Unproven { fault, nonce }
        };
        let proof = only_proof(call.headers).ok_or_else(|| unproven(ProofFault::Absent))?;
        let target = call.target.ok_or_else(|| unproven(ProofFault::Url))?;
        let url = match &self.urls {
            PublicUrls::Under(base) => format!("{base}{}", target.uri.path()),
            PublicUrls::One(url) => url.clone(),
        };
        let request = ProvenRequest { method: target.method.as_str(), url: &url, token: call.token, key: call.key };
        match self.possession.checker.check(proof, request, nonces.as_ref(), now) {
            Ok(NonceAge::Current) => Ok(None),
            Ok(NonceAge::Old) => Ok(nonce()),
            Err(fault) => Err(unproven(fault)),
        }
    }
}

/// Returns the algorithms that may sign proofs, as challenges and metadata name them.
pub(in crate::server) fn algorithm_names() -> Vec<&'static str> {
    PROOF_ALGORITHMS.iter().map(|algorithm| algorithm.as_str()).collect()
}

/// Returns the proof of a request. Two proofs are refused: a proxy in front of this server may have checked the other one.
fn only_proof(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(PROOF_HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}
