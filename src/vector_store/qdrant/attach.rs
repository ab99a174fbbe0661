//! Making a collection of another program one that Ragward can search: indexes on the guard and the document, and a guard
//! for each point, from a template over its payload.
//!
//! Points are gone through in the order of their ids, which writing a guard does not change, so each is seen once, whatever
//! else is written meanwhile. One that is put in behind the place that was reached waits for the next run. A run that was
//! broken off is repeated: what is written already is passed over.

use std::collections::BTreeMap;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{Operation, SetPayload};
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, FieldType, Filter, PayloadIncludeSelector, PointId, PointsSelector, PointsUpdateOperation,
    RetrievedPoint, ScrollPoints, Value as Payload, point_id::PointIdOptions,
};

use super::QdrantStore;
use super::collection::{Limits, has_keyword_index};
use super::guard_template::{GuardTemplate, Source};
use super::layout::{Layout, id_text};
use crate::relationship::Object;
use crate::vector_store::VectorStoreError;

/// Points of one page, which is also what one request writes.
const PAGE: u32 = 1_000;
/// Examples of each kind that a report names.
const EXAMPLES_MAX: usize = 5;

/// How to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// Makes the guards; without it they must be there.
    pub template: Option<GuardTemplate>,
    /// Whether a guard that is there and differs is replaced.
    pub replace: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// What was found, and done unless it was a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// Points that were looked at.
    pub points: u64,
    /// Those that had their guard already.
    pub guarded: u64,
    /// Those that got a guard.
    pub written: u64,
    /// Those that have another guard than the template makes and keep it.
    pub kept: u64,
    /// Those without a guard: nobody is shown them.
    pub unguarded: u64,
    /// Fields that got an index.
    pub indexes: Vec<String>,
    /// Some points that got a guard, and which.
    pub examples: BTreeMap<String, String>,
    /// Some points without one.
    pub unguarded_examples: Vec<String>,
}

/// A point's place in the order of a scroll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Number(u64),
    Uuid(String),
}

/// What is to become of a point.
enum Fate {
    Guarded,
    Write(Object),
    Kept,
    Unguarded,
}

impl QdrantStore {
    /// Attaches a collection; `progress` is told after each page, with how many points there are about.
    ///
    /// # Errors
    /// When the collection is not another program's by configuration, cannot be searched, or Qdrant fails. What was written
    /// before stays.
    pub async fn attach(
        &self,
        collection: &str,
        attach: &Attach,
        progress: impl Fn(&Attached, u64),
    ) -> Result<Attached, VectorStoreError> {
        let layout = self.layout(collection);
        if layout.is_own() {
            let text = format!(
                "say who fills collection `{collection}`: `[vector_store.qdrant.collections.{collection}]` with \
                 `written_by = \"langchain\"`, `\"llama_index\"` or `\"other\"`"
            );
            return Err(VectorStoreError::Invalid(text));
        }
        if attach.template.is_some() && !layout.guard.is_top() {
            let text = "a guard can be written at the top of a payload only; configure a `guard` without dots";
            return Err(VectorStoreError::Invalid(text.to_owned()));
        }
        let info = self.info(collection).await?;
        if self.dimension(collection, &info)?.is_none() {
            let text = format!("collection `{collection}` has no vector of the configured name");
            return Err(VectorStoreError::Unsupported(text));
        }
        let mut attached = Attached::default();
        for field in [layout.guard.key(), layout.document_id.key()] {
            match info.payload_schema.get(&field) {
                Some(_) if has_keyword_index(&info, &field) => continue,
                Some(index) => {
                    let kind = index.data_type().as_str_name();
                    let text =
                        format!("`{field}` has an index of type {kind}; it must be `keyword`, so delete that one");
                    return Err(VectorStoreError::Unsupported(text));
                }
                None if !attach.dry_run => self.create_index(collection, &field, FieldType::Keyword).await?,
                None => {}
            }
            attached.indexes.push(field);
        }
        let page = u32::try_from(Limits::of(&info).ids_max()).map_or(PAGE, |max| max.min(PAGE));
        self.attach_points(collection, attach, &mut attached, page, |attached| {
            progress(attached, info.points_count.unwrap_or_default());
        })
        .await?;
        self.overviews.changed(collection);
        Ok(attached)
    }

