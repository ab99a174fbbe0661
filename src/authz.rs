//! Authorization: the port to whoever decides (`OpenFGA` or the embedded evaluator).

#[cfg(feature = "openfga")]
pub mod batched;
#[cfg(feature = "openfga")]
pub mod breaker;
#[cfg(feature = "openfga")]
pub mod cached;
#[cfg(feature = "openfga")]
pub mod coalesced;
pub mod consistency_token;
pub mod decider;
pub mod decision_key;
pub mod embedded;
pub mod enforce;
#[cfg(feature = "openfga")]
pub mod openfga;
pub mod provenance;
#[cfg(feature = "openfga")]
pub mod replica;
#[cfg(feature = "openfga")]
pub mod retried;
#[cfg(feature = "openfga")]
pub mod stacked;
#[cfg(feature = "openfga")]
pub mod validity;
#[cfg(feature = "openfga")]
pub mod verification;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use tokio::time::Instant;

pub use self::provenance::{Provenance, Source};
use crate::engine::Contextual;
use crate::error_code::ErrorCode;
use crate::language::model::AuthorizationModel;
use crate::language::subtracted::Subtracted;
use crate::language::{Object, Relation};

/// One question: does `user` hold `relation` on `object`?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The user.
    pub user: Object,
    /// The relation.
    pub relation: Relation,
    /// The object.
    pub object: Object,
}

/// How fresh the tuples behind a decision must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// The authorizer may use its caches.
    #[default]
    MinimizeLatency,
    /// What was written before this moment counts; caches that are certain to be as new may be used.
    AtLeastAsFresh(Instant),
    /// The authorizer asks its database.
    HigherConsistency,
}

/// The checks of one request. An answer names each by its position here.
#[derive(Clone, Debug)]
pub struct CheckBatch {
    /// The questions.
    pub checks: Vec<Check>,
    /// What the request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
    /// For all of them.
    pub consistency: Consistency,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// A question about many objects at once: on which of the guards does `user` hold `relation`?
#[derive(Clone, Debug)]
pub struct VisibleSetQuery {
    /// The user.
    pub user: Object,
    /// The relation.
    pub relation: Relation,
    /// The objects, each at its position. The same allocation for as long as they are the same.
    pub guards: Arc<Vec<Object>>,
    /// The positions that are asked about.
    pub positions: Arc<RoaringBitmap>,
    /// What the request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
    /// How fresh the tuples must be.
    pub consistency: Consistency,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// What a model takes people out by.
#[derive(Clone, Debug)]
pub struct SubtractedBy {
    /// The model.
    pub model_id: String,
    /// What it takes out by.
    pub subtracted: Arc<Subtracted>,
}

impl SubtractedBy {
    /// What one of two models takes out by, where either may decide.
    #[cfg(feature = "openfga")]
    fn or(&self, other: &Self) -> Self {
        let model_id = format!("{} {}", self.model_id, other.model_id);
        Self { model_id, subtracted: Arc::new(self.subtracted.or(&other.subtracted)) }
    }
}

/// What the last model takes people out by. A model never changes, so its id tells whether that still holds.
#[derive(Debug, Default)]
pub(crate) struct SubtractedByLast(Mutex<Option<SubtractedBy>>);

impl SubtractedByLast {
    pub(crate) fn get(&self, model_id: &str) -> Option<SubtractedBy> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|last| last.model_id == model_id)
    }

    pub(crate) fn put(&self, model_id: &str, model: &AuthorizationModel) -> SubtractedBy {
        let by = SubtractedBy { model_id: model_id.to_owned(), subtracted: Arc::new(Subtracted::of(model)) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(by.clone());
        by
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The position of its question in [`CheckBatch::checks`].
    pub position: usize,
    /// Whether the user holds the relation.
    pub allowed: bool,
    /// What the answer rests on.
    pub provenance: Provenance,
}

impl Answer {
    /// A decision of the authority that is as new as this moment, for authorizers without models.
    #[must_use]
    pub fn now(position: usize, allowed: bool) -> Self {
        Self { position, allowed, provenance: Provenance::authority(&Arc::default(), Instant::now()) }
    }
}

/// Decides checks.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Answers every check exactly once, in any order. A check that the model has no type or relation for is denied. So is
    /// one that this authorizer can never decide, because the relationships are nested too deeply or take too much work, or
    /// a condition on the way cannot be evaluated; it is logged. As an error it would fail every request that comes across a
    /// hidden object of that kind, and so tell of it.
    ///
    /// # Errors
    /// When a decision could not be made; then none was made.
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError>;

    /// The positions of those guards on which the user holds the relation; `None` when this authorizer cannot tell them
    /// all at once. A hint for a search: whoever is told of a guard checks it again.
    ///
    /// # Errors
    /// As [`Authorizer::check`].
    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        let _ = query;
        Ok(None)
    }

    /// Whether the authorizer is ready to decide, with the id of the authorization model that it uses.
    ///
    /// # Errors
    /// When it is out of reach or has no model.
    async fn model_id(&self) -> Result<String, AuthzError>;

