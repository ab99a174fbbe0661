//! Explains why a user holds a relation on an object, or why not. An explanation is a tree of what was looked at, with
//! the tuples that decide.
//!
//! The decision is the evaluator's, and a walk over the same model and index finds the tree. The walk has no rules of
//! its own for leaves: it asks the evaluator's own functions whether a tuple names the user, whether its condition is
//! met, whether a failed condition is passed over, which node a parent stands for, and how far down the evaluator goes.
//! The rules of `or`, `and` and `but not` are the evaluator's, too. At each userset or parent the walk first asks for
//! the verdict, so that it can unfold those that decide first.
//!
//! The walk is needed because the evaluator leaves no trace from which a tree could be built. The evaluator stops at
//! the first operand that decides. It remembers one answer for each node, but not the tuples that gave it. It remembers
//! no answer for an operand of `and`, because such an operand is not a node. Where paths are long, it searches and
//! forgets the paths. A record of all this would slow down every check, and would still lack the parts at which the
//! evaluator never looked. Two rules depend on the path by which a node is reached, so the walk has its own form of
//! them: it stops at a question that it is already asking, and it does not follow a relation's own usersets or parents
//! to the last level. Tests (`agreement`) check that the tree and the decision agree on random models.
//!
//! An operand that had no say in the outcome is named and not unfolded. The size of the tree is bounded. The walk
//! counts the steps that it leaves out, and takes the evaluator's answer in their place.
//!
//! An explanation tells of hidden things, so only administrators may see it.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;

use super::evaluator::{CheckError, Evaluation, LEVELS_WITH_LAST, Verdict};
use crate::language::condition::ConditionInput;
use crate::language::tuple::{Object, Relation, User};

pub(super) use walk::ExplainedState;

/// The greatest number of relations of objects that an explanation unfolds.
pub const UNFOLDED_MAX: usize = 250;
/// The greatest number of usersets or parents of one object that are unfolded. If none of these decides but another one
/// does, that one is unfolded, too.
pub const SIBLINGS_MAX: usize = 8;
/// The greatest number of operands of one set operation that are shown.
pub const OPERANDS_MAX: usize = 32;
/// The greatest length of a definition or condition, in characters. The rest is cut off.
pub const TEXT_CHARACTERS_MAX: usize = 200;
/// The deepest nesting of steps. A step takes one level of a message, and decoders take 100 levels.
pub const DEPTH_MAX: usize = 80;

/// The decision about one question, and the tree of steps that leads to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The user who was asked about.
    pub user: User,
    /// The relation that was asked about.
    pub relation: Relation,
    /// The object that was asked about.
    pub object: Object,
    /// The evaluator's decision. An error means that there is none, which counts as denied.
    pub decision: Result<bool, CheckError>,
    /// The step about the question itself.
    pub root: ExplanationStep,
}

/// The outcome of a step, in the order of certainty: later ones are less certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The step holds for this user.
    Holds,
    /// The step does not hold.
    DoesNotHold,
    /// The step does not hold, but a failed condition was passed over beside tuples that count. Under `but not` it is
    /// [`Outcome::ConditionFailed`].
    Doubtful,
    /// The step depends on itself, so it decides nothing and counts as denied.
    Cycle,
    /// The step depends on a condition that cannot be evaluated, so there is no decision.
    ConditionFailed,
    /// The answer lies deeper than the evaluator descends, or takes more steps than it may, so there is no decision.
    TooDeep,
}

/// One relation, set operation or tuple that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplanationStep {
    /// Says whether the step holds.
    pub outcome: Outcome,
    /// Whether the outcome of the step above rests on this one. A step that has no say is not unfolded.
    pub has_say: bool,
    /// The thing that was looked at.
    pub kind: StepKind,
    /// The steps that this one rests on. For `but not` these are the base and then the subtracted part. Otherwise those
    /// that decide come first.
    pub steps: Vec<ExplanationStep>,
    /// How many more steps were looked at and are left out. They would not change the outcome.
    pub omitted: usize,
}

