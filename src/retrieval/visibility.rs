//! What a request knows, ahead of its search, of what its principal may see. A hint: whatever it shows is checked.

use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::RetrievalError;
use super::guard_index::{GuardIndexes, Hidden};
use super::list_costs::{Choice, Kind, ListCosts, Listed};
use super::plan::{self, Plan};
use super::walk::{Expected, Foreknown};
use crate::authz::AuthzError;
use crate::authz::enforce::Enforcer;
use crate::language::Object;
use crate::vector_store::{CollectionInfo, GuardTable, SearchSpace, VectorStore};

/// A list that is only worth its while if it is quick gets this part of the request's time, so that enough is left for doing
/// without it.
const LIST_PART_OF_TIME: u32 = 4;

/// Knows which guards of a collection one request's principal may see, as far as the authorizer has told.
pub(super) struct Visibility<'a> {
    /// The guards of the collection, if the store can list them.
    table: Option<GuardTable>,
    /// Those of them that are visible, if the authorizer told them all at once.
    visible: Option<RoaringBitmap>,
    /// Whether it was asked.
    is_asked: bool,
    /// Those that are not visible, once that was asked for.
    hidden: Option<Hidden>,
    lister: Lister<'a>,
}

/// Who tells what is visible, and at what cost.
pub(super) struct Lister<'a> {
    pub(super) costs: &'a ListCosts,
    pub(super) kind: Kind,
    pub(super) user: Object,
    /// Whether a server is asked for a list.
    pub(super) by_call: bool,
    pub(super) deadline: Instant,
}

impl<'a> Visibility<'a> {
    /// Of these guards; nothing is known yet.
    pub(super) fn of(table: Option<GuardTable>, lister: Lister<'a>) -> Self {
        Self { table, visible: None, is_asked: false, hidden: None, lister }
    }

    /// Asks the authorizer for all of it at once, where the answer is cheap, `needed`, or likely to save more than it costs: so
    /// many chunks are wanted, and such a share of candidates was permitted lately.
    ///
    /// # Errors
    /// When it is `needed` and the authorizer fails.
    pub(super) async fn look_ahead(
        &mut self,
        enforcer: &Enforcer<'_>,
        needed: bool,
        top_k: usize,
        share: Option<f64>,
    ) -> Result<(), RetrievalError> {
        let Some(table) = &self.table else { return Ok(()) };
        let Lister { costs, kind, user, by_call, deadline } = &self.lister;
        let guards = count(&table.in_use);
        let (asking, list_deadline) = if *by_call && !needed {
            let Some(asking) = costs.ask(kind, user, Choice { top_k, guards, share }) else { return Ok(()) };
            let now = Instant::now();
            (Some(asking), now + deadline.saturating_duration_since(now) / LIST_PART_OF_TIME)
        } else {
            (None, *deadline)
        };
        let asked = Instant::now();
        self.is_asked = true;
        let listed = enforcer.known_visible_set(&table.guards, &table.in_use, list_deadline).await;
        // A server that cannot make the list may decide each check all the same. If it cannot do that either, the checks tell.
        let unknown = |error: AuthzError| {
            tracing::debug!(%error, "not listed, so it is checked");
            None
        };
        self.visible = if needed { listed? } else { listed.unwrap_or_else(unknown) };
        if let Some(asking) = asking {
            let visible = self.visible.as_ref().map(RoaringBitmap::len);
            let share = visible.and_then(|visible| plan::share(visible, table.in_use.len()));
            asking.note(Listed { took: asked.elapsed(), share });
        }
        Ok(())
    }

    /// Notes what checks cost.
    pub(super) fn note_checks(&self, (checks, took): (usize, Duration)) {
        self.lister.costs.note_checks(&self.lister.kind, checks, took);
    }

    /// How many distinct guards the collection has.
    pub(super) fn guards(&self) -> Option<usize> {
        self.table.as_ref().map(|table| count(&table.in_use))
    }

    /// How many of them are visible.
    pub(super) fn visible(&self) -> Option<usize> {
        self.visible.as_ref().map(count)
    }

    /// The share of the collection's chunks that are under visible guards, if the store counts them.
    pub(super) fn share(&self, store: &dyn VectorStore, collection: &str, info: &CollectionInfo) -> Option<f64> {
        let chunks = store.chunks_under(collection, self.table.as_ref()?, self.visible.as_ref()?)?;
        // Some chunks may be under no guard at all.
        plan::share(chunks, info.chunks.max(chunks))
    }

    /// What a search within the visible set looks at; `None` where the guards are not known.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn space(
        &mut self,
        plan: Plan,
        enforcer: &mut Enforcer<'_>,
        share: Option<f64>,
    ) -> Result<Option<SearchSpace>, RetrievalError> {
        if let (Plan::ListThenSearch(_), false, Some(guards)) = (plan, self.is_asked, self.guards()) {
            // It would save the checks of all guards.
            self.look_ahead(enforcer, false, guards, share).await?;
        }
        let Some(table) = &self.table else { return Ok(None) };
        let positions = match &self.visible {
            Some(visible) => visible.clone(),
            None => enforcer.checked_visible_set(&table.guards, &table.in_use).await?,
        };
        Ok(Some(SearchSpace::Guards { table: table.clone(), positions }))
    }

    /// Finds out what a search of everything need not have checked, since it is known to be hidden.
    pub(super) async fn find_hidden(&mut self, plan: Plan, indexes: &GuardIndexes, collection: &str) {
        if let (false, None, Some(table), Some(visible)) = (plan.is_scoped(), &self.hidden, &self.table, &self.visible)
        {
            self.hidden = indexes.hidden(collection, table, visible).await;
        }
    }

    /// What is known of what a plan finds, before it is checked; such a share is likely permitted if no visible set is known.
    pub(super) fn foreknown(&self, plan: Plan, share: Option<f64>) -> Foreknown<'_> {
        let hidden = self.hidden.as_ref().filter(|_| !plan.is_scoped());
        let is_known = plan.is_scoped() || hidden.is_some();
        let expected = if is_known { Expected::Known } else { Expected::Share(share.unwrap_or(1.0)) };
        Foreknown { hidden, expected }
    }
}

fn count(positions: &RoaringBitmap) -> usize {
    usize::try_from(positions.len()).unwrap_or(usize::MAX)
}
