//! Enforcement: the one place that makes a [`Permitted`].
//!
//! It asks the authorizer itself and pairs answers with items by position, so a decision cannot end up on another item.
//!
//! INVARIANT (not older): a decision that releases a document's text is not older than that text. Suppose a right is revoked
//! and the document is then rewritten. Until the revocation takes effect, the user may still see the old text, but never
//! the new one.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::{
    Authorizer, AuthzError, Check, CheckBatch, Consistency, DecidedBy, ModelsUsed, Provenance, Reached, VisibleSetQuery,
};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Metadata, Written};
use crate::identity::{ChunkLedger, Delegation, DelegationOn, Principal};
use crate::language::{Object, Relation};
use crate::telemetry;

/// Proof that the authorizer allows the principal of one request to see `T`.
///
/// Only [`Enforcer::enforce`] makes one from a bare value, and only a permitted candidate becomes a permitted chunk. Other
/// code can hold one:
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
    /// Returns what was permitted.
    pub fn item(&self) -> &T {
        &self.item
    }

    /// Takes out what was permitted, to put it into the answer.
    pub fn into_item(self) -> T {
        self.item
    }
}

impl Permitted<Candidate> {
    /// Turns the candidate into its chunk. Returns `None` when the chunk has another guard than the search found, or when
    /// the details of the principal's token do not permit it.
    #[must_use]
    pub(crate) fn hydrate(self, chunk: Chunk, ledger: &mut ChunkLedger<'_>) -> Option<Permitted<Chunk>> {
        let unchanged = chunk.id == self.item.chunk_id && chunk.guard == self.item.guard;
        (unchanged && ledger.admit(&chunk.guard, &chunk.metadata)).then_some(Permitted { item: chunk })
    }
}

impl Permitted<Candidate> {
    /// Compares the details of the principal's token with the metadata of the candidate's chunk. Returns `None` if they do
    /// not permit the chunk, if the metadata is another chunk's, or if the chunk has another guard by now.
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

    /// Returns the chunk behind the candidate, if its guard and its metadata are still those that were permitted.
    #[must_use]
    pub(crate) fn hydrate(self, chunk: Chunk) -> Option<Permitted<Chunk>> {
        let Candidate { chunk_id, guard, .. } = self.candidate.item();
        let unchanged = chunk.id == *chunk_id && chunk.guard == *guard && chunk.metadata == self.metadata;
        unchanged.then_some(Permitted { item: chunk })
    }
}

/// Something that has a guard: an object on which a user must hold the configured relation to see it.
pub trait Guarded {
    /// Returns the object that decides who may see this.
    fn guard(&self) -> &Object;

    /// Returns when the content that this stands for was written.
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

/// The decision about a guard for the whole request: for the subject and its actor together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ruling {
    allowed: bool,
    /// The relationships that decided were at least as new as this moment; `None` when that is not known.
    as_of: Option<Instant>,
}

impl Ruling {
    /// The guard is denied, whatever the relationships say.
    const SHUT: Self = Self { allowed: false, as_of: None };

    /// Joins two rulings: both must allow, and the result is as old as the older one.
    fn and(self, other: Self) -> Self {
        let as_of = self.as_of.zip(other.as_of).map(|(one, other)| one.min(other));
        Self { allowed: self.allowed && other.allowed, as_of }
    }

    /// Returns whether this releases content that was written at this moment. A denial releases nothing, however old it
    /// is.
    fn releases(self, written: Option<Instant>) -> bool {
        self.allowed && written.is_none_or(|written| self.as_of.is_some_and(|as_of| as_of >= written))
    }
}

