//! Enforcement: the one place that makes a [`Permitted`].
//!
//! It asks the authorizer itself and pairs answers with items by position, so a decision cannot end up on another item.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::{Authorizer, AuthzError, Check, CheckBatch, Consistency, VisibleSetQuery};
use crate::chunk::{Candidate, Chunk};
use crate::identity::{ChunkLedger, Delegation, DelegationOn, Principal};
use crate::relationship::{Object, Relation};
use crate::telemetry;

/// Something that the authorizer has allowed the principal of one request to see.
///
/// Only [`Enforcer::enforce`] makes one from a bare value, and only a permitted candidate becomes its permitted chunk. A
/// caller can hold one:
///
/// ```
/// use ragward::authz::enforce::Permitted;
/// use ragward::chunk::Chunk;
///
/// fn text(chunk: &Permitted<Chunk>) -> &str {
///     &chunk.item().text
/// }
/// ```
///
/// but not make one:
///
/// ```compile_fail,E0451
/// use ragward::authz::enforce::Permitted;
/// use ragward::chunk::Chunk;
///
/// fn forge(chunk: Chunk) -> Permitted<Chunk> {
///     Permitted { item: chunk }
/// }
/// ```
#[derive(Debug)]
pub struct Permitted<T> {
    item: T,
}

impl<T> Permitted<T> {
    /// What was permitted.
    pub fn item(&self) -> &T {
        &self.item
    }

    /// Takes it out, for the answer.
    pub fn into_item(self) -> T {
        self.item
    }
}

impl Permitted<Candidate> {
    /// The chunk behind the candidate, still permitted if it is the same chunk under the same guard; `None` when it
    /// changed hands since the search, or when the details of the principal's token do not permit it.
    #[must_use]
    pub(crate) fn hydrate(self, chunk: Chunk, ledger: &mut ChunkLedger<'_>) -> Option<Permitted<Chunk>> {
        let unchanged = chunk.id == self.item.chunk_id && chunk.guard == self.item.guard;
        (unchanged && ledger.admit(&chunk.guard, &chunk.metadata)).then_some(Permitted { item: chunk })
    }
}

/// Something that is checked against an object.
pub trait Guarded {
    /// The object that decides who sees it.
    fn guard(&self) -> &Object;
}

impl Guarded for Candidate {
    fn guard(&self) -> &Object {
        &self.guard
    }
}

impl Guarded for Object {
    fn guard(&self) -> &Object {
        self
    }
}

/// Decides for one principal and one request. Each distinct guard is asked once, however many items it has.
///
/// INVARIANT (only narrower): a guard is allowed only if the subject holds the relation, **and** whoever acts for the subject
/// may do so, **and** the token's details leave the guard. The last two never stand in for the first.
pub struct Enforcer<'a> {
    authorizer: &'a dyn Authorizer,
    principal: &'a Principal,
    relation: &'a Relation,
    consistency: Consistency,
    deadline: Instant,
    decisions: HashMap<Object, bool>,
    /// Whether the actor may act for the subject at all; `None` while it was not asked.
    may_act: Option<bool>,
    /// Checks since they were last taken, and how long they took.
    asked: usize,
    asking: Duration,
}

impl<'a> Enforcer<'a> {
    /// An enforcer that has decided nothing yet.
    #[must_use]
    pub fn new(
        authorizer: &'a dyn Authorizer,
        principal: &'a Principal,
        relation: &'a Relation,
        consistency: Consistency,
        deadline: Instant,
    ) -> Self {
        Self {
            authorizer,
            principal,
            relation,
            consistency,
            deadline,
            decisions: HashMap::new(),
            may_act: None,
            asked: 0,
            asking: Duration::ZERO,
        }
    }

    /// Those items that the principal may see, in the order given.
    ///
    /// # Errors
    /// When a decision could not be made; then no item is permitted.
    pub async fn enforce<T: Guarded>(&mut self, items: Vec<T>) -> Result<Vec<Permitted<T>>, AuthzError> {
        self.decide(items.iter().map(Guarded::guard)).await?;
        let allowed = items.into_iter().filter(|item| self.decisions.get(item.guard()) == Some(&true));
        Ok(allowed.map(|item| Permitted { item }).collect())
    }

