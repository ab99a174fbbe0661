//! Attaches the collection of another program, so that Ragward can search it. It makes indexes on the guard and the
//! document, and gives each point a guard, by a template over its payload.
//!
//! A run first lists the ids of the points and then goes through these ids, so it ends however fast the other program
//! adds points. It counts the points that came later. A run that was interrupted can be repeated: it skips what is
//! written already.
//!
//! Only the guard is written; text is not copied. If a later change of the other program makes a guard wrong, a run
//! reports it, and a run that replaces guards mends it. A run cannot tell a guard of an earlier run from one that an
//! operator set by hand, so it replaces neither unless the operator asks for it.
//!
//! INVARIANT (the guard of what is there): a guard is written only while the point has the value that the guard was
//! made of, and a guard is removed only while the point has the guard that was seen. After its changes, a run reads the
//! points again, and changes a point again if the other program changed it meanwhile.

use std::collections::BTreeMap;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{DeletePayload, Operation, SetPayload};
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, FieldType, Filter, GetPoints, PayloadIncludeSelector, PointId, PointsSelector, PointsUpdateOperation,
    RetrievedPoint, ScrollPoints, Value as Payload, point_id::PointIdOptions,
};

use super::collection::{Counting, has_keyword_index, limits_of};
use super::fields::TEXT_ANALYSIS;
use super::guard_template::{GuardTemplate, GuardValue};
use super::layout::{Layout, id_text};
use super::read::ids_per_call;
use super::{QdrantStore, filter};
use crate::error_code::ErrorCode;
use crate::language::Object;
use crate::vector_store::VectorStoreError;

/// How many points one page lists and one request writes.
const PAGE: u32 = 1_000;
/// How many ids are listed at a time. They take about 200 MB.
const IDS_MAX: u64 = 2_000_000;
/// How often a point is looked at before it counts as unsettled, because the other program changes it again and again.
pub(super) const ROUNDS_MAX: usize = 4;
/// How many examples of each kind a report names.
const EXAMPLES_MAX: usize = 5;

/// The options of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// The template that guards are made from. Without it the points must have their guards already.
    pub template: Option<GuardTemplate>,
    /// Whether a guard that differs from the template's is replaced, and removed where the template makes none.
    pub replace: bool,
    /// Whether the run only reports what it would do.
    pub dry_run: bool,
    /// Whether points get vectors of their texts, for text queries.
    pub texts: bool,
}

/// The report of a run: its findings and, unless it was a dry run, its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// The number of points that were looked at.
    pub points: u64,
    /// The number of points that had their guard already.
    pub guarded: u64,
    /// The number of points that got a guard.
    pub written: u64,
    /// The number of points that keep a guard which the template does not make for them.
    pub kept: u64,
    /// The number of points that lost their guard, because the template makes none for them. Nobody is shown these.
    pub cleared: u64,
    /// The number of points that have no guard. Nobody is shown these.
    pub unguarded: u64,
    /// The number of points that changed again and again while their guard was written. The next run looks at them.
    pub unsettled: u64,
    /// The number of points that were added after the run had begun and were not looked at. The next run looks at them.
    pub later: u64,
    /// The number of points that got a vector of their text.
    pub texts: u64,
    /// The fields that got an index.
    pub indexes: Vec<String>,
    /// The guards that some points got, by the point's id.
    pub examples: BTreeMap<String, String>,
    /// The guards that some points keep although the template does not make them, by the point's id.
    pub kept_examples: BTreeMap<String, String>,
    /// The guards that some points lost, by the point's id.
    pub cleared_examples: BTreeMap<String, String>,
    /// The ids of some points without a guard.
    pub unguarded_examples: Vec<String>,
}

