//! The limits of a collection in strict mode, with Qdrant's own messages.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, Filter};
use tonic::Status;

use super::Collection;

/// The precision that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    Exact,
    Approximate,
}

impl Collection {
    /// Checks that a reading request keeps the limits.
    pub(super) fn admit(
        &self,
        filter: Option<&Filter>,
        limit: Option<u64>,
        precision: Precision,
    ) -> Result<(), Status> {
        let Some(strict) = self.strict_mode.as_ref().filter(|strict| strict.enabled()) else { return Ok(()) };
        let refused = |text: String| Err(Status::invalid_argument(format!("Bad request: {text}")));
        if let (Some(limit), Some(max)) = (limit, strict.max_query_limit)
            && limit > u64::from(max)
        {
            return refused(format!("Limit exceeded {limit} > {max} for \"limit\""));
        }
        if precision == Precision::Exact && strict.search_allow_exact == Some(false) {
            return refused("Exact search disabled!".to_owned());
        }
        let Some(filter) = filter else { return Ok(()) };
        let values = conditions(filter).map(values).max().unwrap_or_default();
        if let Some(max) = strict.condition_max_size.filter(|max| values > *max) {
            return refused(format!("Condition size limit reached ({values} > {max})"));
        }
        let unindexed = conditions(filter).filter_map(key).find(|key| !self.indexes.contains_key(*key));
        match unindexed {
            Some(key) if strict.unindexed_filtering_retrieve == Some(false) => {
                refused(format!("Index required but not found for \"{key}\""))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Iterates over the conditions of a filter and of the filters inside it.
pub(super) fn conditions(filter: &Filter) -> Box<dyn Iterator<Item = &Condition> + '_> {
    let own = filter.must.iter().chain(&filter.must_not).chain(&filter.should);
    Box::new(own.flat_map(|condition| match &condition.condition_one_of {
        Some(ConditionOneOf::Filter(inner)) => conditions(inner),
        _ => Box::new(std::iter::once(condition)),
    }))
}

fn values(condition: &Condition) -> u64 {
    let count = match &condition.condition_one_of {
        Some(ConditionOneOf::Field(field)) => match field.r#match.as_ref().and_then(|m| m.match_value.as_ref()) {
            Some(MatchValue::Keywords(list)) => list.strings.len(),
            _ => 0,
        },
        Some(ConditionOneOf::HasId(ids)) => ids.has_id.len(),
        _ => 0,
    };
    count as u64
}

fn key(condition: &Condition) -> Option<&str> {
    match &condition.condition_one_of {
        Some(ConditionOneOf::Field(field)) => Some(&field.key),
        _ => None,
    }
}
