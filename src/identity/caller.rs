//! The caller of a request, and what the caller may ask for.

use std::sync::Arc;

use super::names;
use super::principal::Principal;
use super::scope::Scope;
use super::token::{OtherUsers, VerifiedToken};
use crate::engine::Contextual;
use crate::language::ParseError;

/// The caller of a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A caller whose word is taken: the local administrator, or everybody if the server believes the names in requests
    /// (`server.insecure_identity`).
    Believed,
    /// The bearer of a verified token.
    Verified {
        /// The token that was verified.
        token: Arc<VerifiedToken>,
        /// Says whether the bearer may name another user; see [`VerifiedToken::other_users`].
        other_users: OtherUsers,
    },
}

/// The reason why a caller cannot be the principal that the request names.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The name in the request is not that of a user.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// The request names another user than the token, and the bearer may not do that.
    #[error("the token does not let its bearer ask for this user")]
    OtherUser,
    /// The token speaks for a machine, and machines are not users.
    #[error(
        "the token speaks for a client, not for a user; `identity.issuers.people` says what marks a person's token"
    )]
    NoUser,
}

impl Caller {
    /// Returns whether the caller may administer. The bearer of a delegated or narrowed token may not, whatever its
    /// scopes, since nothing would bound what it learns.
    #[must_use]
    pub fn may_administer(&self) -> bool {
        match self {
            Self::Believed => true,
            Self::Verified { token, .. } => {
                token.facts.scopes.contains(Scope::Administer) && !token.is_delegated() && !token.is_narrowed()
            }
        }
    }

    /// Returns the token of the caller, or `None` if the caller's word is taken.
    #[must_use]
    pub fn token(&self) -> Option<&VerifiedToken> {
        match self {
            Self::Believed => None,
            Self::Verified { token, .. } => Some(token),
        }
    }

    /// Returns the principal of a request that names `user`. An empty name means the token's own subject.
    ///
    /// # Errors
    /// If the name is malformed, or names another user than the token's subject and the caller may not do that.
    pub fn principal(&self, user: &str) -> Result<Principal, CallerError> {
        let (token, other_users) = match self {
            Self::Believed => return Ok(Principal::stated(user)?),
            Self::Verified { token, other_users } => (token, *other_users),
        };
        let own = token.user.as_ref().is_some_and(|own| own.as_str() == user);
        if user.is_empty() || own {
            return itself(token);
        }
        if [other_users, token.other_users()].contains(&OtherUsers::Refused) {
            return Err(CallerError::OtherUser);
        }
        let subject = names::asserted(user)?;
        // A bearer speaks only for people of the token's own issuer, by the names that the issuer's tokens give them.
        if subject.type_name() != token.user_type.as_str() || !token.names.gives(&subject) {
            return Err(CallerError::OtherUser);
        }
        // The token's tuples are about its own subject. Its context, such as the tenant, binds the call as a whole.
        let context = token.contextual.context.clone();
        let contextual = Arc::new(Contextual { tuples: Vec::new(), context });
        Ok(Principal::asserted_by_token(subject, contextual, token))
    }

    /// Returns the principal whose write relation is checked, or `None` for a caller who is believed.
    ///
    /// # Errors
    /// If the token's subject cannot hold a relation.
    pub fn writer(&self) -> Result<Option<Principal>, CallerError> {
        match self {
            Self::Believed => Ok(None),
            Self::Verified { token, .. } => itself(token).map(Some),
        }
    }
}

/// Returns the principal of the token's own subject.
fn itself(token: &VerifiedToken) -> Result<Principal, CallerError> {
    let subject = token.user.clone().ok_or(CallerError::NoUser)?;
    Ok(Principal::of_token(subject, Arc::clone(&token.contextual), token))
}
