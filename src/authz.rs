//! Authorization: the port [`Authorizer`], and everything that stands behind it.
//!
//! Two adapters decide: [`embedded`] by Ragward's own evaluator, and [`openfga`] by asking a server. [`stacked`] puts a
//! stack of [`decider`]s before such a server (they retry, batch, share and remember; [`CheckStage`] lists them), and
//! [`replica`] puts a local copy of the server's store before that stack. [`enforce`] is the only place that turns a
//! decision into permission.

mod authorizer_config;
#[cfg(feature = "openfga")]
mod batched;
#[cfg(feature = "openfga")]
mod breaker;
#[cfg(feature = "openfga")]
mod cached;
#[cfg(feature = "openfga")]
mod check_stack;
mod checks_config;
#[cfg(feature = "openfga")]
mod coalesced;
#[cfg(feature = "openfga")]
mod copy;
mod deciding_model;
mod decision;
mod error;
mod openfga_config;
#[cfg(feature = "openfga")]
mod owned_task;
mod provenance;
mod replica_config;
#[cfg(feature = "openfga")]
mod retried;

pub mod consistency_token;
pub mod decider;
pub mod decision_key;
pub mod embedded;
pub mod enforce;
#[cfg(feature = "openfga")]
pub mod openfga;
#[cfg(feature = "openfga")]
pub mod replica;
#[cfg(feature = "openfga")]
pub mod stacked;
#[cfg(feature = "openfga")]
pub mod validity;
#[cfg(feature = "openfga")]
pub mod verification;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use tokio::time::Instant;

pub use self::authorizer_config::{AuthorizerConfig, AuthorizerKind};
#[cfg(feature = "openfga")]
pub use self::check_stack::{CheckStage, check_stack};
pub use self::checks_config::ChecksConfig;
use self::deciding_model::SubtractedByLast;
pub use self::deciding_model::{DecidingModel, SubtractedBy};
pub use self::decision::{Decision, Decisions, KnownRelationships, Reached, VisiblePositions};
pub use self::error::AuthzError;
pub use self::openfga_config::{OpenFgaConfig, StoreSelector};
pub(crate) use self::provenance::ModelsUsed;
pub use self::provenance::{DecidedBy, Provenance, Source};
use self::replica_config::STALENESS_MAX_DEFAULT;
pub use self::replica_config::{ReplicaConfig, ReplicaMode, ReplicaUse};
use crate::engine::Contextual;
use crate::language::{Object, Relation};

/// One question: does `user` hold `relation` on `object`?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The user whose access is checked, such as `user:anne`.
    pub user: Object,
    /// The relation of the object's type that is asked about.
    pub relation: Relation,
    /// The object that is asked about: in a retrieval, the guard of a chunk.
    pub object: Object,
}

/// The freshness that the tuples behind a decision must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// The authorizer may answer from its caches.
    #[default]
    MinimizeLatency,
    /// The decision must take in every write before this moment. A cache that is certainly as new may answer.
    AtLeastAsFresh(Instant),
    /// The authorizer must ask its database.
    HigherConsistency,
}

/// The checks of one request.
#[derive(Clone, Debug)]
pub struct CheckBatch {
    /// The questions. A decision names its question by the position in this list.
    pub checks: Vec<Check>,
    /// The tuples and the context that the request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
    /// How fresh the tuples behind every decision must be.
    pub consistency: Consistency,
    /// The moment at which the caller stops waiting.
    pub deadline: Instant,
}

/// A question about many objects at once: on which of the guards does `user` hold `relation`?
#[derive(Clone, Debug)]
pub struct VisibleSetQuery {
    /// The user whose access is checked, such as `user:anne`.
    pub user: Object,
    /// The relation that makes a guard visible.
    pub relation: Relation,
    /// The table of guards that positions refer to. While its content stays the same, it must stay the same allocation,
    /// because caches know a table by its address.
    pub guards: Arc<Vec<Object>>,
    /// The positions in `guards` that are asked about.
    pub positions: Arc<RoaringBitmap>,
    /// The tuples and the context that the request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
    /// How fresh the tuples behind the set must be.
    pub consistency: Consistency,
    /// The moment at which the caller stops waiting.
    pub deadline: Instant,
}

