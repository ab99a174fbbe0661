//! Enforcement: the one place that makes a [`Permitted`].
//!
//! It asks the authorizer itself and pairs answers with items by position, so a decision cannot end up on another item.
//!
//! INVARIANT (not older): what a document's text is released by is not older than that text. A right that was taken away before
//! the document was written anew shows the old text for a while, as late as revocations count, and never the new one.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::{Authorizer, AuthzError, Check, CheckBatch, Consistency, DecidedBy, Provenance, Reached, VisibleSetQuery};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Metadata, Written};
use crate::identity::{ChunkLedger, Delegation, DelegationOn, Principal};
use crate::language::{Object, Relation};
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

impl Permitted<Candidate> {
    /// Compares the details of the principal's token with the metadata of the candidate's chunk. `None` when they do not
    /// permit the chunk, and when the metadata is another chunk's or the chunk has another guard by now.
    #[must_use]
    pub(crate) fn admit(self, chunk: ChunkMetadata, ledger: &mut ChunkLedger<'_>) -> Option<Admitted> {
        let unchanged = chunk.chunk_id == self.item.chunk_id && chunk.guard == self.item.guard;
        let admits = unchanged && ledger.admit(&chunk.guard, &chunk.metadata);
        admits.then_some(Admitted { candidate: self, metadata: chunk.metadata })
    }
}

/// A permitted candidate whose metadata the details of the principal's token permit, too. Its text was not read yet.
#[derive(Debug)]
pub(crate) struct Admitted {
    candidate: Permitted<Candidate>,
    metadata: Metadata,
}

impl Admitted {
    pub(crate) fn candidate(&self) -> &Candidate {
        self.candidate.item()
    }

    /// The chunk behind the candidate, if its guard and its metadata are still those that were permitted.
    #[must_use]
    pub(crate) fn hydrate(self, chunk: Chunk) -> Option<Permitted<Chunk>> {
        let Candidate { chunk_id, guard, .. } = self.candidate.item();
        let unchanged = chunk.id == *chunk_id && chunk.guard == *guard && chunk.metadata == self.metadata;
        unchanged.then_some(Permitted { item: chunk })
    }
}

/// Something that is checked against an object.
pub trait Guarded {
    /// The object that decides who sees it.
    fn guard(&self) -> &Object;

    /// When what it shows was written.
    fn written(&self) -> Written {
        Written::Unknown
    }
}

impl Guarded for Candidate {
    fn guard(&self) -> &Object {
        &self.guard
    }

    fn written(&self) -> Written {
        self.written
    }
}

impl Guarded for Object {
    fn guard(&self) -> &Object {
        self
    }
}

/// What was decided about a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ruling {
    allowed: bool,
    /// The relationships that decided were at least as new as this moment; `None` when that is not known.
    as_of: Option<Instant>,
}

impl Ruling {
    /// What the principal is denied whatever the relationships say.
    const SHUT: Self = Self { allowed: false, as_of: None };

    /// Allowed only if both allow, and as old as the older of them.
    fn and(self, other: Self) -> Self {
        let as_of = self.as_of.zip(other.as_of).map(|(one, other)| one.min(other));
        Self { allowed: self.allowed && other.allowed, as_of }
    }

    /// Whether it releases what was written at this moment; a denial always counts.
    fn releases(self, written: Option<Instant>) -> bool {
        self.allowed && written.is_none_or(|written| self.as_of.is_some_and(|as_of| as_of >= written))
    }
}

