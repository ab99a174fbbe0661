//! Draws an explanation as a tree on the terminal. The steps that decide come first. The steps that had no influence on
//! the answer share one line.

use std::fmt::Write;

use crate::proto::retrieval::explanation_step::Kind;
use crate::proto::retrieval::{
    ClosedReason, ExplainResponse, ExplanationOutcome as Outcome, ExplanationStep, FoundCondition, FoundTuple,
    InputSource, NoTupleStep, RelationStep, SetOperator,
};

/// The length of the longest definition on a line, in characters.
const DEFINITION_CHARACTERS_MAX: usize = 72;

/// Draws the whole picture, with the answer first.
pub(super) fn draw(explained: &ExplainResponse) -> String {
    let ExplainResponse { user, relation, object, undecided, .. } = explained;
    let question = format!("{user} {relation} {object}");
    let answer = match (explained.allowed, undecided.as_str()) {
        (true, _) => format!("allowed: {question}"),
        (false, "") => format!("denied: {question}"),
        (false, why) => format!("not decided, and so denied: {question}\n{why}"),
    };
    let mut picture = format!("{answer}\n");
    if let Some(root) = &explained.root {
        picture.push('\n');
        Pen { lines: &mut picture }
            .step(root, Branch { around: "", here: "", below: "", object: "", taken_out: false });
    }
    let _infallible = write!(picture, "\nmodel {}", explained.authorization_model_id);
    if let Some(as_of) = super::as_of(explained) {
        let _infallible = write!(picture, "\nas of {as_of}");
    }
    picture
}

struct Pen<'a> {
    lines: &'a mut String,
}

/// The branch of the tree that leads to a step.
#[derive(Clone, Copy)]
struct Branch<'a> {
    /// The lines of the branches around this one.
    around: &'a str,
    /// The branch itself, in front of the step's text.
    here: &'a str,
    /// The continuation of the branch on the lines below.
    below: &'a str,
    /// The object of the step above, which need not be named again.
    object: &'a str,
    /// Whether the step is the operand that `but not` excludes.
    taken_out: bool,
}

impl Pen<'_> {
    /// Draws one step. The recursion is bounded because the decoder bounds the nesting of a message.
    fn step(&mut self, step: &ExplanationStep, at: Branch<'_>) {
        let outcome = step.outcome();
        let line = match (at.taken_out, outcome) {
            (false, _) => format!("{} {}", mark(outcome), text(step, at.object)),
            (true, Outcome::Holds) => format!("✗ but not {}: it holds, and takes the user out", text(step, at.object)),
            (true, Outcome::DoesNotHold) => {
                // The reasons why the user is not excluded would be long and of no interest.
                self.line(at.around, at.here, &format!("✓ but not {}: it does not hold", name(step, at.object)));
                return;
            }
            (true, Outcome::Cycle | Outcome::ConditionFailed | Outcome::TooDeep | Outcome::Unspecified) => {
                format!("{} but not {}", mark(outcome), text(step, at.object))
            }
        };
        self.line(at.around, at.here, &line);
        let around = format!("{}{}", at.around, at.below);
        let object = match &step.kind {
            Some(Kind::Relation(relation)) => relation.object.as_str(),
            Some(
                Kind::Operation(_)
                | Kind::Tuples(_)
                | Kind::Parents(_)
                | Kind::Tuple(_)
                | Kind::NoTuple(_)
                | Kind::NotAsked(_),
            )
            | None => at.object,
        };
        self.steps(step, &around, object);
    }

    fn steps(&mut self, step: &ExplanationStep, around: &str, object: &str) {
        let excludes = operator(step) == SetOperator::Difference;
        let mut below = Below::default();
        below.collect(step, object);
        let notes = below.notes(step.outcome());
        let last = below.drawn.len() + notes.len();
        for (number, (position, step)) in below.drawn.iter().enumerate() {
            let (branch, rest) = branches(number + 1 == last);
            let taken_out = excludes && *position == 1;
            self.step(step, Branch { around, here: branch, below: rest, object, taken_out });
        }
        for (number, note) in notes.iter().enumerate() {
            let (branch, _) = branches(below.drawn.len() + number + 1 == last);
            self.line(around, branch, note);
        }
    }

    fn line(&mut self, around: &str, branch: &str, text: &str) {
        self.lines.push_str(around);
        self.lines.push_str(branch);
        self.lines.push_str(text);
        self.lines.push('\n');
    }
}

/// The parts of a step that are drawn below it.
#[derive(Default)]
struct Below<'a> {
    /// The steps that influence the answer, each with its position.
    drawn: Vec<(usize, &'a ExplanationStep)>,
    aside: Vec<String>,
    omitted: u64,
}

impl<'a> Below<'a> {
    /// Collects the steps to draw. The tuples and parents below a union are drawn in its place, because a line of their
    /// own would add nothing.
    fn collect(&mut self, step: &'a ExplanationStep, object: &str) {
        let operator = operator(step);
        self.omitted += step.omitted;
        for (position, below) in step.steps.iter().enumerate() {
            let transparent = matches!(below.kind, Some(Kind::Tuples(_) | Kind::Parents(_)));
            let taken_out = operator == SetOperator::Difference && position == 1;
            if !below.has_say {
                let mark = if taken_out { negated(below.outcome()) } else { mark(below.outcome()) };
                let but_not = if taken_out { "but not " } else { "" };
                self.aside.push(format!("{mark} {but_not}{}", name(below, object)));
            } else if transparent && operator == SetOperator::Union {
                self.collect(below, object);
            } else {
                self.drawn.push((position, below));
            }
        }
    }

