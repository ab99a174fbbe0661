//! A chunk as the payload of a point, and back.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    PointId, PointStruct, Struct, Value, Vector, Vectors, WithPayloadSelector, point_id::PointIdOptions, vector,
};
use ragward::chunk::{Chunk, Metadata, Value as MetadataValue};
use ragward::relationship::Object;
use tonic::Status;

/// The payload of a chunk, as far as it was asked for.
pub(super) fn of_chunk(chunk: Chunk, wanted: Option<&WithPayloadSelector>) -> HashMap<String, Value> {
    let metadata = chunk.metadata.into_iter().map(|(key, value)| {
        let kind = match value {
            MetadataValue::Bool(value) => Kind::BoolValue(value),
            MetadataValue::Int(value) => Kind::IntegerValue(value),
            MetadataValue::Float(value) => Kind::DoubleValue(value),
            MetadataValue::Text(value) => Kind::StringValue(value),
        };
        (key, Value { kind: Some(kind) })
    });
    let mut payload = HashMap::from([
        ("chunk_id".to_owned(), Value::from(chunk.id)),
        ("document_id".to_owned(), Value::from(chunk.document_id)),
        ("guard".to_owned(), Value::from(chunk.guard.to_string())),
        ("title".to_owned(), Value::from(chunk.title)),
        ("text".to_owned(), Value::from(chunk.text)),
        ("metadata".to_owned(), Value { kind: Some(Kind::StructValue(Struct { fields: metadata.collect() })) }),
    ]);
    match wanted.and_then(|wanted| wanted.selector_options.as_ref()) {
        Some(SelectorOptions::Enable(true)) => {}
        Some(SelectorOptions::Include(only)) => payload.retain(|field, _| only.fields.contains(field)),
        Some(SelectorOptions::Exclude(without)) => payload.retain(|field, _| !without.fields.contains(field)),
        Some(SelectorOptions::Enable(false)) | None => payload.clear(),
    }
    payload
}

/// The chunk of a point.
pub(super) fn to_chunk(point: PointStruct, vector_name: Option<&str>) -> Result<Chunk, Status> {
    let text = |field: &str| match point.payload.get(field).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => Ok(text.clone()),
        _ => Err(Status::invalid_argument(format!("Wrong input: no text in `{field}`"))),
    };
    let guard = Object::parse(&text("guard")?).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let mut metadata = Metadata::new();
    if let Some(Kind::StructValue(fields)) = point.payload.get("metadata").and_then(|value| value.kind.as_ref()) {
        for (key, value) in &fields.fields {
            let value = match value.kind.clone() {
                Some(Kind::BoolValue(value)) => MetadataValue::Bool(value),
                Some(Kind::IntegerValue(value)) => MetadataValue::Int(value),
                Some(Kind::DoubleValue(value)) => MetadataValue::Float(value),
                Some(Kind::StringValue(value)) => MetadataValue::Text(value),
                _ => return Err(Status::invalid_argument(format!("Wrong input: no value in `metadata.{key}`"))),
            };
            metadata.insert(key.clone(), value);
        }
    }
    Ok(Chunk {
        id: text("chunk_id")?,
        document_id: text("document_id")?,
        guard,
        title: text("title")?,
        text: text("text")?,
        metadata,
        vector: vector(point.vectors, vector_name)?,
    })
}

/// The text of a point id.
pub(super) fn uuid(id: Option<&PointId>) -> Result<&str, Status> {
    match id.and_then(|id| id.point_id_options.as_ref()) {
        Some(PointIdOptions::Uuid(uuid)) => Ok(uuid),
        Some(PointIdOptions::Num(_)) | None => Err(Status::invalid_argument("Wrong input: a point id is a UUID here")),
    }
}

fn vector(vectors: Option<Vectors>, name: Option<&str>) -> Result<Vec<f32>, Status> {
    let missing = || Status::invalid_argument("Wrong input: Not existing vector name error");
    let vector: Vector = match (vectors.and_then(|vectors| vectors.vectors_options), name) {
        (Some(VectorsOptions::Vector(vector)), None) => vector,
        (Some(VectorsOptions::Vectors(mut named)), Some(name)) => named.vectors.remove(name).ok_or_else(missing)?,
        (Some(VectorsOptions::Vector(_)), Some(_)) | (Some(VectorsOptions::Vectors(_)), None) | (None, _) => {
            return Err(missing());
        }
    };
    match vector.vector {
        Some(vector::Vector::Dense(dense)) => Ok(dense.data),
        #[expect(deprecated, reason = "older clients fill it")]
        None => Ok(vector.data),
        Some(_) => Err(Status::invalid_argument("Wrong input: only dense vectors are taken")),
    }
}