/// The reason why a collection could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The settings do not say which program fills the collection.
    #[error(
        "say who fills collection `{0}`: `[vector_store.qdrant.collections.{0}]` with `written_by = \"langchain\"`, \
         `\"llama_index\"` or `\"other\"`"
    )]
    NoLayout(String),
    /// The settings put the guard within an object of the payload, where no guard can be written.
    #[error("a guard can be written at the top of a payload only; configure a `guard` without dots")]
    NestedGuard,
    /// The points have no vector of the configured name.
    #[error("collection `{0}` has no vector of the configured name")]
    NoVector(String),
    /// A field has an index that cannot serve filters on texts.
    #[error("`{field}` has an index of type {kind}; it must be `keyword`, so delete that one")]
    OtherIndex {
        /// The field of the payload.
        field: String,
        /// The type of its index, as Qdrant calls it.
        kind: &'static str,
    },
    /// The server cannot give the points of a collection another vector.
    #[error("this Qdrant cannot add a vector for texts to a collection; update it, or leave out `--texts`")]
    NoTexts,
    /// The store failed, or refused a call.
    #[error(transparent)]
    Store(#[from] VectorStoreError),
}

impl AttachError {
    /// Returns the code that tells a caller what to do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoLayout(_) | Self::NestedGuard => ErrorCode::InvalidArgument,
            Self::NoVector(_) | Self::OtherIndex { .. } | Self::NoTexts => ErrorCode::FailedPrecondition,
            Self::Store(e) => e.code(),
        }
    }
}

/// The position of a point in the order of a scroll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ScrollPosition {
    Number(u64),
    Uuid(String),
}

/// The decision about a point.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It has its guard.
    Guarded,
    /// It gets this guard, made of this value.
    Write(Object, GuardValue),
    /// It loses this guard.
    Clear(Object),
    /// It keeps this guard, which the template does not make.
    Kept(Object),
    /// It has no guard and gets none.
    Unguarded,
}

impl QdrantStore {
    /// Attaches a collection. After each page `progress` gets the report so far and the number of points at the start.
    ///
    /// # Errors
    /// When no layout is configured for the collection, when it cannot be searched, and when Qdrant fails. Whatever was
    /// written before stays.
    pub async fn attach(
        &self,
        collection: &str,
        attach: &Attach,
        progress: impl Fn(&Attached, u64),
    ) -> Result<Attached, AttachError> {
        let layout = self.layout(collection);
        if layout.is_own() {
            return Err(AttachError::NoLayout(collection.to_owned()));
        }
        if attach.template.is_some() && !layout.guard.is_top() {
            return Err(AttachError::NestedGuard);
        }
        let info = self.info(collection).await?;
        if self.dimension(collection, &info)?.is_none() {
            return Err(AttachError::NoVector(collection.to_owned()));
        }
        let mut attached = Attached::default();
        for field in [layout.guard.key(), layout.document_id.key()] {
            match info.payload_schema.get(&field) {
                Some(_) if has_keyword_index(&info, &field) => continue,
                Some(index) => {
                    return Err(AttachError::OtherIndex { field, kind: index.data_type().as_str_name() });
                }
                None if !attach.dry_run => self.create_index(collection, &field, FieldType::Keyword).await?,
                None => {}
            }
            attached.indexes.push(field);
        }
        if attach.texts && self.prepare_texts(collection, attach).await? {
            attached.indexes.push(TEXT_ANALYSIS.to_owned());
        }
        let limits = limits_of(&info);
        let page = u32::try_from(ids_per_call(limits)).map_or(PAGE, |max| max.min(PAGE));
        let there = self.count_points(collection, None, Counting::within(limits)).await?;
        let mut from = None;
        // There are as many lists as the points at the start need. The second list of a large collection also holds
        // points that were added meanwhile. Points for which no list has room count as later.
        for _ in 0..=there / IDS_MAX {
            let (ids, next) = self.list_ids(collection, from, page).await?;
            for ids in ids.chunks(usize::try_from(page).unwrap_or(usize::MAX)) {
                self.attach_points(collection, attach, &mut attached, ids).await?;
                if attach.texts {
                    self.attach_texts(collection, attach, &mut attached, ids).await?;
                }
                progress(&attached, there);
            }
            from = next;
            if from.is_none() {
                break;
            }
        }
        attached.later =
            self.count_points(collection, None, Counting::within(limits)).await?.saturating_sub(attached.points);
        self.overviews.note_change(collection);
        Ok(attached)
    }