/// The port that decides checks.
///
/// An answer carries everything that a caller may want to know about it: which model decided, from where, and how old
/// the relationships were. To ask for that afterwards would be too late, because another model may have come into
/// force.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides every check exactly once, in any order.
    ///
    /// Two kinds of checks are denied rather than failed. The first names a type or a relation that the model does not
    /// have. The second can never be decided: its relationships are nested too deeply or take too much work, or a condition
    /// on the way cannot be evaluated. The second kind is logged. If it were an error, one hidden object of that kind would
    /// fail every request that comes across it, and so reveal that it exists.
    ///
    /// # Errors
    /// When a decision could not be made. Then the whole batch has none.
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError>;

    /// Finds the guards on which the user holds the relation, or returns `None` when this authorizer cannot find them all
    /// at once. The set is a hint for planning a search: every guard that it shows is checked again before anything is
    /// released.
    ///
    /// # Errors
    /// When the set could not be found, although this authorizer can find such sets.
    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let _ = query;
        Ok(None)
    }

    /// Returns the relationships from which questions about this relation are decided, as far as they are in this process. An
    /// explanation walks over them.
    ///
    /// # Errors
    /// When they are in this process, and cannot be read.
    async fn relationships(&self, relation: &Relation) -> Result<KnownRelationships, AuthzError> {
        let _ = relation;
        Ok(KnownRelationships::OnServer)
    }

    /// Finds out whether a check would be decided now, and returns the id of the model that would decide it. Once a
    /// backend's store is known, this costs one call to that backend.
    ///
    /// # Errors
    /// When the authorizer is out of reach or has no model.
    async fn readiness(&self) -> Result<Arc<str>, AuthzError>;

    /// Returns what this authorizer can do at this moment for a question of this consistency.
    fn abilities(&self, consistency: Consistency) -> Abilities {
        let _ = consistency;
        Abilities::default()
    }

    /// Returns the handle that reads the deciding model, or `None` when this authorizer does not reveal its model.
    fn model(&self) -> Option<&dyn DecidingModel> {
        None
    }
}

/// The abilities of an authorizer at one moment, for questions of one consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether a check costs no network call, so that checking every guard before a search is cheap.
    pub checks_are_local: bool,
    /// Whether finding a visible set costs a call to a server. Then the call may cost more than it saves.
    pub lists_by_call: bool,
    /// How far the local copy of the authority's relationships is behind, if a copy would plan or decide. `None` when
    /// no copy would be used.
    pub lag: Option<Duration>,
    /// The longest time by which the clocks and copies of two processes may be apart. The enforcer treats content that
    /// another process wrote as written this much later than its date says.
    pub staleness_max: Duration,
    /// Whether the local copy is trusted; `None` where there is no copy. While the copy is not trusted, the authority
    /// decides everything.
    pub copy_is_trusted: Option<bool>,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            checks_are_local: false,
            lists_by_call: false,
            lag: None,
            // Another process may use a copy even if this one has none.
            staleness_max: STALENESS_MAX_DEFAULT,
            copy_is_trusted: None,
        }
    }
}

impl dyn Authorizer + '_ {
    /// Reads the relations by which the deciding model takes users out.
    ///
    /// # Errors
    /// When they are not known. Then a claim that a token lacks may be one that would exclude its user, so its absence
    /// must not be taken for harmless.
    pub async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        match self.model() {
            Some(model) => model.subtracted().await,
            None => Err(AuthzError::Unavailable("this authorizer does not reveal its model".to_owned())),
        }
    }

    /// Like [`DecidingModel::lack`]; also returns `None` when this authorizer does not reveal its model.
    ///
    /// # Errors
    /// When the authorizer is out of reach or has no model.
    pub async fn lack(
        &self,
        type_name: Option<&str>,
        relation: Option<&Relation>,
    ) -> Result<Option<String>, AuthzError> {
        match self.model() {
            Some(model) => model.lack(type_name, relation).await,
            None => Ok(None),
        }
    }
}
