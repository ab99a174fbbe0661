//! Who calls, and what the caller may ask for: a verified token, or somebody who is believed without one.

use std::sync::Arc;

use super::details::AuthorizationDetails;
use super::mapping::Untold;
use super::names::{self, NameRules};
use super::principal::{Delegation, Principal, TokenFacts};
use super::{Scope, StepUp};
use crate::engine::Contextual;
use crate::language::{Object, ParseError, TypeName};

/// What is believed of the bearer of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedToken {
    pub(super) facts: Arc<TokenFacts>,
    /// The subject as an `OpenFGA` user; nobody for a client whose kind has no type.
    pub(super) user: Option<Object>,
    pub(super) user_type: TypeName,
    /// How its issuer's names become users.
    pub(super) names: NameRules,
    pub(super) contextual: Arc<Contextual>,
    pub(super) untold: Vec<Untold>,
    pub(super) untold_of_others: Vec<Untold>,
    pub(super) delegation: Option<Arc<Delegation>>,
    pub(super) details: Option<Arc<AuthorizationDetails>>,
    /// When the user was asked for a proof (`auth_time`), in seconds since 1970.
    pub(super) authenticated_at: Option<u64>,
    /// How (`acr`).
    pub(super) authentication_class: Option<String>,
}

/// Who calls.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody whose word is taken: the local administrator, or everybody where identity is insecure.
    Believed,
    /// The bearer of a token.
    Verified {
        /// The token.
        token: Arc<VerifiedToken>,
        /// Whether its bearer may name another user; see [`VerifiedToken::may_assert`].
        may_assert: bool,
    },
}

/// Why a caller is not the principal that the request names.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The name is no user.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// The token speaks for another user, and may not name one.
    #[error("the token does not let its bearer ask for this user")]
    OtherUser,
    /// The token speaks for a client, which is no user.
    #[error(
        "the token speaks for a client, not for a user; `identity.issuers.people` says what marks a person's token"
    )]
    NoUser,
}

impl VerifiedToken {
    /// What is recorded of it.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    /// Its subject; nobody for a client that is no user.
    #[must_use]
    pub fn user(&self) -> Option<&Object> {
        self.user.as_ref()
    }

    /// Whether it was narrowed by details, or acts for another. Such a token is for retrieval, not for administration.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        self.details.is_some()
    }

    /// Whether somebody else acts for the subject.
    #[must_use]
    pub fn is_delegated(&self) -> bool {
        self.delegation.is_some()
    }

    /// Whether it serves one request only.
    #[must_use]
    pub fn is_single_use(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.is_single_use())
    }

    /// What it does not tell of its subject. Where that may let somebody in who is to be kept out, it is refused.
    #[must_use]
    pub fn untold(&self) -> &[Untold] {
        &self.untold
    }

    /// What it cannot tell of a user whom its bearer names.
    #[must_use]
    pub fn untold_of_others(&self) -> &[Untold] {
        &self.untold_of_others
    }

    /// Whether its bearer may name another user: who acts for one user, or whose token is narrowed, may not, whatever its scopes.
    #[must_use]
    pub fn may_assert(&self) -> bool {
        self.facts.scopes.contains(Scope::AssertUser) && !self.is_delegated() && !self.is_narrowed()
    }

    /// Whether the login behind it is good enough. Pure: `now` is in seconds since 1970, and clocks may be `leeway` seconds
    /// apart. A login that is later than that is no login, however late it is.
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
    /// Whether the caller may administer. Who acts for another, or whose token is narrowed, may not, whatever its scopes: nothing
    /// would bound what it learns.
    #[must_use]
    pub fn may_administer(&self) -> bool {
        match self {
            Self::Believed => true,
            Self::Verified { token, .. } => {
                token.facts.scopes.contains(Scope::Administer) && !token.is_delegated() && !token.is_narrowed()
            }
        }
    }

    /// The principal of a request that names `user`; an empty name is the token's own subject.
    ///
    /// # Errors
    /// When the name is malformed, or another than the token's without the scope to name one.
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
        // One issuer's pipeline speaks for the people of that issuer only, and by the names that its tokens give them.
        if subject.type_name() != token.user_type.as_str() || !token.names.gives(&subject) {
            return Err(CallerError::OtherUser);
        }
        // The tuples of the token are its own subject's; its context (such as the tenant) binds the call as a whole.
        let context = token.contextual.context.clone();
        let contextual = Arc::new(Contextual { tuples: Vec::new(), context });
        Ok(Principal::asserted_by_token(subject, contextual, token))
    }

    /// Who writes, for the check of the write relation; `None` for somebody who is believed.
    ///
    /// # Errors
    /// When the token speaks for nobody that a relation can be held by.
    pub fn writer(&self) -> Result<Option<Principal>, CallerError> {
        match self {
            Self::Believed => Ok(None),
            Self::Verified { token, .. } => token.itself().map(Some),
        }
    }
}
