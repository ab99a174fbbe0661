//! The schemes with which a token comes, and the challenges that name them (RFC 6750, RFC 9449, RFC 9728).

use tonic::Code;

use super::Resource;
use super::possession::{self, PublicUrls, ResourceProofs, Unproven};
use crate::identity::{ProofFault, VerifiedToken};
use crate::server::refusal::Refusal;

/// The scheme with which a token comes in the header `authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// The token alone is enough (RFC 6750).
    Bearer,
    /// A proof comes with the token (RFC 9449).
    Dpop,
}

impl Scheme {
    /// Returns the scheme with which a verified token has to come.
    pub(super) fn of(token: &VerifiedToken) -> Self {
        if token.bound_key().is_some() { Self::Dpop } else { Self::Bearer }
    }

    /// Returns the scheme of this name, in whatever case its letters are.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Bearer, Self::Dpop].into_iter().find(|scheme| scheme.as_str().eq_ignore_ascii_case(name))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Dpop => "DPoP",
        }
    }
}

impl Resource {
    /// Returns the scheme that a client may choose instead of [`Scheme::Bearer`]. Clients for MCP read a single challenge, so
    /// they learn it from the metadata alone.
    pub(super) fn other_scheme(&self) -> Option<Scheme> {
        match &self.proofs {
            Some(ResourceProofs { urls: PublicUrls::Under(_), .. }) => Some(Scheme::Dpop),
            Some(ResourceProofs { urls: PublicUrls::One(_), .. }) | None => None,
        }
    }

    /// Returns the refusal of a token that came with the wrong scheme: one that is bound to a key without a proof, or one that is
    /// not with a proof.
    pub(super) fn wrong_scheme(&self) -> Refusal {
        let scheme = if self.proofs.is_some() { Scheme::Dpop } else { Scheme::Bearer };
        unauthenticated(self.challenge_for(scheme, Some("invalid_token")))
    }

    /// Returns the refusal of a proof. The client learns whether the proof lacks a good nonce, and nothing else.
    pub(super) fn unproven(&self, unproven: Unproven) -> Refusal {
        let error = if unproven.fault == ProofFault::Nonce { "use_dpop_nonce" } else { "invalid_dpop_proof" };
        let text = "the request needs a valid proof (DPoP) for its access token";
        let refusal = Refusal::new(Code::Unauthenticated, text)
            .with_reason("UNAUTHENTICATED")
            .with_challenge(self.challenge_for(Scheme::Dpop, Some(error)));
        match unproven.nonce {
            Some(nonce) => refusal.with_proof_nonce(nonce),
            None => refusal,
        }
    }

    /// Returns the challenge that asks for a token with this scheme.
    pub(super) fn challenge_for(&self, scheme: Scheme, error: Option<&'static str>) -> String {
        let mut parameters = Vec::new();
        parameters.extend(error.map(|error| ("error", error)));
        // A resource of one scope says at once which token it needs.
        if let [scope] = self.scopes {
            parameters.push(("scope", scope.as_str()));
        }
        self.challenge_by(scheme, &parameters)
    }

    /// Returns the value of `www-authenticate` (RFC 6750, section 3; RFC 9449, section 7.1; RFC 9728, section 5.1).
    pub(super) fn challenge_by(&self, scheme: Scheme, parameters: &[(&str, &str)]) -> String {
        let algorithms = match scheme {
            Scheme::Bearer => None,
            Scheme::Dpop => Some(possession::algorithm_names().join(" ")),
        };
        let algorithms = algorithms.as_deref().map(|names| ("algs", names));
        let metadata = self.metadata_url.as_deref().map(|url| ("resource_metadata", url));
        let parameters = parameters.iter().copied().chain(algorithms).chain(metadata);
        let parameters: Vec<String> = parameters.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        format!("{} {}", scheme.as_str(), parameters.join(", ")).trim_end().to_owned()
    }
}

/// Returns the refusal of a call without a valid token.
pub(super) fn unauthenticated(challenge: String) -> Refusal {
    Refusal::new(Code::Unauthenticated, "the request needs a valid access token")
        .with_reason("UNAUTHENTICATED")
        .with_challenge(challenge)
}
