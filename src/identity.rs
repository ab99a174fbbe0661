//! Who is asking: from a verified access token, or a name that is believed, to the [`Principal`] whose rights bound the
//! answer.
//!
//! INVARIANT (pure decisions): everything from a token's bytes and a key to a principal does no I/O and reads no clock; the
//! time is handed in. Only `issuer` talks to the network.

pub mod claims;
pub mod details;
pub mod issuer;
pub mod mapping;
pub mod names;
pub mod old_names;
pub mod people;
pub mod principal;
pub mod scope;
pub mod step_up;

mod caller;
mod json;
mod jws;
mod key_set;
mod remembered;
#[cfg(test)]
pub(crate) mod sample;
mod verifier;

pub use caller::{Caller, CallerError, VerifiedToken};
pub use jws::TOKEN_BYTES_MAX;
pub use key_set::Algorithm;
pub use principal::{Actor, ChunkLedger, Delegation, DelegationOn, Principal, TokenFacts};
pub use remembered::Use;
pub use scope::{Scope, Scopes};
pub use step_up::{LoginError, StepUp, StepUpRules};
pub use verifier::{AuthenticationError, TokenVerifier};

/// Which check a token failed. For the log and a metric; the caller learns only that the token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the token was refused ({})", self.label())]
pub enum Refusal {
    /// Longer than [`TOKEN_BYTES_MAX`].
    Size,
    /// Not three parts of base64url, or not strict JSON.
    Form,
    /// A header parameter that is never followed.
    Header,
    /// Not an access token (`typ`).
    Type,
    /// An algorithm that does not exist here or that this issuer does not use.
    Algorithm,
    /// No key, or none of the issuer's.
    Key,
    /// Not signed by that key.
    Signature,
    /// Another issuer.
    Issuer,
    /// Meant for somebody else.
    Audience,
    /// Expired, not begun, or without its times.
    Time,
    /// A claim that must be there, or one of a wrong type.
    Claim,
    /// Bound to a key that was not shown (`cnf`).
    Confirmation,
    /// A subject that is no user.
    Subject,
    /// An actor that is not understood, or too many.
    Actor,
    /// Details that are not understood.
    Details,
    /// A mapped claim that cannot be mapped.
    Mapping,
    /// A claim that counts here stands elsewhere (distributed claims, too many groups).
    Elsewhere,
    /// A mapped claim is not there, and without it somebody might be let in who is to be kept out.
    Absent,
    /// Used before, and good for one request only.
    Used,
}

impl Refusal {
    /// A fixed label.
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
            Self::Time => "time",
            Self::Claim => "claim",
            Self::Confirmation => "confirmation",
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
mod tests;
