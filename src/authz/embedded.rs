//! The embedded authorizer: Ragward's own evaluator over the relationships in the data directory.
//!
//! Many checks of one user are decided together where that pays. The groups and folders that the user gets to (the
//! *reach*) are followed once from the user outwards, and remembered until a write. The answers are those of single
//! checks: the same bounds hold either way, and this port denies what a check cannot decide.

mod guard_positions;
mod reaches;
mod snapshot_cache;
#[cfg(test)]
mod tests;
mod visible_sets;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use tokio::time::Instant;

use self::reaches::{ReachKey, Reaches};
use self::visible_sets::VisibleSets;
#[cfg(feature = "openfga")]
use super::copy::EvaluatedCopy;
use super::{
    Abilities, Authorizer, AuthzError, Check, CheckBatch, Consistency, DecidingModel, Decision, Decisions,
    KnownRelationships, Provenance, Reached, SubtractedBy, SubtractedByLast, VisiblePositions, VisibleSetQuery,
};
use crate::blocking_pool::BlockingPool;
use crate::engine::Contextual;
use crate::engine::evaluator::{CheckError, Evaluation};
use crate::engine::snapshot::Snapshot;
use crate::language::{Object, Relation, TypeName, User};
use crate::tuple_store::RelationshipStores;

/// Up to this many checks are tried on the caller's thread. They usually take some microseconds each, so moving them to
/// another thread would cost more.
const INLINE_CHECKS_MAX: usize = 128;
/// The least number of checks of one user, relation and type that are decided together. With fewer, the work that they
/// share costs more than it saves.
const TOGETHER_MIN: usize = 64;
/// The most interruptions of a batch on the caller's thread. They come every few hundred microseconds. At the next one,
/// the batch begins again on a blocking thread, so that it does not hold up the other requests of this thread.
const INLINE_INTERRUPTS_MAX: u32 = 2;

/// Decides from the relationships in the data directory.
#[derive(Debug)]
pub struct EmbeddedAuthorizer {
    stores: RelationshipStores,
    visible_sets: Arc<VisibleSets>,
    reaches: Arc<Reaches>,
    subtracted: SubtractedByLast,
    pool: BlockingPool,
}

impl EmbeddedAuthorizer {
    /// Makes an authorizer that decides from the default store's current state.
    #[must_use]
    pub fn new(stores: RelationshipStores) -> Self {
        Self {
            stores,
            visible_sets: Arc::default(),
            reaches: Arc::default(),
            subtracted: SubtractedByLast::default(),
            pool: BlockingPool::cpu_bound(),
        }
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, AuthzError> {
        let store = self.stores.default_store().ok_or(AuthzError::NoModel)?;
        if let Some((_, snapshot)) = store.snapshot_in_memory(None) {
            return Ok(snapshot);
        }
        let read = self.pool.run(move || store.snapshot()).await;
        let read = read.map_err(|e| AuthzError::Unavailable(e.to_string()))?;
        read.map_err(|e| AuthzError::Stored(e.to_string()))?.ok_or(AuthzError::NoModel)
    }
}

#[cfg(feature = "openfga")]
impl EvaluatedCopy for EmbeddedAuthorizer {
    fn conditions_on(&self, object: &Object) -> Vec<String> {
        let snapshot = self.stores.default_store().and_then(|store| store.snapshot_in_memory(None));
        let Some((_, snapshot)) = snapshot else { return Vec::new() };
        snapshot.conditions_on(object).into_iter().map(str::to_owned).collect()
    }
}

#[async_trait]
impl Authorizer for EmbeddedAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        // This moment is taken before the state is read, so that the state is at least as new.
        let as_of = Instant::now();
        let snapshot = self.snapshot().await?;
        let by = Provenance::authority(snapshot.model_id().into(), as_of);
        let deadline = batch.deadline;
        if Instant::now() >= deadline {
            return Err(AuthzError::DeadlineExceeded);
        }
        // A reach that rests on the additions of one request is of no use to another.
        let reaches = batch.contextual.is_empty().then(|| Arc::clone(&self.reaches));
        let evaluator = BatchEvaluator { snapshot: for_request(&snapshot, &batch.contextual)?, reaches, as_of };
        if batch.checks.len() <= INLINE_CHECKS_MAX {
            let mut interrupts = 0;
            let mut may_go_on = || {
                interrupts += 1;
                interrupts <= INLINE_INTERRUPTS_MAX && Instant::now() < deadline
            };
            match evaluator.decide(&batch.checks, &mut may_go_on) {
                ControlFlow::Continue(list) => return Ok(Decisions { list, by }),
                ControlFlow::Break(Interrupted) if Instant::now() < deadline => {}
                ControlFlow::Break(Interrupted) => return Err(AuthzError::DeadlineExceeded),
            }
        }
        let checks = batch.checks.clone();
        let deciding = move || evaluator.decide(&checks, &mut || Instant::now() < deadline);
        match self.pool.run(deciding).await.map_err(|e| AuthzError::Unavailable(e.to_string()))? {
            ControlFlow::Continue(list) => Ok(Decisions { list, by }),
            ControlFlow::Break(Interrupted) => Err(AuthzError::DeadlineExceeded),
        }
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let as_of = Instant::now();
        let snapshot = self.snapshot().await?;
        let by = Provenance::authority(snapshot.model_id().into(), as_of);
        if Instant::now() >= query.deadline {
            return Err(AuthzError::DeadlineExceeded);
        }
        if let Some(positions) = self.visible_sets.kept(&snapshot, query) {
            return Ok(Some(VisiblePositions { positions, by }));
        }
        let (sets, query) = (Arc::clone(&self.visible_sets), query.clone());
        let finding = move || {
            let with = for_request(&snapshot, &query.contextual)?;
            sets.find(&snapshot, &with, &query)
        };
        let found = self.pool.run(finding).await.unwrap_or_else(|e| Err(AuthzError::Unavailable(e.to_string())));
        Ok(Some(VisiblePositions { positions: found?, by }))
    }

    async fn relationships(&self, _relation: &Relation) -> Result<KnownRelationships, AuthzError> {
        let as_of = Instant::now();
        let snapshot = self.snapshot().await?;
        let by = Provenance::authority(snapshot.model_id().into(), as_of);
        Ok(KnownRelationships::State { snapshot, by })
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok(self.snapshot().await?.model_id().into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: true, ..Abilities::default() }
    }

    fn model(&self) -> Option<&dyn DecidingModel> {
        Some(self)
    }
}