    /// Whether a check would be decided now, found out with no more than one call to a backend whose model is known.
    ///
    /// # Errors
    /// As [`Authorizer::model_id`].
    async fn ready(&self) -> Result<(), AuthzError> {
        self.model_id().await.map(drop)
    }

    /// The id of the model that decides now, as far as it is known without asking anybody: for the record.
    async fn deciding_model_id(&self) -> Option<String> {
        None
    }

    /// What the model that decides now takes people out by.
    ///
    /// # Errors
    /// When it is not known. Then nothing may be taken for harmless.
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        Err(AuthzError::Unavailable("this authorizer does not tell its model".to_owned()))
    }

    /// Returns a sentence that says whether the deciding model lacks this type, or this relation of it; a check of what it lacks
    /// is denied, whoever asks. Without a type, any type may have the relation. Returns `None` when the model lacks nothing, or
    /// when this authorizer does not know.
    ///
    /// # Errors
    /// When the authorizer is out of reach or has no model.
    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        let _ = (type_name, relation);
        Ok(None)
    }

    /// How far behind the authority the copy of its relationships is that a question of this consistency would be planned or
    /// decided from now; `None` when no copy would be used.
    fn lag(&self, consistency: Consistency) -> Option<Duration> {
        let _ = consistency;
        None
    }

    /// Returns by how much the clocks and copies of two processes may be behind each other. The enforcer takes what another
    /// process wrote for written so much later than that process says.
    fn staleness_max(&self) -> Duration {
        // As `authorizer.replica.staleness_max_ms`, unless set.
        Duration::from_secs(2)
    }

    /// Whether the copy of the authority's relationships is trusted; `None` where there is none. While it is not, the authority
    /// decides everything.
    fn copy_is_trusted(&self) -> Option<bool> {
        None
    }

    /// Whether telling a visible set costs a call of its own to a server, so that it may be dearer than what it saves.
    fn lists_by_call(&self, consistency: Consistency) -> bool {
        let _ = consistency;
        false
    }

    /// Whether a check of this consistency costs no network call now, so that checking every guard ahead of a search is cheap.
    fn is_local(&self, consistency: Consistency) -> bool {
        let _ = consistency;
        false
    }
}

/// Why there is no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthzError {
    /// No authorization model is loaded.
    #[error("no authorization model is loaded; load one with `ragward model load`")]
    NoModel,
    /// The authorizer has other stores than the one that it is asked about.
    #[error("{0}")]
    NoStore(String),
    /// The authorizer refuses the question.
    #[error("the authorizer refused the request: {0}")]
    Refused(String),
    /// The authorizer is out of reach.
    #[error("the authorizer is out of reach: {0}")]
    Unavailable(String),
    /// The authorizer answered too few, too many, twice or for another question.
    #[error("the authorizer answered wrongly: {0}")]
    BadAnswer(String),
    /// No answer in time.
    #[error("the authorizer did not answer before the deadline")]
    DeadlineExceeded,
    /// A stored model or tuple cannot be used.
    #[error("the stored relationships cannot be used: {0}")]
    Stored(String),
    /// More checks wait than can be answered in time; nothing was asked.
    #[error("too many checks are waiting for the authorizer")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// One message had more bytes than the server takes.
    #[error(
        "the authorizer takes no message of this size; have fewer or shorter claims become tuples, or raise the server's \
         `grpc-max-recv-msg-bytes`: {0}"
    )]
    MessageTooLarge(String),
    /// One call held more checks than the server takes.
    #[error("the authorizer takes fewer checks in one call; lower `authorizer.openfga.checks_per_call`")]
    TooManyChecks {
        /// The maximum that it named, if it named one.
        checks_max: Option<usize>,
    },
}

impl AuthzError {
    /// What the caller is told. What the authorizer said stays out of it: it may name objects that the caller must not
    /// know of.
    #[must_use]
    pub fn caller_text(&self) -> &'static str {
        match self {
            Self::NoModel => "no authorization model is loaded; load one with `ragward model load`",
            Self::NoStore(_) => {
                "the authorizer does not have the store that it is asked about; the server's log says more"
            }
            Self::Refused(_) | Self::MessageTooLarge(_) | Self::TooManyChecks { .. } => {
                "the authorizer refused the request; the server's log says why"
            }
            Self::Unavailable(_) | Self::BadAnswer(_) => "the authorizer did not decide; try again later",
            Self::DeadlineExceeded => "there was no answer before the deadline",
            Self::Stored(_) => "the stored relationships cannot be used; the server's log says why",
            Self::Overloaded { .. } => "too many requests are waiting; try again later",
        }
    }

    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoModel
            | Self::NoStore(_)
            | Self::Refused(_)
            | Self::MessageTooLarge(_)
            | Self::TooManyChecks { .. } => ErrorCode::FailedPrecondition,
            Self::Overloaded { .. } => ErrorCode::ResourceExhausted,
            Self::Unavailable(_) | Self::BadAnswer(_) => ErrorCode::Unavailable,
            Self::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            Self::Stored(_) => ErrorCode::DataLoss,
        }
    }
}
