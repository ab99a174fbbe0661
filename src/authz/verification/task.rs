//! The task that asks the server once a second, and follows the differences that it finds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::asking::ServerAnswer;
use super::questions::KeptQuestion;
use super::sampler::{CopyAnswer, SampledQuestion};
use super::standing::{Event, PROOFS, Standing, Trust};
use super::suspicion::{FollowUp, Observation, Suspicion};
use super::{Shared, StandingDirectory, TrustError};
use crate::audit::{DigestPurpose, Verification, VerifiedKind};
use crate::authz::copy::{CLOCK_TOLERANCE, ChangesSince, Evaluated, Progress, UNTOLD_AFTER};
use crate::authz::decider::Question;
use crate::telemetry;

/// The time from one round of questions to the next.
const TICK: Duration = Duration::from_secs(1);
/// The most differences that are followed at a time: half of them wrong allowances, half wrong denials. More are not
/// needed, because one confirmed difference has the same consequences as many.
const SUSPICIONS_MAX: usize = 16;
/// The most questions of an earlier process or an earlier copy that are asked again.
const RECALLED_MAX: usize = SUSPICIONS_MAX + DENIALS_MAX;
/// The most wrong denials that are followed. Nobody asks a further one again, so its kind of question goes to the
/// server until there is another copy.
const DENIALS_MAX: usize = 16;
/// The period after a new model in which a larger share of decisions is verified.
const NEW_MODEL_PERIOD: Duration = Duration::from_mins(1);
/// The factor by which a larger share of decisions is verified after a new model, and while the copy is not trusted.
const NEW_MODEL_FACTOR: f64 = 10.0;
/// The age past which an answer says little about the copy as it is now, because too much changes meanwhile.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);
/// The longest pause while the server does not answer. The pause doubles up to this length.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The state that the task keeps between its rounds.
struct Rounds {
    suspicions: Vec<Suspect>,
    /// The question by which the last copy lost its trust. The next copy is asked the same question.
    evidence: Option<SampledQuestion>,
    /// The questions that the copy denied wrongly, and how often it has agreed about each since. They are asked again
    /// in each round.
    denials: Vec<(SampledQuestion, u32)>,
    /// The questions about which an earlier process or the previous copy was wrong, or suspected to be. They are asked once.
    recalled: Vec<SampledQuestion>,
    model_id: String,
    model_since: Instant,
    copy: u64,
    pause: Duration,
    paused_until: Instant,
    kept: Standing,
    kept_questions: Vec<KeptQuestion>,
}

struct Suspect {
    asked: SampledQuestion,
    answered: CopyAnswer,
    suspicion: Suspicion,
    /// A moment before the server was asked last.
    asked_from: Instant,
    /// Whether this difference was found before, by an earlier process or in an earlier copy.
    is_recalled: bool,
}

/// Verifies, round by round, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut rounds = Rounds::new(&shared);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        rounds.round(&shared).await;
    }
}

impl Rounds {
    fn new(shared: &Shared) -> Self {
        let (kept, now) = (shared.standing().clone(), Instant::now());
        if kept.trust != Trust::Trusted && !shared.config.is_verified() {
            tracing::error!(
                "the replica was found wrong and verification is off, so it is not used until you run `ragward replica trust`"
            );
        }
        let kept_questions = shared.directory.read_questions();
        let (evidence, others): (Vec<KeptQuestion>, Vec<KeptQuestion>) =
            kept_questions.iter().cloned().partition(|kept| kept.is_evidence);
        let evidence = evidence.into_iter().find_map(KeptQuestion::asked);
        let recalled = others.into_iter().filter_map(KeptQuestion::asked).take(RECALLED_MAX).collect();
        // More questions may have been denied wrongly than were stored, so another copy is made.
        if kept.trust == Trust::Rebuilding || !kept.routed.is_empty() {
            shared.view.wish_new_copy();
        }
        Self {
            suspicions: Vec::new(),
            evidence,
            denials: Vec::new(),
            recalled,
            model_id: String::new(),
            model_since: now,
            copy: shared.view.progress().copy,
            pause: TICK,
            paused_until: now,
            kept,
            kept_questions,
        }
    }

