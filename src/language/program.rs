//! The program that a valid model compiles to, for the evaluator to run. It has numbers in place of names, and tables
//! of the users that each relation takes.

mod dependencies;
pub(crate) mod weights;

use std::collections::HashMap;
use std::sync::Arc;

use self::dependencies::Dependencies;
use self::weights::Weights;
use super::condition::{CompileError, CompiledCondition, ConditionError};
use super::limits::{CONTEXT_BYTES_MAX, TUPLE_CONDITION_CHARS_MIN};
use super::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite};
use super::tuple::{Object, RelationshipTuple, TupleCondition, User};

/// The number of a type in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TypeId(pub(crate) u32);

impl TypeId {
    /// Returns the type's position in the model.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The number of a relation. Relations of two types have different numbers even if their names are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelationId(pub(crate) u32);

impl RelationId {
    /// Returns the relation's position in the model, counted over all types.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The number of a condition in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConditionId(u32);

/// The rule that computes a relation, with all names resolved.
#[derive(Debug)]
pub(crate) enum Expression {
    Direct,
    Computed(RelationId),
    TupleToUserset {
        tupleset: RelationId,
        /// For each type that the tupleset's objects may have, the relation to ask. A type without the relation is left
        /// out.
        computed: Vec<(TypeId, RelationId)>,
    },
    Union(Vec<Expression>),
    Intersection(Vec<Expression>),
    /// The base, then the operand that is taken out.
    Difference(Box<[Expression; 2]>),
}

/// A relation with its names resolved.
#[derive(Debug)]
struct CompiledRelation {
    expression: Expression,
    /// The types of plain users that its tuples may have, each with the condition that such a tuple must name.
    objects: Vec<(TypeId, Option<ConditionId>)>,
    wildcards: Vec<(TypeId, Option<ConditionId>)>,
    usersets: Vec<(RelationId, Option<ConditionId>)>,
    /// The relations whose answer can depend on this one.
    dependents: Vec<RelationId>,
}

/// A compiled model. Its tables are indexed by [`TypeId`] and [`RelationId`].
#[derive(Debug, Default)]
pub(crate) struct Program {
    types: HashMap<String, TypeId>,
    /// For each type, the relations' numbers by name.
    names: Vec<HashMap<String, RelationId>>,
    relations: Vec<CompiledRelation>,
    condition_ids: HashMap<String, ConditionId>,
    conditions: Vec<Arc<CompiledCondition>>,
    weights: Option<Weights>,
    /// For each relation, the number of its recursion; see [`Program::recursion`].
    recursions: Vec<Option<u32>>,
}

/// A tuple that the model admits, with its names resolved.
#[derive(Clone, Debug)]
pub(crate) struct AdmittedTuple<'a> {
    pub(crate) relation: RelationId,
    pub(crate) user: ResolvedUser<'a>,
    pub(crate) condition: Option<(ConditionId, &'a TupleCondition)>,
}

/// The relations of one type, by name.
type Siblings<'a> = HashMap<&'a str, &'a RelationDefinition>;

/// The reason why a tuple does not fit a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TupleMisfit {
    /// The model does not define this type.
    #[error("type `{0}` is not in the authorization model")]
    UnknownType(String),
    /// The type does not define this relation.
    #[error("type `{type_name}` has no relation `{relation}`")]
    UnknownRelation {
        /// The type that lacks the relation.
        type_name: String,
        /// The relation that the type lacks.
        relation: String,
    },
    /// The model does not define this condition.
    #[error("condition `{0}` is not in the authorization model")]
    UnknownCondition(String),
    /// The relation takes such users, but not with this condition, or not without a condition.
    #[error("`{user}` may not be written to relation `{relation}` of type `{type_name}` {}", with(.condition.as_deref()))]
    ConditionRestriction {
        /// The user of the tuple.
        user: String,
        /// The relation of the tuple.
        relation: String,
        /// The type of the tuple's object.
        type_name: String,
        /// The condition that the tuple names, if any.
        condition: Option<String>,
    },
    /// The stored values do not fit the condition's parameters.
    #[error(transparent)]
    Context(#[from] ConditionError),
    /// The condition's name is too short for a tuple to name it.
    #[error(
        "the name of condition `{0}` is too short for a tuple; it needs at least {TUPLE_CONDITION_CHARS_MIN} characters"
    )]
    ShortCondition(String),
    /// The condition's context is too long; holds its size in bytes.
    #[error("the context of its condition has {0} bytes, at most {CONTEXT_BYTES_MAX} are allowed")]
    LongContext(usize),
    /// The user is the very userset that the tuple is about.
    #[error("`{0}` holds that relation by definition; the tuple would say nothing")]
    Implicit(String),
    /// The relation is computed, or takes other users.
    #[error(
        "`{user}` may not be written to relation `{relation}` of type `{type_name}`: no type restriction allows it"
    )]
    TypeRestriction {
        /// The user of the tuple.
        user: String,
        /// The relation of the tuple.
        relation: String,
        /// The type of the tuple's object.
        type_name: String,
    },
}

