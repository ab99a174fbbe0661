//! Writes a model as text, in the layout of `OpenFGA`'s own tools.

use crate::relationship::model::{
    AuthorizationModel, Condition, ParameterType, RelationDefinition, Rewrite, TypeRestriction,
};

/// The text of a model; [`super::parse`] reads it back as the same model (up to the order of `or` and `and`), unless
/// the model subtracts `[…]`, which the language cannot say.
#[must_use]
pub fn print(model: &AuthorizationModel) -> String {
    let mut text = format!("model\n  schema {}\n", model.schema_version);
    for type_definition in &model.types {
        line(&mut text, &format!("\ntype {}", type_definition.name));
        if !type_definition.relations.is_empty() {
            line(&mut text, "  relations");
        }
        for relation in &type_definition.relations {
            line(&mut text, &format!("    define {}: {}", relation.name, print_relation(relation)));
        }
    }
    for (name, condition) in &model.conditions {
        line(&mut text, &format!("\ncondition {name}{}", print_condition(condition)));
    }
    text
}

/// What a condition is, without its name: parameters and expression.
#[must_use]
pub fn print_condition(condition: &Condition) -> String {
    format!("({}) {{\n  {}\n}}", parameters(condition), condition.expression)
}

/// How a relation is defined, without its name.
#[must_use]
pub fn print_relation(relation: &RelationDefinition) -> String {
    operand(&relation.rewrite, &relation.directly_related, false)
}

/// A part of how a relation is defined.
#[must_use]
pub(crate) fn print_rewrite(rewrite: &Rewrite, directly_related: &[TypeRestriction]) -> String {
    operand(rewrite, directly_related, false)
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

/// Both readers bound how deep a rewrite is nested, so this may call itself.
fn operand(rewrite: &Rewrite, directly_related: &[TypeRestriction], nested: bool) -> String {
    let (operands, operator) = match rewrite {
        Rewrite::Direct => return restrictions(directly_related),
        Rewrite::Computed(name) => return name.clone(),
        Rewrite::TupleToUserset { tupleset, computed } => return format!("{computed} from {tupleset}"),
        Rewrite::Union(operands) => (direct_first(operands), " or "),
        Rewrite::Intersection(operands) => (direct_first(operands), " and "),
        Rewrite::Difference { base, subtract } => (vec![&**base, &**subtract], " but not "),
    };
    let shown: Vec<String> = operands.into_iter().map(|o| operand(o, directly_related, true)).collect();
    let joined = shown.join(operator);
    if nested { format!("({joined})") } else { joined }
}

/// The language takes `[…]` only at the beginning; a model from JSON may have it anywhere.
fn direct_first(operands: &[Rewrite]) -> Vec<&Rewrite> {
    let (mut first, rest): (Vec<&Rewrite>, Vec<&Rewrite>) = operands.iter().partition(|o| o.contains_direct());
    first.extend(rest);
    first
}

fn restrictions(restrictions: &[TypeRestriction]) -> String {
    let shown: Vec<String> = restrictions.iter().map(TypeRestriction::to_string).collect();
    format!("[{}]", shown.join(", "))
}

fn parameters(condition: &Condition) -> String {
    let shown: Vec<String> =
        condition.parameters.iter().map(|(name, kind)| format!("{name}: {}", parameter_type(kind))).collect();
    shown.join(", ")
}

fn parameter_type(kind: &ParameterType) -> String {
    match &kind.element {
        Some(element) => format!("{}<{}>", kind.name, element.name),
        None => kind.name.clone(),
    }
}
