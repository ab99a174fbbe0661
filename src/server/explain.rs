//! `Explain`: reads a question from its message, answers it with the evaluator, and writes the explanation as a message.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use tokio::time::Instant;

use super::openfga::context_map;
use crate::authz::Provenance;
use crate::engine::Contextual;
use crate::engine::evaluator::CheckError;
use crate::engine::explain::{
    Closed, Explanation, ExplanationStep, FoundCondition, FoundTuple, Operator, Outcome, StepKind,
};
use crate::engine::snapshot::{ContextualTuplesError, Snapshot};
use crate::language::tuple::TupleCondition;
use crate::language::{
    ConditionInput, InputSource, Object, ParseError, Relation, RelationshipTuple, TupleMisfit, User,
};
use crate::proto::retrieval as message;
use crate::proto::retrieval::explain_request::Target;
use crate::proto::retrieval::explanation_step::Kind;
use crate::retrieval::request::check_collection;
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::vector_store::VectorStore;

/// The thing that a question is about.
enum Subject {
    /// An object that the caller named. A name that the model lacks is the caller's mistake.
    Object(Object),
    /// The guard of a chunk. A name that the model lacks is the reason why nobody sees the chunk, and is explained.
    Guard(Object),
}

/// A well-formed question: why does a user hold a relation, or not?
pub(super) struct Question {
    user: User,
    relation: Relation,
    subject: Subject,
    contextual: Contextual,
}

impl Question {
    /// Reads a request. Where it names a chunk, the chunk's guard is looked up. `told` is what the user's own token tells of the
    /// user; it is empty if the request names the user.
    pub(super) async fn read(
        request: message::ExplainRequest,
        told: &Contextual,
        default_relation: &Relation,
        vector_store: &dyn VectorStore,
    ) -> Result<Self, RetrievalError> {
        let mut violations = Vec::new();
        let user = User::parse(&request.user).map_err(|e| violations.push(violation("user", &e))).ok();
        let relation = if request.relation.is_empty() {
            Some(default_relation.clone())
        } else {
            Relation::parse(&request.relation).map_err(|e| violations.push(violation("relation", &e))).ok()
        };
        let Contextual { mut tuples, mut context } = told.clone();
        for (position, tuple) in request.contextual_tuples.iter().enumerate() {
            match read_tuple(tuple) {
                Ok(tuple) => tuples.push(tuple),
                Err(e) => violations.push(violation(&format!("contextual_tuples[{position}]"), &e)),
            }
        }
        for (key, value) in request.context.as_ref().map(context_map).unwrap_or_default() {
            if context.contains_key(&key) {
                violations.push(FieldViolation::new("context", format!("`{key}` is set by the token")));
            } else {
                context.insert(key, value);
            }
        }
        let subject = match request.target {
            None => {
                violations.push(FieldViolation::new("target", "is missing; set `chunk` or `object`"));
                None
            }
            Some(Target::Object(object)) => {
                let object = Object::parse(&object).map_err(|e| violations.push(violation("object", &e)));
                object.map(Subject::Object).ok()
            }
            Some(Target::Chunk(chunk)) => {
                check_collection(&chunk.collection, &mut violations);
                if violations.is_empty() { Some(guard_of(chunk, vector_store).await?) } else { None }
            }
        };
        let contextual = Contextual { tuples, context };
        match (user, relation, subject) {
            (Some(user), Some(relation), Some(subject)) if violations.is_empty() => {
                Ok(Self { user, relation, subject, contextual })
            }
            _ => Err(RetrievalError::Invalid(violations)),
        }
    }

    /// Returns the relation that the question is about.
    pub(super) fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Answers the question from one state of the relationships. Blocks its thread while the evaluation runs, at most until the
    /// deadline.
    pub(super) fn answer(
        self,
        snapshot: &Snapshot,
        by: &Provenance,
        deadline: Instant,
    ) -> Result<message::ExplainResponse, RetrievalError> {
        let Self { user, relation, subject, contextual } = self;
        let state = snapshot.for_request(&contextual.tuples, contextual.context).map_err(|error| misplaced(&error))?;
        let (Subject::Object(object) | Subject::Guard(object)) = &subject;
        let explained = state.explain(&user, &relation, object, &mut || Instant::now() < deadline);
        let (allowed, undecided, root) = match explained {
            Ok(Explanation { decision, root, .. }) => {
                (decision == Ok(true), decision.err().map(|error| error.to_string()), Some(step_message(root)))
            }
            Err(CheckError::Interrupted) => return Err(RetrievalError::DeadlineExceeded),
            Err(error) if matches!(subject, Subject::Guard(_)) => (false, Some(error.to_string()), None),
            Err(error) => return Err(RetrievalError::Invalid(vec![unknown(&error, object)])),
        };
        Ok(message::ExplainResponse {
            allowed,
            undecided: undecided.unwrap_or_default(),
            user: user.to_string(),
            relation: relation.to_string(),
            object: object.to_string(),
            authorization_model_id: by.model_id.to_string(),
            root,
            as_of: by.as_of.map(date),
        })
    }
}

/// Returns the date of a moment that has passed. The clock is read before the time that has passed since, so that the date is
/// never too late.
fn date(moment: Instant) -> Timestamp {
    SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(UNIX_EPOCH).into()
}

