//! Making a collection of another program one that Ragward can search: indexes on the guard and the document, and a guard
//! for each point, from a template over its payload.
//!
//! A run lists the ids of the points first and goes through these, so it ends however fast the other program adds points;
//! what came after is counted. A run that was broken off is repeated: what is written already is passed over.
//!
//! INVARIANT (the guard of what is there): a guard is written only while the point has the value that it was made of, and
//! taken away only while it is the one that was seen. Each point that was to be changed is read once more, and one that
//! the other program changed meanwhile is changed again.

use std::collections::BTreeMap;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{DeletePayload, Operation, SetPayload};
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, FieldType, Filter, GetPoints, PayloadIncludeSelector, PointId, PointsSelector, PointsUpdateOperation,
    RetrievedPoint, ScrollPoints, Value as Payload, point_id::PointIdOptions,
};

use super::collection::{Counting, has_keyword_index, limits_of};
use super::guard_template::{GuardTemplate, Source};
use super::layout::{Layout, id_text};
use super::read::ids_per_call;
use super::{QdrantStore, filter};
use crate::language::Object;
use crate::vector_store::VectorStoreError;

/// Points of one page, which is also what one request writes.
const PAGE: u32 = 1_000;
/// Ids that are listed at a time: about 200 MB.
const IDS_MAX: u64 = 2_000_000;
/// How often a point that changes meanwhile is changed again.
const ROUNDS_MAX: usize = 4;
/// Examples of each kind that a report names.
const EXAMPLES_MAX: usize = 5;

/// How to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// Makes the guards; without it they must be there.
    pub template: Option<GuardTemplate>,
    /// Whether a guard that is there and differs is replaced, and one that the template does not make is taken away.
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
    /// Those that have another guard than the template makes, or one where it makes none, and keep it.
    pub kept: u64,
    /// Those that lost their guard, because the template makes none for them: nobody is shown them.
    pub cleared: u64,
    /// Those without a guard: nobody is shown them.
    pub unguarded: u64,
    /// Those that changed again and again while their guard was written: the next run looks at them.
    pub unsettled: u64,
    /// Points that are there and were not looked at, since they were added after the run had begun: the next run looks at them.
    pub later: u64,
    /// Fields that got an index.
    pub indexes: Vec<String>,
    /// Some points that got a guard, and which.
    pub examples: BTreeMap<String, String>,
    /// Some points that keep a guard that the template does not make, and which.
    pub kept_examples: BTreeMap<String, String>,
    /// Some points that lost their guard, and which.
    pub cleared_examples: BTreeMap<String, String>,
    /// Some points without one.
    pub unguarded_examples: Vec<String>,
}

/// The position of a point in the order of a scroll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ScrollPosition {
    Number(u64),
    Uuid(String),
}

/// What is to become of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Guarded,
    Write(Object, Source),
    /// The guard that it loses.
    Clear(Object),
    /// The guard that it keeps.
    Kept(Object),
    Unguarded,
}

impl QdrantStore {
    /// Attaches a collection; `progress` is told after each page, with how many points there were at the start.
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
        let limits = limits_of(&info);
        let page = u32::try_from(ids_per_call(limits)).map_or(PAGE, |max| max.min(PAGE));
        let there = self.count_points(collection, None, Counting::within(limits)).await?;
        let mut from = None;
        // As many lists as hold the points that are there. The second of a large collection holds also what came meanwhile, so
        // what it has no room for counts as later.
        for _ in 0..=there / IDS_MAX {
            let (ids, next) = self.list_ids(collection, from, page).await?;
            for ids in ids.chunks(usize::try_from(page).unwrap_or(usize::MAX)) {
                self.attach_points(collection, attach, &mut attached, ids).await?;
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

    /// The ids of the points from one on, ascending, and where the next list begins if this is not all.
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
                // So no point comes twice, and a page is never asked for again.
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

    /// Sees to it that each of these points has the guard that it should have.
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

    /// The points as far as their guard and what it is made of.
    async fn guards_and_sources(
        &self,
        collection: &str,
        attach: &Attach,
        ids: Vec<PointId>,
    ) -> Result<Vec<RetrievedPoint>, VectorStoreError> {
        let asked = ids.len();
        let template = attach.template.as_ref().map(|template| template.path().key());
        let fields = template.into_iter().chain([self.layout(collection).guard.key()]).collect();
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

/// What one request changes.
#[derive(Default)]
struct Changes {
    written: BTreeMap<(Object, Source), Vec<PointId>>,
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
    /// Counts a point whose fate is known.
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

/// What to do with a point. `last` is what this run did with it before: the guard that it wrote it may replace.
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

/// What a point counts as that needs no change any more: what was done with it, if that is how it is now.
fn settled(fate: Fate, last: Option<&Fate>) -> Fate {
    match (fate, last) {
        (Fate::Guarded, Some(written @ Fate::Write(..))) => written.clone(),
        (Fate::Unguarded, Some(cleared @ Fate::Clear(_))) => cleared.clone(),
        (fate, _) => fate,
    }
}

/// Those of the points for which the condition holds. A point that is deleted meanwhile is no error then, as it would be by its id.
fn among(ids: Vec<PointId>, condition: Condition) -> PointsSelector {
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
    use crate::vector_store::qdrant::layout::ForeignLayout;

    /// What must hold of the points that an operation changes: how many ids they are among, and a condition.
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

    /// INVARIANT (the guard of what is there): whatever is changed is changed only where it is as it was seen.
    #[test]
    fn a_point_is_changed_only_while_it_is_what_was_seen() {
        let names = ForeignLayout { guard: "guard", document_id: "d", title: "t", text: "x", metadata: "metadata" };
        let layout = Layout::foreign(&names).expect("a layout");
        let template = GuardTemplate::parse("document:{metadata.source}").expect("a template");
        let attach = Attach { template: Some(template), replace: true, dry_run: false };
        let guard = |id: &str| Object::parse(&format!("document:{id}")).expect("an object");
        let source = |text: &str| filter::text("metadata.source", text.to_owned());
        // The fate of a point, and what must still hold of it.
        let rows = [
            (Fate::Write(guard("a"), Source::Text("team a".to_owned())), source("team a")),
            (Fate::Write(guard("7"), Source::Text("7".to_owned())), source("7")),
            (Fate::Write(guard("7"), Source::Number(7)), filter::number("metadata.source", 7)),
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
