//! Knows, ahead of the search of one request, what its principal may see.
//!
//! This is a hint. Each guard that it shows is checked again before anything under that guard is released. If a wrong
//! hint made an answer too short, the answer is filled up. Chunks under a guard that the hint hides are not looked for:
//! the hint comes from the authority itself, or from a copy within its stated staleness.

use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::error::RetrievalError;
use super::guard_index::{GuardIndexes, HiddenGuards};
use super::list_costs::{Choice, ListCosts, ListKind, ListOutcome};
use super::plan::{self, Plan, PlannedSearch};
use super::walk::{Expected, Foreknown};
use crate::authz::AuthzError;
use crate::authz::enforce::Enforcer;
use crate::language::Object;
use crate::vector_store::{CollectionInfo, GuardTable, SearchSpace, VectorStore};

/// A list that only saves checks gets one part in this many of the request's remaining time. So enough time is left if
/// the list does not come.
const LIST_PART_OF_TIME: u32 = 4;

/// Knows which guards of a collection the principal of one request may see, as far as the authorizer has told.
pub(super) struct Visibility<'a> {
    /// The guards of the collection, if the store can list them.
    table: Option<GuardTable>,
    /// The visible ones among these guards, if the authorizer told them all at once.
    visible: Option<RoaringBitmap>,
    /// Whether the authorizer was asked for the visible guards.
    is_asked: bool,
    /// The hidden ones among these guards; `None` until a search of everything needs them.
    hidden: Option<Arc<HiddenGuards>>,
    lister: Lister<'a>,
}

/// Everything that is needed to ask the authorizer for a list of what one user may see.
pub(super) struct Lister<'a> {
    pub(super) costs: &'a ListCosts,
    pub(super) kind: ListKind,
    pub(super) user: Object,
    /// Whether a list is a call to a server.
    pub(super) by_call: bool,
    pub(super) deadline: Instant,
}

/// The reason why a request wants to know the visible set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// The search cannot be made without it.
    Required,
    /// The search can do without it, but it saves checks.
    SavesChecks {
        /// How many chunks are wanted.
        top_k: usize,
        /// The share of candidates that this user was permitted lately.
        share: Option<f64>,
    },
}

impl<'a> Visibility<'a> {
    /// Makes a value that does not know yet which guards are visible.
    pub(super) fn new(table: Option<GuardTable>, lister: Lister<'a>) -> Self {
        Self { table, visible: None, is_asked: false, hidden: None, lister }
    }

    /// Asks the authorizer for the whole visible set, if it is required, or costs no call, or likely saves more than it costs.
    ///
    /// # Errors
    /// When the set is required and the authorizer fails.
    pub(super) async fn look_ahead(&mut self, enforcer: &mut Enforcer<'_>, need: Need) -> Result<(), RetrievalError> {
        let Some(table) = &self.table else { return Ok(()) };
        let Lister { costs, kind, user, by_call, deadline } = &self.lister;
        let (asking, list_deadline) = match need {
            Need::SavesChecks { top_k, share } if *by_call => {
                let choice = Choice { top_k, guards: count(&table.in_use), share };
                let Some(asking) = costs.ask(kind, user, choice) else { return Ok(()) };
                let now = Instant::now();
                (Some(asking), now + deadline.saturating_duration_since(now) / LIST_PART_OF_TIME)
            }
            Need::SavesChecks { .. } | Need::Required => (None, *deadline),
        };
        let asked = Instant::now();
        self.is_asked = true;
        let listed = enforcer.known_visible_set(&table.guards, &table.in_use, list_deadline).await;
        // A server that cannot make the list may still decide each check. If it cannot do that either, the checks fail.
        let unknown = |error: AuthzError| {
            tracing::debug!(%error, "the visible set is not known, so guards are checked");
            None
        };
        self.visible = match need {
            Need::Required => listed?,
            Need::SavesChecks { .. } => listed.unwrap_or_else(unknown),
        };
        if let Some(asking) = asking {
            let visible = self.visible.as_ref().map(RoaringBitmap::len);
            let share = visible.and_then(|visible| plan::share(visible, table.in_use.len()));
            asking.note(ListOutcome { took: asked.elapsed(), share });
        }
        Ok(())
    }

    /// Notes how many checks were made, and how long all of them took.
    pub(super) fn note_checks(&self, checks: usize, took: Duration) {
        self.lister.costs.note_checks(&self.lister.kind, checks, took);
    }

    /// Counts the distinct guards of the collection; `None` where the store cannot list them.
    pub(super) fn guards(&self) -> Option<usize> {
        self.table.as_ref().map(|table| count(&table.in_use))
    }

    /// Counts the visible guards; `None` where they are not known.
    pub(super) fn visible(&self) -> Option<usize> {
        self.visible.as_ref().map(count)
    }

    /// Returns the share of the collection's chunks that are under visible guards, if the store counts them.
    pub(super) fn share(&self, store: &dyn VectorStore, collection: &str, info: &CollectionInfo) -> Option<f64> {
        let chunks = store.chunks_under(collection, self.table.as_ref()?, self.visible.as_ref()?)?;
        // Some chunks may be under no guard at all.
        plan::share(chunks, info.chunks.max(chunks))
    }

    /// Finds the space of a search within the visible set. Returns `None` where the guards are not known.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn space(
        &mut self,
        search: PlannedSearch,
        enforcer: &mut Enforcer<'_>,
    ) -> Result<Option<SearchSpace>, RetrievalError> {
        if search.plan == Plan::ListThenSearch
            && !self.is_asked
            && let Some(guards) = self.guards()
        {
            // A list would save the checks of all guards.
            self.look_ahead(enforcer, Need::SavesChecks { top_k: guards, share: search.pass_rate }).await?;
        }
        let Some(table) = &self.table else { return Ok(None) };
        let positions = match &self.visible {
            Some(visible) => visible.clone(),
            None => enforcer.checked_visible_set(&table.guards, &table.in_use).await?,
        };
        Ok(Some(SearchSpace::Guards { table: table.clone(), positions }))
    }

    /// Foretells the outcome of a search of everything: which guards the visible set hides, and which share of the
    /// other candidates is likely to be permitted.
    pub(super) async fn foreknow(
        &mut self,
        search: PlannedSearch,
        indexes: &GuardIndexes,
        collection: &str,
    ) -> Foreknown {
        if search.plan.is_within_visible_set() {
            return Foreknown { hidden: None, expected: Expected::NearlyAll };
        }
        if let (None, Some(table), Some(visible)) = (&self.hidden, &self.table, &self.visible) {
            self.hidden = indexes.hidden(collection, table, visible).await.map(Arc::new);
        }
        let expected =
            if self.hidden.is_some() { Expected::NearlyAll } else { Expected::Share(search.pass_rate.unwrap_or(1.0)) };
        Foreknown { hidden: self.hidden.clone(), expected }
    }
}

fn count(positions: &RoaringBitmap) -> usize {
    usize::try_from(positions.len()).unwrap_or(usize::MAX)
}