    fn notes(&self, outcome: Outcome) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.aside.is_empty() {
            notes.push(format!("· without say: {}", self.aside.join(", ")));
        }
        match (self.omitted, outcome) {
            (0, _) => {}
            (more, Outcome::Holds) => notes.push(format!("· and {more} more")),
            (more, _) => notes.push(format!("· and {more} more that do not help")),
        }
        notes
    }
}

fn branches(last: bool) -> (&'static str, &'static str) {
    if last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn mark(outcome: Outcome) -> char {
    match outcome {
        Outcome::Holds => '✓',
        Outcome::DoesNotHold => '✗',
        Outcome::Cycle => '↺',
        Outcome::ConditionFailed => '!',
        Outcome::TooDeep | Outcome::Unspecified => '?',
    }
}

/// Returns the mark of an operand that `but not` excludes: the mark of the opposite outcome.
fn negated(outcome: Outcome) -> char {
    match outcome {
        Outcome::Holds => mark(Outcome::DoesNotHold),
        Outcome::DoesNotHold => mark(Outcome::Holds),
        unknown @ (Outcome::Cycle | Outcome::ConditionFailed | Outcome::TooDeep | Outcome::Unspecified) => {
            mark(unknown)
        }
    }
}

fn operator(step: &ExplanationStep) -> SetOperator {
    match &step.kind {
        Some(Kind::Relation(relation)) => relation.operator(),
        Some(Kind::Operation(operation)) => operation.operator(),
        Some(Kind::Tuples(_) | Kind::Parents(_) | Kind::Tuple(_) | Kind::NoTuple(_) | Kind::NotAsked(_)) | None => {
            SetOperator::Unspecified
        }
    }
}

/// Returns the name of a step within the definition above it.
fn name(step: &ExplanationStep, object: &str) -> String {
    match &step.kind {
        Some(Kind::Relation(relation)) => relation_name(relation, object),
        Some(Kind::Operation(operation)) => format!("({})", short(&operation.definition)),
        Some(Kind::Tuples(definition) | Kind::Parents(definition)) => short(definition),
        Some(Kind::Tuple(tuple)) => found(tuple),
        Some(Kind::NoTuple(none)) => no_tuple(none),
        Some(Kind::NotAsked(not_asked)) => {
            let tuple = not_asked.tuple.as_ref().map(found).unwrap_or_default();
            format!("{tuple}: its type has no relation {}", not_asked.relation)
        }
        None => "something that this version does not know".to_owned(),
    }
}

fn text(step: &ExplanationStep, object: &str) -> String {
    let Some(Kind::Relation(relation)) = &step.kind else { return name(step, object) };
    let name = name(step, object);
    let led_here = match &relation.through {
        Some(tuple) => format!("{} → {name}", found(tuple)),
        None => name,
    };
    match relation.closed() {
        ClosedReason::Unspecified if is_set_operation(&relation.definition) => {
            format!("{led_here} = {}", short(&relation.definition))
        }
        ClosedReason::Unspecified => led_here,
        ClosedReason::Itself => format!("{led_here}: that is the user itself"),
        ClosedReason::OutOfReach => format!("{led_here}: the model has no way for such a user to hold it"),
        ClosedReason::Cycle => format!("{led_here}: asked already above; a cycle decides nothing"),
        ClosedReason::TooDeep => format!("{led_here}: too many levels away, not looked at"),
        ClosedReason::Limit => format!("{led_here}: not unfolded, the explanation is long enough"),
    }
}

/// Returns whether the definition is a set operation. The steps already show any other definition.
fn is_set_operation(definition: &str) -> bool {
    [" or ", " and ", " but not "].iter().any(|operator| definition.contains(operator))
}

fn relation_name(relation: &RelationStep, object: &str) -> String {
    if relation.object == object {
        relation.relation.clone()
    } else {
        format!("{} of {}", relation.relation, relation.object)
    }
}

fn no_tuple(none: &NoTupleStep) -> String {
    let NoTupleStep { relation, object, looked_for } = none;
    // A name with a colon is one user. Any other name stands for a kind of users.
    let who = |user: &String| if user.contains(':') { user.clone() } else { format!("any {user}") };
    let who: Vec<String> = looked_for.iter().map(who).collect();
    let who = if who.is_empty() { "any such user".to_owned() } else { who.join(" or ") };
    format!("no tuple: {who} {relation} {object}")
}

fn found(tuple: &FoundTuple) -> String {
    let names = format!("{} {} {}", tuple.user, tuple.relation, tuple.object);
    match &tuple.condition {
        Some(condition) => format!("{names} with {}", condition_text(condition)),
        None => names,
    }
}

fn condition_text(condition: &FoundCondition) -> String {
    let input = |input: &crate::proto::retrieval::ConditionInput| {
        let source = match input.source() {
            InputSource::Tuple => "tuple",
            InputSource::Request => "request",
            InputSource::Missing => return format!("{} is missing", input.parameter),
            InputSource::Unspecified => "?",
        };
        format!("{} = {} ({source})", input.parameter, input.value)
    };
    let inputs: Vec<String> = condition.inputs.iter().map(input).collect();
    let met = match (condition.met, condition.error.as_str()) {
        (true, _) => "met",
        (false, "") => "not met",
        (false, _) => "cannot be evaluated",
    };
    format!("{}, {met}: {}; {}", condition.name, short(&condition.expression), inputs.join(", "))
}

fn short(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(DEFINITION_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
