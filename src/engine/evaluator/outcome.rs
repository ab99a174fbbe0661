//! How questions come out, and what `or`, `and` and `but not` make of that.

/// How a question came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Verdict {
    Allowed,
    Denied,
    /// Denied, but a failed condition was passed over: the position of the error.
    Doubted(u32),
    /// It depends on itself.
    Cyclic,
    /// It depends on a condition that failed: the position of the error.
    Failed(u32),
    /// It is further away than the levels that remained.
    TooDeep,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// How many levels were gone down for it.
    pub(super) height: u32,
    /// The first position of the path that cut it off.
    pub(super) cut_at: u32,
}

impl Outcome {
    pub(super) const NOT_CUT: u32 = u32::MAX;
    pub(super) const ALLOWED: Self = Self { verdict: Verdict::Allowed, height: 0, cut_at: Self::NOT_CUT };
    pub(super) const DENIED: Self = Self { verdict: Verdict::Denied, height: 0, cut_at: Self::NOT_CUT };
    /// Whatever the path.
    pub(super) const CYCLIC: Self = Self { verdict: Verdict::Cyclic, height: 0, cut_at: Self::NOT_CUT };
    pub(super) const TOO_DEEP: Self = Self { verdict: Verdict::TooDeep, height: 0, cut_at: Self::NOT_CUT };

    pub(super) fn cut_off(position: u32) -> Self {
        Self { verdict: Verdict::Cyclic, height: 0, cut_at: position }
    }

    pub(super) fn negated(self) -> Self {
        let verdict = match self.verdict {
            Verdict::Allowed => Verdict::Denied,
            Verdict::Denied => Verdict::Allowed,
            Verdict::Doubted(position) => Verdict::Failed(position),
            unknown @ (Verdict::Cyclic | Verdict::Failed(_) | Verdict::TooDeep) => unknown,
        };
        Self { verdict, ..self }
    }

    /// Operands of `or` of which none decided: the less certain verdict, everything that it rests on.
    pub(super) fn or(self, other: Self) -> Self {
        self.with(other, self.verdict.max(other.verdict))
    }

    /// Operands of `and` of which none decided. One that is denied in the end, as what depends on itself, weighs more than
    /// one that failed, as in `OpenFGA`.
    pub(super) fn and(self, other: Self) -> Self {
        let verdict = match (self.verdict, other.verdict) {
            (doubted @ Verdict::Doubted(_), _) | (_, doubted @ Verdict::Doubted(_)) => doubted,
            (Verdict::Cyclic, _) | (_, Verdict::Cyclic) => Verdict::Cyclic,
            (one, another) => one.max(another),
        };
        self.with(other, verdict)
    }

    fn with(self, other: Self, verdict: Verdict) -> Self {
        Self { verdict, height: self.height.max(other.height), cut_at: self.cut_at.min(other.cut_at) }
    }
}
