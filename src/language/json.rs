//! Reads and writes `OpenFGA`'s JSON form of an authorization model.
//!
//! The private structures below mirror the JSON. They keep the order of its maps, because relations are shown in the
//! order in which their author wrote them.

mod ordered_map;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::ordered_map::OrderedMap;
use super::model::{
    AuthorizationModel, Condition, ModuleSource, ParameterType, RelationDefinition, RestrictionKind, Rewrite,
    TypeDefinition, TypeRestriction,
};

/// The longest JSON that is read, in bytes. A model is longer as JSON than on the wire, and the JSON may be indented.
pub const JSON_BYTES_MAX: usize = 16 * super::limits::MODEL_BYTES_MAX;

/// The reason why a text is not a model in JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is longer than [`JSON_BYTES_MAX`]; holds its length in bytes.
    #[error("the model has {0} bytes, at most {JSON_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The text is not JSON of this form. The message gives line and column.
    #[error("not an authorization model: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The model names a parameter type that does not exist.
    #[error("`{0}` is not a parameter type")]
    ParameterType(String),
    /// A type restriction is both a userset and a wildcard.
    #[error("the type restriction on `{0}` has both `relation` and `wildcard`")]
    Restriction(String),
}

/// Reads a model from JSON.
///
/// # Errors
/// If the text is too long or malformed, or names something that `OpenFGA`'s JSON form does not have.
pub fn parse(text: &str) -> Result<AuthorizationModel, JsonError> {
    if text.len() > JSON_BYTES_MAX {
        return Err(JsonError::TooLong(text.len()));
    }
    read(text)
}

/// Reads a model that [`print`] wrote, of any size. A valid model's JSON can be longer than [`JSON_BYTES_MAX`] allows
/// for input.
pub(crate) fn read(text: &str) -> Result<AuthorizationModel, JsonError> {
    let model: ModelJson = serde_json::from_str(text)?;
    model.try_into()
}

