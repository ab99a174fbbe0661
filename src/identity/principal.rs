//! The one whose rights bound the answer, what narrows them, and everything about it that is audited.

use std::fmt;
use std::sync::Arc;

use super::details::{AuthorizationDetails, Budget, OneOf, RequestFacts};
use super::{Scopes, VerifiedToken, names};
use crate::chunk::Metadata;
use crate::engine::Contextual;
use crate::language::{Object, ParseError, Relation};

/// The one whose rights bound the answer. Always a single object such as `user:anne`, never a wildcard or a userset.
#[derive(Clone, PartialEq, Debug)]
pub struct Principal {
    subject: Object,
    contextual: Arc<Contextual>,
    token: Option<Arc<TokenFacts>>,
    asserted: bool,
    delegation: Option<Arc<Delegation>>,
    details: Details,
}

/// What a verified token says of the caller beside the subject: for the record, and for delegation.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenFacts {
    /// The issuer, exactly as configured (`iss`).
    pub issuer: Arc<str>,
    /// The subject as the issuer spells it (`sub`).
    pub subject: String,
    /// The client that the token was issued to (`client_id`).
    pub client_id: String,
    /// The token's id (`jti`). It is recorded as a digest only.
    pub token_id: String,
    /// Ragward's scopes in it.
    pub scopes: Scopes,
    /// Who acts for the subject, outermost first (`act`, RFC 8693): the first is checked, the others are history.
    pub actors: Vec<Actor>,
    /// Seconds since 1970 after which the token is void (`exp`).
    pub expires_at: u64,
}

/// Somebody who acts for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// As `OpenFGA` knows it, `agent:assistant`.
    pub object: Object,
}

/// What must hold beside the subject's own right when somebody acts for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delegation {
    /// The outermost actor.
    pub actor: Object,
    /// What it must hold.
    pub relation: Relation,
    /// On what.
    pub on: DelegationOn,
}

/// What an actor must hold its relation on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DelegationOn {
    /// The user that it acts for.
    User,
    /// Each guard.
    Guard,
}

/// What a token's details leave of the principal's rights.
#[derive(Clone, PartialEq, Debug)]
enum Details {
    /// The token has none.
    Unlimited,
    /// Not yet compared with a request: nothing is permitted until they are.
    Unapplied(Arc<AuthorizationDetails>),
    /// Those that fit the request.
    Applied(Arc<AuthorizationDetails>),
}

/// The token's details do not permit the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token's authorization details do not permit this request")]
pub struct NotDetailed;

impl Principal {
    /// Believes the name that the caller states.
    ///
    /// # Errors
    /// See [`names::asserted`]: a wildcard or a userset asks for nobody in particular.
    pub fn stated(user: &str) -> Result<Self, ParseError> {
        Ok(Self {
            subject: names::asserted(user)?,
            contextual: Arc::default(),
            token: None,
            asserted: false,
            delegation: None,
            details: Details::Unlimited,
        })
    }

    /// The subject of a token.
    pub(super) fn of_token(subject: Object, contextual: Arc<Contextual>, token: &VerifiedToken) -> Self {
        Self {
            subject,
            contextual,
            token: Some(Arc::clone(&token.facts)),
            asserted: false,
            delegation: token.delegation.clone(),
            details: token.details.clone().map_or(Details::Unlimited, Details::Unapplied),
        }
    }

    /// A user whom the bearer of a token names.
    pub(super) fn asserted_by_token(subject: Object, contextual: Arc<Contextual>, token: &VerifiedToken) -> Self {
        Self { asserted: true, ..Self::of_token(subject, contextual, token) }
    }

    /// The same principal with somebody who acts for it: it can only lose by it.
    #[must_use]
    pub fn acted_for_by(self, delegation: Delegation) -> Self {
        Self { delegation: Some(Arc::new(delegation)), ..self }
    }

    /// The same principal, for which every chunk must meet one more condition: it can only lose by it.
    #[must_use]
    pub fn on_condition(self, condition: &OneOf) -> Self {
        let with =
            |details: Option<&AuthorizationDetails>| Arc::new(AuthorizationDetails::with_condition(details, condition));
        let details = match &self.details {
            Details::Unlimited => Details::Unapplied(with(None)),
            Details::Unapplied(details) => Details::Unapplied(with(Some(details))),
            Details::Applied(details) => Details::Applied(with(Some(details))),
        };
        Self { details, ..self }
    }

    /// The user that is checked.
    #[must_use]
    pub fn subject(&self) -> &Object {
        &self.subject
    }

