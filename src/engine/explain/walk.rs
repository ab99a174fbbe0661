//! The walk that finds the steps of an explanation.
//!
//! Like the evaluator, the walk stops where a question comes up inside itself. That does not change the outcome of the
//! root. If a relation holds, it also holds by a chain in which no question comes twice, and the walk looks at all
//! chains.

use serde_json::{Map, Value};

use super::{
    Closed, DEPTH_MAX, ExplanationStep, FoundCondition, FoundTuple, OPERANDS_MAX, Operator, Outcome, SIBLINGS_MAX,
    StepKind, TEXT_CHARACTERS_MAX, UNFOLDED_MAX,
};
use crate::engine::evaluator::{CheckError, Evaluation, OWN_END, below, expansion};
use crate::engine::index::{Index, Node, ObjectId, StoredCondition, Subject};
use crate::language::dsl;
use crate::language::model::{
    AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite, TypeDefinition, TypeRestriction,
};
use crate::language::program::{Program, RelationId, TypeId};
use crate::language::tuple::{Object, User};

/// The state that is explained.
pub(in crate::engine) struct ExplainedState<'a> {
    pub(in crate::engine) model: &'a AuthorizationModel,
    pub(in crate::engine) program: &'a Program,
    pub(in crate::engine) index: &'a Index,
    pub(in crate::engine) context: &'a Map<String, Value>,
}

/// One explanation in progress.
pub(super) struct Walk<'a, 'e> {
    state: &'a ExplainedState<'a>,
    /// Types and relations by the number of the relation.
    relations: Vec<(&'a TypeDefinition, &'a RelationDefinition)>,
    user: &'a User,
    /// The object of the question. No tuple need name it.
    object: &'a Object,
    evaluation: Evaluation<'e>,
    go_on: &'a mut dyn FnMut() -> bool,
    /// The questions in progress, each inside the one before.
    path: Vec<Node>,
    /// How many steps lie between the root and the current step.
    depth: usize,
    unfolded: usize,
}

/// The relation of an object that is being looked at.
#[derive(Clone, Copy)]
struct CurrentNode<'a> {
    of_type: &'a TypeDefinition,
    definition: &'a RelationDefinition,
    node: Node,
    /// How many levels the evaluator would still descend.
    levels: u32,
}

/// The result of the walk below a step.
struct Looked {
    outcome: Outcome,
    steps: Vec<ExplanationStep>,
    omitted: usize,
}

/// Says which tuples of a node are followed.
#[derive(Clone, Copy)]
enum Follow<'p> {
    /// Tuples that name usersets.
    Usersets,
    /// Tuples that name parents. Each parent whose type has the relation `computed` is asked for it; `relations` maps
    /// each such type to the number of that relation.
    Parents { computed: &'p str, relations: &'p [(TypeId, RelationId)] },
}

/// The usersets or parents of a node.
#[derive(Default)]
struct Siblings<'i> {
    asked: Vec<Asked<'i>>,
    /// Steps about usersets or parents that are not asked, because their condition is not met or their type lacks the
    /// relation.
    aside: Vec<ExplanationStep>,
}

/// A userset or parent whose tuple counts.
struct Asked<'i> {
    node: Node,
    subject: Subject,
    condition: Option<&'i StoredCondition>,
    /// The evaluator's answer.
    outcome: Outcome,
}

impl<'a> ExplainedState<'a> {
    pub(super) fn walk<'e>(
        &'a self,
        user: &'a User,
        object: &'a Object,
        evaluation: Evaluation<'e>,
        go_on: &'a mut dyn FnMut() -> bool,
    ) -> Walk<'a, 'e> {
        let of_type = |definition: &'a TypeDefinition| definition.relations.iter().map(move |r| (definition, r));
        let relations = self.model.types.iter().flat_map(of_type).collect();
        Walk { state: self, relations, user, object, evaluation, go_on, path: Vec::new(), depth: 0, unfolded: 0 }
    }
}

