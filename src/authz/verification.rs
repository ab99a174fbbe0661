//! Verification in production: the server is also asked about a share of the copy's decisions. It is asked beside the
//! requests, after their answers have left. So the server keeps the last word over the copy.
//!
//! A task asks the server directly, with `HIGHER_CONSISTENCY`. It shares no call with requests and recalls nothing, and
//! the number of its checks a second is bounded. `sampler` chooses the questions, and `questions` keeps those that are
//! asked first after a restart. `suspicion` decides whether a difference is a fault of the copy. A difference is a
//! fault only if nothing else explains it. `standing` decides what follows from a fault.
//!
//! If verification is switched off, nothing is asked, but the standing still holds: a copy that was found wrong does
//! not come back into use just because nobody compares it any more.
//!
//! Every verification goes to the audit log, in an entry that names the call. The log of the process gets only the kind
//! of question and a digest.

mod asking;
mod directory;
mod questions;
mod sampler;
pub mod standing;
mod stratum;
mod suspicion;
mod task;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::directory::{StandingDirectory, TrustError};
use self::sampler::{CopyAnswer, SampledQuestion, Sampler};
use self::standing::{Event, Standing, Trust};
pub use self::stratum::Stratum;
use super::copy::{CopyView, Progress};
use super::decider::{Decider, Question};
use super::{
    Check, CheckBatch, Decisions, Provenance, Reached, ReplicaConfig, Source, VisiblePositions, VisibleSetQuery,
};
use crate::audit::AuditSink;
use crate::language::Relation;
use crate::telemetry;

/// The most questions of one request that may be chosen. Choosing among more would cost the request time.
const OFFERED_PER_REQUEST_MAX: usize = 8;
/// The most guards of one visible set that may be chosen. Half of them are guards that the set hides.
const OFFERED_PER_VISIBLE_SET: usize = 4;

/// Verifies a copy until it is dropped.
pub struct Verifier {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Verifications are recorded until this is dropped.
pub struct Recording {
    shared: Arc<Shared>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        *self.shared.audit() = None;
    }
}

/// The state that requests and the task share.
struct Shared {
    config: ReplicaConfig,
    view: Arc<CopyView>,
    server: Arc<dyn Decider>,
    directory: StandingDirectory,
    audit: Mutex<Option<Arc<dyn AuditSink>>>,
    sampler: Mutex<Sampler>,
    standing: Mutex<Standing>,
    /// Mirrors whether the standing trusts the copy, so that requests take no lock.
    is_trusted: AtomicBool,
    /// Mirrors whether the standing routes any kind of question to the server.
    routes: AtomicBool,
}

impl Verifier {
    /// Starts to verify, from the standing that is stored in the replica's directory. This reads files, so it blocks
    /// for a moment. It must run inside tokio.
    #[must_use]
    pub fn start(config: ReplicaConfig, view: Arc<CopyView>, server: Arc<dyn Decider>, directory: &Path) -> Self {
        let directory = StandingDirectory::new(directory);
        let standing = directory.read().resumed();
        let shared = Arc::new(Shared {
            config,
            view,
            server,
            directory,
            audit: Mutex::default(),
            sampler: Mutex::default(),
            is_trusted: AtomicBool::new(false),
            routes: AtomicBool::new(false),
            standing: Mutex::new(standing),
        });
        shared.publish();
        let task = tokio::spawn(task::run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Records every verification in `sink` until the returned guard is dropped. From then on the verifier does not
    /// hold the log.
    #[must_use]
    pub fn record_in(&self, sink: Arc<dyn AuditSink>) -> Recording {
        *self.shared.audit() = Some(sink);
        Recording { shared: Arc::clone(&self.shared) }
    }

    /// Returns whether the copy may be used at all.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.shared.is_trusted.load(Ordering::Acquire)
    }

    /// Returns how far the copy is trusted, and why.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.shared.standing().clone()
    }

    /// Returns whether the server has to decide this batch, because the copy wrongly denied a question of the same
    /// kind.
    #[must_use]
    pub fn routes(&self, batch: &CheckBatch) -> bool {
        self.shared.routes.load(Ordering::Acquire) && {
            let standing = self.shared.standing();
            batch.checks.iter().any(|check| standing.routed.contains(&self.shared.stratum(check, batch)))
        }
    }

    /// Returns whether the server has to find this visible set, because the copy may hide guards that the server shows.
    #[must_use]
    pub fn routes_visible_set(&self, query: &VisibleSetQuery) -> bool {
        self.shared.routes.load(Ordering::Acquire) && {
            let is_like = |routed: &Stratum| {
                routed.relation == query.relation.as_str() && routed.subject_type == query.user.type_name()
            };
            self.shared.standing().routed.iter().any(is_like)
        }
    }

    /// Returns whether the server has to decide some questions about this relation, so that the copy does not explain them.
    #[must_use]
    pub fn routes_relation(&self, relation: &Relation) -> bool {
        self.shared.routes.load(Ordering::Acquire)
            && self.shared.standing().routed.iter().any(|routed| routed.relation == relation.as_str())
    }

