//! Authorization models: the types, their relations, and how each relation is computed.
//!
//! One structure serves both written forms (the DSL and JSON). A value of this type may still be ill-formed: it may
//! name an undefined relation, say. [`validate`](super::validate) finds such mistakes, and the evaluator takes only
//! models that passed it.

use std::collections::BTreeMap;
use std::fmt;

/// An authorization model as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationModel {
    /// The version of the modeling language: `1.1` or `1.2`.
    pub schema_version: String,
    /// The types, in the order in which they were written.
    pub types: Vec<TypeDefinition>,
    /// The conditions, by name.
    pub conditions: BTreeMap<String, Condition>,
}

/// A type and its relations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeDefinition {
    /// The type's name, such as `document`.
    pub name: String,
    /// The type's relations, in the order in which they were written.
    pub relations: Vec<RelationDefinition>,
    /// The module that defined the type (schema 1.2 only).
    pub source: Option<ModuleSource>,
}

/// A relation: how it is computed, and which users may be written to it directly.
#[derive(Clone, Debug, PartialEq)]
pub struct RelationDefinition {
    /// The relation's name, such as `can_read`.
    pub name: String,
    /// The rule that computes the relation.
    pub rewrite: Rewrite,
    /// The users that a tuple of this relation may have (`[user, group#member]`). Empty when the rewrite has no `[…]`.
    pub directly_related: Vec<TypeRestriction>,
    /// The module that defined the relation (schema 1.2 only).
    pub source: Option<ModuleSource>,
}

/// The rule that computes a relation. `OpenFGA` calls it a userset rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rewrite {
    /// `[…]`: the users of this relation's own tuples.
    Direct,
    /// `viewer`: the users of another relation of the same object.
    Computed(String),
    /// `viewer from parent`: the users of the relation `computed` on the objects that the tuples of `tupleset` name.
    TupleToUserset {
        /// The relation of this object whose tuples name the other objects.
        tupleset: String,
        /// The relation that is looked up on those objects.
        computed: String,
    },
    /// `a or b`: the users of any operand.
    Union(Vec<Rewrite>),
    /// `a and b`: the users whom all operands have in common.
    Intersection(Vec<Rewrite>),
    /// `base but not subtract`: the users of `base` who are not users of `subtract`.
    Difference {
        /// The users before the subtraction.
        base: Box<Rewrite>,
        /// The users who are taken out.
        subtract: Box<Rewrite>,
    },
}

/// An entry of `[…]`: one kind of user that a relation takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRestriction {
    /// The type that such a user has.
    pub type_name: String,
    /// Whether the entry takes objects, usersets or everybody of the type.
    pub kind: RestrictionKind,
    /// The condition that such a tuple must name (`with …`), if any.
    pub condition: Option<String>,
}

/// The form of the users that a [`TypeRestriction`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestrictionKind {
    /// Single objects of the type, such as `user:anne`, written as `user`.
    Object,
    /// Everybody who holds this relation on an object of the type: `group#member`.
    Userset(String),
    /// Everybody of the type: `user:*`.
    Wildcard,
}

/// A condition: its parameters and a CEL expression over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The CEL expression, as it was written.
    pub expression: String,
    /// The parameters' types, by name.
    pub parameters: BTreeMap<String, ParameterType>,
    /// The module that defined the condition (schema 1.2 only).
    pub source: Option<ModuleSource>,
}

/// The type of a condition's parameter: a name such as `string` or `list`, and for containers the element's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterType {
    /// One of `any`, `bool`, `string`, `int`, `uint`, `double`, `duration`, `timestamp`, `map`, `list`, `ipaddress`.
    pub name: String,
    /// The type of the elements of a `map` or a `list`.
    pub element: Option<Box<ParameterType>>,
}

/// The module and the file that define something (schema 1.2 only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// The module's name, as the file's first line gives it.
    pub module: String,
    /// The file's name, such as `core.fga`.
    pub file: String,
}

impl AuthorizationModel {
    /// Returns the definition of a type, or `None` if the model has no type of that name.
    #[must_use]
    pub fn type_definition(&self, name: &str) -> Option<&TypeDefinition> {
        self.types.iter().find(|t| t.name == name)
    }
}

impl TypeDefinition {
    /// Returns the definition of a relation, or `None` if the type has no relation of that name.
    #[must_use]
    pub fn relation(&self, name: &str) -> Option<&RelationDefinition> {
        self.relations.iter().find(|r| r.name == name)
    }
}

impl Rewrite {
    /// Returns the operands of a set operation in the order in which they were written. All other rewrites have none.
    #[must_use]
    pub fn operands(&self) -> Vec<&Rewrite> {
        match self {
            Self::Direct | Self::Computed(_) | Self::TupleToUserset { .. } => Vec::new(),
            Self::Union(operands) | Self::Intersection(operands) => operands.iter().collect(),
            Self::Difference { base, subtract } => vec![base, subtract],
        }
    }

    /// Returns the parts that are not set operations, from left to right.
    #[must_use]
    pub fn leaves(&self) -> Vec<&Rewrite> {
        let mut leaves = Vec::new();
        let mut pending = vec![self];
        while let Some(rewrite) = pending.pop() {
            match rewrite {
                Self::Direct | Self::Computed(_) | Self::TupleToUserset { .. } => leaves.push(rewrite),
                Self::Union(_) | Self::Intersection(_) | Self::Difference { .. } => {
                    pending.extend(rewrite.operands().into_iter().rev());
                }
            }
        }
        leaves
    }

    /// Returns whether `[…]` is a part of the rewrite.
    #[must_use]
    pub fn contains_direct(&self) -> bool {
        self.leaves().iter().any(|leaf| matches!(leaf, Self::Direct))
    }
}

impl fmt::Display for TypeRestriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.type_name)?;
        match &self.kind {
            RestrictionKind::Object => {}
            RestrictionKind::Userset(relation) => write!(f, "#{relation}")?,
            RestrictionKind::Wildcard => f.write_str(":*")?,
        }
        match &self.condition {
            Some(condition) => write!(f, " with {condition}"),
            None => Ok(()),
        }
    }
}