fn violation(field: &str, error: &ParseError) -> FieldViolation {
    FieldViolation::new(field, error.to_string())
}

fn misplaced(error: &ContextualTuplesError) -> RetrievalError {
    RetrievalError::Invalid(vec![FieldViolation::new("contextual_tuples", error.to_string())])
}

/// Returns the violation for a name that the model lacks, at the field that holds the name.
fn unknown(error: &CheckError, object: &Object) -> FieldViolation {
    let field = match error {
        CheckError::Unknown(TupleMisfit::UnknownType(name)) if name == object.type_name() => "object",
        CheckError::Unknown(TupleMisfit::UnknownType(_)) => "user",
        CheckError::Unknown(_)
        | CheckError::Condition(_)
        | CheckError::TooDeep
        | CheckError::TooMuchWork
        | CheckError::Interrupted => "relation",
    };
    FieldViolation::new(field, error.to_string())
}

fn read_tuple(tuple: &message::RelationshipTuple) -> Result<RelationshipTuple, ParseError> {
    let read = RelationshipTuple::parse(&tuple.user, &tuple.relation, &tuple.object)?;
    let Some(condition) = &tuple.condition else { return Ok(read) };
    let context = condition.context.as_ref().map(context_map).unwrap_or_default();
    Ok(read.with_condition(TupleCondition::new(&condition.name, context)?))
}

async fn guard_of(chunk: message::ChunkReference, vector_store: &dyn VectorStore) -> Result<Subject, RetrievalError> {
    let message::ChunkReference { collection, chunk_id } = chunk;
    let found = vector_store.find(&collection, std::slice::from_ref(&chunk_id)).await?;
    match found.into_iter().find(|found| found.candidate.chunk_id == chunk_id) {
        Some(found) => Ok(Subject::Guard(found.candidate.guard)),
        None => Err(RetrievalError::UnknownChunk { collection, chunk_id }),
    }
}

/// Recursive: the explanation bounds how deep its steps are nested.
fn step_message(step: ExplanationStep) -> message::ExplanationStep {
    let outcome = match step.outcome {
        Outcome::Holds => message::ExplanationOutcome::Holds,
        Outcome::DoesNotHold | Outcome::Doubtful => message::ExplanationOutcome::DoesNotHold,
        Outcome::Cycle => message::ExplanationOutcome::Cycle,
        Outcome::ConditionFailed => message::ExplanationOutcome::ConditionFailed,
        Outcome::TooDeep => message::ExplanationOutcome::TooDeep,
    };
    message::ExplanationStep {
        outcome: outcome.into(),
        has_say: step.has_say,
        kind: Some(kind_message(step.kind)),
        steps: step.steps.into_iter().map(step_message).collect(),
        omitted: u64::try_from(step.omitted).unwrap_or(u64::MAX),
    }
}

fn kind_message(kind: StepKind) -> Kind {
    match kind {
        StepKind::Relation { relation, object, definition, operator, through, closed } => {
            Kind::Relation(message::RelationStep {
                relation,
                object,
                definition,
                operator: operator_message(operator).into(),
                through: through.map(found_message),
                closed: closed.map_or(message::ClosedReason::Unspecified, closed_message).into(),
            })
        }
        StepKind::Operation { operator, definition } => {
            Kind::Operation(message::OperationStep { operator: operator_message(operator).into(), definition })
        }
        StepKind::Tuples { definition } => Kind::Tuples(definition),
        StepKind::Parents { definition } => Kind::Parents(definition),
        StepKind::Tuple(found) => Kind::Tuple(found_message(found)),
        StepKind::NoTuple { relation, object, looked_for } => {
            Kind::NoTuple(message::NoTupleStep { relation, object, looked_for })
        }
        StepKind::NotAsked { tuple, relation } => {
            Kind::NotAsked(message::NotAskedStep { tuple: Some(found_message(tuple)), relation })
        }
    }
}

fn operator_message(operator: Operator) -> message::SetOperator {
    match operator {
        Operator::Union => message::SetOperator::Union,
        Operator::Intersection => message::SetOperator::Intersection,
        Operator::Difference => message::SetOperator::Difference,
    }
}

fn closed_message(closed: Closed) -> message::ClosedReason {
    match closed {
        Closed::Itself => message::ClosedReason::Itself,
        Closed::OutOfReach => message::ClosedReason::OutOfReach,
        Closed::Cycle => message::ClosedReason::Cycle,
        Closed::TooDeep => message::ClosedReason::TooDeep,
        Closed::Limit => message::ClosedReason::Limit,
    }
}

fn found_message(FoundTuple { user, relation, object, condition }: FoundTuple) -> message::FoundTuple {
    message::FoundTuple { user, relation, object, condition: condition.map(condition_message) }
}

fn condition_message(FoundCondition { name, expression, inputs, met }: FoundCondition) -> message::FoundCondition {
    let (met, error) = match met {
        Ok(met) => (met, String::new()),
        Err(error) => (false, error),
    };
    let input = |ConditionInput { parameter, value, source }| {
        let source = match source {
            InputSource::Tuple => message::InputSource::Tuple,
            InputSource::Request => message::InputSource::Request,
            InputSource::Missing => message::InputSource::Missing,
        };
        message::ConditionInput { parameter, value, source: source.into() }
    };
    message::FoundCondition { name, expression, inputs: inputs.into_iter().map(input).collect(), met, error }
}
