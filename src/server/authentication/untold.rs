//! Tokens that lack a claim which `[identity.claim_tuples]` or `[identity.claim_context]` reads.
//!
//! Where the authorization model excludes people by such a claim, a token without it would let in somebody whom the model
//! keeps out. There the token is refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::authz::{Authorizer, AuthzError, SubtractedBy};
use crate::identity::mapping::Untold;
use crate::identity::{OtherUsers, Scope, VerifiedToken};
use crate::server::operations::Access;

/// The shortest time between two tellings of the remedy: one misconfigured provider makes every call fail.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// The result of an examination of a call's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Says whether the bearer may name another user.
    pub(super) other_users: OtherUsers,
    /// Whether another model could change the outcome.
    by_model: bool,
}

/// The reason why a call is refused before it reaches its service.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// The token lacks a claim by which the model excludes people.
    Refused,
    /// The authorizer cannot say which model it has.
    Unknown(AuthzError),
}

/// Tells operators now and then how to mend a provider whose tokens are refused.
#[derive(Debug, Default)]
pub(super) struct Remedy(Mutex<Option<Instant>>);

impl Settled {
    /// Finds out whether a token has the claims that its call needs. It asks the authorizer for the model, and nobody
    /// for anything else.
    ///
    /// # Errors
    /// When the token lacks such a claim, or when the model is not known.
    pub(super) async fn of(
        token: &VerifiedToken,
        access: Access,
        authorizer: &dyn Authorizer,
        remedy: &Remedy,
    ) -> Result<Self, Unsettled> {
        let other_users = token.other_users();
        // Only these calls are decided by what a token tells of its subject.
        let decides = matches!(access, Access::Needs(Scope::Retrieve | Scope::Ingest));
        let of_others = match other_users {
            OtherUsers::Accepted => token.untold_of_others(),
            OtherUsers::Refused => &[],
        };
        if !decides || (token.untold().is_empty() && of_others.is_empty()) {
            return Ok(Self { other_users, by_model: false });
        }
        let by = match authorizer.subtracted().await {
            Ok(by) => by,
            // Without a model nothing is decided. [`Self::still_holds`] notices a model that came meanwhile.
            Err(AuthzError::NoModel) => return Ok(Self { other_users, by_model: true }),
            Err(error) => return Err(Unsettled::Unknown(error)),
        };
        if let Some(claim) = first_that_counts(token.untold(), &by) {
            remedy.tell(claim);
            return Err(Unsettled::Refused);
        }
        let named = first_that_counts(of_others, &by);
        if let Some(claim) = named {
            tracing::debug!(
                claim,
                "the bearer may name no user: the model excludes people by a claim of their own tokens"
            );
        }
        let other_users = if named.is_some() { OtherUsers::Refused } else { other_users };
        Ok(Self { other_users, by_model: true })
    }

    /// Returns whether the finding still holds after the call, during which another model may have come into force.
    pub(super) async fn still_holds(
        self,
        token: &VerifiedToken,
        access: Access,
        authorizer: &dyn Authorizer,
        remedy: &Remedy,
    ) -> bool {
        !self.by_model || Self::of(token, access, authorizer, remedy).await.is_ok_and(|after| after == self)
    }
}

/// Returns the first missing claim whose absence might let in somebody whom the model keeps out.
fn first_that_counts<'u>(untold: &'u [Untold], by: &SubtractedBy) -> Option<&'u str> {
    untold.iter().find(|untold| untold.may_let_in(&by.subtracted)).map(|untold| untold.claim.as_str())
}

impl Remedy {
    /// Logs how to mend the provider, unless that was logged lately.
    pub(super) fn tell(&self, claim: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(
            claim,
            "tokens are refused: a mapped claim is not in them, and the model excludes people by it. Have the provider put it \
             into every access token (for groups: assign groups to the application, and emit only those), or set `absent = \
             \"none\"` for this mapping where a token without the claim means that its subject holds nothing"
        );
    }
}