    /// Lists ids in ascending order, beginning at `from`. If there are more, it also returns where the next list
    /// begins.
    async fn list_ids(
        &self,
        collection: &str,
        mut from: Option<PointId>,
        page: u32,
    ) -> Result<(Vec<PointId>, Option<PointId>), VectorStoreError> {
        let mut ids: Vec<PointId> = Vec::new();
        let mut reached = None;
        loop {
            let request = ScrollPoints {
                collection_name: collection.to_owned(),
                offset: from,
                limit: Some(page),
                with_payload: Some(false.into()),
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
            for point in answer.result {
                let position = scroll_position(point.id.as_ref());
                // Each id is greater than the one before, so no point comes twice and no page is asked for again.
                if position.is_none() || position <= reached {
                    return Err(VectorStoreError::BadAnswer("points out of order".to_owned()));
                }
                reached = position;
                ids.extend(point.id);
            }
            from = answer.next_page_offset;
            if from.is_none() || u64::try_from(ids.len()).unwrap_or(u64::MAX) >= IDS_MAX {
                return Ok((ids, from));
            }
        }
    }

    /// Gives each of these points the guard that it should have, and counts what became of it.
    async fn attach_points(
        &self,
        collection: &str,
        attach: &Attach,
        attached: &mut Attached,
        ids: &[PointId],
    ) -> Result<(), VectorStoreError> {
        let layout = self.layout(collection);
        let mut before: BTreeMap<String, Fate> = BTreeMap::new();
        let mut points = self.guards_and_sources(collection, attach, ids.to_vec()).await?;
        for round in 0..ROUNDS_MAX {
            let mut changes = Changes::default();
            let mut now = BTreeMap::new();
            for point in points {
                let Some(text) = id_text(point.id.as_ref()) else { continue };
                let last = before.get(&text);
                attached.points += u64::from(round == 0);
                let fate = fate(layout, attach, &point, last);
                let is_settled = attach.dry_run || matches!(fate, Fate::Guarded | Fate::Kept(_) | Fate::Unguarded);
                if is_settled {
                    attached.note(text, &settled(fate, last));
                } else {
                    changes.add(&fate, point.id);
                    now.insert(text, fate);
                }
            }
            if now.is_empty() {
                return Ok(());
            }
            let again = changes.ids();
            self.update(collection, changes.into_operations(layout, attach)).await?;
            points = self.guards_and_sources(collection, attach, again).await?;
            before = now;
        }
        for point in points {
            let last = id_text(point.id.as_ref()).and_then(|text| Some((before.get(&text)?, text)));
            let Some((last, text)) = last else { continue };
            match fate(layout, attach, &point, Some(last)) {
                Fate::Write(..) | Fate::Clear(_) => attached.unsettled += 1,
                fate @ (Fate::Guarded | Fate::Kept(_) | Fate::Unguarded) => {
                    attached.note(text, &settled(fate, Some(last)));
                }
            }
        }
        Ok(())
    }

    /// Reads the guards of these points and the values that guards are made of.
    async fn guards_and_sources(
        &self,
        collection: &str,
        attach: &Attach,
        ids: Vec<PointId>,
    ) -> Result<Vec<RetrievedPoint>, VectorStoreError> {
        let template = attach.template.as_ref().map(|template| template.path().key());
        let fields = template.into_iter().chain([self.layout(collection).guard.key()]).collect();
        self.fields_of(collection, ids, fields).await
    }

    /// Reads these fields of these points. A point that has gone is not among them.
    pub(super) async fn fields_of(
        &self,
        collection: &str,
        ids: Vec<PointId>,
        fields: Vec<String>,
    ) -> Result<Vec<RetrievedPoint>, VectorStoreError> {
        let asked = ids.len();
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
        Ok(answer)
    }
}

/// The changes of one request.
#[derive(Default)]
struct Changes {
    written: BTreeMap<(Object, GuardValue), Vec<PointId>>,
    cleared: BTreeMap<Object, Vec<PointId>>,
}

impl Changes {
    fn add(&mut self, fate: &Fate, id: Option<PointId>) {
        match fate {
            Fate::Write(guard, source) => self.written.entry((guard.clone(), source.clone())).or_default().extend(id),
            Fate::Clear(guard) => self.cleared.entry(guard.clone()).or_default().extend(id),
            Fate::Guarded | Fate::Kept(_) | Fate::Unguarded => {}
        }
    }