impl<'a> Walk<'a, '_> {
    /// Makes the step about a relation of an object.
    pub(super) fn relation(
        &mut self,
        node: Node,
        levels: u32,
        through: Option<&FoundTuple>,
    ) -> Result<ExplanationStep, CheckError> {
        let Some((of_type, definition)) = self.relations.get(node.relation.index()).copied() else {
            // Relation ids come from this very model, so this cannot happen. An error is never taken for allowed.
            return Err(CheckError::TooMuchWork);
        };
        let (operator, operands) = match &definition.rewrite {
            Rewrite::Union(operands) => (Operator::Union, operands.iter().collect()),
            Rewrite::Intersection(operands) => (Operator::Intersection, operands.iter().collect()),
            Rewrite::Difference { base, subtract } => (Operator::Difference, vec![&**base, &**subtract]),
            Rewrite::Direct | Rewrite::Computed(_) | Rewrite::TupleToUserset { .. } => {
                (Operator::Union, vec![&definition.rewrite])
            }
        };
        let kind = |closed| StepKind::Relation {
            relation: definition.name.clone(),
            object: self.name(node.object),
            definition: cut(dsl::print_relation(definition)),
            operator,
            through: through.cloned(),
            closed,
        };
        if let Some((outcome, closed)) = self.closed(node) {
            return Ok(ExplanationStep::new(outcome, kind(Some(closed)), Vec::new()));
        }
        if self.unfolded >= UNFOLDED_MAX || self.depth + steps_deep(&definition.rewrite) > DEPTH_MAX {
            let kind = kind(Some(Closed::Limit));
            return Ok(ExplanationStep::new(self.verdict(node, levels)?, kind, Vec::new()));
        }
        let kind = kind(None);
        self.unfolded += 1;
        self.depth += 1;
        self.path.push(node);
        let at = CurrentNode { of_type, definition, node, levels };
        let looked = match &definition.rewrite {
            // The only operand is the whole definition, so its steps stand for it.
            Rewrite::Direct => self.tuples(at),
            Rewrite::TupleToUserset { tupleset, computed } => self.parents(at, tupleset, computed),
            Rewrite::Computed(_) | Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => {
                self.operands(at, operator, operands)
            }
        };
        self.path.pop();
        self.depth -= 1;
        let mut looked = looked?;
        if looked.outcome == Outcome::TooDeep && self.evaluation.passes_cycles(node.relation) {
            // The evaluator visits each of a relation's own usersets or parents once, by the shortest path. The walk
            // may have come by a longer one, so the evaluator decides.
            looked.outcome = self.verdict(node, levels)?;
        }
        Ok(looked.into_step(kind))
    }

    /// Returns the outcome of a node whose definition need not be looked at.
    fn closed(&self, node: Node) -> Option<(Outcome, Closed)> {
        if self.evaluation.is_asker(node) {
            Some((Outcome::Holds, Closed::Itself))
        } else if !self.evaluation.can_hold(node.relation) {
            Some((Outcome::DoesNotHold, Closed::OutOfReach))
        } else if self.path.contains(&node) {
            let is_none = self.evaluation.passes_cycles(node.relation);
            Some((if is_none { Outcome::DoesNotHold } else { Outcome::Cycle }, Closed::Cycle))
        } else {
            None
        }
    }

    fn operands(
        &mut self,
        at: CurrentNode<'a>,
        operator: Operator,
        operands: Vec<&'a Rewrite>,
    ) -> Result<Looked, CheckError> {
        let mut steps = Vec::with_capacity(operands.len());
        for operand in operands {
            steps.push(self.operand(at, operand)?);
        }
        let outcomes: Vec<Outcome> = steps.iter().map(|step| step.outcome).collect();
        let outcome = Outcome::of(operator, &outcomes);
        let has_say = |position: usize, step: &ExplanationStep| match (operator, outcome) {
            (Operator::Union, Outcome::Holds) => step.outcome == Outcome::Holds,
            (Operator::Union, _) | (Operator::Intersection | Operator::Difference, Outcome::Holds) => true,
            (Operator::Difference, _) if position > 0 => step.outcome.negated() == outcome,
            (Operator::Intersection | Operator::Difference, _) => step.outcome == outcome,
        };
        let numbered = steps.into_iter().enumerate();
        let said = numbered.map(|(position, step)| if has_say(position, &step) { step } else { step.without_say() });
        let mut steps: Vec<ExplanationStep> = said.collect();
        if operator != Operator::Difference {
            steps.sort_by_key(|step| !step.has_say);
        }
        let omitted = steps.len().saturating_sub(OPERANDS_MAX);
        steps.truncate(OPERANDS_MAX);
        Ok(Looked { outcome, steps, omitted })
    }

    /// Makes the step about a part of a definition. A valid model bounds the nesting, so this function may call itself.
    fn operand(&mut self, at: CurrentNode<'a>, operand: &'a Rewrite) -> Result<ExplanationStep, CheckError> {
        let definition = cut(dsl::print_rewrite(operand, &at.definition.directly_related));
        self.depth += 1;
        let step = match operand {
            Rewrite::Direct => self.tuples(at).map(|looked| looked.into_step(StepKind::Tuples { definition })),
            Rewrite::Computed(computed) => {
                // The computed relation is on the level of this step, not below it.
                self.depth -= 1;
                let step = self.computed(at, computed);
                self.depth += 1;
                step
            }
            Rewrite::TupleToUserset { tupleset, computed } => {
                let looked = self.parents(at, tupleset, computed);
                looked.map(|looked| looked.into_step(StepKind::Parents { definition }))
            }
            Rewrite::Union(operands) => self.operation(at, Operator::Union, operands.iter().collect(), definition),
            Rewrite::Intersection(operands) => {
                self.operation(at, Operator::Intersection, operands.iter().collect(), definition)
            }
            Rewrite::Difference { base, subtract } => {
                self.operation(at, Operator::Difference, vec![base, subtract], definition)
            }
        };
        self.depth -= 1;
        step
    }

    fn operation(
        &mut self,
        at: CurrentNode<'a>,
        operator: Operator,
        operands: Vec<&'a Rewrite>,
        definition: String,
    ) -> Result<ExplanationStep, CheckError> {
        let looked = self.operands(at, operator, operands)?;
        Ok(looked.into_step(StepKind::Operation { operator, definition }))
    }

    fn computed(&mut self, at: CurrentNode<'a>, computed: &str) -> Result<ExplanationStep, CheckError> {
        let relation = self.state.program.relation_id(&at.of_type.name, computed)?;
        self.relation(Node { relation, object: at.node.object }, at.levels, None)
    }

    /// Looks at the tuples of a relation: those that name the user, then the usersets that they name.
    fn tuples(&mut self, at: CurrentNode<'a>) -> Result<Looked, CheckError> {
        let index = self.state.index;
        let mut named = Vec::new();
        for subject in index.subjects(at.node).iter() {
            if self.evaluation.counts_for_asker(at.node, subject, None) {
                let found = self.found(at.node, subject, None);
                named.push(ExplanationStep::new(Outcome::Holds, StepKind::Tuple(found), Vec::new()));
            }
        }
        for (subject, stored) in index.conditioned(at.node) {
            if self.evaluation.counts_for_asker(at.node, *subject, Some(stored)) {
                named.push(self.conditioned(at.node, *subject, stored)?);
            }
        }
        let followed = self.followed(at, at.node, Follow::Usersets)?;
        let outcomes: Vec<Outcome> = named.iter().map(|step| step.outcome).chain([followed.outcome]).collect();
        let outcome = Outcome::of(Operator::Union, &outcomes);
        if named.is_empty() && outcome != Outcome::Holds {
            named.extend(self.nobody_named(at, followed.steps.is_empty()));
        }
        let mut looked = Looked { outcome, steps: named, omitted: followed.omitted };
        looked.steps.extend(followed.steps);
        Ok(looked.leading_to_outcome())
    }

    /// Makes the step that says that no tuple names the user. It lists the users that would have counted: the user, the
    /// wildcard and, if no step is about a userset (`no_usersets`), the usersets. Returns `None` if the list is empty
    /// and some step is about a userset.
    fn nobody_named(&self, at: CurrentNode<'_>, no_usersets: bool) -> Option<ExplanationStep> {
        let looked_for = |restriction: &TypeRestriction| {
            let of_type = restriction.type_name == self.user.type_name();
            match (&restriction.kind, self.user) {
                (RestrictionKind::Object, User::Object(object)) if of_type => Some(object.to_string()),
                (RestrictionKind::Wildcard, User::Object(_) | User::Wildcard(_)) if of_type => {
                    Some(format!("{}:*", restriction.type_name))
                }
                (RestrictionKind::Userset(relation), User::Userset(object, own))
                    if of_type && own.as_str() == relation =>
                {
                    Some(format!("{object}#{own}"))
                }
                (RestrictionKind::Userset(relation), _) if no_usersets => {
                    Some(format!("{}#{relation}", restriction.type_name))
                }
                (RestrictionKind::Object | RestrictionKind::Wildcard | RestrictionKind::Userset(_), _) => None,
            }
        };
        let mut looked_for: Vec<String> = at.definition.directly_related.iter().filter_map(looked_for).collect();
        looked_for.dedup();
        (!looked_for.is_empty() || no_usersets).then(|| self.no_tuple(at.node, &at.definition.name, looked_for))
    }

    fn no_tuple(&self, node: Node, relation: &str, looked_for: Vec<String>) -> ExplanationStep {
        let kind = StepKind::NoTuple { relation: relation.to_owned(), object: self.name(node.object), looked_for };
        ExplanationStep::new(Outcome::DoesNotHold, kind, Vec::new())
    }

    /// Looks at the objects that a tupleset names.
    fn parents(&mut self, at: CurrentNode<'a>, tupleset: &str, computed: &str) -> Result<Looked, CheckError> {
        let program = self.state.program;
        let relation = program.relation_id(&at.of_type.name, tupleset)?;
        let node = Node { relation, object: at.node.object };
        let definition = at.of_type.relation(tupleset);
        let types = definition.into_iter().flat_map(|definition| &definition.directly_related).map(|r| &r.type_name);
        let relation_of =
            |name: &String| Some((program.type_id(name).ok()?, program.relation_id(name, computed).ok()?));
        let relations: Vec<(TypeId, RelationId)> = types.clone().filter_map(relation_of).collect();
        let mut looked = self.followed(at, node, Follow::Parents { computed, relations: &relations })?;
        if looked.steps.is_empty() {
            looked.steps.push(self.no_tuple(node, tupleset, types.cloned().collect()));
        }
        Ok(looked.leading_to_outcome())
    }

    /// Looks at the usersets or parents that the tuples of a node name.
    fn followed(&mut self, at: CurrentNode<'_>, node: Node, follow: Follow<'_>) -> Result<Looked, CheckError> {
        let mut siblings = Siblings::default();
        let (mut counting, mut failed): (Vec<Subject>, Vec<Subject>) = (Vec::new(), Vec::new());
        let index = self.state.index;
        for subject in index.subjects(node).iter().filter(|subject| follow.takes(*subject)) {
            counting.push(subject);
            if !self.has_step(subject, follow) {
                self.ask(node, subject, None, follow, &mut siblings);
            }
        }
        for (subject, stored) in index.conditioned(node).iter().filter(|(subject, _)| follow.takes(*subject)) {
            let step = self.conditioned(node, *subject, stored)?;
            let counts = step.outcome == Outcome::Holds;
            if counts {
                counting.push(*subject);
            } else if step.outcome == Outcome::ConditionFailed {
                failed.push(*subject);
            }
            match (self.has_step(*subject, follow), counts) {
                (true, _) => {}
                (false, true) => self.ask(node, *subject, Some(stored), follow, &mut siblings),
                (false, false) => siblings.aside.push(step),
            }
        }
        let relation = matches!(follow, Follow::Usersets).then_some(node.relation);
        let mut outcomes = Vec::new();
        for subject in failed {
            let is_passed_over = self.evaluation.is_passed_over(relation, subject, counting.iter().copied());
            outcomes.push(if is_passed_over { Outcome::Doubtful } else { Outcome::ConditionFailed });
        }
        let mut looked = Looked { outcome: Outcome::DoesNotHold, steps: Vec::new(), omitted: 0 };
        let Siblings { asked, aside } = siblings;
        self.unfold(at, node, follow, asked, &mut looked, &mut outcomes)?;
        looked.outcome = Outcome::of(Operator::Union, &outcomes);
        let room = SIBLINGS_MAX.saturating_sub(looked.steps.len());
        looked.omitted += aside.len().saturating_sub(room);
        looked.steps.extend(aside.into_iter().take(room));
        Ok(looked)
    }

    /// Adds a userset or parent to those that are asked, or sets it aside if its type does not have the relation.
    fn ask<'i>(
        &self,
        node: Node,
        subject: Subject,
        condition: Option<&'i StoredCondition>,
        follow: Follow<'_>,
        siblings: &mut Siblings<'i>,
    ) {
        let next = match follow {
            Follow::Usersets => expansion::userset(subject),
            Follow::Parents { relations, .. } => {
                expansion::userset(subject).or_else(|| expansion::asked(subject, relations))
            }
        };
        match (next, follow) {
            (Some(node), _) => {
                siblings.asked.push(Asked { node, subject, condition, outcome: Outcome::DoesNotHold });
            }
            (None, Follow::Parents { computed, .. }) => {
                let tuple = self.found(node, subject, condition);
                let kind = StepKind::NotAsked { tuple, relation: computed.to_owned() };
                siblings.aside.push(ExplanationStep::new(Outcome::DoesNotHold, kind, Vec::new()));
            }
            (None, Follow::Usersets) => {}
        }
    }

    /// Returns whether the tuple already has a step because it names the user.
    fn has_step(&self, subject: Subject, follow: Follow<'_>) -> bool {
        matches!(follow, Follow::Usersets) && self.evaluation.names_asker(subject)
    }

    /// Unfolds the usersets or parents that are asked. Those that decide come first.
    fn unfold(
        &mut self,
        at: CurrentNode<'_>,
        node: Node,
        follow: Follow<'_>,
        asked: Vec<Asked<'_>>,
        looked: &mut Looked,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), CheckError> {
        let to_last = match follow {
            Follow::Usersets => self.evaluation.usersets_to_last(at.node.relation, at.levels),
            Follow::Parents { relations, .. } => {
                self.evaluation.parents_to_last(at.node.relation, relations, at.levels)
            }
        };
        let below_for = |one: &Asked<'_>| below(at.levels, to_last.includes(at.node.relation, one.node.relation));
        let (mut asked, beyond): (Vec<_>, Vec<_>) = asked.into_iter().partition(|one| below_for(one).is_some());
        if let Some(first) = beyond.first() {
            // The others are as deep as the first.
            let through = self.found(node, first.subject, first.condition);
            let outcome = self.evaluation.beyond_levels(at.node.relation).into();
            looked.steps.push(self.too_deep(first.node, through, outcome));
            looked.omitted += beyond.len() - 1;
            outcomes.push(outcome);
        }
        for one in &mut asked {
            one.outcome = self.verdict(one.node, below_for(one).unwrap_or(0))?;
        }
        let own = match follow {
            Follow::Usersets => self.evaluation.has_own_usersets(at.node.relation),
            Follow::Parents { .. } => self.evaluation.has_own_parents(at.node.relation),
        };
        if own && at.levels <= OWN_END && !asked.is_empty() {
            outcomes.push(self.evaluation.beyond_levels(at.node.relation).into());
        }
        // An undecided step says more than one that does not hold.
        asked.sort_by_key(|one| match one.outcome {
            Outcome::Holds => 0,
            Outcome::TooDeep | Outcome::ConditionFailed | Outcome::Cycle | Outcome::Doubtful => 1,
            Outcome::DoesNotHold => 2,
        });
        for one in asked {
            let holds_already = looked.steps.iter().any(|step| step.outcome == Outcome::Holds);
            if looked.steps.len() >= SIBLINGS_MAX && (holds_already || one.outcome != Outcome::Holds) {
                looked.omitted += 1;
                outcomes.push(one.outcome);
                continue;
            }
            let through = self.found(node, one.subject, one.condition);
            let step = self.relation(one.node, below_for(&one).unwrap_or(0), Some(&through))?;
            outcomes.push(step.outcome);
            looked.steps.push(step);
        }
        Ok(())
    }

    fn too_deep(&self, node: Node, through: FoundTuple, outcome: Outcome) -> ExplanationStep {
        let definition = self.relations.get(node.relation.index());
        let kind = StepKind::Relation {
            relation: definition.map(|(_, definition)| definition.name.clone()).unwrap_or_default(),
            object: self.name(node.object),
            definition: definition.map(|(_, definition)| cut(dsl::print_relation(definition))).unwrap_or_default(),
            operator: Operator::Union,
            through: Some(through),
            closed: Some(Closed::TooDeep),
        };
        ExplanationStep::new(outcome, kind, Vec::new())
    }

    /// Makes the step about a tuple with a condition.
    fn conditioned(
        &mut self,
        node: Node,
        subject: Subject,
        stored: &StoredCondition,
    ) -> Result<ExplanationStep, CheckError> {
        if !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        let found = self.found(node, subject, Some(stored));
        let outcome = match found.condition.as_ref().map(|condition| &condition.met) {
            Some(Ok(true)) => Outcome::Holds,
            Some(Ok(false)) => Outcome::DoesNotHold,
            Some(Err(_)) | None => Outcome::ConditionFailed,
        };
        Ok(ExplanationStep::new(outcome, StepKind::Tuple(found), Vec::new()))
    }

    /// Asks the evaluator.
    fn verdict(&mut self, node: Node, levels: u32) -> Result<Outcome, CheckError> {
        match self.evaluation.verdict(node, levels, &mut *self.go_on) {
            Ok(verdict) => Ok(verdict.into()),
            Err(CheckError::TooMuchWork) => Ok(Outcome::TooDeep),
            Err(error) => Err(error),
        }
    }

    fn found(&self, node: Node, subject: Subject, stored: Option<&StoredCondition>) -> FoundTuple {
        FoundTuple {
            user: self.subject(subject),
            relation: self.relation_name(node.relation),
            object: self.name(node.object),
            condition: stored.map(|stored| self.found_condition(stored)),
        }
    }

    fn found_condition(&self, stored: &StoredCondition) -> FoundCondition {
        let StoredCondition { condition, context } = stored;
        let source = self.state.model.conditions.get(condition.name());
        FoundCondition {
            name: condition.name().to_owned(),
            expression: cut(source.map(|source| source.expression.clone()).unwrap_or_default()),
            inputs: condition.inputs(context.as_ref().ok(), self.state.context),
            met: stored.is_met(self.state.context).map_err(|error| error.to_string()),
        }
    }

    fn subject(&self, subject: Subject) -> String {
        match subject {
            Subject::Userset(Node { relation, object }) => {
                format!("{}#{}", self.name(object), self.relation_name(relation))
            }
            Subject::Wildcard(type_id) => format!("{}:*", self.type_name(type_id)),
            Subject::Object(_, object) => self.name(object),
        }
    }

    /// Returns the object's name. The index has a name for every object of a tuple, so an object without a name is the
    /// object of the question.
    fn name(&self, object: ObjectId) -> String {
        self.state.index.name(object).map_or_else(|| self.object.to_string(), ToString::to_string)
    }

    fn relation_name(&self, relation: RelationId) -> String {
        self.relations.get(relation.index()).map(|(_, definition)| definition.name.clone()).unwrap_or_default()
    }

    fn type_name(&self, type_id: TypeId) -> &'a str {
        self.state.model.types.get(type_id.index()).map_or("", |definition| definition.name.as_str())
    }
}