    async fn round(&mut self, shared: &Arc<Shared>) {
        let directory = shared.directory.clone();
        if tokio::task::spawn_blocking(move || directory.take_trust_again()).await.unwrap_or(false) {
            tracing::warn!(
                "an operator trusts the replica again; it is used once another copy is made and agrees with the server"
            );
            shared.happened(Event::TrustAgain);
        }
        self.look_at_the_copy(shared);
        self.follow_suspicions(shared).await;
        // A fall is stored before anybody waits for the server again.
        self.keep(shared).await;
        if Instant::now() >= self.paused_until {
            self.verify(shared).await;
        }
        self.keep(shared).await;
    }

    fn look_at_the_copy(&mut self, shared: &Shared) {
        let progress = shared.view.progress();
        if progress.fresh_as_of.is_none() {
            return;
        }
        if progress.version.model_id != self.model_id {
            self.model_id.clone_from(&progress.version.model_id);
            self.model_since = Instant::now();
        }
        if progress.copy != self.copy {
            self.copy = progress.copy;
            for (denied, _) in std::mem::take(&mut self.denials) {
                self.recall(denied);
            }
            shared.happened(Event::NewCopy);
            if !shared.config.is_verified() {
                shared.happened(Event::NotVerified);
            }
        }
    }

    /// Remembers a question, to ask it of the next copy.
    fn recall(&mut self, asked: SampledQuestion) {
        let is_there = self.recalled.iter().any(|recalled| recalled.is_same_question(&asked));
        if !is_there && self.recalled.len() < RECALLED_MAX {
            self.recalled.push(SampledQuestion { answered: None, ..asked });
        }
    }

    /// Chooses questions, asks the server about them, and compares its answers with the copy's.
    async fn verify(&mut self, shared: &Shared) {
        let progress = shared.view.progress();
        if progress.fresh_as_of.is_none() || !shared.config.is_verified() {
            return;
        }
        let is_new = self.model_since.elapsed() < NEW_MODEL_PERIOD;
        let factor = if is_new || !shared.is_trusted() { NEW_MODEL_FACTOR } else { 1.0 };
        let share = (shared.config.verified_share * factor).min(1.0);
        let standing = shared.standing().clone();
        let is_proving = standing.trust == Trust::Proving;
        // The evidence comes first, so that nothing else proves a copy that has the fault of the previous one.
        let mut chosen: Vec<SampledQuestion> = self.evidence.iter().filter(|_| is_proving).cloned().collect();
        chosen.extend(shared.sampler().choose(shared.config.verified_checks_per_second_max, share));
        if is_proving {
            let most = usize::try_from(shared.config.verified_checks_per_second_max).unwrap_or(usize::MAX);
            let again = shared.sampler().again(most.saturating_sub(chosen.len()), |kind| !standing.has_proven(kind));
            chosen.extend(again);
        }
        chosen.extend(self.denials.iter().map(|(asked, _)| asked.clone()));
        chosen.extend(self.recalled.iter().cloned());
        let mut asked = Vec::with_capacity(chosen.len());
        for question in chosen {
            asked.extend(shared.of_now(question, &progress).await);
        }
        if !shared.view.progress().is_same_copy(&progress) {
            return;
        }
        let recalled = std::mem::take(&mut self.recalled);
        let questions: Vec<Question> = asked.iter().map(|(asked, _)| asked.question.clone()).collect();
        let asked_from = Instant::now();
        let said = shared.ask(&questions, &progress.version).await;
        let answered_at = Instant::now();
        self.pause_if(!said.is_empty() && said.iter().all(|said| *said == ServerAnswer::OutOfReach));
        for ((asked, answered), said) in asked.into_iter().zip(said) {
            shared.record(&asked, answered.allowed, said, &progress.version.model_id);
            let is_recalled = recalled.iter().any(|recalled| recalled.is_same_question(&asked));
            match said {
                ServerAnswer::Decided { allowed } if allowed == answered.allowed => self.agreed(shared, asked),
                ServerAnswer::Decided { .. }
                    if has_room(self.suspicions.iter().map(|suspect| &suspect.suspicion), &answered) =>
                {
                    let suspicion = Suspicion::new(answered.allowed, asked.at, answered_at);
                    self.suspicions.push(Suspect { asked, answered, suspicion, asked_from, is_recalled });
                }
                ServerAnswer::Decided { .. } | ServerAnswer::OutOfReach if is_recalled => self.recall(asked),
                ServerAnswer::Undecidable => shared.happened(Event::Undecided(asked.stratum)),
                // Either the server said nothing, or enough differences are being followed.
                ServerAnswer::NotDecided | ServerAnswer::OutOfReach | ServerAnswer::Decided { .. } => {}
            }
        }
    }

