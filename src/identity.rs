//! Authentication: turns a verified access token, or a name that is believed, into the [`Principal`] whose rights bound
//! the answer.
//!
//! INVARIANT (pure decisions): the code between a token's bytes and a principal does no I/O and reads no clock; its
//! callers hand in the time. Only `issuer` talks to the network.

pub mod approvable;
pub mod approval;
pub mod config;
pub mod details;
pub mod mapping;
pub mod old_names;
pub mod principal;
pub mod request_context;

mod bearer;
mod caller;
mod claims;
mod confirmation;
#[cfg(feature = "server")]
mod issuer;
mod jws;
mod key_set;
mod names;
mod once;
mod people;
mod profile;
mod proof;
mod remembered;
#[cfg(test)]
pub(crate) mod sample;
mod scope;
mod step_up;
mod token;
#[cfg(feature = "server")]
mod verifier;

pub use bearer::BearerToken;
pub use caller::{Caller, CallerError};
pub use config::DelegationOn;
pub use confirmation::{CertificateThumbprint, KeyThumbprint};
#[cfg(feature = "server")]
pub use issuer::backchannel::{Asked, Backchannel, BackchannelError, Polled, Question};
pub use jws::TOKEN_BYTES_MAX;
pub use key_set::Algorithm;
pub use principal::{ChunkLedger, Principal};
pub use proof::{NonceAge, NonceKey, NonceKeyError, PROOF_ALGORITHMS, ProofChecker, ProofFault, ProvenRequest};
pub use remembered::Use;
pub use request_context::RequestContextRules;
pub use scope::{Scope, Scopes};
pub use step_up::{LoginError, StepUp, StepUpRules};
pub use token::{Actor, Delegation, OtherUsers, TokenFacts, VerifiedToken};
#[cfg(feature = "server")]
pub use verifier::{AuthenticationError, TokenVerifier};

/// The check that a token failed. It goes to the log and a metric; the caller learns only that the token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the token was refused ({})", self.label())]
pub enum Refusal {
    /// The token is longer than [`TOKEN_BYTES_MAX`].
    Size,
    /// The token is not three parts of base64url, or its JSON is not strict.
    Form,
    /// The header has a parameter that Ragward never follows.
    Header,
    /// Neither the header's `typ` nor a claim marks an access token, or a claim marks an ID token.
    Type,
    /// The algorithm is unknown, or this issuer does not use it.
    Algorithm,
    /// The token names no key, or a key that its issuer does not have.
    Key,
    /// The signature does not match the key.
    Signature,
    /// No configured issuer has issued the token.
    Issuer,
    /// The token is meant for somebody else.
    Audience,
    /// The client that the token was issued to is not listed.
    Client,
    /// The token has expired, is not valid yet, or lacks its times.
    Time,
    /// A required claim is missing, or a claim has the wrong type.
    Claim,
    /// The token is bound to a key (`cnf`), and its bearer has not proved that it has that key.
    Confirmation,
    /// The proof that the bearer has the token's key is missing or wrong.
    Proof(ProofFault),
    /// The subject cannot be a user.
    Subject,
    /// An actor is malformed, or there are too many.
    Actor,
    /// The authorization details are malformed or unknown.
    Details,
    /// A mapped claim has a value that cannot be mapped.
    Mapping,
    /// A mapped claim is not in the token but elsewhere (distributed claims, too many groups).
    Elsewhere,
    /// A mapped claim is missing, and without it somebody might be let in whom the model keeps out.
    Absent,
    /// The token is good for one request, and was used before.
    Used,
}

impl Refusal {
    /// Returns the label of the refusal in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Form => "form",
            Self::Header => "header",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Client => "client",
            Self::Time => "time",
            Self::Claim => "claim",
            Self::Confirmation => "confirmation",
            Self::Proof(fault) => fault.label(),
            Self::Subject => "subject",
            Self::Actor => "actor",
            Self::Details => "details",
            Self::Mapping => "mapping",
            Self::Elsewhere => "elsewhere",
            Self::Absent => "absent_claim",
            Self::Used => "used",
        }
    }
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
