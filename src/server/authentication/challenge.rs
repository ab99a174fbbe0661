//! The refusals of tokens, with the challenge that tells a client what to bring (RFC 6750, RFC 9470, RFC 9728).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tonic::Code;

use super::Resource;
use super::scheme::{Scheme, unauthenticated};
use crate::identity::approval::RequiredApproval;
use crate::identity::{StepUp, VerifiedToken};
use crate::server::operations::Access;
use crate::server::refusal::{APPROVAL_REQUIRED, AUTHORIZATION_DETAILS, Refusal};

/// The reason why no token was verified, as far as the caller is told (RFC 6750, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFault {
    Absent,
    /// The token is not valid here. The caller is not told which check it failed.
    Invalid,
}

impl TokenFault {
    /// Returns the label in the record.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Invalid => "invalid",
        }
    }
}

impl Resource {
    pub(super) fn unauthenticated(&self, fault: TokenFault) -> Refusal {
        let error = (fault == TokenFault::Invalid).then_some("invalid_token");
        let refusal = unauthenticated(self.challenge_for(Scheme::Bearer, error));
        // Without a token, the client still chooses how to bring one.
        match self.other_scheme() {
            Some(other) if fault == TokenFault::Absent => refusal.with_other_challenge(self.challenge_for(other, None)),
            Some(_) | None => refusal,
        }
    }

    /// Returns the refusal of a token that is valid but not meant for the call.
    pub(super) fn insufficient_scope(&self, token: &VerifiedToken, access: Access) -> Refusal {
        let mut parameters = vec![("error", "insufficient_scope")];
        let mut text = "the token is not meant for this call".to_owned();
        if let Access::Needs(scope) = access {
            parameters.push(("scope", scope.as_str()));
            text = format!("{text}, which needs the scope `{}`", scope.as_str());
        }
        Refusal::new(Code::PermissionDenied, text)
            .with_reason("INSUFFICIENT_SCOPE")
            .with_challenge(self.challenge_by(Scheme::of(token), &parameters))
    }

    /// Returns the refusal of a login that is too weak or too old (RFC 9470).
    pub(super) fn insufficient_login(&self, token: &VerifiedToken, required: &StepUp) -> Refusal {
        let (classes, max_age) = (required.acr_values.join(" "), required.max_age.map(|seconds| seconds.to_string()));
        let mut parameters = vec![("error", "insufficient_user_authentication")];
        parameters.extend((!classes.is_empty()).then_some(("acr_values", classes.as_str())));
        parameters.extend(max_age.as_deref().map(|seconds| ("max_age", seconds)));
        Refusal::new(Code::Unauthenticated, "the request asks for a stronger or more recent login")
            .with_reason("INSUFFICIENT_USER_AUTHENTICATION")
            .with_challenge(self.challenge_by(Scheme::of(token), &parameters))
    }

    /// Returns the refusal of a request that a person has to approve. It tells which token to ask for. `token` is the caller's
    /// present one; its scheme is the one for the next token. `text` says how to ask.
    pub(super) fn approval_required(
        &self,
        token: &VerifiedToken,
        required: &RequiredApproval,
        text: &'static str,
    ) -> Refusal {
        let details = &required.authorization_details;
        // draft-ietf-oauth-rar-metadata-remediation.
        let remediation = json!({ "authorization_details": details }).to_string();
        let remediation = URL_SAFE_NO_PAD.encode(remediation);
        let parameters = [("error", "insufficient_authorization"), ("authorization_remediation", remediation.as_str())];
        Refusal::new(Code::PermissionDenied, text)
            .with_reason(APPROVAL_REQUIRED)
            .with_fact(AUTHORIZATION_DETAILS, details.to_string())
            .with_challenge(self.challenge_by(Scheme::of(token), &parameters))
    }
}

/// Returns the refusal of a caller for whom nobody can approve anything.
pub(super) fn not_own() -> Refusal {
    Refusal::denied("the request needs an approval, and only people can approve what they ask for themselves")
}

/// Returns the refusal of a caller who cannot be identified for now.
pub(super) fn unavailable(text: &'static str, reason: &'static str) -> Refusal {
    Refusal::new(Code::Unavailable, text).with_reason(reason)
}
