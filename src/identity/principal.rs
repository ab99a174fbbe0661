//! The principal: the user whose rights limit the answer, the limits that a token sets to those rights, and the facts
//! about both that are recorded.

use std::fmt;
use std::sync::Arc;

use super::bearer::BearerToken;
use super::details::{AuthorizationDetails, Budget, OneOf, PagedDetails, RequestFacts};
use super::names;
use super::remembered::Use;
use super::request_context::StatedContext;
use super::token::{Actor, Delegation, TokenFacts, VerifiedToken};
use crate::chunk::Metadata;
use crate::engine::Contextual;
use crate::language::{Object, ParseError};

/// The user whose rights bound the answer. It is always a single object such as `user:anne`, never a wildcard or a
/// userset.
#[derive(Clone, PartialEq, Debug)]
pub struct Principal {
    subject: Object,
    contextual: Arc<Contextual>,
    /// The keys of the values in `contextual` that the request itself stated.
    stated_keys: Arc<[String]>,
    token: Option<Arc<TokenFacts>>,
    asserted: bool,
    /// The token that the call came with, if sources are asked with it.
    bearer: Option<BearerToken>,
    delegation: Option<Arc<Delegation>>,
    details: Details,
    one_uses: Vec<OneUse>,
}

/// The one use of the principal's token or of its approval, if that is good for one request only.
#[derive(Clone, Debug)]
struct OneUse(Arc<Use>);

impl PartialEq for OneUse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The part of the principal's rights that a token's details leave.
#[derive(Clone, PartialEq, Debug)]
enum Details {
    /// The token has no details, so all rights are left.
    Unlimited,
    /// The details were not compared with a request yet. Until then, nothing is permitted.
    Unapplied(Arc<AuthorizationDetails>),
    /// The details that fit the request.
    Applied(Arc<AuthorizationDetails>),
}

/// An error: the token's details do not permit the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token's authorization details do not permit this request")]
pub struct NotDetailed;

impl Principal {
    /// Believes the name that the caller states.
    ///
    /// # Errors
    /// If the name is a wildcard or a userset, neither of which is one particular user, or if it has a form that no
    /// name in a token can have.
    pub fn stated(user: &str) -> Result<Self, ParseError> {
        Ok(Self {
            subject: names::asserted(user)?,
            contextual: Arc::default(),
            stated_keys: Arc::default(),
            token: None,
            asserted: false,
            bearer: None,
            delegation: None,
            details: Details::Unlimited,
            one_uses: Vec::new(),
        })
    }

    /// Makes the principal of a token's subject.
    pub(super) fn of_token(subject: Object, contextual: Arc<Contextual>, token: &VerifiedToken) -> Self {
        Self {
            subject,
            contextual,
            stated_keys: Arc::default(),
            token: Some(Arc::clone(&token.facts)),
            asserted: false,
            bearer: None,
            delegation: token.delegation.clone(),
            details: token.details.clone().map_or(Details::Unlimited, Details::Unapplied),
            one_uses: Vec::new(),
        }
    }

    /// Makes the principal of a user whom the bearer of a token names.
    pub(super) fn asserted_by_token(subject: Object, contextual: Arc<Contextual>, token: &VerifiedToken) -> Self {
        Self { asserted: true, ..Self::of_token(subject, contextual, token) }
    }

    /// Keeps the token that the call came with, so that a source can be asked as its subject. A user whom the bearer names has
    /// none: the token speaks for somebody else.
    #[must_use]
    pub fn with_bearer(self, bearer: Option<BearerToken>) -> Self {
        let bearer = bearer.filter(|_| !self.asserted);
        Self { bearer, ..self }
    }

    /// Adds an actor who acts for the principal, as if a token had named the actor. The principal can only lose by it.
    #[cfg(test)]
    pub(crate) fn acted_for_by(self, delegation: Delegation) -> Self {
        Self { delegation: Some(Arc::new(delegation)), ..self }
    }

