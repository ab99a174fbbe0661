//! Computes the size of a model as `OpenFGA`'s protobuf message `AuthorizationModel`, which is the size that a server
//! limits. All field tags have one byte, and empty texts are left out.

use crate::language::model::{
    AuthorizationModel, Condition, ModuleSource, ParameterType, RestrictionKind, Rewrite, TypeDefinition,
    TypeRestriction,
};
use crate::language::tuple::delimited;

/// The bytes of the id that a server gives to a model when it is written: a ULID of 26 characters, its tag and its
/// length.
pub const MODEL_ID_BYTES: usize = 28;
/// The bytes of an enum value below 128 with its tag.
const ENUM_BYTES: usize = 2;

/// Returns the size of a model's message in bytes, including its id.
pub(crate) fn of_model(model: &AuthorizationModel) -> usize {
    let types: usize = model.types.iter().map(|definition| delimited(of_type(definition))).sum();
    let conditions = model.conditions.iter().map(|(name, condition)| entry(name, of_condition(name, condition)));
    MODEL_ID_BYTES + text(&model.schema_version) + types + conditions.sum::<usize>()
}

fn text(text: &str) -> usize {
    if text.is_empty() { 0 } else { delimited(text.len()) }
}

/// Returns the size of a map entry, which is a message of a key and a value.
fn entry(key: &str, value_bytes: usize) -> usize {
    delimited(delimited(key.len()) + delimited(value_bytes))
}

fn of_type(definition: &TypeDefinition) -> usize {
    let rewrites = definition.relations.iter().map(|relation| entry(&relation.name, of_rewrite(&relation.rewrite)));
    let rewrites: usize = rewrites.sum();
    let metadata = definition.relations.iter().map(|relation| {
        let restrictions = relation.directly_related.iter().map(|restriction| delimited(of_restriction(restriction)));
        entry(&relation.name, restrictions.sum::<usize>() + of_source(relation.source.as_ref()))
    });
    let has_metadata = !definition.relations.is_empty() || definition.source.is_some();
    let metadata = metadata.sum::<usize>() + of_source(definition.source.as_ref());
    text(&definition.name) + rewrites + if has_metadata { delimited(metadata) } else { 0 }
}

/// Returns the size of a rewrite. The recursion is bounded because validation bounds nesting.
fn of_rewrite(rewrite: &Rewrite) -> usize {
    let relation = |name: &str| delimited(text(name));
    let all = |operands: &[Rewrite]| -> usize {
        delimited(operands.iter().map(|operand| delimited(of_rewrite(operand))).sum())
    };
    match rewrite {
        Rewrite::Direct => delimited(0),
        Rewrite::Computed(computed) => relation(computed),
        Rewrite::TupleToUserset { tupleset, computed } => delimited(relation(tupleset) + relation(computed)),
        Rewrite::Union(operands) | Rewrite::Intersection(operands) => all(operands),
        Rewrite::Difference { base, subtract } => {
            delimited(delimited(of_rewrite(base)) + delimited(of_rewrite(subtract)))
        }
    }
}

fn of_restriction(restriction: &TypeRestriction) -> usize {
    let kind = match &restriction.kind {
        RestrictionKind::Object => 0,
        RestrictionKind::Userset(relation) => delimited(relation.len()),
        RestrictionKind::Wildcard => delimited(0),
    };
    text(&restriction.type_name) + kind + text(restriction.condition.as_deref().unwrap_or_default())
}

fn of_condition(name: &str, condition: &Condition) -> usize {
    let parameters = condition.parameters.iter().map(|(name, kind)| entry(name, of_parameter(kind)));
    let metadata = condition.source.as_ref().map(|source| delimited(of_source(Some(source))));
    text(name) + text(&condition.expression) + parameters.sum::<usize>() + metadata.unwrap_or_default()
}

fn of_parameter(kind: &ParameterType) -> usize {
    ENUM_BYTES + kind.element.as_ref().map_or(0, |element| delimited(of_parameter(element)))
}

fn of_source(source: Option<&ModuleSource>) -> usize {
    source.map_or(0, |source| text(&source.module) + delimited(text(&source.file)))
}
