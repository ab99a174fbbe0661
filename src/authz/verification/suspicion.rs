//! Decides whether a difference between the copy and the server is a fault of the copy. This is pure.
//!
//! The copy lags by design, so a difference that lasts only for a moment is no fault. A difference is confirmed in two
//! cases:
//!
//! - The copy is as new as the server's answer and still differs. To exclude chance, the server was asked twice while
//!   nothing changed. If something changes all the time, the server was asked so often that even a tuple that is added
//!   and removed over and over does not explain the difference.
//! - The copy agrees by now, but no recent change explains why it differed before. A change explains a difference only
//!   if it is younger than the bound on the lag.

use std::time::Duration;

use tokio::time::Instant;

use crate::authz::copy::ChangesSince;

/// The number of the server's answers that confirms a difference, if nothing changes meanwhile.
const QUIET_ROUNDS: u32 = 2;
/// The number of answers in a row that confirms a difference, whatever changes. If a tuple is there half of the time, the
/// chance that all of these answers differ is one in 16 million (2 to the 24th).
const ROUNDS: u32 = 24;
/// The number of questions without an answer after which a suspicion is given up.
const ERRORS_MAX: u32 = 5;
/// The longest time for which a suspicion is followed. After that, too much has changed to tell.
const AGE_MAX: Duration = Duration::from_mins(2);

/// A difference that may be a fault of the copy.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// The answer of the copy. The server answered the opposite.
    pub(super) copy_allowed: bool,
    /// A moment before the copy answered.
    pub(super) decided: Instant,
    /// A moment after the server's last answer. The copy must be as new as this before its answer counts.
    pub(super) answered: Instant,
    /// A moment after the server's first answer.
    first: Instant,
    quiet: u32,
    rounds: u32,
    errors: u32,
    /// The moment at which the copy was found to agree with the server, if it was.
    turned: Option<Instant>,
}

/// The observations of one look at the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) now: Instant,
    /// The moment as of which the copy is complete.
    pub(super) fresh_as_of: Option<Instant>,
    /// The copy's answer now; `None` if it does not decide.
    pub(super) copy_allows: Option<bool>,
    /// Whether the copy learned of no change since the server was asked.
    pub(super) quiet: bool,
}

/// The next step about a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowUp {
    /// Wait until the next look.
    Wait,
    /// Ask the server again.
    Ask,
    /// Look at the dates of the changes since the decision.
    Explain,
    /// Drop the suspicion: there is no fault, or nobody can tell.
    GiveUp,
    /// Treat the difference as a fault.
    Confirmed,
}

impl Suspicion {
    pub(super) fn new(copy_allowed: bool, decided: Instant, answered: Instant) -> Self {
        Self { copy_allowed, decided, answered, first: answered, quiet: 0, rounds: 0, errors: 0, turned: None }
    }

    /// Returns whether the copy has differed once while it was as new as the server's answer. Until then it may only be
    /// late.
    pub(super) fn is_half_confirmed(&self) -> bool {
        self.rounds > 0
    }

    /// Returns the next step. A change within `lag_max` of the server's first answer may still reach the copy. Once the
    /// change has reached it, the log reports the change within `explained_after`.
    pub(super) fn step(&mut self, look: Observation, lag_max: Duration, explained_after: Duration) -> FollowUp {
        if look.now.saturating_duration_since(self.decided) > AGE_MAX {
            return FollowUp::GiveUp;
        }
        if let Some(turned) = self.turned {
            let is_told = look.fresh_as_of.is_some_and(|fresh| fresh >= turned + explained_after);
            return if is_told { FollowUp::Explain } else { FollowUp::Wait };
        }
        if look.fresh_as_of.is_none_or(|fresh| fresh < self.answered) {
            return FollowUp::Wait;
        }
        match look.copy_allows {
            None => FollowUp::GiveUp,
            Some(allows) if allows != self.copy_allowed => {
                self.turned = Some(look.now);
                FollowUp::Wait
            }
            Some(_) => {
                // The copy gave this answer both before and after the server's last one.
                self.rounds += 1;
                self.quiet += u32::from(look.quiet);
                let is_past_lag = look.now.saturating_duration_since(self.first) > lag_max;
                let is_sure = self.quiet >= QUIET_ROUNDS || self.rounds >= ROUNDS;
                if is_sure && is_past_lag { FollowUp::Confirmed } else { FollowUp::Ask }
            }
        }
    }

