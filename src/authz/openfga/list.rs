//! The visible set by `ListObjects`: lists of the objects that a user may see.
//!
//! The server cuts a list short at a number of results or after a time, and does not say so. So a list that may have
//! been cut counts as unknown, never as complete, and the guards are checked one by one. For this, the configured
//! limits must be those of the server.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use openfga_client::client::ListObjectsRequest;
use roaring::RoaringBitmap;
use tokio::time::Instant;
use tonic::Request;

use super::{OpenFgaAuthorizer, OpenFgaConfig, consistency, wire};
use crate::authz::copy::ModelVersion;
use crate::authz::{AuthzError, Provenance, Source, VisiblePositions, VisibleSetQuery};
use crate::language::Object;

/// The most types that are listed for one query. Each takes a call of its own, so checks are cheaper if there are more
/// types.
const TYPES_MAX: usize = 4;

impl OpenFgaAuthorizer {
    /// Finds the visible set by lists. A list that the server refuses is unknown too, because the server may still decide each
    /// check.
    pub(super) async fn list_visible(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let guard = |position: u32| query.guards.get(usize::try_from(position).ok()?);
        let types: BTreeSet<&str> = query.positions.iter().filter_map(guard).map(Object::type_name).collect();
        if types.len() > TYPES_MAX {
            return Ok(None);
        }
        let model = self.model_for(query.consistency).await?;
        let as_of = Instant::now().checked_sub(self.behind_max(query.consistency));
        let lists = try_join_all(types.into_iter().map(|type_name| self.list_objects(&model, query, type_name))).await;
        let lists = match lists {
            Ok(lists) => lists,
            Err(AuthzError::Refused(reason) | AuthzError::MessageTooLarge(reason)) => {
                tracing::debug!(reason, "the server does not list what is visible");
                return Ok(None);
            }
            Err(AuthzError::DeadlineExceeded) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(lists) = lists.into_iter().collect::<Option<Vec<Vec<String>>>>() else { return Ok(None) };
        let listed: HashSet<&str> = lists.iter().flatten().map(String::as_str).collect();
        let is_listed = |position: &u32| guard(*position).is_some_and(|guard| listed.contains(guard.as_str()));
        let positions: RoaringBitmap = query.positions.iter().filter(is_listed).collect();
        let by = Provenance { model_id: model.model_id.into(), as_of, source: Source::Authority };
        Ok(Some(VisiblePositions { positions: Arc::new(positions), by }))
    }

    /// Lists the objects of one type. Returns `None` when the list may have been cut short.
    async fn list_objects(
        &self,
        model: &ModelVersion,
        query: &VisibleSetQuery,
        type_name: &str,
    ) -> Result<Option<Vec<String>>, AuthzError> {
        let (contextual_tuples, context) = wire::new_contextual(&query.contextual)?;
        let asked = Instant::now();
        let mut request = Request::new(ListObjectsRequest {
            store_id: model.store_id.clone(),
            authorization_model_id: model.model_id.clone(),
            r#type: type_name.to_owned(),
            relation: query.relation.to_string(),
            user: query.user.to_string(),
            contextual_tuples,
            context,
            consistency: consistency(query.consistency).into(),
        });
        request.set_timeout(query.deadline.min(self.server.deadline()).saturating_duration_since(asked));
        let listed = self.server.client().list_objects(request).await.map_err(|e| wire::failed(&e))?;
        let objects = listed.into_inner().objects;
        let whole = is_whole(&self.config, objects.len(), asked.elapsed());
        tracing::debug!(objects = objects.len(), whole, "objects listed");
        Ok(whole.then_some(objects))
    }
}

/// Returns whether a list with this many results is certainly complete, if the call took this long as measured here.
fn is_whole(config: &OpenFgaConfig, results: usize, took: Duration) -> bool {
    results < config.list_results_max && took < config.list_deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_may_have_been_cut_is_not_known() {
        let config = OpenFgaConfig {
            list_results_max: 1_000,
            list_deadline: Duration::from_secs(3),
            ..OpenFgaConfig::default()
        };
        let rows = [(0, 0, true), (999, 2_999, true), (1_000, 0, false), (1_001, 0, false), (0, 3_000, false)];
        for (results, took_ms, whole) in rows {
            let took = Duration::from_millis(took_ms);
            assert_eq!(is_whole(&config, results, took), whole, "{results} results in {took:?}");
        }
    }
}
