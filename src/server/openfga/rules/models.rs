//! The form that the message of a model must have. Whether the model makes sense is decided later.

use std::fmt::Display;

use openfga_client::client as api;
use openfga_client::client::relation_reference::RelationOrWildcard;

use super::super::form::{Checked, is_name, require};
use super::super::userset;
use super::{relation, store_id, type_name};
use crate::language::limits::{
    CONDITION_EXPRESSION_BYTES_MAX, CONDITIONS_MAX, MODULE_CHARS_MAX, MODULE_FILE_CHARS_MAX, PARAMETERS_MAX,
    RELATION_CHARS_MAX,
};
use crate::proto::openfga_model as wire;

/// The largest number of element types that a parameter's type may name.
const GENERIC_TYPES_MAX: usize = 5;

pub(in crate::server::openfga) fn write_authorization_model(request: &wire::WriteAuthorizationModelRequest) -> Checked {
    const MESSAGE: &str = "WriteAuthorizationModelRequest";
    store_id(MESSAGE, &request.store_id)?;
    let any = !request.type_definitions.is_empty();
    require(any, MESSAGE, "TypeDefinitions", "value must contain at least 1 item(s)")?;
    for definition in &request.type_definitions {
        type_definition(definition)?;
    }
    let known = matches!(request.schema_version.as_str(), "1.0" | "1.1" | "1.2");
    require(known, MESSAGE, "SchemaVersion", "value must be in list [1.0 1.1 1.2]")?;
    let few = request.conditions.len() <= CONDITIONS_MAX;
    require(few, MESSAGE, "Conditions", format_args!("value must contain no more than {CONDITIONS_MAX} pair(s)"))?;
    for (key, condition) in &request.conditions {
        require(is_name(key, RELATION_CHARS_MAX), MESSAGE, "Conditions", name_rule(RELATION_CHARS_MAX))?;
        self::condition(condition)?;
    }
    Ok(())
}

fn type_definition(definition: &wire::TypeDefinition) -> Checked {
    const MESSAGE: &str = "TypeDefinition";
    type_name(MESSAGE, &definition.r#type)?;
    for (name, rewrite) in &definition.relations {
        require(is_name(name, RELATION_CHARS_MAX), MESSAGE, "Relations", name_rule(RELATION_CHARS_MAX))?;
        userset::read(rewrite)?;
    }
    let Some(metadata) = &definition.metadata else { return Ok(()) };
    for relation in metadata.relations.values() {
        for reference in &relation.directly_related_user_types {
            self::reference(reference)?;
        }
        source("RelationMetadata", &relation.module, relation.source_info.as_ref())?;
    }
    source("Metadata", &metadata.module, metadata.source_info.as_ref())
}

fn reference(reference: &api::RelationReference) -> Checked {
    const MESSAGE: &str = "RelationReference";
    type_name(MESSAGE, &reference.r#type)?;
    let good = reference.condition.is_empty() || is_name(&reference.condition, RELATION_CHARS_MAX);
    require(good, MESSAGE, "Condition", name_rule(RELATION_CHARS_MAX))?;
    match &reference.relation_or_wildcard {
        Some(RelationOrWildcard::Relation(name)) if !name.is_empty() => relation(MESSAGE, name),
        Some(RelationOrWildcard::Relation(_) | RelationOrWildcard::Wildcard(_)) | None => Ok(()),
    }
}

fn condition(condition: &api::Condition) -> Checked {
    const MESSAGE: &str = "Condition";
    require(is_name(&condition.name, RELATION_CHARS_MAX), MESSAGE, "Name", name_rule(RELATION_CHARS_MAX))?;
    let short = condition.expression.len() <= CONDITION_EXPRESSION_BYTES_MAX;
    require(
        short,
        MESSAGE,
        "Expression",
        format_args!("value length must be at most {CONDITION_EXPRESSION_BYTES_MAX} bytes"),
    )?;
    let few = condition.parameters.len() <= PARAMETERS_MAX;
    require(few, MESSAGE, "Parameters", format_args!("value must contain no more than {PARAMETERS_MAX} pair(s)"))?;
    for (name, kind) in &condition.parameters {
        require(is_name(name, RELATION_CHARS_MAX), MESSAGE, "Parameters", name_rule(RELATION_CHARS_MAX))?;
        parameter(kind)?;
    }
    let Some(metadata) = &condition.metadata else { return Ok(()) };
    source("ConditionMetadata", &metadata.module, metadata.source_info.as_ref())
}

fn parameter(kind: &api::ConditionParamTypeRef) -> Checked {
    const MESSAGE: &str = "ConditionParamTypeRef";
    let known = api::condition_param_type_ref::TypeName::try_from(kind.type_name).is_ok();
    require(known, MESSAGE, "TypeName", "value must be one of the defined enum values")?;
    let few = kind.generic_types.len() <= GENERIC_TYPES_MAX;
    require(few, MESSAGE, "GenericTypes", format_args!("value must contain no more than {GENERIC_TYPES_MAX} item(s)"))?;
    kind.generic_types.iter().try_for_each(parameter)
}

fn source(message: &str, module: &str, file: Option<&api::SourceInfo>) -> Checked {
    require(module.is_empty() || is_name(module, MODULE_CHARS_MAX), message, "Module", name_rule(MODULE_CHARS_MAX))?;
    let Some(api::SourceInfo { file }) = file else { return Ok(()) };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    let well_formed = file
        .strip_suffix(".fga")
        .is_some_and(|stem| (1..=MODULE_FILE_CHARS_MAX).contains(&stem.len()) && stem.chars().all(good));
    let rule = format_args!(
        "must be a path of at most {MODULE_FILE_CHARS_MAX} letters, digits, `_`, `-` and `/` that ends with `.fga`"
    );
    require(file.is_empty() || well_formed, "SourceInfo", "File", rule)
}

fn name_rule(chars_max: usize) -> impl Display {
    format!("must have 1 to {chars_max} characters without `:`, `#`, `@`, space")
}
