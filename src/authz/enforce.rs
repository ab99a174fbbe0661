//! Enforcement: the one place that makes a [`Permitted`].
//!
//! It asks the authorizer itself and pairs answers with items by position, so a decision cannot end up on another item.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::{Authorizer, AuthzError, Check, CheckBatch, Consistency, VisibleSetQuery};
use crate::chunk::{Candidate, Chunk};
use crate::identity::Principal;
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
    /// changed hands since the search.
    #[must_use]
    pub(crate) fn hydrate(self, chunk: Chunk) -> Option<Permitted<Chunk>> {
        let unchanged = chunk.id == self.item.chunk_id && chunk.guard == self.item.guard;
        unchanged.then_some(Permitted { item: chunk })
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

/// Decides for one principal and one request. Each distinct guard is asked once, however many items it has.
pub struct Enforcer<'a> {
    authorizer: &'a dyn Authorizer,
    principal: &'a Principal,
    relation: &'a Relation,
    consistency: Consistency,
    deadline: Instant,
    decisions: HashMap<Object, bool>,
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
        Self { authorizer, principal, relation, consistency, deadline, decisions: HashMap::new() }
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
    /// A hint, not a permission.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub async fn visible_set(
        &mut self,
        guards: &Arc<Vec<Object>>,
        positions: &Arc<RoaringBitmap>,
    ) -> Result<RoaringBitmap, AuthzError> {
        let query = VisibleSetQuery {
            user: self.principal.subject().clone(),
            relation: self.relation.clone(),
            guards: Arc::clone(guards),
            positions: Arc::clone(positions),
            contextual: Arc::clone(self.principal.contextual()),
            consistency: self.consistency,
            deadline: self.deadline,
        };
        let known = timeout_at(self.deadline, self.authorizer.visible_set(&query)).await;
        if let Some(visible) = known.map_err(|_elapsed| AuthzError::DeadlineExceeded)?? {
            return Ok(&*visible & &**positions);
        }
        let at = |position: u32| Some((position, guards.get(usize::try_from(position).ok()?)?));
        self.decide(positions.iter().filter_map(at).map(|(_, guard)| guard)).await?;
        let visible = positions.iter().filter_map(at).filter(|(_, guard)| self.decisions.get(*guard) == Some(&true));
        Ok(visible.map(|(position, _)| position).collect())
    }

    /// Asks for the guards that were not asked before.
    async fn decide<'g>(&mut self, guards: impl Iterator<Item = &'g Object>) -> Result<(), AuthzError> {
        let mut checks: Vec<Check> = Vec::new();
        let mut positions: HashMap<&Object, usize> = HashMap::new();
        for guard in guards {
            if self.decisions.contains_key(guard) || positions.contains_key(guard) {
                continue;
            }
            positions.insert(guard, checks.len());
            checks.push(Check {
                user: self.principal.subject().clone(),
                relation: self.relation.clone(),
                object: guard.clone(),
            });
        }
        if checks.is_empty() {
            return Ok(());
        }
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
        let Some(decided) = decided.into_iter().collect::<Option<Vec<bool>>>() else {
            return Err(AuthzError::BadAnswer("a check was left unanswered".to_owned()));
        };
        let allowed = decided.iter().filter(|allowed| **allowed).count();
        telemetry::checked(allowed, decided.len() - allowed);
        self.decisions.extend(batch.checks.into_iter().map(|check| check.object).zip(decided));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