    /// The positions of the guards that the principal may see, out of those at `positions`: the visible set, for a search.
    /// Every guard is checked.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub async fn checked_visible_set(
        &mut self,
        guards: &[Object],
        positions: &RoaringBitmap,
    ) -> Result<RoaringBitmap, AuthzError> {
        let at = |position: u32| Some((position, guards.get(usize::try_from(position).ok()?)?));
        self.decide(positions.iter().filter_map(at).map(|(_, guard)| guard)).await?;
        let visible = positions.iter().filter_map(at).filter(|(_, guard)| self.decisions.get(*guard) == Some(&true));
        Ok(visible.map(|(position, _)| position).collect())
    }

    /// Like [`Enforcer::checked_visible_set`], if the authorizer can tell the set all at once: a hint, not a permission. What
    /// such a set hides is not looked for: whoever tells it is the authority itself, or a copy of it within its stated
    /// staleness. What it shows in vain is checked and refilled. An authorizer that has to ask a server gives up at
    /// `list_deadline`: then the set is not known.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub async fn known_visible_set(
        &self,
        guards: &Arc<Vec<Object>>,
        positions: &Arc<RoaringBitmap>,
        list_deadline: Instant,
    ) -> Result<Option<RoaringBitmap>, AuthzError> {
        let at = |position: u32| Some((position, guards.get(usize::try_from(position).ok()?)?));
        let positions = if self.principal.is_narrowed() {
            let left = positions.iter().filter_map(at).filter(|(_, guard)| self.principal.details_fit_guard(guard));
            &Arc::new(left.map(|(position, _)| position).collect::<RoaringBitmap>())
        } else {
            positions
        };
        let subject = self.principal.subject();
        let query = |user: &Object, relation: &Relation| VisibleSetQuery {
            user: user.clone(),
            relation: relation.clone(),
            guards: Arc::clone(guards),
            positions: Arc::clone(positions),
            contextual: Arc::clone(self.principal.contextual()),
            consistency: self.consistency,
            deadline: list_deadline.min(self.deadline),
        };
        let Some(visible) = self.known_set(query(subject, self.relation)).await? else { return Ok(None) };
        match self.principal.delegation() {
            // Whether it may act for the subject is asked with the first batch of checks.
            None | Some(Delegation { on: DelegationOn::User, .. }) => Ok(Some(visible)),
            Some(Delegation { actor, relation, on: DelegationOn::Guard }) => {
                let of_actor = self.known_set(query(actor, relation)).await?;
                Ok(of_actor.map(|of_actor| visible & of_actor))
            }
        }
    }

    /// What is known of a guard without asking: what was decided before, and what the details of the principal's token deny.
    #[must_use]
    pub fn known(&self, guard: &Object) -> Option<bool> {
        let decided = self.decisions.get(guard).copied();
        let is_shut = || self.permits_nothing() || !self.principal.details_fit_guard(guard);
        decided.or_else(|| is_shut().then_some(false))
    }

    /// How many checks it has asked since this was taken last, and how long it waited for their answers.
    pub fn take_asked(&mut self) -> (usize, Duration) {
        (std::mem::take(&mut self.asked), std::mem::take(&mut self.asking))
    }

    /// Whether it is known that nothing is permitted, whatever there is.
    #[must_use]
    pub fn permits_nothing(&self) -> bool {
        self.may_act == Some(false)
    }

    /// The positions at which the user holds the relation, if the authorizer can tell them all at once.
    async fn known_set(&self, query: VisibleSetQuery) -> Result<Option<RoaringBitmap>, AuthzError> {
        let known = timeout_at(self.deadline, self.authorizer.visible_set(&query)).await;
        let known = known.map_err(|_elapsed| AuthzError::DeadlineExceeded)??;
        Ok(known.map(|known| &*known & &*query.positions))
    }

    /// Asks for the guards that were not asked before: one batch for the subject and for who acts for it.
    async fn decide<'g>(&mut self, guards: impl Iterator<Item = &'g Object>) -> Result<(), AuthzError> {
        let mut new: Vec<&Object> = Vec::new();
        let mut seen: HashSet<&Object> = HashSet::new();
        for guard in guards {
            if !self.decisions.contains_key(guard) && seen.insert(guard) {
                new.push(guard);
            }
        }
        let (open, shut): (Vec<&Object>, Vec<&Object>) =
            new.into_iter().partition(|guard| !self.permits_nothing() && self.principal.details_fit_guard(guard));
        self.decisions.extend(shut.into_iter().map(|guard| (guard.clone(), false)));
        if open.is_empty() {
            return Ok(());
        }
        let check = |user: &Object, relation: &Relation, object: &Object| Check {
            user: user.clone(),
            relation: relation.clone(),
            object: object.clone(),
        };
        let subject = self.principal.subject();
        let mut checks: Vec<Check> = open.iter().map(|guard| check(subject, self.relation, guard)).collect();
        match self.principal.delegation() {
            Some(Delegation { actor, relation, on: DelegationOn::Guard }) => {
                checks.extend(open.iter().map(|guard| check(actor, relation, guard)));
            }
            Some(Delegation { actor, relation, on: DelegationOn::User }) if self.may_act.is_none() => {
                checks.push(check(actor, relation, subject));
            }
            Some(Delegation { on: DelegationOn::User, .. }) | None => {}
        }
        let (asked, count) = (Instant::now(), checks.len());
        let answers = self.ask(checks).await?;
        self.asked = self.asked.saturating_add(count);
        self.asking = self.asking.saturating_add(asked.elapsed());

        let (of_subject, of_actor) = answers.split_at_checked(open.len()).unwrap_or_default();
        if let Some(Delegation { on: DelegationOn::User, .. }) = self.principal.delegation() {
            self.may_act = self.may_act.or(of_actor.first().copied());
        }
        for (place, guard) in open.into_iter().enumerate() {
            let actor_may = match self.principal.delegation().map(|delegation| delegation.on) {
                None => true,
                Some(DelegationOn::User) => self.may_act == Some(true),
                Some(DelegationOn::Guard) => of_actor.get(place) == Some(&true),
            };
            let allowed = of_subject.get(place) == Some(&true) && actor_may;
            self.decisions.insert(guard.clone(), allowed);
        }
        Ok(())
    }

    /// The answers to the checks, in their order.
    async fn ask(&self, checks: Vec<Check>) -> Result<Vec<bool>, AuthzError> {
        let contextual = Arc::clone(self.principal.contextual());
        let batch = CheckBatch { checks, contextual, consistency: self.consistency, deadline: self.deadline };
        let answers = timeout_at(self.deadline, self.authorizer.check(&batch)).await;
        let answers = answers.map_err(|_elapsed| AuthzError::DeadlineExceeded)??;

        // INVARIANT (fail closed): every question has exactly one answer, or nothing is decided.
        let mut decided: Vec<Option<bool>> = vec![None; batch.checks.len()];
        for answer in &answers {
            match decided.get_mut(answer.position) {
                Some(decision @ None) => *decision = Some(answer.allowed),
                Some(Some(_)) => return Err(AuthzError::BadAnswer("one check was answered twice".to_owned())),
                None => return Err(AuthzError::BadAnswer("a check was answered that nobody asked".to_owned())),
            }
        }
        let decided: Option<Vec<bool>> = decided.into_iter().collect();
        let decided = decided.ok_or_else(|| AuthzError::BadAnswer("a check was left unanswered".to_owned()))?;
        let allowed = decided.iter().filter(|allowed| **allowed).count();
        telemetry::checked(allowed, decided.len().saturating_sub(allowed));
        Ok(decided)
    }
}

#[cfg(test)]
mod tests;
