//! The caller of a request, and what the caller may ask for.

use std::sync::Arc;

use super::details::AuthorizationDetails;
use super::mapping::Untold;
use super::names::{self, NameRules};
use super::principal::{Delegation, Principal, TokenFacts};
use super::{Scope, StepUp};
use crate::engine::Contextual;
use crate::language::{Object, ParseError, TypeName};

/// A token that was verified, and everything that Ragward believes of its bearer.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedToken {
    pub(super) facts: Arc<TokenFacts>,
    /// The subject as an `OpenFGA` user. `None` for a machine, if machines have no type.
    pub(super) user: Option<Object>,
    pub(super) user_type: TypeName,
    /// The rules by which the issuer's names become users.
    pub(super) names: NameRules,
    pub(super) contextual: Arc<Contextual>,
    pub(super) untold: Vec<Untold>,
    pub(super) untold_of_others: Vec<Untold>,
    pub(super) delegation: Option<Arc<Delegation>>,
    pub(super) details: Option<Arc<AuthorizationDetails>>,
    /// The time at which the user logged in (`auth_time`), in seconds since 1970.
    pub(super) authenticated_at: Option<u64>,
    /// The way in which the user logged in (`acr`).
    pub(super) authentication_class: Option<String>,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A caller whose word is taken: the local administrator, or everybody where identity is insecure.
    Believed,
    /// The bearer of a verified token.
    Verified {
        /// The token that was verified.
        token: Arc<VerifiedToken>,
        /// Whether the bearer may name another user; see [`VerifiedToken::may_assert`].
        may_assert: bool,
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

impl VerifiedToken {
    /// Returns the facts that the audit record takes from the token.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    /// Returns the token's subject, or `None` for a machine that is not a user.
    #[must_use]
    pub fn user(&self) -> Option<&Object> {
        self.user.as_ref()
    }

    /// Returns whether details narrow the token, or its bearer acts for somebody. Such a token may retrieve but not
    /// administer.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        self.details.is_some()
    }

    /// Returns whether somebody else acts for the subject.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        self.delegation.is_some()
    }

    /// Returns whether the token is good for one request only.
    #[must_use]
    pub fn is_single_use(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.is_single_use())
    }

    /// Returns the facts about its subject that the token leaves out. The token is refused if this may let somebody in
    /// whom the model keeps out.
    #[must_use]
    pub fn untold(&self) -> &[Untold] {
        &self.untold
    }

    /// Returns the facts that the token cannot tell about another user whom its bearer names.
    #[must_use]
    pub fn untold_of_others(&self) -> &[Untold] {
        &self.untold_of_others
    }

    /// Returns whether the bearer may name another user. The bearer of a delegated or narrowed token may not, whatever
    /// its scopes.
    #[must_use]
    pub fn may_assert(&self) -> bool {
        self.facts.scopes.contains(Scope::AssertUser) && !self.is_delegated() && !self.is_narrowed()
    }

    /// Returns whether the login behind the token meets a requirement. `now` is in seconds since 1970, and clocks may
    /// differ by `leeway` seconds. A login that lies further in the future does not count.
    #[must_use]
    pub fn satisfies(&self, required: &StepUp, now: u64, leeway: u64) -> bool {
        let class = self.authentication_class.as_ref();
        let class_fits =
            required.acr_values.is_empty() || class.is_some_and(|class| required.acr_values.contains(class));
        let recent = |max_age: u64| {
            let fits = |at: u64| at <= now.saturating_add(leeway) && now <= at.saturating_add(max_age);
            self.authenticated_at.is_some_and(fits)
        };
        class_fits && required.max_age.is_none_or(recent)
    }

    fn itself(self: &Arc<Self>) -> Result<Principal, CallerError> {
        let subject = self.user.clone().ok_or(CallerError::NoUser)?;
        Ok(Principal::of_token(subject, Arc::clone(&self.contextual), self))
    }
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

    /// Returns the principal of a request that names `user`. An empty name means the token's own subject.
    ///
    /// # Errors
    /// If the name is malformed, or names another user than the token's subject and the caller may not do that.
    pub fn principal(&self, user: &str) -> Result<Principal, CallerError> {
        let (token, may_assert) = match self {
            Self::Believed => return Ok(Principal::stated(user)?),
            Self::Verified { token, may_assert } => (token, *may_assert),
        };
        let own = token.user.as_ref().is_some_and(|own| own.as_str() == user);
        if user.is_empty() || own {
            return token.itself();
        }
        if !may_assert || !token.may_assert() {
            return Err(CallerError::OtherUser);
        }
        let subject = names::asserted(user)?;
        // One issuer's pipeline speaks only for people of that issuer, by the names that its tokens give them.
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
            Self::Verified { token, .. } => token.itself().map(Some),
        }
    }
}