    /// What is known of the user for this request beside the stored relationships.
    #[must_use]
    pub fn contextual(&self) -> &Arc<Contextual> {
        &self.contextual
    }

    /// What the token said; `None` for a name that was believed without one.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.token.as_deref()
    }

    /// Who acts for the subject, outermost first; nobody when the subject itself asks.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        self.token.as_ref().map(|token| token.actors.as_slice()).unwrap_or_default()
    }

    /// The subject of the token whose bearer named this user (scope `ragward:assert_user`), as its issuer spells it.
    #[must_use]
    pub fn asserted_by(&self) -> Option<&str> {
        self.token.as_ref().filter(|_| self.asserted).map(|token| token.subject.as_str())
    }

    /// What must hold beside the subject's own right; `None` when the subject itself asks.
    #[must_use]
    pub fn delegation(&self) -> Option<&Delegation> {
        self.delegation.as_deref()
    }

    /// The same principal with what its token's details leave for one request.
    ///
    /// # Errors
    /// When they leave nothing.
    pub fn for_request(&self, facts: &RequestFacts<'_>) -> Result<Self, NotDetailed> {
        let details = match &self.details {
            Details::Unlimited => Details::Unlimited,
            Details::Unapplied(details) | Details::Applied(details) => {
                Details::Applied(Arc::new(details.for_request(facts).ok_or(NotDetailed)?))
            }
        };
        Ok(Self { details, ..self.clone() })
    }

    /// Whether the token has details.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        !matches!(self.details, Details::Unlimited)
    }

    /// Whether the token's details leave anything of this guard. Whether the subject may see it is another question.
    #[must_use]
    pub fn details_fit_guard(&self, guard: &Object) -> bool {
        match &self.details {
            Details::Unlimited => true,
            Details::Unapplied(_) => false,
            Details::Applied(details) => details.fits_guard(guard),
        }
    }

    /// Counts what one answer takes of the token's details.
    #[must_use]
    pub fn ledger(&self) -> ChunkLedger<'_> {
        match &self.details {
            Details::Unlimited => ChunkLedger(Ledger::Unlimited),
            Details::Unapplied(_) => ChunkLedger(Ledger::Nothing),
            Details::Applied(details) => ChunkLedger(Ledger::Limited(Budget::new(details))),
        }
    }

    /// Most chunks that the token's details permit in one answer; `None` when they set no limit.
    #[must_use]
    pub fn chunks_max(&self) -> Option<u64> {
        self.details()?.chunks_max()
    }

    /// Whether the details speak of more than guards, so that a chunk's metadata must be looked at.
    #[must_use]
    pub fn details_ask_for_chunks(&self) -> bool {
        self.details().is_some_and(AuthorizationDetails::ask_for_chunks)
    }

    /// The details that speak of more than guards, for a search that must not look at what they leave out.
    #[must_use]
    pub fn narrowing(&self) -> Option<Arc<AuthorizationDetails>> {
        match &self.details {
            Details::Applied(details) if details.ask_for_chunks() => Some(Arc::clone(details)),
            Details::Applied(_) | Details::Unlimited | Details::Unapplied(_) => None,
        }
    }

    /// Conditions on metadata of which every permitted chunk meets one list whole: a hint for the search.
    #[must_use]
    pub fn metadata_conditions(&self) -> Option<Vec<&[OneOf]>> {
        self.details()?.metadata_conditions()
    }

    /// What the token was given for, for the record.
    #[must_use]
    pub fn purposes(&self) -> Vec<&str> {
        self.details().map(|details| details.purposes().collect()).unwrap_or_default()
    }

    fn details(&self) -> Option<&AuthorizationDetails> {
        match &self.details {
            Details::Unlimited => None,
            Details::Unapplied(details) | Details::Applied(details) => Some(details),
        }
    }
}

/// See [`Principal::ledger`].
#[derive(Debug)]
pub struct ChunkLedger<'p>(Ledger<'p>);

#[derive(Debug)]
enum Ledger<'p> {
    Unlimited,
    Nothing,
    Limited(Budget<'p>),
}

impl ChunkLedger<'_> {
    /// Whether the details permit one more chunk, of this guard and with this metadata; then it counts.
    pub fn admit(&mut self, guard: &Object, metadata: &Metadata) -> bool {
        match &mut self.0 {
            Ledger::Unlimited => true,
            Ledger::Nothing => false,
            Ledger::Limited(budget) => budget.admit(guard, metadata),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)
    }
}