    fn ids(&self) -> Vec<PointId> {
        self.written.values().chain(self.cleared.values()).flatten().cloned().collect()
    }

    fn into_operations(self, layout: &Layout, attach: &Attach) -> Vec<PointsUpdateOperation> {
        let template = attach.template.as_ref();
        let written = self.written.into_iter().filter_map(|((guard, source), ids)| {
            let unchanged = template?.with_source(source);
            let payload = [(layout.guard.first().to_owned(), Payload::from(guard.to_string()))].into();
            let points_selector = Some(among(ids, unchanged));
            Some(Operation::SetPayload(SetPayload { payload, points_selector, ..SetPayload::default() }))
        });
        let cleared = self.cleared.into_iter().map(|(guard, ids)| {
            let key = layout.guard.key();
            let unchanged = filter::text(key.clone(), guard.to_string());
            let points_selector = Some(among(ids, unchanged));
            Operation::DeletePayload(DeletePayload { keys: vec![key], points_selector, shard_key_selector: None })
        });
        written.chain(cleared).map(|operation| PointsUpdateOperation { operation: Some(operation) }).collect()
    }
}

impl Attached {
    /// Counts a point by its fate.
    fn note(&mut self, id: String, fate: &Fate) {
        let (count, examples, guard) = match fate {
            Fate::Guarded => {
                self.guarded += 1;
                return;
            }
            Fate::Unguarded => {
                self.unguarded += 1;
                if self.unguarded_examples.len() < EXAMPLES_MAX {
                    self.unguarded_examples.push(id);
                }
                return;
            }
            Fate::Write(guard, _) => (&mut self.written, &mut self.examples, guard),
            Fate::Clear(guard) => (&mut self.cleared, &mut self.cleared_examples, guard),
            Fate::Kept(guard) => (&mut self.kept, &mut self.kept_examples, guard),
        };
        *count += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.insert(id, guard.to_string());
        }
    }
}

/// Decides what to do with a point. `last` is what this run did with the same point in the round before. The run may
/// replace or remove a guard that it wrote itself.
fn fate(layout: &Layout, attach: &Attach, point: &RetrievedPoint, last: Option<&Fate>) -> Fate {
    let found = layout.candidate(point.id.as_ref(), &point.payload, 0.0).map(|candidate| candidate.guard);
    let made = attach.template.as_ref().and_then(|template| {
        let guard = template.guard(&point.payload)?;
        Some((guard, template.source(&point.payload)?))
    });
    let is_ours = |found: &Object| matches!(last, Some(Fate::Write(written, _)) if written == found);
    match (found, made) {
        (None, None) => Fate::Unguarded,
        (None, Some((made, source))) => Fate::Write(made, source),
        (Some(found), Some((made, _))) if found == made => Fate::Guarded,
        (Some(found), Some((made, source))) if attach.replace || is_ours(&found) => Fate::Write(made, source),
        (Some(_), None) if attach.template.is_none() => Fate::Guarded,
        (Some(found), None) if attach.replace || is_ours(&found) => Fate::Clear(found),
        (Some(found), _) => Fate::Kept(found),
    }
}

