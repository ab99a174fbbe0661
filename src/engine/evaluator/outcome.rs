//! The answers of the evaluator, and how `or`, `and` and `but not` combine them.

/// An answer, in the order of certainty: later ones are less certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Verdict {
    Allowed,
    Denied,
    /// Denied, with a failed condition that was passed over. Holds the position of the condition's error.
    Doubted(u32),
    /// The answer depends on itself.
    Cyclic,
    /// The answer depends on a condition that failed. Holds the position of its error.
    Failed(u32),
    /// The answer lies further away than the levels that were left.
    TooDeep,
}

impl Verdict {
    /// Returns what `but not` makes of a subtracted operand.
    pub(in crate::engine) fn negated(self) -> Self {
        match self {
            Self::Allowed => Self::Denied,
            Self::Denied => Self::Allowed,
            Self::Doubted(position) => Self::Failed(position),
            unknown @ (Self::Cyclic | Self::Failed(_) | Self::TooDeep) => unknown,
        }
    }

    /// Combines operands of `or` if none of them is allowed: the less certain verdict wins.
    pub(in crate::engine) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// Combines operands of `and` if none of them is denied. A verdict that is denied in the end, such as a cycle, wins
    /// over a failure, as in `OpenFGA`.
    pub(in crate::engine) fn and(self, other: Self) -> Self {
        match (self, other) {
            (doubted @ Self::Doubted(_), _) | (_, doubted @ Self::Doubted(_)) => doubted,
            (Self::Cyclic, _) | (_, Self::Cyclic) => Self::Cyclic,
            (one, another) => one.max(another),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// How many levels the evaluator descended to find this answer.
    pub(super) height: u32,
    /// The lowest position of the path that cut this answer off.
    pub(super) cut_at: u32,
}

impl Outcome {
    pub(super) const NOT_CUT: u32 = u32::MAX;
    pub(super) const ALLOWED: Self = Self { verdict: Verdict::Allowed, height: 0, cut_at: Self::NOT_CUT };
    pub(super) const DENIED: Self = Self { verdict: Verdict::Denied, height: 0, cut_at: Self::NOT_CUT };
    /// A cycle that does not depend on the path.
    pub(super) const CYCLIC: Self = Self { verdict: Verdict::Cyclic, height: 0, cut_at: Self::NOT_CUT };
    pub(super) const TOO_DEEP: Self = Self { verdict: Verdict::TooDeep, height: 0, cut_at: Self::NOT_CUT };

    pub(super) fn cut_off(position: u32) -> Self {
        Self { verdict: Verdict::Cyclic, height: 0, cut_at: position }
    }

    pub(super) fn negated(self) -> Self {
        Self { verdict: self.verdict.negated(), ..self }
    }

    /// Combines operands of `or` if none of them is allowed. The result rests on both.
    pub(super) fn or(self, other: Self) -> Self {
        self.with(other, self.verdict.or(other.verdict))
    }

    /// Combines operands of `and` if none of them is denied. The result rests on both.
    pub(super) fn and(self, other: Self) -> Self {
        self.with(other, self.verdict.and(other.verdict))
    }

    fn with(self, other: Self, verdict: Verdict) -> Self {
        Self { verdict, height: self.height.max(other.height), cut_at: self.cut_at.min(other.cut_at) }
    }
}