    fn agreed(&mut self, shared: &Shared, asked: SampledQuestion) {
        let check = &asked.question.check;
        let is_same = |denied: &SampledQuestion| denied.question.check == *check && denied.stratum == asked.stratum;
        if let Some(index) = self.denials.iter().position(|(denied, _)| is_same(denied))
            && let Some((_, agreements)) = self.denials.get_mut(index)
        {
            *agreements += 1;
            if *agreements >= PROOFS {
                self.denials.swap_remove(index);
            }
            if self.denials.iter().all(|(denied, _)| denied.stratum != asked.stratum) {
                shared.happened(Event::Resolved(asked.stratum.clone()));
            }
        }
        if !self.suspects_evidence() {
            shared.happened(Event::Agreed(asked.stratum));
        }
    }

    /// Returns whether the copy that is being proven seems to have the fault of the previous one.
    fn suspects_evidence(&self) -> bool {
        let is_suspected =
            |evidence: &SampledQuestion| self.suspicions.iter().any(|s| s.asked.is_same_question(evidence));
        self.evidence.as_ref().is_some_and(is_suspected)
    }

    fn pause_if(&mut self, failed: bool) {
        self.pause = if failed { (self.pause * 2).min(PAUSE_MAX) } else { TICK };
        self.paused_until = if failed { Instant::now() + self.pause } else { Instant::now() };
    }

    async fn follow_suspicions(&mut self, shared: &Shared) {
        for mut suspect in std::mem::take(&mut self.suspicions) {
            if !suspect.answered.is_of(&shared.view.progress()) {
                // Another copy or model may answer differently for its own reasons, or may have the same fault.
                if suspect.is_known() {
                    self.recall(suspect.asked);
                }
                continue;
            }
            match suspect.step(shared).await {
                FollowUp::Wait => self.suspicions.push(suspect),
                FollowUp::Confirmed if suspect.suspicion.copy_allowed => return self.fell(shared, suspect.asked),
                FollowUp::Confirmed => self.denied(shared, suspect.asked),
                FollowUp::Explain if suspect.is_explained(shared) => {}
                FollowUp::Explain if suspect.suspicion.copy_allowed => return self.fell(shared, suspect.asked),
                // A grant that came late let nobody see too much.
                FollowUp::Explain | FollowUp::Ask | FollowUp::GiveUp => {}
            }
        }
    }

    /// The copy allowed what the server denies, so it is thrown away. All other suspicions concerned that copy, so they
    /// are dropped.
    fn fell(&mut self, shared: &Shared, asked: SampledQuestion) {
        tracing::error!(
            kind = %asked.stratum,
            digest = shared.digest(&asked.question),
            "the replica allowed what the server denies; it is not used until another copy agrees with the server"
        );
        telemetry::replica_difference("allowed");
        self.suspicions.clear();
        self.denials.clear();
        shared.happened(Event::FalseAllowance(asked.stratum.clone()));
        self.evidence = Some(SampledQuestion { answered: None, ..asked });
    }

    /// The copy denied what the server allows, so questions of this kind go to the server.
    fn denied(&mut self, shared: &Shared, asked: SampledQuestion) {
        // The copy may be wrong only if a request adds something. So two questions are the same only if their kinds are
        // the same, too.
        let is_same =
            |denied: &SampledQuestion| denied.question.check == asked.question.check && denied.stratum == asked.stratum;
        if self.denials.iter().any(|(denied, _)| is_same(denied)) {
            return;
        }
        tracing::error!(
            kind = %asked.stratum,
            digest = shared.digest(&asked.question),
            "the replica denied what the server allows; questions of this kind go to the server until both agree"
        );
        telemetry::replica_difference("denied");
        shared.happened(Event::FalseDenial(asked.stratum.clone()));
        if self.denials.len() < DENIALS_MAX {
            self.denials.push((SampledQuestion { answered: None, ..asked }, 0));
        }
    }

