//! Why a user holds a relation on an object, or why not: the tree of what was looked at, with the deciding tuples.
//!
//! The decision is the evaluator's. The tree is found by a walk of its own over the same program, so that it can look at
//! every way and not only at the first that decides; tests hold that both come out alike. An operand that had no say in
//! the outcome is named and not unfolded. The walk is bounded, and what it leaves out is counted: there the tree takes
//! the evaluator's word.
//!
//! It tells of what is hidden, so it is for administrators.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;

use super::evaluator::{CheckError, Evaluation, LEVELS_WITH_LAST, Verdict};
use crate::language::condition::ConditionInput;
use crate::language::tuple::{Object, Relation, User};

pub(super) use walk::State;

/// Most relations of objects that one explanation unfolds.
pub const UNFOLDED_MAX: usize = 250;
/// Most usersets or parents of one object that are unfolded, unless none of them decides.
pub const SIBLINGS_MAX: usize = 8;
/// Most operands of one set operation that are shown.
pub const OPERANDS_MAX: usize = 32;
/// Longest text of a definition or condition, in characters.
pub const TEXT_CHARACTERS_MAX: usize = 200;
/// Deepest nesting of steps. As a message, each takes one level, and decoders take 100.
pub const DEPTH_MAX: usize = 80;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Who was asked about.
    pub user: User,
    /// The relation.
    pub relation: Relation,
    /// The object.
    pub object: Object,
    /// The evaluator's decision; an error where there is none, which counts as a denial.
    pub decision: Result<bool, CheckError>,
    /// The step about the question itself.
    pub root: Step,
}

/// How a step came out, ordered by how little is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not.
    DoesNotHold,
    /// It does not, but a failed condition was passed over beside tuples that count: under `but not` it is
    /// [`Outcome::ConditionFailed`].
    Doubtful,
    /// It depends on itself, which decides nothing: denied.
    Cycle,
    /// It depends on a condition that cannot be evaluated: no decision.
    ConditionFailed,
    /// The answer is further away, or takes more work, than is looked: no decision.
    TooDeep,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// How it came out.
    pub outcome: Outcome,
    /// Whether the outcome of the step above rests on it. One that has no say is not unfolded.
    pub has_say: bool,
    /// What it is.
    pub kind: StepKind,
    /// What it rests on. Of `but not`, the base and then what is taken out; of all others, those first that decide.
    pub steps: Vec<Step>,
    /// How many more of such steps were looked at and are not here; they would not change the outcome.
    pub omitted: usize,
}

/// What a step is about.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// A relation of an object. Its steps are the operands of its definition.
    Relation {
        /// The relation.
        relation: String,
        /// The object.
        object: String,
        /// How the model defines it, in the modeling language.
        definition: String,
        /// How the definition puts the steps together.
        operator: Operator,
        /// The tuple that led here, from a userset or a parent.
        through: Option<Found>,
        /// Why it has no steps.
        closed: Option<Closed>,
    },
    /// A set operation within a definition.
    Operation {
        /// Which one.
        operator: Operator,
        /// In the modeling language.
        definition: String,
    },
    /// `[…]` within a set operation: the tuples of the relation.
    Tuples {
        /// In the modeling language.
        definition: String,
    },
    /// `… from …`: a relation of other objects, which tuples of this one name.
    Parents {
        /// In the modeling language.
        definition: String,
    },
    /// A tuple that names the user, or one whose condition keeps it from counting.
    Tuple(Found),
    /// There is no tuple to go on with.
    NoTuple {
        /// The relation.
        relation: String,
        /// The object.
        object: String,
        /// The users that would have counted, as the type restrictions say: `user:anne`, `user:*`, `group#member`.
        looked_for: Vec<String>,
    },
    /// A parent whose type does not have the relation.
    NotAsked {
        /// The tuple that names the parent.
        tuple: Found,
        /// The relation that it does not have.
        relation: String,
    },
}

/// How steps make an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One that holds is enough. Also where there is one step only.
    Union,
    /// All must hold.
    Intersection,
    /// The first must hold, and the second must not.
    Difference,
}