/// A tuple that does not fit the model, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tuple `{tuple}`: {misfit}")]
pub struct MisfitTuple {
    /// The tuple that does not fit.
    pub tuple: RelationshipTuple,
    /// The reason why it does not fit.
    pub misfit: TupleMisfit,
}

/// The user of a tuple, with its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedUser<'a> {
    Object(TypeId, &'a Object),
    Wildcard(TypeId),
    Userset(RelationId, &'a Object),
}

fn with(condition: Option<&str>) -> String {
    condition.map_or_else(|| "without a condition".to_owned(), |condition| format!("with condition `{condition}`"))
}

impl Program {
    /// Compiles a model that passed validation.
    ///
    /// # Errors
    /// The conditions that do not compile.
    pub(crate) fn compile(model: &AuthorizationModel) -> Result<Self, Vec<CompileError>> {
        let mut program = Self::default();
        let mut errors = Vec::new();
        for ((name, condition), number) in model.conditions.iter().zip(0..) {
            match CompiledCondition::compile(name, condition) {
                Ok(compiled) => program.conditions.push(Arc::new(compiled)),
                Err(error) => errors.push(error),
            }
            program.condition_ids.insert(name.clone(), ConditionId(number));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut next_relation = 0..;
        for (type_definition, number) in model.types.iter().zip(0..) {
            program.types.insert(type_definition.name.clone(), TypeId(number));
            let numbered = type_definition.relations.iter().map(|r| r.name.clone()).zip(next_relation.by_ref());
            program.names.push(numbered.map(|(name, number)| (name, RelationId(number))).collect());
        }
        let mut relations = Vec::new();
        for (type_definition, number) in model.types.iter().zip(0..) {
            let siblings: Siblings<'_> = type_definition.relations.iter().map(|r| (r.name.as_str(), r)).collect();
            for relation in &type_definition.relations {
                relations.push(program.relation(TypeId(number), relation, &siblings));
            }
        }
        program.relations = relations;
        program.link_dependents();
        let dependencies = Dependencies::of(&program);
        program.weights = Weights::of(&program, &dependencies);
        program.recursions = dependencies.recursions();
        Ok(program)
    }

    pub(crate) fn type_id(&self, name: &str) -> Result<TypeId, TupleMisfit> {
        self.types.get(name).copied().ok_or_else(|| TupleMisfit::UnknownType(name.to_owned()))
    }

    pub(crate) fn relation_id(&self, type_name: &str, relation: &str) -> Result<RelationId, TupleMisfit> {
        let type_id = self.type_id(type_name)?;
        self.relation_of(type_id, relation).ok_or_else(|| TupleMisfit::UnknownRelation {
            type_name: type_name.to_owned(),
            relation: relation.to_owned(),
        })
    }

    pub(crate) fn user<'a>(&self, user: &'a User) -> Result<ResolvedUser<'a>, TupleMisfit> {
        Ok(match user {
            User::Object(object) => ResolvedUser::Object(self.type_id(object.type_name())?, object),
            User::Wildcard(type_name) => ResolvedUser::Wildcard(self.type_id(type_name.as_str())?),
            User::Userset(object, relation) => {
                ResolvedUser::Userset(self.relation_id(object.type_name(), relation.as_str())?, object)
            }
        })
    }

    /// Decides whether a tuple may be written, and whether a stored one counts. INVARIANT (restrictions at read): the
    /// index holds only tuples that the current model admits, so a tuple written under an older model grants nothing.
    pub(crate) fn admit<'a>(&self, tuple: &'a RelationshipTuple) -> Result<AdmittedTuple<'a>, TupleMisfit> {
        let user = self.user(&tuple.user)?;
        let relation = self.relation_id(tuple.object.type_name(), tuple.relation.as_str())?;
        let takes_user = |with: With| {
            self.get(relation).is_some_and(|r| match &user {
                ResolvedUser::Object(type_id, _) => with.is_taken(&r.objects, type_id),
                ResolvedUser::Wildcard(type_id) => with.is_taken(&r.wildcards, type_id),
                ResolvedUser::Userset(userset, _) => with.is_taken(&r.usersets, userset),
            })
        };
        if !takes_user(With::Anything) {
            return Err(TupleMisfit::TypeRestriction {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                type_name: tuple.object.type_name().to_owned(),
            });
        }
        let condition = match &tuple.condition {
            None => None,
            Some(condition) => {
                let id = self.condition_ids.get(condition.name()).copied();
                Some((id.ok_or_else(|| TupleMisfit::UnknownCondition(condition.name().to_owned()))?, condition))
            }
        };
        if !takes_user(With::Exactly(condition.map(|(id, _)| id))) {
            return Err(TupleMisfit::ConditionRestriction {
                user: tuple.user.to_string(),
                relation: tuple.relation.to_string(),
                type_name: tuple.object.type_name().to_owned(),
                condition: tuple.condition.as_ref().map(|condition| condition.name().to_owned()),
            });
        }
        if let ResolvedUser::Userset(userset, object) = &user
            && *userset == relation
            && **object == tuple.object
        {
            return Err(TupleMisfit::Implicit(tuple.user.to_string()));
        }
        Ok(AdmittedTuple { relation, user, condition })
    }

    /// Returns the weights of the relations, or `None` for a model to which `OpenFGA` gives none.
    pub(crate) fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }

    /// Returns the number of the recursion that a relation belongs to. A recursion is a set of relations that depend on
    /// each other through `or` alone, or a single relation that depends on itself in this way.
    pub(crate) fn recursion(&self, relation: RelationId) -> Option<u32> {
        self.recursions.get(relation.index()).copied().flatten()
    }

    pub(crate) fn condition(&self, condition: ConditionId) -> Option<&Arc<CompiledCondition>> {
        self.conditions.get(usize::try_from(condition.0).ok()?)
    }

    pub(crate) fn expression(&self, relation: RelationId) -> Option<&Expression> {
        self.get(relation).map(|r| &r.expression)
    }

    /// Returns the usersets that the relation's tuples may name.
    pub(crate) fn usersets_of(&self, relation: RelationId) -> impl Iterator<Item = RelationId> {
        self.get(relation).into_iter().flat_map(|r| r.usersets.iter().map(|(userset, _)| *userset))
    }

    /// Returns whether the relation's tuples may name a condition.
    pub(crate) fn takes_conditions(&self, relation: RelationId) -> bool {
        self.get(relation).is_some_and(|r| {
            let conditions = r.objects.iter().chain(&r.wildcards).map(|(_, condition)| condition);
            conditions.chain(r.usersets.iter().map(|(_, condition)| condition)).any(Option::is_some)
        })
    }

    /// Returns, for each relation, whether a tuple with this user could make it true, however indirectly. A check of
    /// any other relation is denied without a look at the tuples.
    pub(crate) fn reachable_from(&self, user: &ResolvedUser<'_>) -> Vec<bool> {
        match user {
            ResolvedUser::Userset(relation, _) => self.reachable(vec![*relation]),
            ResolvedUser::Object(type_id, _) | ResolvedUser::Wildcard(type_id) => {
                self.reachable(self.relations_taking(*type_id))
            }
        }
    }

    /// Returns whether the relation's tuples may name objects of the type, or everybody of it.
    pub(crate) fn takes(&self, relation: RelationId, type_id: TypeId) -> bool {
        let taken = self.get(relation).into_iter().flat_map(|r| r.objects.iter().chain(&r.wildcards));
        taken.into_iter().any(|(taken, _)| *taken == type_id)
    }

    /// Returns whether the relation's tuples may name everybody of the type.
    pub(crate) fn takes_everybody(&self, relation: RelationId, type_id: TypeId) -> bool {
        self.get(relation).is_some_and(|r| r.wildcards.iter().any(|(taken, _)| *taken == type_id))
    }

    fn relations_taking(&self, type_id: TypeId) -> Vec<RelationId> {
        let taking = |r: &CompiledRelation| r.objects.iter().chain(&r.wildcards).any(|(taken, _)| *taken == type_id);
        (0..).map(RelationId).zip(&self.relations).filter(|(_, r)| taking(r)).map(|(id, _)| id).collect()
    }

    fn reachable(&self, mut pending: Vec<RelationId>) -> Vec<bool> {
        let mut reachable = vec![false; self.relations.len()];
        while let Some(relation) = pending.pop() {
            match reachable.get_mut(relation.index()) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            pending.extend(self.get(relation).into_iter().flat_map(|r| &r.dependents));
        }
        reachable
    }

    fn get(&self, relation: RelationId) -> Option<&CompiledRelation> {
        self.relations.get(relation.index())
    }

    fn relation_of(&self, type_id: TypeId, relation: &str) -> Option<RelationId> {
        let index = usize::try_from(type_id.0).ok()?;
        self.names.get(index)?.get(relation).copied()
    }

    fn relation(&self, type_id: TypeId, relation: &RelationDefinition, siblings: &Siblings<'_>) -> CompiledRelation {
        let expression = self.compile_rewrite(type_id, &relation.rewrite, siblings);
        let mut compiled = CompiledRelation {
            expression,
            objects: Vec::new(),
            wildcards: Vec::new(),
            usersets: Vec::new(),
            dependents: Vec::new(),
        };
        for restriction in &relation.directly_related {
            let Some(user_type) = self.types.get(&restriction.type_name).copied() else { continue };
            let condition = match &restriction.condition {
                None => None,
                Some(name) => match self.condition_ids.get(name) {
                    Some(condition) => Some(*condition),
                    // A valid model defines every type that it names. If it did not, the relation would take no such
                    // users.
                    None => continue,
                },
            };
            match &restriction.kind {
                RestrictionKind::Object => compiled.objects.push((user_type, condition)),
                RestrictionKind::Wildcard => compiled.wildcards.push((user_type, condition)),
                RestrictionKind::Userset(userset) => {
                    let userset = self.relation_of(user_type, userset);
                    compiled.usersets.extend(userset.map(|userset| (userset, condition)));
                }
            }
        }
        compiled
    }

    /// Compiles a rewrite. A valid model defines every name in it; a name that is undefined would compile to a relation
    /// that nobody holds.
    fn compile_rewrite(&self, type_id: TypeId, rewrite: &Rewrite, siblings: &Siblings<'_>) -> Expression {
        let compile = |operand: &Rewrite| self.compile_rewrite(type_id, operand, siblings);
        let nobody = Expression::Union(Vec::new());
        match rewrite {
            Rewrite::Direct => Expression::Direct,
            Rewrite::Computed(computed) => self.relation_of(type_id, computed).map_or(nobody, Expression::Computed),
            Rewrite::TupleToUserset { tupleset, computed } => {
                let Some(tupleset_id) = self.relation_of(type_id, tupleset) else { return nobody };
                let parents = siblings.get(tupleset.as_str()).map(|s| s.directly_related.iter());
                let asked = parents.into_iter().flatten().filter_map(|parent| {
                    let parent_type = self.types.get(&parent.type_name).copied()?;
                    Some((parent_type, self.relation_of(parent_type, computed)?))
                });
                Expression::TupleToUserset { tupleset: tupleset_id, computed: asked.collect() }
            }
            Rewrite::Union(operands) => Expression::Union(operands.iter().map(compile).collect()),
            Rewrite::Intersection(operands) => Expression::Intersection(operands.iter().map(compile).collect()),
            Rewrite::Difference { base, subtract } => {
                Expression::Difference(Box::new([compile(base), compile(subtract)]))
            }
        }
    }

    fn link_dependents(&mut self) {
        let mut links: Vec<(RelationId, RelationId)> = Vec::new();
        for (id, relation) in (0..).map(RelationId).zip(&self.relations) {
            links.extend(relation.usersets.iter().map(|(used, _)| (*used, id)));
            let mut pending = vec![&relation.expression];
            while let Some(expression) = pending.pop() {
                match expression {
                    Expression::Direct => {}
                    Expression::Computed(used) => links.push((*used, id)),
                    Expression::TupleToUserset { computed, .. } => {
                        links.extend(computed.iter().map(|(_, used)| (*used, id)));
                    }
                    Expression::Union(operands) | Expression::Intersection(operands) => pending.extend(operands),
                    Expression::Difference(operands) => pending.extend(operands.iter()),
                }
            }
        }
        for (used, by) in links {
            if let Some(relation) = self.relations.get_mut(used.index()) {
                relation.dependents.push(by);
            }
        }
    }
}

/// The condition that a tuple names beside its user.
#[derive(Clone, Copy)]
enum With {
    Anything,
    Exactly(Option<ConditionId>),
}

impl With {
    /// Returns whether a relation takes `user` with this condition.
    fn is_taken<T: PartialEq>(self, taken: &[(T, Option<ConditionId>)], user: &T) -> bool {
        taken.iter().any(|(of, condition)| {
            of == user
                && match self {
                    Self::Anything => true,
                    Self::Exactly(with) => with == *condition,
                }
        })
    }
}
