//! Decides whether the copy is trusted. This is pure: it holds a state, and says what follows from each event.
//!
//! ```text
//! trusted ──confirmed──► rebuilding ──new copy──► proving ──all kinds agree──► trusted (once)
//!                                                    │                            │
//!                                                    └────────confirmed───────────┴──► out, until somebody says `trust`
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::stratum::Stratum;

/// The number of agreements that proves a kind of question.
pub(super) const PROOFS: u32 = 3;
/// A kind with this many undecided questions, and not one decided, has nothing to prove: its condition may lack a
/// value, for example. Such a kind must not keep the copy out for ever.
const UNDECIDED_MAX: u32 = 20;

/// Whether the copy is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The copy is used.
    #[default]
    Trusted,
    /// A difference was confirmed. The copy is not used while another one is made.
    Rebuilding,
    /// The new copy is complete. It is not used until it agrees with the server.
    Proving,
    /// A difference was confirmed for the second time. The copy is not used until an operator trusts it again.
    Out,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trusted => "trusted",
            Self::Rebuilding => "not used while another copy is made",
            Self::Proving => "not used until it agrees with the server",
            Self::Out => "not used until `ragward replica trust`",
        })
    }
}

/// The trust in the copy, and its history. Everything but the counts of a proof outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Whether the copy is used.
    pub trust: Trust,
    /// The number of confirmed differences since an operator trusted the copy last.
    pub falls: u32,
    /// The kind of question in which the last difference was confirmed.
    #[serde(default)]
    pub cause: Option<Stratum>,
    /// The kinds of questions that the server decides, because the copy denied what the server allows.
    #[serde(default)]
    pub routed: BTreeSet<Stratum>,
    /// The number of agreements of the copy that is being proven, by kind.
    #[serde(skip)]
    agreed: BTreeMap<Stratum, u32>,
    /// The number of questions that this copy or the server could not decide, by kind.
    #[serde(skip)]
    undecided: BTreeMap<Stratum, u32>,
}

/// An event that may change the standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A difference was confirmed: the copy allows and the server denies.
    FalseAllowance(Stratum),
    /// A difference was confirmed: the copy denies and the server allows.
    FalseDenial(Stratum),
    /// Copy and server gave the same answer.
    Agreed(Stratum),
    /// The copy or the server could not decide a question of this kind.
    Undecided(Stratum),
    /// The copy now decides correctly the questions of this kind that it denied wrongly before.
    Resolved(Stratum),
    /// Another copy is complete.
    NewCopy,
    /// Verification is switched off, so nobody compares the new copy with the server.
    NotVerified,
    /// An operator wants the copy to be trusted again.
    TrustAgain,
}

/// The work that an event leaves to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Throw the copy away and make another one.
    MakeNewCopy,
    /// Compare all tuples with the server.
    Compare,
}

impl Standing {
    /// Returns the standing for a file that cannot be read. It counts as a fall, which is safe.
    pub(super) fn unreadable() -> Self {
        Self { trust: Trust::Rebuilding, falls: 1, ..Self::default() }
    }

    /// Returns whether both would be stored as the same file.
    pub(super) fn is_as_kept(&self, kept: &Self) -> bool {
        self.trust == kept.trust && self.falls == kept.falls && self.cause == kept.cause && self.routed == kept.routed
    }

    /// Returns the standing after a restart. A copy that was being made or proven is made anew, since nobody knows how far it
    /// had come.
    pub(super) fn resumed(self) -> Self {
        match self.trust {
            Trust::Trusted | Trust::Out => self,
            Trust::Rebuilding | Trust::Proving => Self { trust: Trust::Rebuilding, ..self },
        }
    }