    /// Adds a condition that every chunk must meet. The principal can only lose by it.
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

    /// Notes one more use that ends when text is read: that of the principal's token, or that of an approval beside it.
    #[must_use]
    pub fn with_one_use(mut self, one_use: Option<Arc<Use>>) -> Self {
        self.one_uses.extend(one_use.map(OneUse));
        self
    }

    /// Says that texts of chunks are about to be read for the principal. A token for one request is used up by that, and so is an
    /// approval, whatever becomes of the answer.
    pub fn reads_text(&self) {
        for OneUse(one_use) in &self.one_uses {
            one_use.text_read();
        }
    }

    /// Replaces the details of the token by those of them that approve the request. Returns `None` if none do.
    pub(super) fn approved(
        &self,
        approving: impl FnOnce(&AuthorizationDetails) -> Option<AuthorizationDetails>,
    ) -> Option<Self> {
        let details = approving(self.details()?)?;
        Some(Self { details: Details::Unapplied(Arc::new(details)), ..self.clone() })
    }

    /// Binds the details of the token, if it has any, to an approval. Returns `None` if they cannot be bound.
    pub(super) fn granted(
        &self,
        bound: impl FnOnce(Option<&AuthorizationDetails>) -> Option<AuthorizationDetails>,
    ) -> Option<Self> {
        let details = bound(self.details())?;
        Some(Self { details: Details::Unapplied(Arc::new(details)), ..self.clone() })
    }

    /// Counts chunks that earlier pages have taken from the details.
    #[must_use]
    pub fn after(self, taken: usize) -> Self {
        let after = |details: &AuthorizationDetails| Arc::new(details.after(u64::try_from(taken).unwrap_or(u64::MAX)));
        let details = match &self.details {
            Details::Unlimited => Details::Unlimited,
            Details::Unapplied(details) => Details::Unapplied(after(details)),
            Details::Applied(details) => Details::Applied(after(details)),
        };
        Self { details, ..self }
    }