/// Returns the fate to count for a point that needs no further change. If the point still is as this run left it, that
/// is the change that the run made.
fn settled(fate: Fate, last: Option<&Fate>) -> Fate {
    match (fate, last) {
        (Fate::Guarded, Some(written @ Fate::Write(..))) => written.clone(),
        (Fate::Unguarded, Some(cleared @ Fate::Clear(_))) => cleared.clone(),
        (fate, _) => fate,
    }
}

/// Selects those of the points for which the condition holds. A filter selects them, because an id would be an error if
/// its point is deleted meanwhile.
pub(super) fn among(ids: Vec<PointId>, condition: Condition) -> PointsSelector {
    let points = PointsSelectorOneOf::Filter(Filter::must([Condition::has_id(ids), condition]));
    PointsSelector { points_selector_one_of: Some(points) }
}

fn scroll_position(id: Option<&PointId>) -> Option<ScrollPosition> {
    match id?.point_id_options.as_ref()? {
        PointIdOptions::Num(number) => Some(ScrollPosition::Number(*number)),
        PointIdOptions::Uuid(uuid) => Some(ScrollPosition::Uuid(uuid.clone())),
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::condition::ConditionOneOf;

    use super::*;
    use crate::vector_store::qdrant::{PayloadConfig, WrittenBy};

    /// Returns how many ids an operation names, and the condition that it puts on their points.
    fn conditions(operation: &PointsUpdateOperation) -> (usize, Condition) {
        let selector = if let Some(Operation::SetPayload(set)) = &operation.operation {
            set.points_selector.as_ref()
        } else if let Some(Operation::DeletePayload(delete)) = &operation.operation {
            delete.points_selector.as_ref()
        } else {
            panic!("{operation:?}")
        };
        let Some(PointsSelectorOneOf::Filter(filter)) = selector.and_then(|s| s.points_selector_one_of.clone()) else {
            panic!("{selector:?}")
        };
        let Filter { must, should, must_not, min_should } = filter;
        assert!(should.is_empty() && must_not.is_empty() && min_should.is_none());
        let [ids, unchanged] = must.try_into().expect("two conditions");
        let Some(ConditionOneOf::HasId(ids)) = ids.condition_one_of else { panic!("no ids") };
        (ids.has_id.len(), unchanged)
    }

    /// INVARIANT (the guard of what is there): a point is changed only while it is as it was seen.
    #[test]
    fn a_point_is_changed_only_while_it_is_what_was_seen() {
        let layout = Layout::foreign(&PayloadConfig::of(WrittenBy::Langchain)).expect("a layout");
        let template = GuardTemplate::parse("document:{metadata.source}").expect("a template");
        let attach = Attach { template: Some(template), replace: true, ..Attach::default() };
        let guard = |id: &str| Object::parse(&format!("document:{id}")).expect("an object");
        let source = |text: &str| filter::text("metadata.source", text.to_owned());
        // The fate of a point, and the condition that must still hold for the point.
        let rows = [
            (Fate::Write(guard("a"), GuardValue::Text("team a".to_owned())), source("team a")),
            (Fate::Write(guard("7"), GuardValue::Text("7".to_owned())), source("7")),
            (Fate::Write(guard("7"), GuardValue::Number(7)), filter::number("metadata.source", 7)),
            (Fate::Clear(guard("b")), filter::text("guard", "document:b".to_owned())),
        ];
        let mut changes = Changes::default();
        for (number, (fate, _)) in (1_u64..).zip(&rows) {
            changes.add(fate, Some(PointId::from(number)));
            changes.add(fate, Some(PointId::from(number + 100)));
        }
        let found: Vec<_> = changes.into_operations(&layout, &attach).iter().map(conditions).collect();
        for (fate, unchanged) in rows {
            assert!(found.contains(&(2, unchanged)), "{fate:?}: {found:?}");
        }
        assert_eq!(found.len(), 4);
    }
}