    /// Applies an event, and returns what the caller has to do. `kinds` are the kinds of questions that are asked.
    pub(super) fn after<'k>(&mut self, event: Event, kinds: impl Iterator<Item = &'k Stratum>) -> Option<Action> {
        match event {
            Event::FalseAllowance(stratum) => self.fall(stratum),
            Event::FalseDenial(stratum) => {
                self.routed.insert(stratum);
                Some(Action::Compare)
            }
            // Agreements count only for a copy that is being proven.
            Event::Agreed(_) | Event::Undecided(_) if self.trust != Trust::Proving => None,
            Event::Agreed(stratum) => {
                count(&mut self.agreed, stratum);
                self.prove(kinds);
                None
            }
            Event::Undecided(stratum) => {
                count(&mut self.undecided, stratum);
                self.prove(kinds);
                None
            }
            Event::Resolved(stratum) => {
                self.routed.remove(&stratum);
                None
            }
            Event::NewCopy => {
                self.agreed.clear();
                self.undecided.clear();
                self.routed.clear();
                if self.trust == Trust::Rebuilding {
                    self.trust = Trust::Proving;
                }
                None
            }
            Event::NotVerified => {
                // Only an operator brings such a copy back, and the operator's word has set the falls to zero.
                if self.trust == Trust::Proving && self.falls == 0 {
                    self.trust = Trust::Trusted;
                }
                None
            }
            Event::TrustAgain => {
                self.falls = 0;
                if self.trust == Trust::Trusted {
                    return None;
                }
                self.trust = Trust::Rebuilding;
                Some(Action::MakeNewCopy)
            }
        }
    }

    fn fall(&mut self, stratum: Stratum) -> Option<Action> {
        self.cause = Some(stratum);
        match self.trust {
            Trust::Trusted | Trust::Proving => {}
            // The copy is not used, so its answers do not matter.
            Trust::Rebuilding | Trust::Out => return None,
        }
        self.agreed.clear();
        self.undecided.clear();
        self.falls = self.falls.saturating_add(1);
        if self.falls >= 2 {
            self.trust = Trust::Out;
            return None;
        }
        self.trust = Trust::Rebuilding;
        Some(Action::MakeNewCopy)
    }

    fn prove<'k>(&mut self, kinds: impl Iterator<Item = &'k Stratum>) {
        if self.is_proven(kinds) {
            self.trust = Trust::Trusted;
        }
    }

    /// Returns whether a kind like the cause of the fall has agreed, and every kind that is asked about has proven
    /// itself.
    fn is_proven<'k>(&self, mut kinds: impl Iterator<Item = &'k Stratum>) -> bool {
        let like_the_cause = self
            .cause
            .as_ref()
            .is_none_or(|cause| self.agreed.iter().any(|(kind, agreed)| kind.is_akin(cause) && *agreed >= PROOFS));
        like_the_cause && kinds.all(|kind| self.has_proven(kind))
    }

    /// Returns whether this kind has agreed often enough, or has nothing to agree on.
    pub(super) fn has_proven(&self, kind: &Stratum) -> bool {
        match self.agreed.get(kind) {
            Some(agreed) => *agreed >= PROOFS,
            None => self.undecided.get(kind).is_some_and(|undecided| *undecided >= UNDECIDED_MAX),
        }
    }
}

