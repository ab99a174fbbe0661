//! Tokens that do not tell all that `[identity.claim_tuples]` and `[identity.claim_context]` read. Such a token is refused where
//! the model takes people out by what is missing: it would let in whom that keeps out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Access;
use crate::authz::{Authorizer, AuthzError, SubtractedBy};
use crate::identity::mapping::Untold;
use crate::identity::{Scope, VerifiedToken};

/// How often the remedy is told at most: one misconfigured provider refuses everybody.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// What was found out for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Whether the bearer may name another user.
    pub(super) may_assert: bool,
    /// Whether it depends on the model.
    by_model: bool,
}

/// Why a call does not go on.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// The token does not tell what the model takes people out by.
    Refused,
    /// The model is not known.
    Unknown(AuthzError),
}

/// Tells operators now and then what to do about tokens that are refused.
#[derive(Debug, Default)]
pub(super) struct Remedy(Mutex<Option<Instant>>);

impl Settled {
    /// Whether tokens tell enough for what they are used for. Pure but for what the authorizer tells of its model.
    ///
    /// # Errors
    /// When a token does not, or when that cannot be told.
    pub(super) async fn of(
        token: &VerifiedToken,
        access: Access,
        authorizer: &dyn Authorizer,
        remedy: &Remedy,
    ) -> Result<Self, Unsettled> {
        let may_assert = token.may_assert();
        // Elsewhere nothing is decided by what a token tells of its subject.
        let decides = matches!(access, Access::Needs(Scope::Retrieve | Scope::Ingest));
        let of_others = if may_assert { token.untold_of_others() } else { &[] };
        if !decides || (token.untold().is_empty() && of_others.is_empty()) {
            return Ok(Self { may_assert, by_model: false });
        }
        let by = match authorizer.subtracted().await {
            Ok(by) => by,
            // Without a model nothing is decided; [`Self::still_holds`] finds one that came meanwhile.
            Err(AuthzError::NoModel) => return Ok(Self { may_assert, by_model: true }),
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
                "the bearer may name no user: the model takes people out by a claim of their own tokens"
            );
        }
        Ok(Self { may_assert: may_assert && named.is_none(), by_model: true })
    }

    /// Whether the same holds after the call, in which another model may have come into force.
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

/// The first claim without which somebody might be let in who is to be kept out.
fn first_that_counts<'u>(untold: &'u [Untold], by: &SubtractedBy) -> Option<&'u str> {
    untold.iter().find(|untold| untold.may_let_in(&by.subtracted)).map(|untold| untold.claim.as_str())
}

impl Remedy {
    /// Tells what to do, unless that was told lately.
    pub(super) fn tell(&self, claim: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL_INTERVAL) {
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(
            claim,
            "tokens are refused: a mapped claim is not in them, and the model takes people out by it. Have the provider put it \
             into every access token (for groups: assign groups to the application, and emit only those), or set `absent = \
             \"none\"` for this mapping where a token without the claim means that its subject holds nothing"
        );
    }
}
