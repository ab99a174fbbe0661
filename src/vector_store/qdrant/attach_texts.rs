//! Gives the points of another program vectors of their texts, so that they can be searched by text.
//!
//! INVARIANT (the text of what is there): a point is marked only while it has the vector, and a run reads the text again
//! afterwards. A program that replaces a point takes both away. A point without the mark is never missing silently: text
//! queries of those who may see it are refused.

use std::borrow::Cow;
use std::collections::HashMap;

use qdrant_client::qdrant::points_update_operation::{Operation, SetPayload, UpdateVectors};
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, GetPoints, NamedVectors, PayloadIncludeSelector, PointId, PointVectors, PointsUpdateOperation,
    Value as Payload, Vector, Vectors,
};

use super::QdrantStore;
use super::attach::{Attach, AttachError, Attached, ROUNDS_MAX, among};
use super::collection::has_text_vector;
use super::fields::{TEXT_ANALYSIS, string};
use super::layout::id_text;
use super::path::Path;
use super::read::PAYLOADS_PER_CALL_MAX;
use super::sparse_text::{ChunkVectors, SparseText, TEXT_VECTOR};
use crate::chunk::Metadata;
use crate::vector_store::VectorStoreError;
use crate::vector_store::exact::served_terms::Fields;

/// The text of a point.
struct FoundText {
    id: PointId,
    /// The id as text.
    name: String,
    text: String,
    /// What made the vector of the text; `None` if it has no vector.
    analysis: Option<String>,
}

impl QdrantStore {
    /// Makes the vector for texts and the index on its mark. Returns whether there was no index.
    pub(super) async fn prepare_texts(&self, collection: &str, attach: &Attach) -> Result<bool, AttachError> {
        let info = self.info(collection).await?;
        let has_index = info.payload_schema.contains_key(TEXT_ANALYSIS);
        if attach.dry_run {
            return Ok(!has_index);
        }
        if !has_text_vector(&info) && !self.add_text_vector(collection).await? {
            return Err(AttachError::NoTexts);
        }
        if !has_index {
            self.create_mark_index(collection).await?;
        }
        Ok(!has_index)
    }

    /// Gives each of these points the vector of its text. A point that has one keeps it, unless guards are replaced, too.
    pub(super) async fn attach_texts(
        &self,
        collection: &str,
        attach: &Attach,
        attached: &mut Attached,
        ids: &[PointId],
    ) -> Result<(), VectorStoreError> {
        let form = self.text_form(collection);
        let (analysis, mut vectors) = (form.name(), ChunkVectors::new(form));
        for part in ids.chunks(PAYLOADS_PER_CALL_MAX) {
            let mut asked = part.to_vec();
            let mut written: HashMap<String, String> = HashMap::new();
            for round in 0..=ROUNDS_MAX {
                let points = self.texts_of(collection, std::mem::take(&mut asked)).await?;
                let is_settled = |point: &FoundText| {
                    let is_marked = point.analysis.as_ref() == Some(&analysis);
                    match written.get(&point.name) {
                        Some(before) => is_marked && *before == point.text,
                        None => is_marked && !attach.replace,
                    }
                };
                let open: Vec<FoundText> = points.into_iter().filter(|point| !is_settled(point)).collect();
                if round == 0 {
                    attached.texts += u64::try_from(open.len()).unwrap_or(u64::MAX);
                }
                if open.is_empty() || attach.dry_run {
                    break;
                }
                if round == ROUNDS_MAX {
                    attached.unsettled += u64::try_from(open.len()).unwrap_or(u64::MAX);
                    break;
                }
                asked = open.iter().map(|point| point.id.clone()).collect();
                self.update(collection, operations(&open, &mut vectors, &analysis)).await?;
                written = open.into_iter().map(|point| (point.name, point.text)).collect();
            }
        }
        Ok(())
    }

    async fn texts_of(&self, collection: &str, ids: Vec<PointId>) -> Result<Vec<FoundText>, VectorStoreError> {
        let layout = self.layout(collection);
        let asked = ids.len();
        // Qdrant does not look into a JSON text, so the whole field that the text is in is read.
        let fields = vec![Path::of_key(layout.text.first()).key(), TEXT_ANALYSIS.to_owned()];
        let request = GetPoints {
            collection_name: collection.to_owned(),
            ids,
            with_payload: Some(SelectorOptions::Include(PayloadIncludeSelector { fields }).into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..GetPoints::default()
        };
        let mut points = self.points();
        let answer = self.call(collection, points.get(request)).await?.result;
        if answer.len() > asked {
            return Err(VectorStoreError::BadAnswer(format!("{} points, {asked} were asked for", answer.len())));
        }
        let text = |point: qdrant_client::qdrant::RetrievedPoint| {
            let text = layout.text.text(&point.payload).map(Cow::into_owned).unwrap_or_default();
            let analysis = string(&point.payload, TEXT_ANALYSIS).map(str::to_owned);
            let name = id_text(point.id.as_ref())?;
            Some(FoundText { id: point.id?, name, text, analysis })
        };
        Ok(answer.into_iter().filter_map(text).collect())
    }
}

/// Writes the vectors first, and then the marks of the points that have one.
fn operations(points: &[FoundText], vectors: &mut ChunkVectors, analysis: &str) -> Vec<PointsUpdateOperation> {
    let mut updated = Vec::with_capacity(points.len());
    for FoundText { id, text, .. } in points {
        // Titles and metadata of another program may change without the text, so they have no part in the vector.
        let fields = Fields { title: "", heading_path: &[], text };
        let SparseText { indices, values } =
            vectors.of(fields, &Metadata::new()).unwrap_or_else(SparseText::without_terms);
        let named = NamedVectors { vectors: [(TEXT_VECTOR.to_owned(), Vector::new_sparse(indices, values))].into() };
        let vectors = Some(Vectors { vectors_options: Some(VectorsOptions::Vectors(named)) });
        updated.push(PointVectors { id: Some(id.clone()), vectors });
    }
    let ids = points.iter().map(|point| point.id.clone()).collect();
    let marked = SetPayload {
        payload: [(TEXT_ANALYSIS.to_owned(), Payload::from(analysis.to_owned()))].into(),
        points_selector: Some(among(ids, Condition::has_vector(TEXT_VECTOR))),
        ..SetPayload::default()
    };
    let updated = UpdateVectors { points: updated, ..UpdateVectors::default() };
    let operations = [Operation::UpdateVectors(updated), Operation::SetPayload(marked)];
    operations.map(|operation| PointsUpdateOperation { operation: Some(operation) }).into()
}
