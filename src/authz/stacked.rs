//! An `OpenFGA` server behind a stack of checks, as one authorizer.
//!
//! It makes complete questions of a request's checks: it looks up, once for the request, by which store, model and
//! generation they are decided, and hands them down in portions, so that no request fills the queue on its own.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use tokio::time::{Instant, timeout_at};

use super::decider::{Answered, Decider, Outcome, Question, Questions, Recall, Scope, accounted};
use super::openfga::{ChangelogWatch, OpenFgaAuthorizer};
use super::validity::Validity;
use super::{
    Answer, Authorizer, AuthzError, CheckBatch, Consistency, Provenance, Source, SubtractedBy, VisibleSetQuery,
};
use crate::language::Relation;

/// Checks that go down together: one call of a server with default settings.
pub const CHECKS_PER_PORTION: usize = 50;
/// Portions of one request that are under way.
const PORTIONS_IN_FLIGHT_MAX: usize = 16;

/// See the module.
pub struct StackedAuthorizer {
    openfga: Arc<OpenFgaAuthorizer>,
    decider: Arc<dyn Decider>,
    validity: Arc<Validity>,
    /// Ends with this.
    _changelog: Option<ChangelogWatch>,
}

impl StackedAuthorizer {
    /// `decider` is the top of the stack over `openfga`; `validity` is what its cache goes by.
    #[must_use]
    pub fn new(
        openfga: Arc<OpenFgaAuthorizer>,
        decider: Arc<dyn Decider>,
        validity: Arc<Validity>,
        changelog: Option<ChangelogWatch>,
    ) -> Self {
        Self { openfga, decider, validity, _changelog: changelog }
    }

    /// The handle by which whoever learns of a change makes the cache forget.
    #[must_use]
    pub fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    async fn scope(&self, batch: &CheckBatch) -> Result<Arc<Scope>, AuthzError> {
        // Before anything is asked: an answer that is older than a change must not count as one of the generation after.
        let current = self.validity.current();
        // What is not recalled for a moment is asked past the server's own caches, which tell no age.
        let (consistency, recall) = match (batch.consistency, current.recall) {
            (Consistency::MinimizeLatency, true) => (Consistency::MinimizeLatency, Recall::Generation),
            (Consistency::MinimizeLatency, false) => (Consistency::MinimizeLatency, Recall::Nothing),
            (Consistency::AtLeastAsFresh(moment), true) => (Consistency::HigherConsistency, Recall::Since(moment)),
            (Consistency::AtLeastAsFresh(_), false) | (Consistency::HigherConsistency, _) => {
                (Consistency::HigherConsistency, Recall::Nothing)
            }
        };
        let Ok(model) = timeout_at(batch.deadline, self.openfga.model(batch.consistency)).await else {
            return Err(AuthzError::DeadlineExceeded);
        };
        let model = model?;
        let generation = current.generation;
        Ok(Arc::new(Scope {
            store_id: model.store_id,
            model_id: model.id,
            consistency,
            generation,
            recall,
            source: Source::Authority,
        }))
    }

    /// The answers to the checks from position `first` on.
    async fn decide(&self, first: usize, questions: Questions) -> Result<Vec<Answer>, AuthzError> {
        let asked = Instant::now();
        let outcomes = accounted(questions.list.len(), self.decider.decide(&questions).await?)?;
        let model_id: Arc<str> = questions.scope.model_id.as_str().into();
        let behind_max = self.openfga.behind_max(questions.scope.consistency);
        let answer = |(outcome, position)| {
            let remembered = matches!(outcome, Outcome::Decided { as_of, .. } if as_of < asked);
            let Answer { allowed, provenance, .. } =
                Answered { position, outcome }.into_answer(&model_id, behind_max)?;
            Ok(Answer { position, allowed, provenance: Provenance { remembered, ..provenance } })
        };
        outcomes.into_iter().zip(first..).map(answer).collect()
    }
}

#[async_trait]
impl Authorizer for StackedAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError> {
        let Some(principal) = batch.checks.first().map(|check| &check.user) else { return Ok(Vec::new()) };
        if batch.deadline <= Instant::now() {
            return Err(AuthzError::DeadlineExceeded);
        }
        let scope = self.scope(batch).await?;
        let portions = batch.checks.chunks(CHECKS_PER_PORTION).enumerate().map(|(number, checks)| {
            let question =
                |check: &_| Question { check: Clone::clone(check), contextual: Arc::clone(&batch.contextual) };
            let questions = Questions {
                scope: Arc::clone(&scope),
                list: checks.iter().map(question).collect(),
                principal: principal.clone(),
                deadline: batch.deadline,
            };
            self.decide(number * CHECKS_PER_PORTION, questions)
        });
        let portions: Vec<_> = portions.collect();
        // The first failure ends the batch: a part of the decisions is no decision.
        let answers: Vec<Vec<Answer>> =
            stream::iter(portions).buffer_unordered(PORTIONS_IN_FLIGHT_MAX).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        self.openfga.visible_set(query).await
    }

    fn lists_by_call(&self, consistency: Consistency) -> bool {
        self.openfga.lists_by_call(consistency)
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        self.openfga.lack(type_name, relation).await
    }

    async fn deciding_model_id(&self) -> Option<String> {
        self.openfga.deciding_model_id().await
    }

    async fn model_id(&self) -> Result<String, AuthzError> {
        self.openfga.model_id().await
    }

    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        self.openfga.subtracted().await
    }

    async fn ready(&self) -> Result<(), AuthzError> {
        self.openfga.ready().await
    }
}
