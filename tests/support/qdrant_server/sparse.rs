//! Searches by sparse vectors, weighed by inverse document frequency as Qdrant weighs them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use qdrant_client::qdrant::{Filter, SparseVector};
use tonic::Status;

use super::filter::passes;
use super::{Collection, Id, Point};

/// A point with its score.
pub(super) type Scored<'a> = (f32, &'a Id, &'a Point);

/// Checks a sparse vector and returns its values by index.
pub(super) fn by_index(vector: SparseVector) -> Result<BTreeMap<u32, f32>, Status> {
    let SparseVector { values, indices } = vector;
    let count = indices.len();
    let values: BTreeMap<u32, f32> = indices.into_iter().zip(values).collect();
    if values.len() == count {
        Ok(values)
    } else {
        Err(Status::invalid_argument("Wrong input: indices must be unique"))
    }
}

impl Collection {
    /// Returns the points that share an index with the query. Statistics are counted over the corpus, or over all points
    /// without one.
    #[expect(clippy::cast_precision_loss, reason = "the points of a test are few")]
    pub(super) fn nearest_texts(
        &self,
        query: &BTreeMap<u32, f32>,
        corpus: Option<&Filter>,
        filter: Option<&Filter>,
    ) -> Result<Vec<Scored<'_>>, Status> {
        let mut documents = 0_usize;
        let mut frequencies: BTreeMap<u32, usize> = BTreeMap::new();
        for (id, point) in self.points.iter().filter(|(_, point)| !point.sparse.is_empty()) {
            if passes(corpus, id, point)? {
                documents += 1;
                for index in point.sparse.keys().filter(|index| query.contains_key(*index)) {
                    *frequencies.entry(*index).or_default() += 1;
                }
            }
        }
        let mut weighed: Vec<(u32, f32)> = query
            .iter()
            .map(|(index, value)| {
                let (n, df) = (documents as f32, frequencies.get(index).copied().unwrap_or_default() as f32);
                (*index, value * ((n - df + 0.5) / (df + 0.5) + 1.0).ln())
            })
            .collect();
        // As in Qdrant, the order in which a score is added up depends on all points.
        let with_index = |index: &u32| self.points.values().filter(|point| point.sparse.contains_key(index)).count();
        weighed.sort_by_cached_key(|(index, _)| Reverse(with_index(index)));
        let mut scored = Vec::new();
        for (id, point) in &self.points {
            let shared = weighed.iter().filter_map(|(index, weight)| Some(weight * point.sparse.get(index)?));
            let shared: Vec<f32> = shared.collect();
            if !shared.is_empty() && passes(filter, id, point)? {
                scored.push((shared.into_iter().sum(), id, point));
            }
        }
        Ok(scored)
    }
}
