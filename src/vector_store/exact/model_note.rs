//! The note of the model that makes the vectors of a collection. It counts only while there are vectors.

use super::change::Change;
use super::index::Index;
use super::{Engine, validation};
use crate::vector_store::{VectorOrigin, VectorStoreError};

impl Engine {
    /// Notes the model of a collection's vectors, or that writers send them, unless it is noted already.
    pub(super) fn note_model(&self, collection: &str, model: Option<&str>) -> Result<(), VectorStoreError> {
        validation::check_collection_name(collection)?;
        let mut writer = self.writer()?;
        let change = {
            let state = self.read()?;
            let index = state.collections.get(collection);
            if index.and_then(|index| index.model.as_deref()) == model {
                // A collection without a note may hold vectors of writers, and nothing else.
                return match (model, index.map_or(VectorOrigin::NoVectors, Index::vector_origin)) {
                    (Some(_), _) | (None, VectorOrigin::NoVectors | VectorOrigin::Writers) => Ok(()),
                    (None, VectorOrigin::Model(_) | VectorOrigin::Unnoted) => Err(other_model(collection)),
                };
            }
            if index.is_some_and(|index| index.living_vectors > 0) {
                return Err(other_model(collection));
            }
            Change::of_model(collection, index, state.next_number(), model)
        };
        self.perform(&mut writer, change)
    }
}

impl Index {
    /// Says who made the vectors.
    pub(super) fn vector_origin(&self) -> VectorOrigin {
        match &self.model {
            _ if self.living_vectors == 0 => VectorOrigin::NoVectors,
            Some(model) => VectorOrigin::Model(model.to_string()),
            None => VectorOrigin::Writers,
        }
    }
}

fn other_model(collection: &str) -> VectorStoreError {
    VectorStoreError::OtherModel { collection: collection.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chunk::Document;
    use crate::language::Object;
    use crate::vector_store::exact::ExactStore;
    use crate::vector_store::{DocumentStore, VectorModel, VectorStore};

    fn note(vector: &[f32]) -> Document {
        let mut note = Document::of_text("1", Object::parse("note:1").unwrap(), "a note");
        note.chunks[0].vector = vector.to_vec();
        note
    }

    fn model(name: &str) -> VectorModel<'_> {
        VectorModel { name, dimension: 2 }
    }

    #[tokio::test]
    async fn vectors_of_one_collection_have_one_origin() {
        let directory = tempfile::tempdir().unwrap();
        let store = ExactStore::open(directory.path()).unwrap();
        let is_refused = |noted: Result<(), VectorStoreError>| match noted {
            Ok(()) => false,
            Err(error) => matches!(error, VectorStoreError::OtherModel { .. }),
        };
        store.note_model("notes", None).await.unwrap();
        assert!(store.collection("notes").await.is_err(), "nothing is made for a note of writers");
        store.note_model("notes", Some(model("small"))).await.unwrap();
        assert_eq!(store.vector_origin("notes").await.unwrap(), VectorOrigin::NoVectors);
        store.note_model("notes", Some(model("large"))).await.unwrap();
        store.note_model("notes", Some(model("small"))).await.unwrap();
        store.upsert("notes", vec![note(&[1.0, 0.0])]).await.unwrap();
        let small = VectorOrigin::Model("small".to_owned());
        assert_eq!(store.vector_origin("notes").await.unwrap(), small);
        assert!(!is_refused(store.note_model("notes", Some(model("small"))).await), "the same model");
        assert!(is_refused(store.note_model("notes", Some(model("large"))).await), "another model");
        assert!(is_refused(store.note_model("notes", None).await), "writers");
        drop(store);
        let store = ExactStore::open(directory.path()).unwrap();
        assert_eq!(store.vector_origin("notes").await.unwrap(), small, "after a restart");
        store.delete("notes", &BTreeSet::from(["1".to_owned()])).await.unwrap();
        store.note_model("notes", None).await.unwrap();
        store.upsert("notes", vec![note(&[1.0, 0.0, 0.0])]).await.unwrap();
        assert_eq!(store.vector_origin("notes").await.unwrap(), VectorOrigin::Writers);
        assert!(is_refused(store.note_model("notes", Some(model("small"))).await), "vectors that writers sent");
        assert!(!is_refused(store.note_model("notes", None).await));
    }
}