    /// Stores the standing, and the questions on which it rests, whenever they have changed. Every round tries until
    /// that succeeds, because a restart would otherwise forget a fall. The standing is stored first, so that the
    /// question that confirmed a fall stays stored until the fall is stored.
    async fn keep(&mut self, shared: &Arc<Shared>) {
        let standing = shared.standing().clone();
        let questions = self.questions_to_keep(standing.trust);
        if !standing.is_as_kept(&self.kept) {
            let writing = standing.clone();
            if !shared.written(move |directory| directory.write(&writing)).await {
                return;
            }
            if standing.trust != self.kept.trust {
                tracing::warn!(from = ?self.kept.trust, to = ?standing.trust, "the trust in the replica changed");
            }
            self.kept = standing;
        }
        if questions != self.kept_questions {
            let writing = questions.clone();
            if shared.written(move |directory| directory.write_questions(&writing)).await {
                self.kept_questions = questions;
            }
        }
    }

    fn questions_to_keep(&self, trust: Trust) -> Vec<KeptQuestion> {
        let evidence = self.evidence.iter().filter(|_| trust != Trust::Trusted);
        let suspected = self.suspicions.iter().filter(|suspect| suspect.is_known()).map(|suspect| &suspect.asked);
        let denied = self.denials.iter().map(|(asked, _)| asked);
        let rest = suspected.chain(denied).chain(&self.recalled).take(RECALLED_MAX);
        let evidence = evidence.filter_map(KeptQuestion::of).map(KeptQuestion::into_evidence);
        evidence.chain(rest.filter_map(KeptQuestion::of)).collect()
    }
}

impl Suspect {
    /// Returns whether this difference is known to be more than a moment's lag.
    fn is_known(&self) -> bool {
        self.is_recalled || self.suspicion.is_half_confirmed()
    }

    async fn step(&mut self, shared: &Shared) -> FollowUp {
        let now = Instant::now();
        let copy_allows = match shared.view.answer(&self.asked.question).await {
            Some(Evaluated::Decided { allowed }) => Some(allowed),
            Some(Evaluated::Undecidable) | None => None,
        };
        let progress = shared.view.progress();
        if !self.answered.is_of(&progress) {
            return FollowUp::Wait;
        }
        let quiet = shared.view.news().since(self.asked_from) == ChangesSince::Nothing;
        let look = Observation { now, fresh_as_of: progress.fresh_as_of, copy_allows, quiet };
        let lag_max = shared.view.staleness_max() + CLOCK_TOLERANCE;
        match self.suspicion.step(look, lag_max, UNTOLD_AFTER * 2) {
            FollowUp::Ask => {
                self.asked_from = now;
                let said = shared.ask(std::slice::from_ref(&self.asked.question), &progress.version).await;
                let allowed = match said.first() {
                    Some(ServerAnswer::Decided { allowed }) => Some(*allowed),
                    Some(ServerAnswer::Undecidable | ServerAnswer::NotDecided | ServerAnswer::OutOfReach) | None => {
                        None
                    }
                };
                self.suspicion.answer(allowed, Instant::now())
            }
            step @ (FollowUp::Wait | FollowUp::Explain | FollowUp::GiveUp | FollowUp::Confirmed) => step,
        }
    }

    fn is_explained(&self, shared: &Shared) -> bool {
        let since = shared.view.news().since(self.suspicion.decided);
        let ago = i128::try_from(self.suspicion.decided.elapsed().as_nanos()).unwrap_or(i128::MAX);
        let decided_unix_ns = shared.view.unix_ns().saturating_sub(ago);
        Suspicion::is_explained(since, decided_unix_ns, shared.view.staleness_max() + CLOCK_TOLERANCE)
    }
}

impl Shared {
    /// Writes a file into the directory on a blocking thread, and returns whether that succeeded.
    async fn written(&self, write: impl FnOnce(StandingDirectory) -> Result<(), TrustError> + Send + 'static) -> bool {
        let directory = self.directory.clone();
        let written = tokio::task::spawn_blocking(move || write(directory)).await;
        let error = match written {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error, "the standing of the replica cannot be stored");
        false
    }

    fn is_trusted(&self) -> bool {
        self.standing().trust == Trust::Trusted
    }

