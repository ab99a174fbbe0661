//! Gives the points of another program vectors of their texts, so that they can be searched by text.
//!
//! INVARIANT (the text of what is there): a point is marked only after its text was read again and is still the one whose
//! vector was written, and only while it has that vector. Queries search marked points alone, so a run that ends early leaves
//! no vector of another text behind that anybody finds. A program that replaces a point takes both away. A point without the
//! mark is never missing silently: text queries of those who may see it are refused.

use std::borrow::Cow;
use std::collections::HashMap;

use qdrant_client::qdrant::points_update_operation::{Operation, SetPayload, UpdateVectors};
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{
    Condition, NamedVectors, PointId, PointVectors, PointsUpdateOperation, Value as Payload, Vector, Vectors,
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
    /// The name of the analysis that made the vector of the text; `None` if it has no vector.
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
                let mut needing = Needing::default();
                for point in points {
                    let is_marked = point.analysis.as_ref() == Some(&analysis);
                    match written.get(&point.name) {
                        Some(before) if *before == point.text && is_marked => {}
                        Some(before) if *before == point.text => needing.mark.push(point),
                        None if is_marked && !attach.replace => {}
                        Some(_) | None => needing.vector.push(point),
                    }
                }
                let open = u64::try_from(needing.count()).unwrap_or(u64::MAX);
                if round == 0 {
                    attached.texts += open;
                }
                if open == 0 || attach.dry_run {
                    break;
                }
                if round == ROUNDS_MAX {
                    attached.unsettled += open;
                    break;
                }
                asked = needing.points().map(|point| point.id.clone()).collect();
                self.update(collection, needing.operations(&mut vectors, &analysis)).await?;
                written =
                    needing.vector.into_iter().chain(needing.mark).map(|point| (point.name, point.text)).collect();
            }
        }
        Ok(())
    }

    async fn texts_of(&self, collection: &str, ids: Vec<PointId>) -> Result<Vec<FoundText>, VectorStoreError> {
        let layout = self.layout(collection);
        // Qdrant does not look into a JSON text, so the whole field that the text is in is read.
        let fields = vec![Path::of_key(layout.text.first()).key(), TEXT_ANALYSIS.to_owned()];
        let answer = self.fields_of(collection, ids, fields).await?;
        let text = |point: qdrant_client::qdrant::RetrievedPoint| {
            let text = layout.text.text(&point.payload).map(Cow::into_owned).unwrap_or_default();
            let analysis = string(&point.payload, TEXT_ANALYSIS).map(str::to_owned);
            let name = id_text(point.id.as_ref())?;
            Some(FoundText { id: point.id?, name, text, analysis })
        };
        Ok(answer.into_iter().filter_map(text).collect())
    }
}

/// The points that are not settled.
#[derive(Default)]
struct Needing {
    /// Those that need the vector of their text.
    vector: Vec<FoundText>,
    /// Those that have the vector of the text that they still have, and need the mark.
    mark: Vec<FoundText>,
}

impl Needing {
    fn points(&self) -> impl Iterator<Item = &FoundText> {
        self.vector.iter().chain(&self.mark)
    }

    fn count(&self) -> usize {
        self.vector.len() + self.mark.len()
    }

    fn operations(&self, vectors: &mut ChunkVectors, analysis: &str) -> Vec<PointsUpdateOperation> {
        let updated = (!self.vector.is_empty()).then(|| Operation::UpdateVectors(updated(&self.vector, vectors)));
        let marked = (!self.mark.is_empty()).then(|| Operation::SetPayload(marked(&self.mark, analysis)));
        let operations = updated.into_iter().chain(marked);
        operations.map(|operation| PointsUpdateOperation { operation: Some(operation) }).collect()
    }
}

fn updated(points: &[FoundText], vectors: &mut ChunkVectors) -> UpdateVectors {
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
    UpdateVectors { points: updated, ..UpdateVectors::default() }
}

/// Marks those of the points that still have the vector.
fn marked(points: &[FoundText], analysis: &str) -> SetPayload {
    let ids = points.iter().map(|point| point.id.clone()).collect();
    SetPayload {
        payload: [(TEXT_ANALYSIS.to_owned(), Payload::from(analysis.to_owned()))].into(),
        points_selector: Some(among(ids, Condition::has_vector(TEXT_VECTOR))),
        ..SetPayload::default()
    }
}
