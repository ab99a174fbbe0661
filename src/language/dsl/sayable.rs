//! Decides whether the language can express a model. A model from JSON may hold what the language cannot: `[…]` after
//! `but not` or used twice, names that are keywords, lists of lists. Reading the printed text back finds all of these.

use std::collections::BTreeMap;

use super::printer::{print_condition, print_relation, print_with_sources};
use super::{parse, printer};
use crate::language::model::{
    AuthorizationModel, Condition, ParameterType, RelationDefinition, Rewrite, TypeDefinition, TypeRestriction,
};

/// A part of a model that the language cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("OpenFGA's modeling language cannot say {part}")]
pub struct Unsayable {
    part: String,
}

/// Writes a model as text, with the module and file of each definition as a comment, if the model was joined from
/// modules. [`parse`] reads the text back as the same model, up to the order of definitions and of the operands of `or`
/// and `and`.
///
/// # Errors
/// If there is no such text.
pub fn text(model: &AuthorizationModel) -> Result<String, Unsayable> {
    let text = print_with_sources(model);
    match parse(&text) {
        Ok(read) if content(&read.model) == content(model) => Ok(text),
        Ok(_) | Err(_) => Err(Unsayable { part: unsayable_part(model) }),
    }
}

type Relations<'a> = BTreeMap<&'a str, (Rewrite, &'a [TypeRestriction])>;
type Conditions<'a> = BTreeMap<&'a str, (&'a str, &'a BTreeMap<String, ParameterType>)>;

/// Returns a model's meaning in a form that ignores the order of definitions and where they were written.
fn content(model: &AuthorizationModel) -> (&str, BTreeMap<&str, Relations<'_>>, Conditions<'_>) {
    let types = model.types.iter().map(|definition| {
        let relations = definition.relations.iter().map(|relation| {
            let printed = printer::as_printed(&relation.rewrite);
            (relation.name.as_str(), (printed, relation.directly_related.as_slice()))
        });
        (definition.name.as_str(), relations.collect())
    });
    let conditions = model.conditions.iter().map(|(name, condition)| {
        let Condition { expression, parameters, source: _ } = condition;
        (name.as_str(), (expression.as_str(), parameters))
    });
    (&model.schema_version, types.collect(), conditions.collect())
}

/// Returns the first part of a model that cannot be read back.
fn unsayable_part(model: &AuthorizationModel) -> String {
    let is_sayable = |types: Vec<TypeDefinition>, conditions: BTreeMap<String, Condition>| {
        let part = AuthorizationModel { schema_version: model.schema_version.clone(), types, conditions };
        parse(&print_with_sources(&part)).is_ok_and(|read| content(&read.model) == content(&part))
    };
    let named = |name: &str, relations: Vec<RelationDefinition>| {
        vec![TypeDefinition { name: name.to_owned(), relations, source: None }]
    };
    for definition in &model.types {
        if !is_sayable(named(&definition.name, Vec::new()), BTreeMap::new()) {
            return format!("the name of type `{}`", definition.name);
        }
        for relation in &definition.relations {
            if !is_sayable(named(&definition.name, vec![relation.clone()]), BTreeMap::new()) {
                let RelationDefinition { name, .. } = relation;
                return format!("relation `{name}` of type `{}`: {}", definition.name, print_relation(relation));
            }
        }
    }
    for (name, condition) in &model.conditions {
        let alone = BTreeMap::from([(name.clone(), condition.clone())]);
        if !is_sayable(named("user", Vec::new()), alone) {
            return format!("condition `{name}`: {}", print_condition(condition));
        }
    }
    "this model".to_owned()
}