#[async_trait]
impl DecidingModel for EmbeddedAuthorizer {
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        let snapshot = self.snapshot().await?;
        let known = self.subtracted.get(snapshot.model_id());
        Ok(known.unwrap_or_else(|| self.subtracted.put(snapshot.model_id(), snapshot.model().source())))
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        Ok(self.snapshot().await?.model().source().lack(type_name, relation))
    }
}

/// Returns the state from which a request with these additions is decided.
fn for_request(snapshot: &Arc<Snapshot>, contextual: &Contextual) -> Result<Arc<Snapshot>, AuthzError> {
    if contextual.is_empty() {
        return Ok(Arc::clone(snapshot));
    }
    let with = snapshot.for_request(&contextual.tuples, contextual.context.clone());
    Ok(Arc::new(with.map_err(|e| AuthzError::Refused(e.to_string()))?))
}

/// Decides one batch of checks from one state of the relationships.
struct BatchEvaluator {
    /// The relationships, with what the request adds to them.
    snapshot: Arc<Snapshot>,
    /// The remembered reaches of users; `None` if the request adds relationships of its own.
    reaches: Option<Arc<Reaches>>,
    /// The relationships are at least as new as this moment.
    as_of: Instant,
}

/// The work was interrupted before everything was decided. The decisions so far are dropped.
struct Interrupted;

/// A check with its position in the batch.
type Numbered<'a> = (usize, &'a Check);