/// Decides for one principal and one request.
///
/// There is one enforcer for each request, because it remembers its decisions: a wider search then checks only new
/// guards, and all chunks under one guard are decided alike. It asks about a guard a second time only if a document
/// under it is newer than the answer.
///
/// The relation comes from the configuration, never from the request. A caller who could choose it could choose a
/// weaker one.
///
/// INVARIANT (only narrower): a guard is allowed only if the subject holds the relation, **and** whoever acts for the
/// subject may do so, **and** the token's details permit the guard. The last two never stand in for the first.
pub struct Enforcer<'a> {
    authorizer: &'a dyn Authorizer,
    principal: &'a Principal,
    relation: &'a Relation,
    consistency: Consistency,
    deadline: Instant,
    decisions: HashMap<Object, Ruling>,
    /// Whether the actor may act for the subject at all; `None` until that was asked.
    may_act: Option<Ruling>,
    /// A reading of the wall clock (time since 1970), and the moment at which it was read.
    wall_clock: Option<(Duration, Instant)>,
    /// The model and the relationships behind the answers so far; `None` until there is an answer.
    decided_by: Option<DecidedBy>,
    /// The models behind the same answers; `None` until there is an answer.
    models: Option<ModelsUsed>,
    /// The number of checks that were decided since [`Enforcer::take_asked`] was called last.
    asked: usize,
    /// The time that the enforcer waited for those checks.
    asking: Duration,
}

