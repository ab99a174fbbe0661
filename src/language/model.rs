//! Authorization models: the types, their relations, and how each relation is computed.
//!
//! One structure for both written forms (the DSL and JSON). A value of this type may still be ill-formed (an undefined
//! relation, say): `validate` decides that, and the evaluator takes only what it accepts.

use std::collections::BTreeMap;
use std::fmt;

/// An authorization model as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationModel {
    /// `1.1` or `1.2`.
    pub schema_version: String,
    /// In the order in which they were written.
    pub types: Vec<TypeDefinition>,
    /// Conditions by name.
    pub conditions: BTreeMap<String, Condition>,
}

/// One type and its relations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeDefinition {
    /// The name of the type.
    pub name: String,
    /// In the order in which they were written.
    pub relations: Vec<RelationDefinition>,
    /// Where a module defined it (schema 1.2).
    pub source: Option<ModuleSource>,
}

/// One relation: how it is computed, and what may be written to it directly.
#[derive(Clone, Debug, PartialEq)]
pub struct RelationDefinition {
    /// The name of the relation.
    pub name: String,
    /// How it is computed.
    pub rewrite: Rewrite,
    /// What a tuple of this relation may have as its user (`[user, group#member]`). Empty when nothing is direct.
    pub directly_related: Vec<TypeRestriction>,
    /// Where a module defined it (schema 1.2).
    pub source: Option<ModuleSource>,
}

/// How a relation is computed (`OpenFGA` calls it a userset rewrite).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rewrite {
    /// `[…]`: the tuples of this relation.
    Direct,
    /// `viewer`: another relation of the same object.
    Computed(String),
    /// `viewer from parent`: a relation of the objects that `tupleset` names.
    TupleToUserset {
        /// The relation of this object whose tuples name the other objects.
        tupleset: String,
        /// The relation that is asked of those.
        computed: String,
    },
    /// `a or b`.
    Union(Vec<Rewrite>),
    /// `a and b`.
    Intersection(Vec<Rewrite>),
    /// `base but not subtract`.
    Difference {
        /// Who is meant at first.
        base: Box<Rewrite>,
        /// Who is taken out.
        subtract: Box<Rewrite>,
    },
}

/// One entry of `[…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRestriction {
    /// The type of the user.
    pub type_name: String,
    /// Objects, a userset or everybody.
    pub kind: RestrictionKind,
    /// The condition that the tuple must name (`with …`), if any.
    pub condition: Option<String>,
}

/// What of a type may be written directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestrictionKind {
    /// `user`.
    Object,
    /// `group#member`.
    Userset(String),
    /// `user:*`.
    Wildcard,
}

/// A condition: parameters and a CEL expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The CEL expression, as written.
    pub expression: String,
    /// Parameter types by name.
    pub parameters: BTreeMap<String, ParameterType>,
    /// Where a module defined it (schema 1.2).
    pub source: Option<ModuleSource>,
}

/// The type of a condition's parameter: a name such as `string` or `list`, and for containers the element's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterType {
    /// `any bool string int uint double duration timestamp map list ipaddress`.
    pub name: String,
    /// Of `map` and `list`.
    pub element: Option<Box<ParameterType>>,
}

/// The module and file of a definition (schema 1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// The module's name.
    pub module: String,
    /// The file's name.
    pub file: String,
}

impl AuthorizationModel {
    /// The definition of a type.
    #[must_use]
    pub fn type_definition(&self, name: &str) -> Option<&TypeDefinition> {
        self.types.iter().find(|t| t.name == name)
    }
}

impl TypeDefinition {
    /// The definition of a relation.
    #[must_use]
    pub fn relation(&self, name: &str) -> Option<&RelationDefinition> {
        self.relations.iter().find(|r| r.name == name)
    }
}

impl Rewrite {
    /// The operands of a set operation, in order; none for the others.
    #[must_use]
    pub fn operands(&self) -> Vec<&Rewrite> {
        match self {
            Self::Direct | Self::Computed(_) | Self::TupleToUserset { .. } => Vec::new(),
            Self::Union(operands) | Self::Intersection(operands) => operands.iter().collect(),
            Self::Difference { base, subtract } => vec![base, subtract],
        }
    }

    /// What is not a set operation, from left to right.
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

    /// Whether `[…]` is a part of it.
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