    /// Offers the questions of a batch for verification. `decisions` holds the copy's decisions; it is `None` if the
    /// server decided instead. `at` is a moment before the decision.
    pub fn checked(&self, batch: &CheckBatch, decisions: Option<&Decisions>, at: Instant) {
        if !self.shared.config.is_verified() {
            return;
        }
        let trace_id = telemetry::call_trace();
        let chosen = {
            let mut sampler = self.shared.sampler();
            sampler.count(batch.checks.len());
            sampler.some_of(batch.checks.len(), OFFERED_PER_REQUEST_MAX)
        };
        for index in chosen {
            let (check, answered) = match decisions {
                None => (batch.checks.get(index), None),
                Some(Decisions { list, by }) => {
                    let decision = list.get(index).filter(|decision| decision.reached != Reached::Never);
                    let Some(decision) = decision else { continue };
                    (batch.checks.get(decision.position), CopyAnswer::new(decision.allowed, by))
                }
            };
            let Some(check) = check else { continue };
            let question = Question { check: check.clone(), contextual: Arc::clone(&batch.contextual) };
            self.shared.offer(question, answered, at, trace_id.clone());
        }
    }

    /// Offers questions for verification about a visible set of the copy: about guards that it shows and guards that it
    /// hides. `at` is a moment before the set was found.
    pub fn told(&self, query: &VisibleSetQuery, visible: &VisiblePositions, at: Instant) {
        if !self.shared.config.is_verified() {
            return;
        }
        let VisiblePositions { positions: visible, by } = visible;
        let trace_id = telemetry::call_trace();
        let all = usize::try_from(query.positions.len()).unwrap_or(usize::MAX);
        let chosen = {
            let mut sampler = self.shared.sampler();
            sampler.count(1);
            let mut chosen = sampler.some_of(all, OFFERED_PER_VISIBLE_SET);
            let shown = usize::try_from(visible.len()).unwrap_or(usize::MAX);
            let at_rank = |set: &RoaringBitmap, rank: usize| set.select(u32::try_from(rank).unwrap_or(u32::MAX));
            let hidden_or_any = chosen.drain(..).filter_map(|rank| at_rank(&query.positions, rank)).collect::<Vec<_>>();
            // If few guards are visible, one that is drawn at random is most likely hidden. So some visible ones are
            // drawn separately.
            let shown = sampler.some_of(shown, OFFERED_PER_VISIBLE_SET / 2).into_iter();
            shown
                .filter_map(|rank| at_rank(visible, rank))
                .chain(hidden_or_any)
                .take(OFFERED_PER_VISIBLE_SET)
                .collect::<Vec<_>>()
        };
        for position in chosen {
            let guard = usize::try_from(position).ok().and_then(|position| query.guards.get(position));
            let Some(guard) = guard.filter(|_| query.positions.contains(position)) else { continue };
            let check = Check { user: query.user.clone(), relation: query.relation.clone(), object: guard.clone() };
            let question = Question { check, contextual: Arc::clone(&query.contextual) };
            self.shared.offer(question, CopyAnswer::new(visible.contains(position), by), at, trace_id.clone());
        }
    }
}

impl CopyAnswer {
    /// Describes a decision of the copy; returns `None` for a decision of the authority.
    fn new(allowed: bool, by: &Provenance) -> Option<Self> {
        let Source::Copy(copy) = by.source else { return None };
        Some(Self { allowed, copy, model_id: Arc::clone(&by.model_id) })
    }

    /// Returns whether the answer comes from the copy and model that are used now.
    fn is_of(&self, progress: &Progress) -> bool {
        self.copy == progress.copy && *self.model_id == *progress.version.model_id
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn audit(&self) -> MutexGuard<'_, Option<Arc<dyn AuditSink>>> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stratum(&self, check: &Check, batch: &CheckBatch) -> Stratum {
        Stratum::of(check, &batch.contextual, self.view.conditions_on(&check.object))
    }

    fn offer(&self, question: Question, answered: Option<CopyAnswer>, at: Instant, trace_id: Option<Arc<str>>) {
        let conditions = self.view.conditions_on(&question.check.object);
        let stratum = Stratum::of(&question.check, &question.contextual, conditions);
        self.sampler().offer(SampledQuestion { stratum, question, answered, at, trace_id });
    }

    /// Publishes the standing to the requests.
    fn publish(&self) {
        let standing = self.standing();
        self.is_trusted.store(standing.trust == Trust::Trusted, Ordering::Release);
        self.routes.store(!standing.routed.is_empty(), Ordering::Release);
        telemetry::replica_trusted(standing.trust == Trust::Trusted, standing.routed.len());
    }

    /// Applies an event, and does what it calls for. When this returns, requests see the new standing.
    fn happened(&self, event: Event) {
        let action = {
            let sampler = self.sampler();
            self.standing().after(event, sampler.strata())
        };
        self.publish();
        match action {
            Some(standing::Action::MakeNewCopy) => self.view.wish_new_copy(),
            Some(standing::Action::Compare) => self.view.wish_comparison(),
            None => {}
        }
    }
}
