//! Turns the API's messages of authorization models into models, and back.

use std::collections::BTreeMap;

use openfga_client::client as api;
use openfga_client::client::condition_param_type_ref::TypeName;
use openfga_client::client::relation_reference::RelationOrWildcard;
use openfga_client::client::userset::Userset;
use prost::Message;

use super::error::{ErrorNumber, OpenFgaError};
use super::userset::{self, NoRewrite};
use crate::language::model::{
    AuthorizationModel, Condition, ModuleSource, ParameterType, RelationDefinition, RestrictionKind, Rewrite,
    TypeDefinition, TypeRestriction,
};
use crate::language::validate::NESTING_MAX;
use crate::proto::openfga_model as wire;
use crate::tuple_store::StoredModel;

const TYPE_NAME: &str = "TYPE_NAME_";

/// Returns the model of a message.
pub(super) fn read(message: &wire::AuthorizationModel) -> Result<AuthorizationModel, OpenFgaError> {
    let types: Result<Vec<TypeDefinition>, OpenFgaError> = message.type_definitions.iter().map(read_type).collect();
    let mut conditions = BTreeMap::new();
    for (name, condition) in &message.conditions {
        if *name != condition.name {
            return Err(invalid(format!("condition `{}` stands under the name `{name}`", condition.name)));
        }
        conditions.insert(name.clone(), read_condition(condition)?);
    }
    Ok(AuthorizationModel { schema_version: message.schema_version.clone(), types: types?, conditions })
}

/// Returns the message of a stored model. A model that a client sent is given back as it was sent.
pub(super) fn write(stored: &StoredModel) -> Result<wire::AuthorizationModel, OpenFgaError> {
    let message = if stored.original.is_empty() {
        write_model(&stored.model)
    } else {
        wire::AuthorizationModel::decode(stored.original.as_slice()).map_err(|error| {
            tracing::error!(%error, "the stored model cannot be read");
            OpenFgaError::internal()
        })?
    };
    Ok(wire::AuthorizationModel { id: stored.id.to_string(), ..message })
}

fn invalid(message: impl Into<String>) -> OpenFgaError {
    OpenFgaError::new(ErrorNumber::InvalidAuthorizationModel, message)
}