/// Decides for one principal and one request. Each distinct guard is asked once, however many items it has, and once more if a
/// document under it is newer than the answer.
///
/// INVARIANT (only narrower): a guard is allowed only if the subject holds the relation, **and** whoever acts for the subject
/// may do so, **and** the token's details leave the guard. The last two never stand in for the first.
pub struct Enforcer<'a> {
    authorizer: &'a dyn Authorizer,
    principal: &'a Principal,
    relation: &'a Relation,
    consistency: Consistency,
    deadline: Instant,
    decisions: HashMap<Object, Ruling>,
    /// Whether the actor may act for the subject at all; `None` while it was not asked.
    may_act: Option<Ruling>,
    /// The time since 1970 of the wall's clock, and when it was that.
    wall_clock: Option<(Duration, Instant)>,
    /// What the answers so far rest on.
    decided_by: Option<DecidedBy>,
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
            decided_by: None,
            asked: 0,
            asking: Duration::ZERO,
            wall_clock: None,
        }
    }

    /// The same, told the time since 1970 now. Without it, what another process wrote counts as written just now.
    #[must_use]
    pub fn at(self, since_1970: Duration) -> Self {
        Self { wall_clock: Some((since_1970, Instant::now())), ..self }
    }

    /// Those items that the principal may see, in the order given.
    ///
    /// # Errors
    /// When a decision could not be made; then no item is permitted.
    pub async fn enforce<T: Guarded>(&mut self, items: Vec<T>) -> Result<Vec<Permitted<T>>, AuthzError> {
        self.enforce_beside(items, &[]).await
    }

    /// Like [`Enforcer::enforce`], with checks of `decoys` in the same batch, so that the number of checks does not tell
    /// how many guards the items have. A decoy is asked about whatever the token's details say.
    ///
    /// INVARIANT (decoys decide nothing): what is answered about a decoy is dropped.
    ///
    /// # Errors
    /// As [`Enforcer::enforce`]. A decoy that cannot be decided fails the items too, as a hidden guard would.
    pub async fn enforce_beside<T: Guarded>(
        &mut self,
        items: Vec<T>,
        decoys: &[Object],
    ) -> Result<Vec<Permitted<T>>, AuthzError> {
        // What was found was written by now, whatever its date says.
        let found = Instant::now();
        self.decide(items.iter().map(Guarded::guard), decoys).await?;
        let written = self.moments(&items, found);
        self.decide_anew(items.iter().map(Guarded::guard).zip(&written)).await?;
        let releases = |(item, written): &(T, Option<Instant>)| {
            self.decisions.get(item.guard()).is_some_and(|decision| decision.releases(*written))
        };
        let allowed = items.into_iter().zip(written).filter(releases);
        Ok(allowed.map(|(item, _)| Permitted { item }).collect())
    }

    /// For each item, the moment that [`Enforcer::moment`] returns.
    fn moments<T: Guarded>(&self, items: &[T], found: Instant) -> Vec<Option<Instant>> {
        // Asked at most once, and only if another process wrote one of the items.
        let staleness_max = LazyCell::new(|| self.authorizer.abilities(self.consistency).staleness_max);
        items.iter().map(|item| self.moment(item.written(), found, || *staleness_max)).collect()
    }

    /// The moment from which on a decision is not older than what was written; `None` where nobody noted when that was. A date of
    /// another process counts as so much later as clocks and copies may be behind.
    fn moment(&self, written: Written, found: Instant, staleness_max: impl Fn() -> Duration) -> Option<Instant> {
        match written {
            Written::Unknown => None,
            Written::By(moment) => Some(moment.min(found)),
            Written::AtWallTime(date) => {
                let of_date = || {
                    let (since_1970, now) = self.wall_clock?;
                    let age = since_1970.checked_sub(date)?;
                    now.checked_sub(age)?.checked_add(staleness_max())
                };
                Some(of_date().map_or(found, |moment| moment.min(found)))
            }
        }
    }

    /// Asks again, for relationships that are as new, about guards that are allowed by a decision from before what they guard
    /// was written.
    async fn decide_anew<'g>(
        &mut self,
        items: impl Iterator<Item = (&'g Object, &'g Option<Instant>)>,
    ) -> Result<(), AuthzError> {
        let mut outdated: Vec<&Object> = Vec::new();
        let mut seen: HashSet<&Object> = HashSet::new();
        let mut newest = None;
        for (guard, written) in items {
            let Some(decision) = self.decisions.get(guard).filter(|decision| decision.allowed) else { continue };
            if !decision.releases(*written) {
                newest = newest.max(*written);
                if seen.insert(guard) {
                    outdated.push(guard);
                }
            }
        }
        let Some(newest) = newest else { return Ok(()) };
        let consistency = match self.consistency {
            Consistency::MinimizeLatency => Consistency::AtLeastAsFresh(newest),
            Consistency::AtLeastAsFresh(moment) => Consistency::AtLeastAsFresh(moment.max(newest)),
            Consistency::HigherConsistency => Consistency::HigherConsistency,
        };
        // Whoever acts may have lost that since, too.
        self.may_act = None;
        tracing::debug!(guards = outdated.len(), "decided anew, for what was written since");
        self.ask_about(outdated, &[], consistency).await
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
        self.decide(positions.iter().filter_map(at).map(|(_, guard)| guard), &[]).await?;
        let visible = positions
            .iter()
            .filter_map(at)
            .filter(|(_, guard)| self.decisions.get(*guard).is_some_and(|decision| decision.allowed));
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
        &mut self,
        guards: &Arc<Vec<Object>>,
        positions: &Arc<RoaringBitmap>,
        list_deadline: Instant,
    ) -> Result<Option<RoaringBitmap>, AuthzError> {
        let at = |position: u32| Some((position, guards.get(usize::try_from(position).ok()?)?));
        let (principal, consistency, deadline) = (self.principal, self.consistency, list_deadline.min(self.deadline));
        let positions = if principal.is_narrowed() {
            let left = positions.iter().filter_map(at).filter(|(_, guard)| principal.details_fit_guard(guard));
            &Arc::new(left.map(|(position, _)| position).collect::<RoaringBitmap>())
        } else {
            positions
        };
        let query = |user: &Object, relation: &Relation| VisibleSetQuery {
            user: user.clone(),
            relation: relation.clone(),
            guards: Arc::clone(guards),
            positions: Arc::clone(positions),
            contextual: Arc::clone(principal.contextual()),
            consistency,
            deadline,
        };
        let Some(visible) = self.known_set(query(principal.subject(), self.relation)).await? else { return Ok(None) };
        match principal.delegation() {
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
        let decided = self.decisions.get(guard).map(|decision| decision.allowed);
        let is_shut = || self.permits_nothing() || !self.principal.details_fit_guard(guard);
        decided.or_else(|| is_shut().then_some(false))
    }

    /// Returns what the answers so far rest on, visible sets included; `None` while there was none.
    #[must_use]
    pub fn decided_by(&self) -> Option<DecidedBy> {
        self.decided_by.clone()
    }

    /// Takes in what one more answer rests on.
    fn note(&mut self, by: &Provenance, asked: Instant) {
        let later = DecidedBy { model_id: Arc::clone(&by.model_id), staleness: by.staleness(asked) };
        self.decided_by = Some(match self.decided_by.take() {
            Some(earlier) => earlier.and_then(later),
            None => later,
        });
    }

    /// How many checks were decided for it since this was taken last, and how long it waited for their answers. What was
    /// remembered is not among them.
    pub fn take_asked(&mut self) -> (usize, Duration) {
        (std::mem::take(&mut self.asked), std::mem::take(&mut self.asking))
    }

    /// Whether it is known that nothing is permitted, whatever there is.
    #[must_use]
    pub fn permits_nothing(&self) -> bool {
        self.may_act.is_some_and(|may_act| !may_act.allowed)
    }

    /// The positions at which the user holds the relation, if the authorizer can tell them all at once.
    async fn known_set(&mut self, query: VisibleSetQuery) -> Result<Option<RoaringBitmap>, AuthzError> {
        let asked = Instant::now();
        let known = timeout_at(self.deadline, self.authorizer.visible_set(&query)).await;
        let Some(known) = known.map_err(|_elapsed| AuthzError::DeadlineExceeded)?? else { return Ok(None) };
        self.note(&known.by, asked);
        Ok(Some(&*known.positions & &*query.positions))
    }

    /// Asks for the guards that were not asked before: one batch for the subject and for who acts for it.
    async fn decide<'g>(
        &mut self,
        guards: impl Iterator<Item = &'g Object>,
        decoys: &[Object],
    ) -> Result<(), AuthzError> {
        let mut new: Vec<&Object> = Vec::new();
        let mut seen: HashSet<&Object> = HashSet::new();
        for guard in guards {
            if !self.decisions.contains_key(guard) && seen.insert(guard) {
                new.push(guard);
            }
        }
        let (open, shut): (Vec<&Object>, Vec<&Object>) =
            new.into_iter().partition(|guard| !self.permits_nothing() && self.principal.details_fit_guard(guard));
        self.decisions.extend(shut.into_iter().map(|guard| (guard.clone(), Ruling::SHUT)));
        if open.is_empty() && decoys.is_empty() {
            return Ok(());
        }
        self.ask_about(open, decoys, self.consistency).await
    }

    /// Asks about guards, whatever was decided before, and about decoys.
    async fn ask_about(
        &mut self,
        open: Vec<&Object>,
        decoys: &[Object],
        consistency: Consistency,
    ) -> Result<(), AuthzError> {
        let check = |user: &Object, relation: &Relation, object: &Object| Check {
            user: user.clone(),
            relation: relation.clone(),
            object: object.clone(),
        };
        let subject = self.principal.subject();
        let objects = || open.iter().copied().chain(decoys);
        let mut checks: Vec<Check> = objects().map(|object| check(subject, self.relation, object)).collect();
        let subject_checks = checks.len();
        match self.principal.delegation() {
            Some(Delegation { actor, relation, on: DelegationOn::Guard }) => {
                checks.extend(objects().map(|object| check(actor, relation, object)));
            }
            Some(Delegation { actor, relation, on: DelegationOn::User }) if self.may_act.is_none() => {
                checks.push(check(actor, relation, subject));
            }
            Some(Delegation { on: DelegationOn::User, .. }) | None => {}
        }
        let answers = self.ask(checks, consistency).await?;
        let (of_subject, of_actor) = answers.split_at_checked(subject_checks).unwrap_or_default();
        if let Some(Delegation { on: DelegationOn::User, .. }) = self.principal.delegation() {
            self.may_act = self.may_act.or(of_actor.first().copied());
        }
        // Decoys come after the guards, and are not looked at.
        for (place, guard) in open.into_iter().enumerate() {
            let of_actor = match self.principal.delegation().map(|delegation| delegation.on) {
                None => of_subject.get(place).copied(),
                Some(DelegationOn::User) => self.may_act,
                Some(DelegationOn::Guard) => of_actor.get(place).copied(),
            };
            let decision = of_subject.get(place).zip(of_actor).map(|(of_subject, of_actor)| of_subject.and(of_actor));
            self.decisions.insert(guard.clone(), decision.unwrap_or(Ruling::SHUT));
        }
        Ok(())
    }

    /// The answers to the checks, in their order.
    async fn ask(&mut self, checks: Vec<Check>, consistency: Consistency) -> Result<Vec<Ruling>, AuthzError> {
        let contextual = Arc::clone(self.principal.contextual());
        let batch = CheckBatch { checks, contextual, consistency, deadline: self.deadline };
        let asked = Instant::now();
        let decisions = timeout_at(self.deadline, self.authorizer.check(&batch)).await;
        let decisions = decisions.map_err(|_elapsed| AuthzError::DeadlineExceeded)??;
        let new = decisions.list.iter().filter(|decision| decision.reached != Reached::Earlier).count();
        if new > 0 {
            self.asked = self.asked.saturating_add(new);
            self.asking = self.asking.saturating_add(asked.elapsed());
        }

        // INVARIANT (fail closed): every question has exactly one answer, or nothing is decided.
        let mut decided: Vec<Option<Ruling>> = vec![None; batch.checks.len()];
        for decision in &decisions.list {
            match decided.get_mut(decision.position) {
                Some(ruling @ None) => {
                    *ruling = Some(Ruling { allowed: decision.allowed, as_of: decision.as_of });
                }
                Some(Some(_)) => return Err(AuthzError::BadAnswer("one check was answered twice".to_owned())),
                None => return Err(AuthzError::BadAnswer("a check was answered that nobody asked".to_owned())),
            }
        }
        let decided: Option<Vec<Ruling>> = decided.into_iter().collect();
        let decided = decided.ok_or_else(|| AuthzError::BadAnswer("a check was left unanswered".to_owned()))?;
        self.note(&decisions.by, asked);
        let allowed = decided.iter().filter(|ruling| ruling.allowed).count();
        telemetry::checked(allowed, decided.len().saturating_sub(allowed));
        Ok(decided)
    }
}

#[cfg(test)]
mod tests;