/// Writes a model as JSON.
///
/// # Errors
/// Never for a model that was read. The signature of `serde_json` allows an error, so this one does, too.
pub fn print(model: &AuthorizationModel) -> Result<String, JsonError> {
    Ok(serde_json::to_string(&ModelJson::from(model))?)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelJson {
    /// `OpenFGA` adds the id to its answers. It is not part of the model.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "accepted and left out")]
    id: Option<String>,
    #[serde(alias = "schemaVersion")]
    schema_version: String,
    #[serde(default, alias = "typeDefinitions", deserialize_with = "null_as_default")]
    type_definitions: Vec<TypeJson>,
    #[serde(default, skip_serializing_if = "OrderedMap::is_empty", deserialize_with = "null_as_default")]
    conditions: OrderedMap<ConditionJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeJson {
    #[serde(rename = "type")]
    name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    relations: OrderedMap<RewriteJson>,
    #[serde(default)]
    metadata: Option<TypeMetadataJson>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeMetadataJson {
    #[serde(default, skip_serializing_if = "OrderedMap::is_empty", deserialize_with = "null_as_default")]
    relations: OrderedMap<RelationMetadataJson>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(default, alias = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<FileJson>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelationMetadataJson {
    #[serde(default, alias = "directlyRelatedUserTypes", deserialize_with = "null_as_default")]
    directly_related_user_types: Vec<RestrictionJson>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(default, alias = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<FileJson>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionMetadataJson {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(default, alias = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<FileJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJson {
    file: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum RewriteJson {
    This(Empty),
    #[serde(alias = "computed_userset")]
    ComputedUserset(RelationJson),
    #[serde(alias = "tuple_to_userset")]
    TupleToUserset(TupleToUsersetJson),
    Union(ChildrenJson),
    Intersection(ChildrenJson),
    Difference(DifferenceJson),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelationJson {
    /// Older tools write an empty text here.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "accepted and left out")]
    object: String,
    relation: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TupleToUsersetJson {
    tupleset: RelationJson,
    #[serde(rename = "computedUserset", alias = "computed_userset")]
    computed_userset: RelationJson,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildrenJson {
    child: Vec<RewriteJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DifferenceJson {
    base: Box<RewriteJson>,
    subtract: Box<RewriteJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestrictionJson {
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wildcard: Option<Empty>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    condition: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionJson {
    name: String,
    expression: String,
    #[serde(default, skip_serializing_if = "OrderedMap::is_empty", deserialize_with = "null_as_default")]
    parameters: OrderedMap<ParameterJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<ConditionMetadataJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterJson {
    #[serde(alias = "typeName")]
    type_name: String,
    #[serde(default, alias = "genericTypes", skip_serializing_if = "Vec::is_empty")]
    generic_types: Vec<ParameterJson>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl TryFrom<ModelJson> for AuthorizationModel {
    type Error = JsonError;

    fn try_from(json: ModelJson) -> Result<Self, JsonError> {
        let types: Result<Vec<TypeDefinition>, JsonError> = json.type_definitions.into_iter().map(read_type).collect();
        let mut conditions = std::collections::BTreeMap::new();
        for (name, condition) in json.conditions.into_entries() {
            let mut parameters = std::collections::BTreeMap::new();
            for (parameter, kind) in condition.parameters.into_entries() {
                parameters.insert(parameter, read_parameter(kind)?);
            }
            let source = condition.metadata.and_then(|metadata| read_source(metadata.module, metadata.source_info));
            conditions.insert(name, Condition { expression: condition.expression, parameters, source });
        }
        Ok(Self { schema_version: json.schema_version, types: types?, conditions })
    }
}

fn read_type(json: TypeJson) -> Result<TypeDefinition, JsonError> {
    let metadata = json.metadata.unwrap_or_default();
    let mut by_relation: std::collections::HashMap<String, RelationMetadataJson> =
        metadata.relations.into_entries().collect();
    let mut relations = Vec::new();
    for (name, rewrite) in json.relations.into_entries() {
        let metadata = by_relation.remove(&name).unwrap_or_default();
        let restrictions = metadata.directly_related_user_types.into_iter().map(read_restriction);
        relations.push(RelationDefinition {
            name,
            rewrite: read_rewrite(rewrite),
            directly_related: restrictions.collect::<Result<_, _>>()?,
            source: read_source(metadata.module, metadata.source_info),
        });
    }
    Ok(TypeDefinition { name: json.name, relations, source: read_source(metadata.module, metadata.source_info) })
}

/// The recursion is bounded because `serde_json` bounds nesting.
fn read_rewrite(json: RewriteJson) -> Rewrite {
    let read_all = |children: ChildrenJson| children.child.into_iter().map(read_rewrite).collect();
    match json {
        RewriteJson::This(Empty {}) => Rewrite::Direct,
        RewriteJson::ComputedUserset(computed) => Rewrite::Computed(computed.relation),
        RewriteJson::TupleToUserset(both) => {
            Rewrite::TupleToUserset { tupleset: both.tupleset.relation, computed: both.computed_userset.relation }
        }
        RewriteJson::Union(children) => Rewrite::Union(read_all(children)),
        RewriteJson::Intersection(children) => Rewrite::Intersection(read_all(children)),
        RewriteJson::Difference(both) => Rewrite::Difference {
            base: Box::new(read_rewrite(*both.base)),
            subtract: Box::new(read_rewrite(*both.subtract)),
        },
    }
}

fn read_restriction(json: RestrictionJson) -> Result<TypeRestriction, JsonError> {
    let kind = match (json.relation, json.wildcard) {
        (Some(_), Some(_)) => return Err(JsonError::Restriction(json.type_name)),
        (Some(relation), None) => RestrictionKind::Userset(relation),
        (None, Some(Empty {})) => RestrictionKind::Wildcard,
        (None, None) => RestrictionKind::Object,
    };
    let condition = (!json.condition.is_empty()).then_some(json.condition);
    Ok(TypeRestriction { type_name: json.type_name, kind, condition })
}

fn read_source(module: String, source_info: Option<FileJson>) -> Option<ModuleSource> {
    let file = source_info.map(|info| info.file).unwrap_or_default();
    let known = !module.is_empty() || !file.is_empty();
    known.then_some(ModuleSource { module, file })
}

const TYPE_NAME: &str = "TYPE_NAME_";

fn read_parameter(json: ParameterJson) -> Result<ParameterType, JsonError> {
    let Some(name) = json.type_name.strip_prefix(TYPE_NAME) else {
        return Err(JsonError::ParameterType(json.type_name));
    };
    let element = json.generic_types.into_iter().next().map(read_parameter).transpose()?;
    Ok(ParameterType { name: name.to_lowercase(), element: element.map(Box::new) })
}

impl From<&AuthorizationModel> for ModelJson {
    fn from(model: &AuthorizationModel) -> Self {
        let conditions = model.conditions.iter().map(|(name, condition)| {
            let parameters = condition.parameters.iter().map(|(name, kind)| (name.clone(), write_parameter(kind)));
            let json = ConditionJson {
                name: name.clone(),
                expression: condition.expression.clone(),
                parameters: parameters.collect(),
                metadata: condition.source.as_ref().map(|source| {
                    let (module, source_info) = write_source(Some(source));
                    ConditionMetadataJson { module, source_info }
                }),
            };
            (name.clone(), json)
        });
        Self {
            id: None,
            schema_version: model.schema_version.clone(),
            type_definitions: model.types.iter().map(write_type).collect(),
            conditions: conditions.collect(),
        }
    }
}

fn write_type(definition: &TypeDefinition) -> TypeJson {
    let relations = definition.relations.iter().map(|r| (r.name.clone(), write_rewrite(&r.rewrite)));
    let metadata = definition.relations.iter().map(|r| {
        let restrictions = r.directly_related.iter().map(write_restriction).collect();
        let (module, source_info) = write_source(r.source.as_ref());
        (r.name.clone(), RelationMetadataJson { directly_related_user_types: restrictions, module, source_info })
    });
    let has_metadata = !definition.relations.is_empty() || definition.source.is_some();
    let (module, source_info) = write_source(definition.source.as_ref());
    TypeJson {
        name: definition.name.clone(),
        relations: relations.collect(),
        metadata: has_metadata.then(|| TypeMetadataJson { relations: metadata.collect(), module, source_info }),
    }
}

fn write_rewrite(rewrite: &Rewrite) -> RewriteJson {
    let relation = |name: &str| RelationJson { object: String::new(), relation: name.to_owned() };
    let children = |operands: &[Rewrite]| ChildrenJson { child: operands.iter().map(write_rewrite).collect() };
    match rewrite {
        Rewrite::Direct => RewriteJson::This(Empty {}),
        Rewrite::Computed(computed) => RewriteJson::ComputedUserset(relation(computed)),
        Rewrite::TupleToUserset { tupleset, computed } => RewriteJson::TupleToUserset(TupleToUsersetJson {
            tupleset: relation(tupleset),
            computed_userset: relation(computed),
        }),
        Rewrite::Union(operands) => RewriteJson::Union(children(operands)),
        Rewrite::Intersection(operands) => RewriteJson::Intersection(children(operands)),
        Rewrite::Difference { base, subtract } => RewriteJson::Difference(DifferenceJson {
            base: Box::new(write_rewrite(base)),
            subtract: Box::new(write_rewrite(subtract)),
        }),
    }
}

fn write_restriction(restriction: &TypeRestriction) -> RestrictionJson {
    let (relation, wildcard) = match &restriction.kind {
        RestrictionKind::Object => (None, None),
        RestrictionKind::Userset(relation) => (Some(relation.clone()), None),
        RestrictionKind::Wildcard => (None, Some(Empty {})),
    };
    let condition = restriction.condition.clone().unwrap_or_default();
    RestrictionJson { type_name: restriction.type_name.clone(), relation, wildcard, condition }
}

fn write_source(source: Option<&ModuleSource>) -> (String, Option<FileJson>) {
    source.map_or_else(Default::default, |source| (source.module.clone(), Some(FileJson { file: source.file.clone() })))
}

fn write_parameter(kind: &ParameterType) -> ParameterJson {
    ParameterJson {
        type_name: format!("{TYPE_NAME}{}", kind.name.to_uppercase()),
        generic_types: kind.element.iter().map(|element| write_parameter(element)).collect(),
    }
}