/// The kinds of things that a step can be about.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// A relation of an object. Its steps are the operands of its definition.
    Relation {
        /// The name of the relation.
        relation: String,
        /// The object as text.
        object: String,
        /// The relation's definition in the modeling language.
        definition: String,
        /// How the definition combines the steps.
        operator: Operator,
        /// The tuple that led here, from a userset or a parent.
        through: Option<FoundTuple>,
        /// The reason why there are no steps, if there are none.
        closed: Option<Closed>,
    },
    /// A set operation within a definition.
    Operation {
        /// How the operation combines the steps.
        operator: Operator,
        /// The operation in the modeling language.
        definition: String,
    },
    /// The tuples of the relation: `[…]` within a set operation.
    Tuples {
        /// The type restrictions in the modeling language.
        definition: String,
    },
    /// A relation of the objects that tuples of this object name: `… from …`.
    Parents {
        /// This part of the definition in the modeling language.
        definition: String,
    },
    /// A tuple that names the user, or one whose condition keeps it from counting.
    Tuple(FoundTuple),
    /// No tuple leads further from here.
    NoTuple {
        /// The relation that has no tuples.
        relation: String,
        /// The object that has no tuples.
        object: String,
        /// The users that would have counted, as the type restrictions say: `user:anne`, `user:*`, `group#member`.
        looked_for: Vec<String>,
    },
    /// A parent whose type does not have the relation.
    NotAsked {
        /// The tuple that names the parent.
        tuple: FoundTuple,
        /// The relation that the parent's type does not have.
        relation: String,
    },
}

/// How a step combines the steps below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One step that holds is enough. It is also used for a single step.
    Union,
    /// All steps must hold.
    Intersection,
    /// The first step must hold, and the second must not.
    Difference,
}

/// Says why a relation of an object has no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The relation of the object is the very userset that asks.
    Itself,
    /// The model gives such users no way to hold the relation.
    OutOfReach,
    /// A step further up asks this question already, so the explanation stops here.
    Cycle,
    /// The relation is further away than the evaluator descends.
    TooDeep,
    /// The explanation has reached its greatest size. The outcome is the evaluator's.
    Limit,
}

/// A tuple that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundTuple {
    /// The user as text.
    pub user: String,
    /// The name of the relation.
    pub relation: String,
    /// The object as text.
    pub object: String,
    /// The tuple's condition, if it has one.
    pub condition: Option<FoundCondition>,
}

/// A tuple's condition, with the values that it was evaluated with.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCondition {
    /// The name of the condition.
    pub name: String,
    /// The condition's CEL expression.
    pub expression: String,
    /// The values of the parameters.
    pub inputs: Vec<ConditionInput>,
    /// Whether the condition is met, or why it cannot be evaluated.
    pub met: Result<bool, String>,
}

impl ExplanationStep {
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
    /// Returns the outcome of a set operation, given those of its operands. The evaluator's own rules combine them.
    #[must_use]
    pub fn of(operator: Operator, operands: &[Self]) -> Self {
        let verdicts = operands.iter().enumerate().map(|(position, outcome)| {
            let is_subtracted = operator == Operator::Difference && position > 0;
            if is_subtracted { outcome.verdict().negated() } else { outcome.verdict() }
        });
        let deciding = match operator {
            Operator::Union => Verdict::Allowed,
            Operator::Intersection | Operator::Difference => Verdict::Denied,
        };
        let mut so_far = deciding.negated();
        for verdict in verdicts {
            if verdict == deciding {
                return deciding.into();
            }
            so_far = match operator {
                Operator::Union => so_far.or(verdict),
                Operator::Intersection | Operator::Difference => so_far.and(verdict),
            };
        }
        so_far.into()
    }

    fn negated(self) -> Self {
        self.verdict().negated().into()
    }

    /// Returns the evaluator's verdict for this outcome. The verdict names no failed condition, because each step shows
    /// its own.
    fn verdict(self) -> Verdict {
        match self {
            Self::Holds => Verdict::Allowed,
            Self::DoesNotHold => Verdict::Denied,
            Self::Doubtful => Verdict::Doubted(0),
            Self::Cycle => Verdict::Cyclic,
            Self::ConditionFailed => Verdict::Failed(0),
            Self::TooDeep => Verdict::TooDeep,
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

impl fmt::Display for FoundTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.relation, self.object)
    }
}

/// Explains one question. `go_on` is called now and then; `false` ends the work.
///
/// # Errors
/// When the model does not know the names, or `go_on` returns `false`. A question that has no answer is explained, too.
pub(super) fn explain(
    state: &ExplainedState<'_>,
    mut evaluation: Evaluation<'_>,
    user: &User,
    relation: &Relation,
    object: &Object,
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