impl BatchEvaluator {
    /// Decides all checks, user by user, so that the checks of one user share what they find out.
    fn decide(&self, checks: &[Check], may_go_on: &mut dyn FnMut() -> bool) -> ControlFlow<Interrupted, Vec<Decision>> {
        let numbered: Vec<Numbered<'_>> = checks.iter().enumerate().collect();
        let mut by_user: HashMap<&Object, Vec<&[Numbered<'_>]>> = HashMap::new();
        for alike in numbered.chunk_by(|(_, a), (_, b)| are_alike(a, b)) {
            if let Some((_, first)) = alike.first() {
                by_user.entry(&first.user).or_default().push(alike);
            }
        }
        let mut decisions = Vec::with_capacity(checks.len());
        for (user, checks) in by_user {
            let user = User::Object(user.clone());
            // A user whose type the model lacks holds nothing.
            let Ok(mut evaluation) = self.snapshot.evaluation(&user) else {
                let denied = checks.into_iter().flatten();
                decisions.extend(denied.map(|(position, _)| self.denied(*position)));
                continue;
            };
            for alike in checks {
                if alike.len() >= TOGETHER_MIN
                    && let Some(decided) = self.decide_together(&user, alike, may_go_on)?
                {
                    decisions.extend(decided);
                    continue;
                }
                for (position, check) in alike {
                    let allowed = decide_one(&mut evaluation, check, may_go_on)?;
                    decisions.push(
                        allowed.map_or_else(|| undecidable(*position), |allowed| self.decided(*position, allowed)),
                    );
                }
            }
        }
        ControlFlow::Continue(decisions)
    }

    /// Decides checks that are alike, from the user outwards. Returns `None` if each is better decided by itself.
    fn decide_together(
        &self,
        user: &User,
        checks: &[Numbered<'_>],
        may_go_on: &mut dyn FnMut() -> bool,
    ) -> ControlFlow<Interrupted, Option<Vec<Decision>>> {
        let one_by_one = ControlFlow::Continue(None);
        let snapshot = &self.snapshot;
        let Some((_, Check { relation, object, .. })) = checks.first() else { return one_by_one };
        // The type of an object is the name of a type, so it always parses.
        let Ok(type_name) = TypeName::parse(object.type_name()) else { return one_by_one };
        let numbers = snapshot.object_numbers(checks.iter().map(|(_, check)| &check.object));
        let objects: RoaringBitmap = numbers.iter().flatten().copied().collect();
        let visible = match &self.reaches {
            Some(reaches) => {
                let key = ReachKey { user: user.clone(), relation: relation.clone(), type_name };
                reaches.visible_among(snapshot, key, &objects, may_go_on)
            }
            None => snapshot.visible_among(user, relation, &type_name, &objects, may_go_on),
        };
        let visible = match visible {
            Ok(Some(visible)) => visible,
            Err(CheckError::Interrupted) => return ControlFlow::Break(Interrupted),
            // Deciding each check by itself tells what is wrong with it.
            Ok(None)
            | Err(CheckError::Unknown(_) | CheckError::Condition(_) | CheckError::TooDeep | CheckError::TooMuchWork) => {
                return one_by_one;
            }
        };
        if let Some((object, error)) = &visible.failure {
            let object = snapshot.object(*object).map(|object| object.to_string());
            tracing::debug!(object, %error, "not decided");
            tracing::warn!(%relation, "denied, because it could not be decided; the debug log has the object and the reason");
        }
        // No tuple names an object without a number, so nobody holds anything on it.
        let is_visible = |number: Option<u32>| number.is_some_and(|number| visible.objects.contains(number));
        // The set names one failure although there may be more: any object that is not visible may be one of them.
        let decision = |((position, _), number): (&Numbered<'_>, Option<u32>)| {
            let allowed = is_visible(number);
            if allowed || visible.failure.is_none() { self.decided(*position, allowed) } else { undecidable(*position) }
        };
        ControlFlow::Continue(Some(checks.iter().zip(numbers).map(decision).collect()))
    }

    fn decided(&self, position: usize, allowed: bool) -> Decision {
        Decision { position, allowed, as_of: Some(self.as_of), reached: Reached::Now }
    }

    fn denied(&self, position: usize) -> Decision {
        Decision { position, allowed: false, as_of: Some(self.as_of), reached: Reached::Now }
    }
}

fn undecidable(position: usize) -> Decision {
    Decision { position, allowed: false, as_of: None, reached: Reached::Never }
}

/// Returns whether two checks differ in the object's id alone.
fn are_alike(a: &Check, b: &Check) -> bool {
    a.user == b.user && a.relation == b.relation && a.object.type_name() == b.object.type_name()
}

/// Decides one check. Returns `None` if there can be no decision. The check is then denied.
fn decide_one(
    evaluation: &mut Evaluation<'_>,
    check: &Check,
    may_go_on: &mut dyn FnMut() -> bool,
) -> ControlFlow<Interrupted, Option<bool>> {
    ControlFlow::Continue(match evaluation.check(&check.relation, &check.object, may_go_on) {
        Ok(allowed) => Some(allowed),
        Err(CheckError::Unknown(_)) => Some(false),
        Err(error @ (CheckError::TooDeep | CheckError::TooMuchWork | CheckError::Condition(_))) => {
            tracing::debug!(object = %check.object, %error, "not decided");
            tracing::warn!(relation = %check.relation, "denied, because it could not be decided; the debug log has the object and the reason");
            None
        }
        Err(CheckError::Interrupted) => return ControlFlow::Break(Interrupted),
    })
}