/// Why a relation of an object has no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It is the userset that asks.
    Itself,
    /// The model has no way for such a user to hold it.
    OutOfReach,
    /// The same question is being asked further up.
    Cycle,
    /// It is more than the evaluator's levels away.
    TooDeep,
    /// The explanation is long enough; the outcome is the evaluator's.
    Limit,
}

/// A tuple that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The user.
    pub user: String,
    /// The relation.
    pub relation: String,
    /// The object.
    pub object: String,
    /// Its condition, if it has one.
    pub condition: Option<FoundCondition>,
}

/// The condition of a tuple with what it was evaluated with.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCondition {
    /// The name.
    pub name: String,
    /// The CEL expression.
    pub expression: String,
    /// By parameter.
    pub inputs: Vec<ConditionInput>,
    /// Whether it is met, or why that cannot be told.
    pub met: Result<bool, String>,
}

impl Step {
    fn new(outcome: Outcome, kind: StepKind, steps: Vec<Self>) -> Self {
        Self { outcome, has_say: true, kind, steps, omitted: 0 }
    }

    fn without_say(mut self) -> Self {
        self.has_say = false;
        self.steps.clear();
        self.omitted = 0;
        self
    }
}

impl Outcome {
    /// How a set operation comes out.
    #[must_use]
    pub fn of(operator: Operator, operands: &[Self]) -> Self {
        let deciding = match operator {
            Operator::Union => Self::Holds,
            Operator::Intersection | Operator::Difference => Self::DoesNotHold,
        };
        let neutral = match operator {
            Operator::Union => Self::DoesNotHold,
            Operator::Intersection | Operator::Difference => Self::Holds,
        };
        let counted = |(position, outcome): (usize, &Self)| match (operator, position) {
            (Operator::Difference, 1..) => outcome.negated(),
            (Operator::Union | Operator::Intersection | Operator::Difference, _) => *outcome,
        };
        let outcomes: Vec<Self> = operands.iter().enumerate().map(counted).collect();
        if outcomes.contains(&deciding) {
            return deciding;
        }
        // As in the evaluator: what is denied in the end weighs more than what failed.
        let denied = [Self::Doubtful, Self::Cycle].into_iter().find(|denied| outcomes.contains(denied));
        if let Some(denied) = denied.filter(|_| operator != Operator::Union) {
            return denied;
        }
        outcomes.into_iter().fold(neutral, Self::max)
    }

    fn negated(self) -> Self {
        match self {
            Self::Holds => Self::DoesNotHold,
            Self::DoesNotHold => Self::Holds,
            Self::Doubtful => Self::ConditionFailed,
            unknown @ (Self::Cycle | Self::ConditionFailed | Self::TooDeep) => unknown,
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allowed => Self::Holds,
            Verdict::Denied => Self::DoesNotHold,
            Verdict::Doubted(_) => Self::Doubtful,
            Verdict::Cyclic => Self::Cycle,
            Verdict::Failed(_) => Self::ConditionFailed,
            Verdict::TooDeep => Self::TooDeep,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.relation, self.object)
    }
}

/// Explains one question. `go_on` is asked now and then.
///
/// # Errors
/// When the model does not know the names, or the caller said to stop. What cannot be decided is explained, too.
pub(super) fn explain(
    state: &State<'_>,
    mut evaluation: Evaluation<'_>,
    (user, relation, object): (&User, &Relation, &Object),
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Explanation, CheckError> {
    let decision = match evaluation.check(relation, object, go_on) {
        Err(error @ (CheckError::Unknown(_) | CheckError::Interrupted)) => return Err(error),
        decision @ (Ok(_) | Err(CheckError::Condition(_) | CheckError::TooDeep | CheckError::TooMuchWork)) => decision,
    };
    let question = evaluation.question(relation, object)?;
    let root = state.walk(user, object, evaluation, go_on).relation(question, LEVELS_WITH_LAST, None)?;
    Ok(Explanation { user: user.clone(), relation: relation.clone(), object: object.clone(), decision, root })
}
