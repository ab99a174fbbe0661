//! An `OpenFGA` server behind a stack of [`super::decider`]s, as one authorizer.
//!
//! This turns the checks of a request into complete questions. It looks up the store, the model and the generation once for
//! the request. Then it hands the questions down in portions, so that no request fills the queue on its own.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::{Instant, timeout_at};

use super::decider::{Basis, Decider, Inquiry, NumberedOutcome, Question, Questions, Recall, accounted};
use super::openfga::{ChangelogWatch, OpenFgaAuthorizer};
use super::openfga_config::CHECKS_PER_CALL_DEFAULT;
use super::validity::Validity;
use super::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, DecidingModel, Decision, Decisions, Source,
    VisiblePositions, VisibleSetQuery,
};

/// The checks of one portion: as many as a server with default settings accepts in one call.
const CHECKS_PER_PORTION: usize = CHECKS_PER_CALL_DEFAULT;
/// The most portions of one request that are under way at a time: enough to fill the calls that a server takes, and not so
/// many that one request holds the whole queue.
const PORTIONS_IN_FLIGHT_MAX: usize = 16;

/// Decides the checks of requests by a stack of deciders over an `OpenFGA` server.
pub struct StackedAuthorizer {
    openfga: Arc<OpenFgaAuthorizer>,
    decider: Arc<dyn Decider>,
    validity: Arc<Validity>,
    /// The reader of the changelog, which stops when this is dropped; `None` where somebody else reads the log.
    _changelog: Option<ChangelogWatch>,
}

impl StackedAuthorizer {
    /// Joins the parts: `decider` is the top of the stack over `openfga`, and `validity` tells its cache what still counts.
    #[must_use]
    pub fn new(
        openfga: Arc<OpenFgaAuthorizer>,
        decider: Arc<dyn Decider>,
        validity: Arc<Validity>,
        changelog: Option<ChangelogWatch>,
    ) -> Self {
        Self { openfga, decider, validity, _changelog: changelog }
    }

    /// Returns the handle that makes the cache forget. Code that learns of a change uses it.
    #[must_use]
    pub fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    async fn basis(&self, batch: &CheckBatch) -> Result<Arc<Basis>, AuthzError> {
        // The generation is read before anything is asked. So an answer from before a change never counts for the
        // generation after it.
        let current = self.validity.current();
        // If no remembered decision answers a question about a moment, the question must pass by the server's own
        // caches, which do not tell their age.
        let (consistency, recall) = match (batch.consistency, current.recall) {
            (Consistency::MinimizeLatency, true) => (Consistency::MinimizeLatency, Recall::Generation),
            (Consistency::MinimizeLatency, false) => (Consistency::MinimizeLatency, Recall::Nothing),
            (Consistency::AtLeastAsFresh(moment), true) => (Consistency::HigherConsistency, Recall::Since(moment)),
            (Consistency::AtLeastAsFresh(_), false) | (Consistency::HigherConsistency, _) => {
                (Consistency::HigherConsistency, Recall::Nothing)
            }
        };
        let Ok(model) = timeout_at(batch.deadline, self.openfga.model_for(batch.consistency)).await else {
            return Err(AuthzError::DeadlineExceeded);
        };
        let model = model?;
        let generation = current.generation;
        Ok(Arc::new(Basis {
            store_id: model.store_id,
            model_id: model.model_id,
            consistency,
            generation,
            recall,
            source: Source::Authority,
        }))
    }

    /// Decides one portion of a batch, the checks from position `first` on.
    async fn decide(&self, first: usize, questions: Questions) -> Result<Vec<Decision>, AuthzError> {
        let asked = Inquiry {
            at: Instant::now(),
            source: questions.basis.source,
            behind_max: self.openfga.behind_max(questions.basis.consistency),
        };
        let outcomes = accounted(questions.list.len(), self.decider.decide(&questions).await?)?;
        let decision = |(outcome, position)| NumberedOutcome { position, outcome }.into_decision(&asked);
        outcomes.into_iter().zip(first..).map(decision).collect()
    }
}

#[async_trait]
impl Authorizer for StackedAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let Some(principal) = batch.checks.first().map(|check| &check.user) else { return Ok(Decisions::now([])) };
        if batch.deadline <= Instant::now() {
            return Err(AuthzError::DeadlineExceeded);
        }
        let basis = self.basis(batch).await?;
        let portions = batch.checks.chunks(CHECKS_PER_PORTION).enumerate().map(|(number, checks)| {
            let question =
                |check: &_| Question { check: Clone::clone(check), contextual: Arc::clone(&batch.contextual) };
            let questions = Questions {
                basis: Arc::clone(&basis),
                list: checks.iter().map(question).collect(),
                principal: principal.clone(),
                deadline: batch.deadline,
            };
            self.decide(number * CHECKS_PER_PORTION, questions)
        });
        let portions: Vec<_> = portions.collect();
        // The first failure ends the whole batch, because a batch without all of its decisions has no answer.
        let portions: Vec<Vec<Decision>> =
            stream::iter(portions).buffer_unordered(PORTIONS_IN_FLIGHT_MAX).try_collect().await?;
        let list = portions.into_iter().flatten().collect();
        Ok(Decisions::new(list, basis.source, basis.model_id.as_str().into()))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        self.openfga.visible_set(query).await
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.openfga.readiness().await
    }

    fn abilities(&self, consistency: Consistency) -> Abilities {
        self.openfga.abilities(consistency)
    }

    fn model(&self) -> Option<&dyn DecidingModel> {
        self.openfga.model()
    }
}