impl<'a> Enforcer<'a> {
    /// Makes an enforcer that has decided nothing yet.
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
            models: None,
            asked: 0,
            asking: Duration::ZERO,
            wall_clock: None,
        }
    }

    /// Gives the enforcer the wall clock's time since 1970. Without it, everything that another process wrote counts as
    /// written just now.
    #[must_use]
    pub fn at(self, since_1970: Duration) -> Self {
        Self { wall_clock: Some((since_1970, Instant::now())), ..self }
    }

    /// Returns the items that the principal may see, in the order given.
    ///
    /// # Errors
    /// When a decision could not be made. Then no item is permitted.
    pub async fn enforce<T: Guarded>(&mut self, items: Vec<T>) -> Result<Vec<Permitted<T>>, AuthzError> {
        self.enforce_beside(items, &[]).await
    }

    /// Like [`Enforcer::enforce`], but checks `decoys` in the same batch. So the number of checks does not reveal how many
    /// guards the items have. A decoy is checked whatever the token's details say.
    ///
    /// INVARIANT (decoys decide nothing): the answer about a decoy is dropped.
    ///
    /// # Errors
    /// Like [`Enforcer::enforce`]. A decoy that cannot be decided fails the items too, as a hidden guard would.
    pub async fn enforce_beside<T: Guarded>(
        &mut self,
        items: Vec<T>,
        decoys: &[Object],
    ) -> Result<Vec<Permitted<T>>, AuthzError> {
        // An item that was found had been written by then, whatever its date says.
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

    /// Returns [`Enforcer::moment`] for each item.
    fn moments<T: Guarded>(&self, items: &[T], found: Instant) -> Vec<Option<Instant>> {
        // The authorizer is asked at most once, and only if another process wrote one of the items.
        let staleness_max = LazyCell::new(|| self.authorizer.abilities(self.consistency).staleness_max);
        items.iter().map(|item| self.moment(item.written(), found, || *staleness_max)).collect()
    }

    /// Returns a moment by which the content had been written. A decision that is as new as that moment is not older
    /// than the content. Returns `None` where nobody noted when the content was written. A date from another process is
    /// moved `staleness_max` later, because that process's clock and copy may be behind ours by as much.
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

    /// Asks again about allowed guards whose content is newer than the decision, this time for relationships that are as new
    /// as the content.
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
        // The actor may have lost the right to act since then, too.
        self.may_act = None;
        tracing::debug!(guards = outdated.len(), "asking again, because documents are newer than the decisions");
        self.ask_about(outdated, &[], consistency).await
    }

    /// Finds the visible set for a search by checking the guards at `positions`. Returns the positions of the guards
    /// that the principal may see.
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

    /// Like [`Enforcer::checked_visible_set`], but asks the authorizer for the whole set at once. Returns `None` when
    /// the authorizer cannot find it, or does not find it before `list_deadline`.
    ///
    /// The set is a hint, not a permission. A guard that it shows is still checked before anything is released. A guard
    /// that it hides is never looked for: the set comes from the authority itself, or from a copy within its stated
    /// staleness.
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
            // The first batch of checks asks whether the actor may act for the subject.
            None | Some(Delegation { on: DelegationOn::User, .. }) => Ok(Some(visible)),
            Some(Delegation { actor, relation, on: DelegationOn::Guard }) => {
                let of_actor = self.known_set(query(actor, relation)).await?;
                Ok(of_actor.map(|of_actor| visible & of_actor))
            }
        }
    }

    /// Returns the decision about a guard if it is known already: an earlier decision, or a denial because the actor
    /// may not act or the token's details do not fit the guard. Returns `None` if the authorizer has to be asked.
    #[must_use]
    pub fn known(&self, guard: &Object) -> Option<bool> {
        let decided = self.decisions.get(guard).map(|decision| decision.allowed);
        let is_shut = || self.permits_nothing() || !self.principal.details_fit_guard(guard);
        decided.or_else(|| is_shut().then_some(false))
    }

    /// Returns what the answers so far rest on, visible sets included; `None` while there is no answer.
    #[must_use]
    pub fn decided_by(&self) -> Option<DecidedBy> {
        self.decided_by.clone()
    }

    /// Returns the models behind the answers so far, visible sets included; `None` while there is no answer.
    pub(crate) fn models(&self) -> Option<&ModelsUsed> {
        self.models.as_ref()
    }

    /// Returns how many checks were decided since the last call, and how long the enforcer waited for them. Remembered
    /// decisions do not count.
    pub fn take_asked(&mut self) -> (usize, Duration) {
        (std::mem::take(&mut self.asked), std::mem::take(&mut self.asking))
    }

    /// Returns whether it is known that the principal is permitted nothing at all.
    #[must_use]
    pub fn permits_nothing(&self) -> bool {
        self.may_act.is_some_and(|may_act| !may_act.allowed)
    }

    /// Records the basis of one more answer.
    fn note(&mut self, by: &Provenance, asked: Instant) {
        match &mut self.models {
            Some(models) => models.has_changed |= models.first != by.model_id,
            None => self.models = Some(ModelsUsed { first: Arc::clone(&by.model_id), has_changed: false }),
        }
        let later = DecidedBy { model_id: Arc::clone(&by.model_id), staleness: by.staleness(asked) };
        self.decided_by = Some(match self.decided_by.take() {
            Some(earlier) => earlier.and_then(later),
            None => later,
        });
    }

    /// Asks the authorizer for one user's visible set. The result holds no position that the query did not ask about.
    async fn known_set(&mut self, query: VisibleSetQuery) -> Result<Option<RoaringBitmap>, AuthzError> {
        let asked = Instant::now();
        let known = timeout_at(self.deadline, self.authorizer.visible_set(&query)).await;
        let Some(known) = known.map_err(|_elapsed| AuthzError::DeadlineExceeded)?? else { return Ok(None) };
        self.note(&known.by, asked);
        Ok(Some(&*known.positions & &*query.positions))
    }

    /// Asks about the guards that have no ruling yet, in one batch for both the subject and its actor.
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

    /// Asks about guards and decoys, whatever was decided before.
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
        // The answers about decoys come after those about guards, so nobody looks at them.
        for (index, guard) in open.into_iter().enumerate() {
            let of_actor = match self.principal.delegation().map(|delegation| delegation.on) {
                None => of_subject.get(index).copied(),
                Some(DelegationOn::User) => self.may_act,
                Some(DelegationOn::Guard) => of_actor.get(index).copied(),
            };
            let decision = of_subject.get(index).zip(of_actor).map(|(of_subject, of_actor)| of_subject.and(of_actor));
            self.decisions.insert(guard.clone(), decision.unwrap_or(Ruling::SHUT));
        }
        Ok(())
    }

    /// Asks the authorizer, and returns the rulings in the order of the checks.
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