impl Looked {
    fn into_step(self, kind: StepKind) -> ExplanationStep {
        ExplanationStep { outcome: self.outcome, has_say: true, kind, steps: self.steps, omitted: self.omitted }
    }

    /// Drops and counts the steps that do not hold, if something holds. A failed condition has a say only if it is the
    /// outcome, or if the outcome is the doubt that it leaves.
    fn leading_to_outcome(mut self) -> Self {
        if self.outcome == Outcome::Holds {
            let before = self.steps.len();
            self.steps.retain(|step| step.outcome == Outcome::Holds);
            self.omitted += before - self.steps.len();
        }
        for step in &mut self.steps {
            let is_passed_over = step.outcome == Outcome::ConditionFailed && self.outcome != Outcome::Doubtful;
            step.has_say = step.outcome == self.outcome || !is_passed_over;
        }
        self
    }
}

impl Follow<'_> {
    fn takes(self, subject: Subject) -> bool {
        match (self, subject) {
            (Self::Usersets, Subject::Userset(_))
            | (Self::Parents { .. }, Subject::Object(..) | Subject::Userset(_)) => true,
            (Self::Usersets, Subject::Object(..)) | (_, Subject::Wildcard(_)) => false,
        }
    }
}

/// Returns how many levels of steps a definition has, including the tuples at its bottom.
fn steps_deep(rewrite: &Rewrite) -> usize {
    let mut deepest = 0;
    let mut pending = vec![(rewrite, 3)];
    while let Some((rewrite, depth)) = pending.pop() {
        deepest = deepest.max(depth);
        pending.extend(rewrite.operands().into_iter().map(|operand| (operand, depth + 1)));
    }
    deepest
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
