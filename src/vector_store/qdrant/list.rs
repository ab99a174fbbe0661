//! Lists the documents of a collection that Ragward fills.
//!
//! A document's place is the id of the point of its first chunk, and Qdrant scrolls in the order of ids. Such an id is a
//! hash, so the order tells nothing of other documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Filter, ListCollectionsRequest, PayloadIncludeSelector, PointId, RetrievedPoint, ScrollPoints, ScrollResponse,
    Struct,
};

use super::fields::{DOCUMENT_ID, Fields, METADATA, POSITION, TITLE, integer, string};
use super::layout::{Layout, id_text, parse_point_id};
use super::read::ids_per_call;
use super::{QdrantStore, filter};
use crate::chunk::{SOURCE_KEY, Version};
use crate::language::Object;
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;
use crate::vector_store::{DocumentPage, ListedDocument, VectorStoreError};

/// The most documents that are read at a time. All their chunks are read, to know their guards.
const DOCUMENTS_MAX: usize = 200;
/// The most chunks of the documents that are read at a time, unless a single document has more. The guard of each chunk is in
/// memory meanwhile.
const CHUNKS_MAX: usize = 20_000;
/// The most points that are read for the documents of one reading. A document may grow while it is read.
const POINTS_MAX: usize = 2 * (CHUNKS_MAX + CHUNKS_PER_DOCUMENT_MAX);
/// The number of points on one page of a scroll, without text.
const PAGE: usize = 1_000;

/// A document, and its place in the list.
struct Place {
    document_id: String,
    place: String,
}

/// What is known of a document while its chunks are read.
#[derive(Debug, Default)]
struct Gathered {
    chunks: u32,
    title: String,
    source: Option<String>,
    guards: BTreeSet<Object>,
    /// Whether a chunk has no well-formed guard.
    is_unguarded: bool,
    /// The versions of the chunks that have a guard; more than one while the document is being replaced.
    versions: BTreeSet<Option<u128>>,
}

impl QdrantStore {
    pub(super) async fn list_collections(&self) -> Result<Vec<String>, VectorStoreError> {
        let listed = self.answer("", self.collections().list(ListCollectionsRequest {})).await?.collections;
        let names: BTreeSet<String> = listed.into_iter().map(|collection| collection.name).collect();
        Ok(names.into_iter().collect())
    }

    pub(super) async fn list_documents(
        &self,
        collection: &str,
        from: Option<&str>,
        limit: usize,
    ) -> Result<DocumentPage, VectorStoreError> {
        self.check_own(collection)?;
        let no_place = || VectorStoreError::Invalid("there is no such place in the list of documents".to_owned());
        let from = from.map(|from| parse_point_id(from).ok_or_else(no_place)).transpose()?;
        let limits = self.limits(collection);
        let limit = limit.min(DOCUMENTS_MAX).min(ids_per_call(limits)).max(1);
        let first_chunks = Filter::must([filter::first_of_document()]);
        let first = self.scroll(collection, first_chunks, from, limit, vec![DOCUMENT_ID.to_owned()]).await?;
        let next = id_text(first.next_page_offset.as_ref());
        let mut places: Vec<Place> = Vec::with_capacity(first.result.len());
        for point in &first.result {
            if let (Some(id), Some(place)) = (string(&point.payload, DOCUMENT_ID), id_text(point.id.as_ref())) {
                places.push(Place { document_id: id.to_owned(), place });
            }
        }
        let ids: Vec<String> = places.iter().map(|place| place.document_id.clone()).collect();
        let chunks: HashMap<String, u32> = self.count_chunks(collection, &ids).await?.into_iter().collect();
        let next = cut(&mut places, &chunks).or(next);
        let ids: BTreeSet<String> = places.iter().map(|place| place.document_id.clone()).collect();
        let mut gathered = self.gather(collection, ids, PAGE.min(limits.answer_max)).await?;
        // A document whose chunks are of two versions is being replaced, so nobody knows what it is.
        let whole = |Place { document_id: id, place }: Place| {
            let Gathered { chunks, title, source, guards, is_unguarded, versions } = gathered.remove(&id)?;
            let guards = (!is_unguarded).then_some(guards);
            (versions.len() <= 1).then_some(ListedDocument { id, title, chunks, source, guards, place })
        };
        Ok(DocumentPage { documents: places.into_iter().filter_map(whole).collect(), next })
    }

