//! Sums up what observing re-checks would have withheld. This code does no I/O.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::{AuditEntry, AuditedRequest, Event, Observed, Record};

/// The most names of one kind. A table of so many rows takes some tens of megabytes, and nobody reads a longer one.
const NAMES_MAX: usize = 100_000;
/// The length of a date at the beginning of a time: `2026-11-25`.
const DATE_BYTES: usize = 10;

/// The subject of a row of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    User,
    Document,
    Day,
    UnknownId,
}

/// A row of the report. A number that says nothing about its subject is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) by: Subject,
    /// The collection of a document or of an unknown id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) collection: Option<String>,
    /// The user, the document's id, the date in UTC, or the unknown id. Missing if the record does not say it.
    pub(super) name: Option<String>,
    /// The number of calls.
    pub(super) calls: u64,
    /// The number of ids that the calls asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ids: Option<u64>,
    /// The number of chunks that Ragward would have withheld. A chunk counts once in each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) withheld: Option<u64>,
    /// The number of ids that no chunk has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<u64>,
}

/// Numbers of calls, ids and chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) ids: u64,
    pub(super) withheld: u64,
    pub(super) unknown: u64,
}

/// The sums over the records of a log.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) total: Counts,
    /// The time of the first observing re-check, as in the log.
    pub(super) from: Option<String>,
    /// The time of the last one.
    pub(super) to: Option<String>,
    users: Sums,
    documents: Sums,
    days: Sums,
    unknown_ids: Sums,
    /// Observing re-checks that ended without an answer.
    undecided_calls: u64,
    /// The number of withheld chunks that the records name.
    named_withheld: u64,
    /// The number of unknown ids that the records name.
    named_unknown: u64,
    /// The number of the first segment of the log; `None` before the log is read.
    first_segment: Option<u64>,
}

/// The counts by name.
#[derive(Debug, Default)]
struct Sums {
    by_name: BTreeMap<Name, Counts>,
    /// Whether names were left out, because there are too many.
    is_cut: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    collection: Option<String>,
    name: Option<String>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.ids = self.ids.saturating_add(other.ids);
        self.withheld = self.withheld.saturating_add(other.withheld);
        self.unknown = self.unknown.saturating_add(other.unknown);
    }
}

impl Sums {
    fn add(&mut self, name: Name, counts: Counts) {
        if self.by_name.len() >= NAMES_MAX && !self.by_name.contains_key(&name) {
            self.is_cut = true;
            return;
        }
        self.by_name.entry(name).or_default().add(counts);
    }

    fn rows<'a>(&'a self, row: impl Fn(&Name, Counts) -> Row + 'a) -> impl Iterator<Item = Row> + 'a {
        self.by_name.iter().map(move |(name, counts)| row(name, *counts))
    }
}

impl Tally {
    /// Takes in an entry of the log, if `is_wanted` wants its record. Only observing re-checks count.
    pub(super) fn take(&mut self, entry: &AuditEntry, is_wanted: impl FnOnce(&Record) -> bool) {
        match &entry.event {
            Event::Begin { segment, .. } => {
                self.first_segment.get_or_insert(*segment);
            }
            Event::Record(record) => {
                if let Some(request) = record.request.as_ref().filter(|request| request.observes())
                    && is_wanted(record)
                {
                    self.take_call(&entry.time, record, request);
                }
            }
            Event::Verification(_) | Event::Resume { .. } | Event::Drop { .. } | Event::Seal { .. } => {}
        }
    }

    fn take_call(&mut self, time: &str, record: &Record, request: &AuditedRequest) {
        let Some(observed) = &record.observed else {
            self.undecided_calls = self.undecided_calls.saturating_add(1);
            return;
        };
        self.from.get_or_insert_with(|| time.to_owned());
        self.to = Some(time.to_owned());
        let counts = Counts {
            calls: 1,
            ids: request.count.unwrap_or_default(),
            withheld: observed.withheld,
            unknown: observed.unknown,
        };
        self.total.add(counts);
        let user = record.principal.as_ref().and_then(|who| who.subject.as_ref().or(who.client_id.as_ref()));
        self.users.add(Name { collection: None, name: user.cloned() }, counts);
        let day = time.get(..DATE_BYTES).map(str::to_owned);
        self.days.add(Name { collection: None, name: day }, counts);
        self.take_ids(&request.collection, observed);
    }