fn count(kinds: &mut BTreeMap<Stratum, u32>, kind: Stratum) {
    let times = kinds.entry(kind).or_default();
    *times = times.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(object_type: &str) -> Stratum {
        Stratum {
            object_type: object_type.to_owned(),
            relation: "can_read".to_owned(),
            subject_type: "user".to_owned(),
            conditions: Vec::new(),
            contextual_tuples: false,
            context: false,
        }
    }

    #[test]
    fn what_follows_from_what() {
        let allowance = || Event::FalseAllowance(kind("doc"));
        let denial = || Event::FalseDenial(kind("doc"));
        let agreed = |object_type: &str| Event::Agreed(kind(object_type));
        let undecided = || Event::Undecided(kind("folder"));
        let proven =
            || vec![agreed("doc"), agreed("doc"), agreed("doc"), agreed("folder"), agreed("folder"), agreed("folder")];
        let back = || [vec![allowance(), Event::NewCopy], proven()].concat();
        let rows: Vec<(&str, Vec<Event>, Trust)> = vec![
            ("a false allowance", vec![allowance()], Trust::Rebuilding),
            ("a false denial", vec![denial()], Trust::Trusted),
            ("a new copy", vec![allowance(), Event::NewCopy], Trust::Proving),
            ("one kind agrees", [vec![allowance(), Event::NewCopy], vec![agreed("doc"); 9]].concat(), Trust::Proving),
            (
                "agreements with the old copy",
                [vec![allowance()], proven(), vec![Event::NewCopy]].concat(),
                Trust::Proving,
            ),
            ("all kinds agree", back(), Trust::Trusted),
            (
                "a kind that nobody can decide",
                [vec![allowance(), Event::NewCopy], vec![undecided(); 20], vec![agreed("doc"); 3]].concat(),
                Trust::Trusted,
            ),
            (
                "a kind that was not decided now and then",
                [vec![allowance(), Event::NewCopy], vec![undecided(); 19], vec![agreed("doc"); 3]].concat(),
                Trust::Proving,
            ),
            (
                "a kind that is decided now and then",
                [vec![allowance(), Event::NewCopy, agreed("folder")], vec![undecided(); 20], vec![agreed("doc"); 3]]
                    .concat(),
                Trust::Proving,
            ),
            (
                "the cause cannot be decided",
                [vec![allowance(), Event::NewCopy], vec![Event::Undecided(kind("doc")); 20], proven().split_off(3)]
                    .concat(),
                Trust::Proving,
            ),
            ("a second time", [back(), vec![allowance()]].concat(), Trust::Out),
            ("a second time while proving", vec![allowance(), Event::NewCopy, allowance()], Trust::Out),
            ("out, and a new copy", [back(), vec![allowance(), Event::NewCopy], proven()].concat(), Trust::Out),
            ("trusted again", [back(), vec![allowance(), Event::TrustAgain]].concat(), Trust::Rebuilding),
            (
                "trusted again and proven",
                [back(), vec![allowance(), Event::TrustAgain, Event::NewCopy], proven()].concat(),
                Trust::Trusted,
            ),
            ("a new copy that nobody verifies", vec![allowance(), Event::NewCopy, Event::NotVerified], Trust::Proving),
            (
                "trusted again and verified by nobody",
                vec![allowance(), Event::TrustAgain, Event::NewCopy, Event::NotVerified],
                Trust::Trusted,
            ),
            ("a copy that is being made", vec![allowance(), Event::TrustAgain, Event::NotVerified], Trust::Rebuilding),
            ("trusted again, first fall", [back(), vec![Event::TrustAgain, allowance()]].concat(), Trust::Rebuilding),
        ];
        let kinds = [kind("doc"), kind("folder")];
        for (name, events, trust) in rows {
            let mut standing = Standing::default();
            for event in events {
                standing.after(event, kinds.iter());
                // After a restart everything is the same, except that a copy may be made anew.
                let kept = serde_json::to_string(&standing).expect("JSON");
                let kept: Standing = serde_json::from_str(&kept).expect("as it was written");
                let resumed = kept.resumed();
                assert_eq!(
                    (resumed.falls, resumed.trust == Trust::Trusted),
                    (standing.falls, standing.trust == Trust::Trusted),
                    "{name}"
                );
            }
            assert_eq!(standing.trust, trust, "{name}");
        }
        assert_eq!(Standing::unreadable().trust, Trust::Rebuilding);
    }

    #[test]
    fn a_false_denial_goes_to_the_server_until_its_kind_agrees() {
        let mut standing = Standing::default();
        let kinds = [kind("doc")];
        let denied = standing.after(Event::FalseDenial(kind("doc")), kinds.iter());
        assert_eq!((denied, standing.routed.len()), (Some(Action::Compare), 1));
        standing.after(Event::Agreed(kind("doc")), kinds.iter());
        assert_eq!(standing.routed.len(), 1, "another question of the kind");
        standing.after(Event::Resolved(kind("doc")), kinds.iter());
        assert_eq!(standing.routed.len(), 0);
        standing.after(Event::FalseDenial(kind("doc")), kinds.iter());
        standing.after(Event::NewCopy, kinds.iter());
        assert_eq!(standing.routed.len(), 0, "another copy");
    }
}