    async fn attach_points(
        &self,
        collection: &str,
        attach: &Attach,
        attached: &mut Attached,
        page: u32,
        progress: impl Fn(&Attached),
    ) -> Result<(), VectorStoreError> {
        let layout = self.layout(collection);
        let (mut offset, mut reached) = (None, None);
        loop {
            let (points, next) = self.scroll(collection, attach, offset, page).await?;
            let mut by_source: BTreeMap<(Object, Source), Vec<PointId>> = BTreeMap::new();
            for point in points {
                let place = place(point.id.as_ref());
                // So no point comes twice, and a page is never asked for again.
                if place.is_none() || place <= reached {
                    return Err(VectorStoreError::BadAnswer("points out of order".to_owned()));
                }
                reached = place;
                if let Some((id, guard, source)) = attached.note(layout, attach, point) {
                    by_source.entry((guard, source)).or_default().push(id);
                }
            }
            if let (false, false, Some(template)) = (attach.dry_run, by_source.is_empty(), &attach.template) {
                let write = |((guard, source), ids)| set_guard(layout, &guard, ids, template.with_source(source));
                self.update(collection, by_source.into_iter().map(write).collect()).await?;
            }
            progress(attached);
            if next.is_none() {
                return Ok(());
            }
            offset = next;
        }
    }

    async fn scroll(
        &self,
        collection: &str,
        attach: &Attach,
        offset: Option<PointId>,
        page: u32,
    ) -> Result<(Vec<RetrievedPoint>, Option<PointId>), VectorStoreError> {
        let template = attach.template.as_ref().map(|template| template.path().key());
        let fields = template.into_iter().chain([self.layout(collection).guard.key()]).collect();
        let request = ScrollPoints {
            collection_name: collection.to_owned(),
            offset,
            limit: Some(page),
            with_payload: Some(SelectorOptions::Include(PayloadIncludeSelector { fields }).into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..ScrollPoints::default()
        };
        let mut points = self.points();
        let answer = self.call(collection, points.scroll(request)).await?;
        let empty_page = answer.result.is_empty() && answer.next_page_offset.is_some();
        if empty_page || answer.result.len() > usize::try_from(page).unwrap_or(usize::MAX) {
            return Err(VectorStoreError::BadAnswer(format!("a page of {} points", answer.result.len())));
        }
        Ok((answer.result, answer.next_page_offset))
    }
}

impl Attached {
    /// Counts a point; its id, its guard and what that was made of, if one is to be written.
    fn note(&mut self, layout: &Layout, attach: &Attach, point: RetrievedPoint) -> Option<(PointId, Object, Source)> {
        self.points += 1;
        let text = id_text(point.id.as_ref()).unwrap_or_default();
        match fate(layout, attach, &point) {
            Fate::Guarded => self.guarded += 1,
            Fate::Kept => self.kept += 1,
            Fate::Unguarded => {
                self.unguarded += 1;
                if self.unguarded_examples.len() < EXAMPLES_MAX {
                    self.unguarded_examples.push(text);
                }
            }
            Fate::Write(guard) => {
                self.written += 1;
                if self.examples.len() < EXAMPLES_MAX {
                    self.examples.insert(text, guard.to_string());
                }
                let source = attach.template.as_ref()?.source(&point.payload)?;
                return Some((point.id?, guard, source));
            }
        }
        None
    }
}

fn fate(layout: &Layout, attach: &Attach, point: &RetrievedPoint) -> Fate {
    let found = layout.candidate(point.id.as_ref(), &point.payload, 0.0).map(|candidate| candidate.guard);
    let made = attach.template.as_ref().and_then(|template| template.guard(&point.payload));
    match (found, made) {
        (None, None) => Fate::Unguarded,
        (None, Some(made)) => Fate::Write(made),
        (Some(found), Some(made)) if found == made => Fate::Guarded,
        (Some(_), Some(made)) if attach.replace => Fate::Write(made),
        (Some(_), None) if attach.template.is_none() => Fate::Guarded,
        (Some(_), Some(_) | None) => Fate::Kept,
    }
}

/// INVARIANT (the guard of what is there): only while the point has the value that the guard was made of. The other program may
/// have put another text under its id since it was read.
fn set_guard(layout: &Layout, guard: &Object, ids: Vec<PointId>, unchanged: Condition) -> PointsUpdateOperation {
    // By condition and not by id: a point that is deleted meanwhile is no error then.
    let points = PointsSelectorOneOf::Filter(Filter::must([Condition::has_id(ids), unchanged]));
    let set = SetPayload {
        payload: [(layout.guard.first().to_owned(), Payload::from(guard.to_string()))].into(),
        points_selector: Some(PointsSelector { points_selector_one_of: Some(points) }),
        ..SetPayload::default()
    };
    PointsUpdateOperation { operation: Some(Operation::SetPayload(set)) }
}

fn place(id: Option<&PointId>) -> Option<Place> {
    match id?.point_id_options.as_ref()? {
        PointIdOptions::Num(number) => Some(Place::Number(*number)),
        PointIdOptions::Uuid(uuid) => Some(Place::Uuid(uuid.clone())),
    }
}