    fn take_ids(&mut self, collection: &str, observed: &Observed) {
        let named = |name: Option<String>| Name { collection: Some(collection.to_owned()), name };
        let mut by_document: BTreeMap<Option<&String>, u64> = BTreeMap::new();
        for chunk in &observed.withheld_chunks {
            let withheld = by_document.entry(chunk.document_id.as_ref()).or_default();
            *withheld = withheld.saturating_add(1);
        }
        for (document_id, withheld) in by_document {
            self.documents.add(named(document_id.cloned()), Counts { calls: 1, withheld, ..Counts::default() });
            self.named_withheld = self.named_withheld.saturating_add(withheld);
        }
        for chunk_id in &observed.unknown_ids {
            let counts = Counts { calls: 1, unknown: 1, ..Counts::default() };
            self.unknown_ids.add(named(Some(chunk_id.clone())), counts);
            self.named_unknown = self.named_unknown.saturating_add(1);
        }
    }

    /// Returns the rows: users, documents and unknown ids with the largest numbers first, and days in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let whole = |by: Subject| {
            move |Name { name, .. }: &Name, counts: Counts| Row {
                by,
                collection: None,
                name: name.clone(),
                calls: counts.calls,
                ids: Some(counts.ids),
                withheld: Some(counts.withheld),
                unknown: Some(counts.unknown),
            }
        };
        let part = |by: Subject, withheld: fn(Counts) -> Option<u64>| {
            move |Name { collection, name }: &Name, counts: Counts| Row {
                by,
                collection: collection.clone(),
                name: name.clone(),
                calls: counts.calls,
                ids: None,
                withheld: withheld(counts),
                unknown: None,
            }
        };
        let mut users: Vec<Row> = self.users.rows(whole(Subject::User)).collect();
        let of_document = part(Subject::Document, |counts| Some(counts.withheld));
        let mut documents: Vec<Row> = self.documents.rows(of_document).collect();
        let mut unknown_ids: Vec<Row> = self.unknown_ids.rows(part(Subject::UnknownId, |_| None)).collect();
        // The sort is stable, so equal numbers stay in the order of the names.
        for rows in [&mut users, &mut documents, &mut unknown_ids] {
            rows.sort_by_key(|row| std::cmp::Reverse((row.withheld, row.calls)));
        }
        let days = self.days.rows(whole(Subject::Day));
        users.into_iter().chain(documents).chain(days).chain(unknown_ids).collect()
    }

    /// Returns what the numbers do not say, one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let unnamed = |counted: u64, named: u64| Some(counted.saturating_sub(named)).filter(|unnamed| *unnamed > 0);
        let because = "`audit.observed` was `counts`, or a record had no room for more";
        if let Some(chunks) = unnamed(self.total.withheld, self.named_withheld) {
            notes.push(format!(
                "{chunks} withheld chunks are counted but not named, so no document has them: {because}"
            ));
        }
        if let Some(ids) = unnamed(self.total.unknown, self.named_unknown) {
            notes.push(format!("{ids} unknown ids are counted but not named: {because}"));
        }
        if self.undecided_calls > 0 {
            let calls = self.undecided_calls;
            notes.push(format!("{calls} observing calls had no answer, so nobody knows what they would have withheld"));
        }
        if [&self.users, &self.documents, &self.days, &self.unknown_ids].iter().any(|sums| sums.is_cut) {
            notes.push(format!("names past the first {NAMES_MAX} of a kind have no row; the totals count them"));
        }
        if let Some(segment) = self.first_segment.filter(|segment| *segment > 1) {
            notes.push(format!(
                "the log begins with segment {segment}: older records were removed (`audit.segments_max`)"
            ));
        }
        notes.push("calls that a client dropped before they reached a server are not in this log".to_owned());
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditedPrincipal, Latencies, ObservedChunk};

    fn entry(time: &str, event: Event) -> AuditEntry {
        let prev = serde_json::from_value("0".repeat(64).into()).expect("a MAC");
        AuditEntry { seq: 1, prev, time: time.to_owned(), event }
    }

    fn recheck(user: &str, purpose: Option<&str>, count: u64, observed: Option<Observed>) -> Event {
        let request = AuditedRequest {
            collection: "handbook".to_owned(),
            purpose: purpose.map(str::to_owned),
            count: Some(count),
            ..AuditedRequest::default()
        };
        Event::Record(Box::new(Record {
            call: "ragward.retrieval.v1.RetrievalService/Recheck".to_owned(),
            door: None,
            code: "OK".to_owned(),
            trace_id: "0".repeat(32),
            refusal: None,
            principal: Some(AuditedPrincipal { subject: Some(user.to_owned()), ..AuditedPrincipal::default() }),
            request: Some(request),
            decision: None,
            observed,
            released: None,
            approval: None,
            models: Vec::new(),
            latency_us: Latencies::default(),
        }))
    }

    fn observed(chunks: &[(&str, Option<&str>)], unknown_ids: &[&str]) -> Observed {
        let chunk = |(chunk_id, document_id): &(&str, Option<&str>)| ObservedChunk {
            chunk_id: (*chunk_id).to_owned(),
            document_id: document_id.map(str::to_owned),
        };
        Observed {
            withheld: chunks.len() as u64,
            unknown: unknown_ids.len() as u64,
            withheld_chunks: chunks.iter().map(chunk).collect(),
            unknown_ids: unknown_ids.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn observing(user: &str, count: u64, observed: Observed) -> Event {
        recheck(user, Some(AuditedRequest::OBSERVE), count, Some(observed))
    }

    fn of(events: Vec<(&str, Event)>) -> Tally {
        let mut tally = Tally::default();
        for (time, event) in events {
            tally.take(&entry(time, event), |_| true);
        }
        tally
    }

    /// A row as `by name: calls/ids/withheld/unknown`.
    fn shown(row: &Row) -> String {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let (name, by) = (row.name.as_deref().unwrap_or("?"), row.by);
        format!("{by:?} {name}: {}/{}/{}/{}", row.calls, number(row.ids), number(row.withheld), number(row.unknown))
    }

    const MONDAY: &str = "2026-11-30T23:59:59.999999Z";
    const TUESDAY: &str = "2026-12-01T00:00:00.000000Z";

    #[test]
    fn rows_are_by_user_document_and_day() {
        let tally = of(vec![
            (MONDAY, Event::Begin { log: "a".to_owned(), segment: 1 }),
            (MONDAY, observing("user:anne", 4, observed(&[("p#0", Some("p")), ("p#1", Some("p"))], &["x"]))),
            (MONDAY, recheck("user:anne", None, 9, None)),
            (TUESDAY, observing("user:anne", 2, observed(&[("p#0", Some("p"))], &["x"]))),
            (TUESDAY, observing("user:bob", 3, observed(&[("q#0", Some("q")), ("r#0", None)], &[]))),
        ]);
        let rows: Vec<String> = tally.rows().iter().map(shown).collect();
        let expected = [
            "User user:anne: 2/6/3/2",
            "User user:bob: 1/3/2/0",
            "Document p: 2/-/3/-",
            "Document ?: 1/-/1/-",
            "Document q: 1/-/1/-",
            "Day 2026-11-30: 1/4/2/1",
            "Day 2026-12-01: 2/5/3/1",
            "UnknownId x: 2/-/-/-",
        ];
        assert_eq!(rows, expected);
        assert_eq!(tally.total, Counts { calls: 3, ids: 9, withheld: 5, unknown: 2 });
        assert_eq!((tally.from.as_deref(), tally.to.as_deref()), (Some(MONDAY), Some(TUESDAY)));
        assert_eq!(tally.notes().len(), 1, "{:?}", tally.notes());
    }

    #[test]
    fn notes_say_what_the_numbers_do_not() {
        let counted = Observed { withheld: 3, unknown: 2, ..Observed::default() };
        let observe = Some(AuditedRequest::OBSERVE);
        let begin = |segment| Event::Begin { log: "a".to_owned(), segment };
        let rows = [
            ("nothing", vec![], vec!["dropped"]),
            ("an ordinary re-check", vec![(MONDAY, recheck("user:anne", None, 1, None))], vec!["dropped"]),
            (
                "counts alone",
                vec![(MONDAY, observing("user:anne", 5, counted))],
                vec!["3 withheld chunks are counted", "2 unknown ids are counted", "dropped"],
            ),
            (
                "no answer",
                vec![(MONDAY, recheck("user:anne", observe, 5, None))],
                vec!["1 observing calls had no answer", "dropped"],
            ),
            ("an old log", vec![(MONDAY, begin(3)), (TUESDAY, begin(4))], vec!["begins with segment 3", "dropped"]),
        ];
        for (row, events, expected) in rows {
            let notes = of(events).notes();
            assert_eq!(notes.len(), expected.len(), "{row}: {notes:?}");
            for (note, expected) in notes.iter().zip(expected) {
                assert!(note.contains(expected), "{row}: {note}");
            }
        }
    }

    #[test]
    fn names_are_bounded_and_totals_are_whole() {
        let mut tally = Tally::default();
        for number in 0..NAMES_MAX + 2 {
            let event = observing(&format!("user:{number}"), 1, observed(&[], &[]));
            tally.take(&entry(MONDAY, event), |_| true);
        }
        let users = tally.rows().iter().filter(|row| row.by == Subject::User).count();
        assert_eq!((users, tally.total.calls), (NAMES_MAX, NAMES_MAX as u64 + 2));
        assert!(tally.notes().iter().any(|note| note.contains("past the first")), "{:?}", tally.notes());
    }
}