    /// Returns what the tokens of pages are bound to in the details, or `None` if the details allow no pages. A principal
    /// that is not narrowed has no details.
    #[must_use]
    pub fn paged_details(&self) -> Option<PagedDetails<'_>> {
        match &self.details {
            Details::Applied(details) => details.paged(),
            Details::Unlimited | Details::Unapplied(_) => None,
        }
    }

    /// Adds the values that the request states for conditions.
    ///
    /// Whatever the token says stands: the rules of the request's context list no parameter that a claim sets.
    #[must_use]
    pub fn in_context(self, stated: StatedContext) -> Self {
        if stated.is_empty() {
            return self;
        }
        let stated_keys = stated.keys().into();
        let mut contextual = Contextual::clone(&self.contextual);
        for (key, value) in stated.into_values() {
            debug_assert!(!contextual.context.contains_key(&key), "the token and the request both state `{key}`");
            contextual.context.entry(key).or_insert(value);
        }
        Self { contextual: Arc::new(contextual), stated_keys, ..self }
    }

    /// Returns the user whose relations are checked.
    #[must_use]
    pub fn subject(&self) -> &Object {
        &self.subject
    }

    /// Returns the tuples and values that hold for this request, beside the stored relationships.
    #[must_use]
    pub fn contextual(&self) -> &Arc<Contextual> {
        &self.contextual
    }

    /// Returns the keys of the values that the request itself stated, in alphabetical order.
    #[must_use]
    pub fn stated_keys(&self) -> &[String] {
        &self.stated_keys
    }

    /// Returns the facts from the token, or `None` if the name was believed without one.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.token.as_deref()
    }

    /// Returns the token that the call came with, if sources are asked with it.
    #[must_use]
    pub fn bearer(&self) -> Option<&BearerToken> {
        self.bearer.as_ref()
    }

    /// Returns the actors who act for the subject, outermost first. The list is empty if the subject itself asks.
    #[must_use]
    pub fn actors(&self) -> &[Actor] {
        self.token.as_ref().map(|token| token.actors.as_slice()).unwrap_or_default()
    }

    /// Returns the subject of the token whose bearer named this user (scope `ragward:assert_user`), as its issuer
    /// spells it.
    #[must_use]
    pub fn asserted_by(&self) -> Option<&str> {
        self.token.as_ref().filter(|_| self.asserted).map(|token| token.subject.as_str())
    }

    /// Returns the actor and the relation that the actor must hold, or `None` if the subject itself asks.
    #[must_use]
    pub fn delegation(&self) -> Option<&Delegation> {
        self.delegation.as_deref()
    }

    /// Applies the token's details to one request.
    ///
    /// # Errors
    /// If the details permit nothing of the request.
    pub fn for_request(&self, facts: &RequestFacts<'_>) -> Result<Self, NotDetailed> {
        let details = match &self.details {
            Details::Unlimited => Details::Unlimited,
            Details::Unapplied(details) | Details::Applied(details) => {
                Details::Applied(Arc::new(details.for_request(facts).ok_or(NotDetailed)?))
            }
        };
        Ok(Self { details, ..self.clone() })
    }

    /// Returns whether the token has details.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        !matches!(self.details, Details::Unlimited)
    }

    /// Returns whether the token's details may permit chunks of this guard. Whether the subject may see them is decided
    /// elsewhere.
    #[must_use]
    pub fn details_fit_guard(&self, guard: &Object) -> bool {
        match &self.details {
            Details::Unlimited => true,
            Details::Unapplied(_) => false,
            Details::Applied(details) => details.fits_guard(guard),
        }
    }

    /// Creates a ledger of the chunks that one answer takes from the token's details.
    #[must_use]
    pub fn ledger(&self) -> ChunkLedger<'_> {
        match &self.details {
            Details::Unlimited => ChunkLedger(Ledger::Unlimited),
            Details::Unapplied(_) => ChunkLedger(Ledger::Nothing),
            Details::Applied(details) => ChunkLedger(Ledger::Limited(Budget::new(details))),
        }
    }

    /// Returns the number of chunks that the token's details permit in one answer, or `None` if they set no limit.
    #[must_use]
    pub fn chunks_max(&self) -> Option<u64> {
        self.details()?.chunks_max()
    }

    /// Returns whether the details look at more than a chunk's guard: at its metadata, or at the number of chunks.
    #[must_use]
    pub fn details_ask_for_chunks(&self) -> bool {
        self.details().is_some_and(AuthorizationDetails::ask_for_chunks)
    }

    /// Returns the details if they look at metadata or limit the number of chunks. A search must not consider the chunks
    /// that they exclude.
    #[must_use]
    pub fn narrowing(&self) -> Option<Arc<AuthorizationDetails>> {
        match &self.details {
            Details::Applied(details) if details.ask_for_chunks() => Some(Arc::clone(details)),
            Details::Applied(_) | Details::Unlimited | Details::Unapplied(_) => None,
        }
    }

    /// Returns one list of conditions on metadata for each JSON object of the details, as a hint for the search. A
    /// permitted chunk meets all conditions of at least one list. Returns `None` without details, and when one of the
    /// objects has no condition.
    #[must_use]
    pub fn metadata_conditions(&self) -> Option<Vec<&[OneOf]>> {
        self.details()?.metadata_conditions()
    }

    /// Returns the purposes that the token states, for the audit record.
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

/// Counts the chunks that one answer takes; made by [`Principal::ledger`].
#[derive(Debug)]
pub struct ChunkLedger<'p>(Ledger<'p>);

#[derive(Debug)]
enum Ledger<'p> {
    Unlimited,
    Nothing,
    Limited(Budget<'p>),
}

impl ChunkLedger<'_> {
    /// Counts one more chunk with this guard and metadata. Returns false, and counts nothing, if the details do not
    /// permit it.
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