    /// Reads all chunks of these documents, without their texts.
    async fn gather(
        &self,
        collection: &str,
        ids: BTreeSet<String>,
        page: usize,
    ) -> Result<BTreeMap<String, Gathered>, VectorStoreError> {
        let layout = self.layout(collection);
        let (mut gathered, mut read): (BTreeMap<String, Gathered>, usize) = (BTreeMap::new(), 0);
        if ids.is_empty() {
            return Ok(gathered);
        }
        let of_documents = Filter::must([filter::document_in(layout, ids.iter().cloned().collect())]);
        let fields = [DOCUMENT_ID, TITLE, POSITION].map(str::to_owned).into_iter();
        let fields: Vec<String> =
            fields.chain(layout.candidate_keys()).chain([format!("{METADATA}.{SOURCE_KEY}")]).collect();
        let mut from = None;
        loop {
            let answer = self.scroll(collection, of_documents.clone(), from, page, fields.clone()).await?;
            read += answer.result.len();
            // The bound also ends a scroll whose server sends the same points again and again.
            let is_stuck = answer.result.is_empty() && answer.next_page_offset.is_some();
            if is_stuck || read > POINTS_MAX {
                return Err(VectorStoreError::BadAnswer("more points than the documents have".to_owned()));
            }
            for point in &answer.result {
                if let Some(id) = string(&point.payload, DOCUMENT_ID).filter(|id| ids.contains(*id)) {
                    gathered.entry(id.to_owned()).or_default().add(layout, point);
                }
            }
            from = answer.next_page_offset;
            if from.is_none() {
                return Ok(gathered);
            }
        }
    }

    /// Reads points in the order of their ids, from an id on.
    async fn scroll(
        &self,
        collection: &str,
        filter: Filter,
        from: Option<PointId>,
        limit: usize,
        fields: Vec<String>,
    ) -> Result<ScrollResponse, VectorStoreError> {
        let request = ScrollPoints {
            collection_name: collection.to_owned(),
            filter: Some(filter),
            offset: from,
            limit: Some(u32::try_from(limit).unwrap_or(u32::MAX)),
            with_payload: Some(SelectorOptions::Include(PayloadIncludeSelector { fields }).into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..ScrollPoints::default()
        };
        let mut points = self.points();
        let answer = self.call(collection, points.scroll(request)).await?;
        if answer.result.len() > limit {
            return Err(VectorStoreError::BadAnswer(format!("a page of {} points", answer.result.len())));
        }
        Ok(answer)
    }
}

/// Cuts a part of the list where its documents have too many chunks to be read at a time. Returns the place of the first document
/// that is left for the next part; `None` if all are kept.
fn cut(places: &mut Vec<Place>, chunks: &HashMap<String, u32>) -> Option<String> {
    let mut total = 0_usize;
    let fits = |place: &Place| {
        let own = chunks.get(&place.document_id).copied().unwrap_or_default();
        total = total.saturating_add(usize::try_from(own).unwrap_or(usize::MAX));
        total <= CHUNKS_MAX
    };
    // The first document is always kept, so that the list goes on.
    let kept = places.iter().map(fits).take_while(|fits| *fits).count().max(1);
    let rest = places.get(kept).map(|first| first.place.clone());
    places.truncate(kept);
    rest
}

impl Gathered {
    fn add(&mut self, layout: &Layout, point: &RetrievedPoint) {
        self.chunks = self.chunks.saturating_add(1);
        match layout.candidate(point.id.as_ref(), &point.payload, 0.0) {
            Some(candidate) => {
                self.guards.insert(candidate.guard);
                self.versions.insert(candidate.version.map(|Version(version)| version));
            }
            None => self.is_unguarded = true,
        }
        if integer(&point.payload, POSITION) == Some(0) {
            string(&point.payload, TITLE).unwrap_or_default().clone_into(&mut self.title);
            self.source = source_of(&point.payload);
        }
    }
}

fn source_of(payload: &Fields) -> Option<String> {
    match payload.get(METADATA)?.kind.as_ref()? {
        Kind::StructValue(Struct { fields }) => string(fields, SOURCE_KEY).map(str::to_owned),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::IntegerValue(_)
        | Kind::StringValue(_)
        | Kind::BoolValue(_)
        | Kind::ListValue(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_list_has_a_bounded_number_of_chunks() {
        let all = u32::try_from(CHUNKS_MAX).unwrap();
        let rows: [(&str, &[u32], usize); 7] = [
            ("nothing", &[], 0),
            ("few chunks", &[1, 2, 3], 3),
            ("just as many as fit", &[all / 2, all / 2], 2),
            ("one more", &[all / 2, all / 2, 1], 2),
            ("one document with more than fit", &[all + 1, 1], 1),
            ("a large one after small ones", &[1, 1, all], 2),
            ("numbers that overflow", &[u32::MAX, u32::MAX], 1),
        ];
        for (row, chunks, expected) in rows {
            let name = |number: usize| format!("d{number}");
            let counts: HashMap<String, u32> =
                chunks.iter().enumerate().map(|(number, chunks)| (name(number), *chunks)).collect();
            let mut places: Vec<Place> = (0..chunks.len())
                .map(|number| Place { document_id: name(number), place: format!("p{number}") })
                .collect();
            let next = cut(&mut places, &counts);
            assert_eq!(places.len(), expected, "{row}");
            assert_eq!(next, (expected < chunks.len()).then(|| format!("p{expected}")), "{row}");
        }
    }
}