    /// Returns the question with an answer of the current copy. If its answer is old, or came from an earlier copy or from the
    /// server, the current copy is asked. Returns `None` when that copy does not decide.
    async fn of_now(&self, asked: SampledQuestion, progress: &Progress) -> Option<(SampledQuestion, CopyAnswer)> {
        let counts = |answered: &CopyAnswer| answered.is_of(progress) && asked.at.elapsed() <= ANSWER_AGE_MAX;
        if let Some(answered) = asked.answered.clone().filter(counts) {
            return Some((asked, answered));
        }
        let at = Instant::now();
        let allowed = match self.view.answer(&asked.question).await? {
            Evaluated::Decided { allowed } => allowed,
            Evaluated::Undecidable => {
                self.happened(Event::Undecided(asked.stratum));
                return None;
            }
        };
        let answered = CopyAnswer { allowed, copy: progress.copy, model_id: progress.version.model_id.as_str().into() };
        Some((SampledQuestion { at, ..asked }, answered))
    }

    fn record(&self, asked: &SampledQuestion, copy_allowed: bool, said: ServerAnswer, model_id: &str) {
        let outcome = match said {
            ServerAnswer::Undecidable | ServerAnswer::NotDecided | ServerAnswer::OutOfReach => "undecided",
            ServerAnswer::Decided { allowed } if allowed == copy_allowed => "agreed",
            ServerAnswer::Decided { .. } if copy_allowed => "copy_allowed",
            ServerAnswer::Decided { .. } => "copy_denied",
        };
        telemetry::verified(outcome);
        let audit = self.audit();
        let Some(sink) = audit.as_ref() else { return };
        let (check, stratum) = (&asked.question.check, &asked.stratum);
        let verification = Verification {
            trace_id: asked.trace_id.as_deref().map(str::to_owned),
            user: check.user.to_string(),
            relation: check.relation.to_string(),
            object: check.object.to_string(),
            kind: VerifiedKind {
                conditions: stratum.conditions.clone(),
                contextual_tuples: stratum.contextual_tuples,
                context: stratum.context,
            },
            question_digest: sink.digest(DigestPurpose::Question, &question_bytes(&asked.question)),
            model_id: model_id.to_owned(),
            outcome: outcome.to_owned(),
        };
        // The log holds the entry when this returns. Nothing waits until it is stored.
        drop(sink.verified(verification));
    }

    fn digest(&self, question: &Question) -> Option<String> {
        self.audit().as_ref().map(|sink| sink.digest(DigestPurpose::Question, &question_bytes(question)))
    }
}

/// Returns whether one more difference can be followed. Many wrong denials must leave room for wrong allowances.
fn has_room<'s>(followed: impl Iterator<Item = &'s Suspicion>, answered: &CopyAnswer) -> bool {
    followed.filter(|suspicion| suspicion.copy_allowed == answered.allowed).count() < SUSPICIONS_MAX / 2
}

/// Returns the bytes from which a question's digest is made. Each name comes after its length, so that no two questions have
/// the same bytes.
fn question_bytes(question: &Question) -> Vec<u8> {
    let check = &question.check;
    let mut bytes = Vec::new();
    for name in [check.user.as_str(), check.relation.as_str(), check.object.as_str()] {
        bytes.extend_from_slice(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn differences_of_one_way_leave_room_for_those_of_the_other() {
        let now = Instant::now();
        let rows = [
            ("nothing is followed", 0, 0, [true, true]),
            ("many wrong denials", 8, 0, [false, true]),
            ("much allowed wrongly", 0, 8, [true, false]),
            ("some of both", 7, 7, [true, true]),
            ("as many as there may be", 8, 8, [false, false]),
        ];
        for (name, denied, allowed, room) in rows {
            let followed = |copy_allowed, times| (0..times).map(move |_| Suspicion::new(copy_allowed, now, now));
            let (copy_denies, copy_allows) = (false, true);
            let followed: Vec<Suspicion> =
                followed(copy_denies, denied).chain(followed(copy_allows, allowed)).collect();
            let answered = |allowed| CopyAnswer { allowed, copy: 1, model_id: "m1".into() };
            let found = [false, true].map(|allowed| has_room(followed.iter(), &answered(allowed)));
            assert_eq!(found, room, "{name}");
        }
    }
}