    /// Takes in the server's next answer; `None` for an error, a timeout, or a question that the server cannot decide.
    pub(super) fn answer(&mut self, server_allows: Option<bool>, answered: Instant) -> FollowUp {
        match server_allows {
            None => {
                self.errors += 1;
                if self.errors >= ERRORS_MAX { FollowUp::GiveUp } else { FollowUp::Wait }
            }
            Some(allows) if allows == self.copy_allowed => FollowUp::GiveUp,
            Some(_) => {
                (self.errors, self.answered) = (0, answered);
                FollowUp::Wait
            }
        }
    }

    /// Returns whether lag explains that the copy differed until it learned of these changes. `decided_unix_ns` is the
    /// date of the copy's answer. A change may be up to `lag_max` older than that.
    pub(super) fn is_explained(since: ChangesSince, decided_unix_ns: i128, lag_max: Duration) -> bool {
        let lag_max = i128::try_from(lag_max.as_nanos()).unwrap_or(i128::MAX);
        match since {
            ChangesSince::Dated(oldest) => oldest >= decided_unix_ns.saturating_sub(lag_max),
            // The copy changed its answer, and no change explains it.
            ChangesSince::Nothing | ChangesSince::Undated => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Clone, Copy)]
    enum Row {
        /// The copy still differs, and nothing has changed.
        Quiet,
        /// The copy still differs and nothing has changed, but lag cannot be ruled out yet.
        Early,
        /// The copy still differs, and something has changed.
        Busy,
        /// The server differs again, agrees, or fails.
        Differs,
        Agrees,
        Fails,
        /// The copy came to agree.
        Turned,
        /// The copy is behind.
        Behind,
    }

    #[tokio::test]
    async fn what_confirms_a_difference() {
        use Row::{Agrees, Behind, Busy, Differs, Early, Fails, Quiet, Turned};
        let busy = |rounds: usize| [Busy, Differs].repeat(rounds);
        let rows: Vec<(&str, Vec<Row>, FollowUp)> = vec![
            ("asked once", vec![Quiet], FollowUp::Ask),
            ("asked twice with no change", vec![Quiet, Differs, Quiet], FollowUp::Confirmed),
            ("the second time it agrees", vec![Quiet, Agrees], FollowUp::GiveUp),
            ("a change between", vec![Quiet, Differs, Busy], FollowUp::Ask),
            ("it may be lag", vec![Early, Differs, Early], FollowUp::Ask),
            ("something always changes", [busy(23), vec![Busy]].concat(), FollowUp::Confirmed),
            ("a flapping tuple", [busy(10), vec![Busy, Agrees]].concat(), FollowUp::GiveUp),
            ("errors", vec![Quiet, Fails, Fails, Fails, Fails, Fails], FollowUp::GiveUp),
            ("errors, then an answer", vec![Quiet, Fails, Fails, Differs, Quiet], FollowUp::Confirmed),
            ("the copy is behind", vec![Behind, Behind], FollowUp::Wait),
            ("the copy turned", vec![Turned], FollowUp::Wait),
        ];
        for (name, rows, expected) in rows {
            let start = Instant::now();
            let copy_allowed = true;
            let mut suspicion = Suspicion::new(copy_allowed, start, start);
            let mut step = FollowUp::Wait;
            for (second, row) in (1..).zip(rows) {
                let now = start + SECOND * second;
                let quiet = Observation { now, fresh_as_of: Some(now), copy_allows: Some(copy_allowed), quiet: true };
                let busy = Observation { quiet: false, ..quiet };
                let turned = Observation { copy_allows: Some(!copy_allowed), ..busy };
                let behind = Observation { fresh_as_of: None, ..quiet };
                step = match row {
                    Quiet => suspicion.step(quiet, Duration::ZERO, SECOND),
                    Early => suspicion.step(quiet, SECOND * 60, SECOND),
                    Busy => suspicion.step(busy, Duration::ZERO, SECOND),
                    Turned => suspicion.step(turned, Duration::ZERO, SECOND),
                    Behind => suspicion.step(behind, Duration::ZERO, SECOND),
                    Differs => suspicion.answer(Some(false), now),
                    Agrees => suspicion.answer(Some(true), now),
                    Fails => suspicion.answer(None, now),
                };
            }
            assert_eq!(step, expected, "{name}");
        }
    }

    #[test]
    fn lag_explains_up_to_its_bound() {
        let second = |second: i128| second * 1_000_000_000;
        let rows = [
            ("revoked after the answer", ChangesSince::Dated(second(101)), true),
            ("within the bound", ChangesSince::Dated(second(97)), true),
            ("past the bound", ChangesSince::Dated(second(96)), false),
            ("a change that the log did not tell", ChangesSince::Undated, false),
            ("no change", ChangesSince::Nothing, false),
        ];
        for (name, since, explained) in rows {
            assert_eq!(Suspicion::is_explained(since, second(100), SECOND * 3), explained, "{name}");
        }
    }
}