fn read_type(message: &wire::TypeDefinition) -> Result<TypeDefinition, OpenFgaError> {
    let metadata = message.metadata.as_ref();
    let mut relations = Vec::new();
    for (name, rewrite) in &message.relations {
        let of_relation = metadata.and_then(|metadata| metadata.relations.get(name));
        let restrictions = of_relation.map(|of_relation| of_relation.directly_related_user_types.as_slice());
        relations.push(RelationDefinition {
            name: name.clone(),
            rewrite: read_rewrite(name, rewrite)?,
            directly_related: read_restrictions(name, restrictions.unwrap_or_default())?,
            source: of_relation
                .and_then(|of_relation| read_source(&of_relation.module, of_relation.source_info.as_ref())),
        });
    }
    let source = metadata.and_then(|metadata| read_source(&metadata.module, metadata.source_info.as_ref()));
    Ok(TypeDefinition { name: message.r#type.clone(), relations, source })
}

fn read_rewrite(relation: &str, message: &[u8]) -> Result<Rewrite, OpenFgaError> {
    // The rules have read it before, so this never fails.
    let tree = userset::read(message).map_err(|refusal| invalid(refusal.text()))?;
    tree.into_rewrite().map_err(|no_rewrite| match no_rewrite {
        NoRewrite::Incomplete => invalid(format!("the definition of relation `{relation}` is incomplete")),
        NoRewrite::TooDeep => invalid(format!("relation `{relation}` is nested more than {NESTING_MAX} deep")),
    })
}

fn read_restrictions(
    relation: &str,
    messages: &[api::RelationReference],
) -> Result<Vec<TypeRestriction>, OpenFgaError> {
    let mut restrictions = Vec::with_capacity(messages.len());
    for message in messages {
        let type_name = message.r#type.clone();
        let kind = match &message.relation_or_wildcard {
            Some(RelationOrWildcard::Wildcard(_)) => RestrictionKind::Wildcard,
            Some(RelationOrWildcard::Relation(userset)) if userset.is_empty() => {
                return Err(invalid(format!("relation `{relation}` names an empty relation of type `{type_name}`")));
            }
            Some(RelationOrWildcard::Relation(userset)) => RestrictionKind::Userset(userset.clone()),
            None => RestrictionKind::Object,
        };
        let condition = Some(message.condition.clone()).filter(|name| !name.is_empty());
        restrictions.push(TypeRestriction { type_name, kind, condition });
    }
    Ok(restrictions)
}

fn read_condition(message: &api::Condition) -> Result<Condition, OpenFgaError> {
    let mut parameters = BTreeMap::new();
    for (name, kind) in &message.parameters {
        parameters.insert(name.clone(), read_parameter(name, kind)?);
    }
    let metadata = message.metadata.as_ref();
    let source = metadata.and_then(|metadata| read_source(&metadata.module, metadata.source_info.as_ref()));
    Ok(Condition { expression: message.expression.clone(), parameters, source })
}

fn read_parameter(name: &str, message: &api::ConditionParamTypeRef) -> Result<ParameterType, OpenFgaError> {
    let kind = TypeName::try_from(message.type_name).unwrap_or(TypeName::Unspecified);
    if kind == TypeName::Unspecified {
        return Err(invalid(format!("parameter `{name}` has no type")));
    }
    let element = match (kind, message.generic_types.as_slice()) {
        (TypeName::Map | TypeName::List, [element]) => Some(Box::new(read_parameter(name, element)?)),
        (TypeName::Map | TypeName::List, _) => {
            return Err(invalid(format!("parameter `{name}` must name the type of its elements")));
        }
        (_, []) => None,
        (_, [_, ..]) => return Err(invalid(format!("parameter `{name}` has no elements, but names a type for them"))),
    };
    let kind = kind.as_str_name();
    Ok(ParameterType { name: kind.strip_prefix(TYPE_NAME).unwrap_or(kind).to_lowercase(), element })
}

fn read_source(module: &str, file: Option<&api::SourceInfo>) -> Option<ModuleSource> {
    let file = file.map(|source| source.file.clone()).unwrap_or_default();
    (!module.is_empty() || !file.is_empty()).then(|| ModuleSource { module: module.to_owned(), file })
}

fn write_model(model: &AuthorizationModel) -> wire::AuthorizationModel {
    let conditions = model.conditions.iter().map(|(name, condition)| (name.clone(), write_condition(name, condition)));
    wire::AuthorizationModel {
        id: String::new(),
        schema_version: model.schema_version.clone(),
        type_definitions: model.types.iter().map(write_type).collect(),
        conditions: conditions.collect(),
    }
}

fn write_type(definition: &TypeDefinition) -> wire::TypeDefinition {
    let relations = definition
        .relations
        .iter()
        .map(|relation| (relation.name.clone(), write_rewrite(&relation.rewrite).encode_to_vec()));
    let metadata = definition.relations.iter().map(|relation| {
        let (module, source_info) = write_source(relation.source.as_ref());
        let restrictions = relation.directly_related.iter().map(write_restriction).collect();
        (
            relation.name.clone(),
            api::RelationMetadata { directly_related_user_types: restrictions, module, source_info },
        )
    });
    let has_metadata = !definition.relations.is_empty() || definition.source.is_some();
    let (module, source_info) = write_source(definition.source.as_ref());
    wire::TypeDefinition {
        r#type: definition.name.clone(),
        relations: relations.collect(),
        metadata: has_metadata.then(|| api::Metadata { relations: metadata.collect(), module, source_info }),
    }
}

fn write_rewrite(rewrite: &Rewrite) -> api::Userset {
    let relation = |name: &str| api::ObjectRelation { object: String::new(), relation: name.to_owned() };
    let all = |operands: &[Rewrite]| api::Usersets { child: operands.iter().map(write_rewrite).collect() };
    let userset = match rewrite {
        Rewrite::Direct => Userset::This(api::DirectUserset {}),
        Rewrite::Computed(computed) => Userset::ComputedUserset(relation(computed)),
        Rewrite::TupleToUserset { tupleset, computed } => Userset::TupleToUserset(api::TupleToUserset {
            tupleset: Some(relation(tupleset)),
            computed_userset: Some(relation(computed)),
        }),
        Rewrite::Union(operands) => Userset::Union(all(operands)),
        Rewrite::Intersection(operands) => Userset::Intersection(all(operands)),
        Rewrite::Difference { base, subtract } => Userset::Difference(Box::new(api::Difference {
            base: Some(Box::new(write_rewrite(base))),
            subtract: Some(Box::new(write_rewrite(subtract))),
        })),
    };
    api::Userset { userset: Some(userset) }
}

fn write_restriction(restriction: &TypeRestriction) -> api::RelationReference {
    let relation_or_wildcard = match &restriction.kind {
        RestrictionKind::Object => None,
        RestrictionKind::Userset(relation) => Some(RelationOrWildcard::Relation(relation.clone())),
        RestrictionKind::Wildcard => Some(RelationOrWildcard::Wildcard(api::Wildcard {})),
    };
    let condition = restriction.condition.clone().unwrap_or_default();
    api::RelationReference { r#type: restriction.type_name.clone(), condition, relation_or_wildcard }
}

fn write_condition(name: &str, condition: &Condition) -> api::Condition {
    let parameters = condition.parameters.iter().map(|(name, kind)| (name.clone(), write_parameter(kind)));
    let metadata = condition.source.as_ref().map(|source| {
        let (module, source_info) = write_source(Some(source));
        api::ConditionMetadata { module, source_info }
    });
    api::Condition {
        name: name.to_owned(),
        expression: condition.expression.clone(),
        parameters: parameters.collect(),
        metadata,
    }
}

fn write_parameter(kind: &ParameterType) -> api::ConditionParamTypeRef {
    let name = format!("{TYPE_NAME}{}", kind.name.to_uppercase());
    api::ConditionParamTypeRef {
        type_name: TypeName::from_str_name(&name).unwrap_or(TypeName::Unspecified).into(),
        generic_types: kind.element.iter().map(|element| write_parameter(element)).collect(),
    }
}

fn write_source(source: Option<&ModuleSource>) -> (String, Option<api::SourceInfo>) {
    source.map_or_else(Default::default, |source| {
        (source.module.clone(), Some(api::SourceInfo { file: source.file.clone() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::dsl;
    use crate::language::validate::{MODEL_ID_BYTES, model_wire_bytes};

    /// The limit on models counts the bytes of the message, which are computed from the model alone.
    #[test]
    fn a_model_is_measured_as_on_the_wire() {
        let whole = "model\n  schema 1.2\ntype user\ntype group\n  relations\n    define member: [user, group#member]\n\
                     type doc\n  relations\n    define parent: [doc, group]\n    define owner: [user, user:* with recent]\n\
                     \x20   define a: ([user with recent, group#member] or (owner and a from parent)) but not owner\n\
                     condition recent(age: int, tags: list<string>, more: map<timestamp>) { age < 10 }\n";
        let mut of_modules = dsl::parse(whole).expect("a model").model;
        let source = |file: &str| Some(ModuleSource { module: "core".to_owned(), file: file.to_owned() });
        of_modules.types[1].source = source("core.fga");
        of_modules.types[2].relations[0].source = source("");
        for condition in of_modules.conditions.values_mut() {
            condition.source = source("conditions/core.fga");
        }
        let mut long = dsl::parse(whole).expect("a model").model;
        long.types[0].name = "u".repeat(254);
        long.types[2].relations[2].rewrite = Rewrite::Union(vec![Rewrite::Computed("owner".to_owned()); 4_000]);
        let rows = [
            ("the smallest", dsl::parse("model\n  schema 1.1\ntype user\n").expect("a model").model),
            ("whole", dsl::parse(whole).expect("a model").model),
            ("of modules", of_modules),
            ("with long parts", long),
        ];
        for (row, model) in rows {
            assert_eq!(model_wire_bytes(&model), write_model(&model).encoded_len() + MODEL_ID_BYTES, "{row}");
        }
    }
}
