//! Checks the size of a model against `OpenFGA`'s [`limits`](crate::language::limits).

use super::{ModelError, ModelPart, RelationPlace, wire_size};
use crate::language::limits::{
    CONDITION_EXPRESSION_BYTES_MAX, CONDITIONS_MAX, MODEL_BYTES_MAX, MODULE_CHARS_MAX, MODULE_FILE_CHARS_MAX,
    PARAMETERS_MAX, RELATION_CHARS_MAX, TYPES_MAX,
};
use crate::language::model::{AuthorizationModel, Condition, ModuleSource};

pub(super) fn check(model: &AuthorizationModel) -> Vec<ModelError> {
    let mut errors = Vec::new();
    let mut hold = |place: ModelPart, found: usize, max: usize, what: &str| {
        if found > max {
            let message = format!("the model has {found} {what}, at most {max} are allowed");
            errors.push(ModelError::new(place, message));
        }
    };
    hold(ModelPart::Model, model.types.len(), TYPES_MAX, "types");
    hold(ModelPart::Model, model.conditions.len(), CONDITIONS_MAX, "conditions");
    hold(ModelPart::Model, wire_size::of_model(model), MODEL_BYTES_MAX, "bytes");
    for (index, (name, condition)) in model.conditions.iter().enumerate() {
        self::condition(ModelPart::Condition(index), name, condition, &mut errors);
        source(ModelPart::Condition(index), condition.source.as_ref(), &mut errors);
    }
    for (type_index, definition) in model.types.iter().enumerate() {
        source(ModelPart::Type(type_index), definition.source.as_ref(), &mut errors);
        for (relation_index, relation) in definition.relations.iter().enumerate() {
            let place = ModelPart::Relation(RelationPlace { type_index, relation_index });
            source(place, relation.source.as_ref(), &mut errors);
        }
    }
    errors
}

fn condition(place: ModelPart, name: &str, condition: &Condition, errors: &mut Vec<ModelError>) {
    let mut refuse = |message: String| errors.push(ModelError::new(place, message));
    if !is_name(name, RELATION_CHARS_MAX) {
        refuse(format!("condition `{name}` {NAME_RULE}"));
    }
    let bytes = condition.expression.len();
    if bytes > CONDITION_EXPRESSION_BYTES_MAX {
        refuse(format!(
            "the expression of condition `{name}` has {bytes} bytes, at most {CONDITION_EXPRESSION_BYTES_MAX} are allowed"
        ));
    }
    let count = condition.parameters.len();
    if count > PARAMETERS_MAX {
        refuse(format!("condition `{name}` has {count} parameters, at most {PARAMETERS_MAX} are allowed"));
    }
    for parameter in condition.parameters.keys() {
        if !is_name(parameter, RELATION_CHARS_MAX) {
            refuse(format!("parameter `{parameter}` of condition `{name}` {NAME_RULE}"));
        }
    }
}

fn source(place: ModelPart, source: Option<&ModuleSource>, errors: &mut Vec<ModelError>) {
    let Some(ModuleSource { module, file }) = source else { return };
    if !module.is_empty() && !is_name(module, MODULE_CHARS_MAX) {
        errors.push(ModelError::new(place, format!("module `{module}` {NAME_RULE}")));
    }
    if !file.is_empty() && !is_file(file) {
        let message = format!(
            "the file name `{file}` must have 1 to {MODULE_FILE_CHARS_MAX} letters, digits, `_`, `-` or `/` before `.fga`"
        );
        errors.push(ModelError::new(place, message));
    }
}

const NAME_RULE: &str = "must have a name of 1 to 50 characters without `:`, `#`, `@` or white space";

fn is_name(name: &str, chars_max: usize) -> bool {
    let bad = |c: char| matches!(c, ':' | '#' | '@' | ' ' | '\t' | '\n' | '\u{c}' | '\r');
    (1..=chars_max).contains(&name.chars().count()) && !name.contains(bad)
}

fn is_file(file: &str) -> bool {
    let Some(stem) = file.strip_suffix(".fga") else { return false };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    (1..=MODULE_FILE_CHARS_MAX).contains(&stem.len()) && stem.chars().all(good)
}
