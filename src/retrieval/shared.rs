//! The state that all requests of a retriever share: its backends, its settings, and what earlier requests have taught.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decoys::Decoys;
use super::guard_index::GuardIndexes;
use super::list_costs::{ListCosts, ListKind};
use super::pass_rates::{PassRateKey, PassRates};
use super::request::{RetrievalRequest, StatedQuery};
use super::systems::OtherSystems;
use super::visibility::Lister;
use super::{Pages, RetrievalConfig};
use crate::authz::enforce::Enforcer;
use crate::authz::{Authorizer, Consistency};
use crate::identity::Principal;
use crate::identity::details::{Action, RequestFacts};
use crate::identity::principal::NotDetailed;
use crate::vector_store::{Query, VectorStore};

pub(super) struct Shared {
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) vector_store: Arc<dyn VectorStore>,
    pub(super) systems: OtherSystems,
    pub(super) config: RetrievalConfig,
    pub(super) pages: Pages,
    pub(super) pass_rates: PassRates,
    pub(super) guard_indexes: GuardIndexes,
    pub(super) list_costs: ListCosts,
    pub(super) decoys: Decoys,
}

impl Shared {
    pub(super) fn new(
        authorizer: Arc<dyn Authorizer>,
        vector_store: Arc<dyn VectorStore>,
        config: RetrievalConfig,
        pages: Pages,
        systems: OtherSystems,
    ) -> Self {
        Self {
            authorizer,
            vector_store,
            systems,
            config,
            pages,
            pass_rates: PassRates::default(),
            guard_indexes: GuardIndexes::default(),
            list_costs: ListCosts::default(),
            decoys: Decoys::default(),
        }
    }

    /// Returns the principal of a retrieval, with those details of its token that fit this request.
    ///
    /// # Errors
    /// When no details fit.
    pub(super) fn retrieving_principal(&self, request: &RetrievalRequest) -> Result<Principal, NotDetailed> {
        let query_text = match &request.query {
            StatedQuery::Searchable(Query::Text(text)) => Some(text.as_str()),
            // A token may be bound to a digest of the query text. A vector is not in that digest, so beside the right text a
            // caller could send any vector. Nor does the digest say that the text may be sent to a model.
            StatedQuery::Searchable(Query::Vector(_) | Query::Hybrid { .. })
            | StatedQuery::Semantic(_)
            | StatedQuery::Hybrid(_) => None,
        };
        request.principal.for_request(&RequestFacts {
            action: Action::Retrieve,
            collection: &request.collection,
            relation: &self.config.relation,
            query_text,
        })
    }

    /// Makes the enforcer of one request. It remembers decisions by guard, so a wider search checks only new guards,
    /// and all chunks under one guard are decided alike.
    pub(super) fn enforcer<'r>(
        &'r self,
        principal: &'r Principal,
        consistency: Consistency,
        deadline: Instant,
        since_1970: Duration,
    ) -> Enforcer<'r> {
        Enforcer::new(self.authorizer.as_ref(), principal, &self.config.relation, consistency, deadline).at(since_1970)
    }

    /// Returns the key under which the pass rate of a request is learned.
    pub(super) fn pass_rate_key(&self, request: &RetrievalRequest) -> PassRateKey {
        PassRateKey {
            subject: request.principal.subject().clone(),
            relation: self.config.relation.clone(),
            collection: request.collection.clone(),
            is_filtered: request.filter.is_some(),
        }
    }

    /// Returns how to ask for the list of what the principal of a request may see.
    pub(super) fn lister(&self, request: &RetrievalRequest, deadline: Instant) -> Lister<'_> {
        let is_fresh = match request.consistency {
            Consistency::MinimizeLatency => false,
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => true,
        };
        Lister {
            costs: &self.list_costs,
            kind: ListKind { collection: request.collection.clone(), is_fresh },
            user: request.principal.subject().clone(),
            by_call: self.authorizer.abilities(request.consistency).lists_by_call,
            deadline,
        }
    }
}
