//! `ragward audit report`: says what Ragward would have withheld from callers that observe, by user, document and day.

use std::io;
use std::path::Path;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::cells::{csv_cell, csv_writer, io_error};
use super::tally::{Counts, Row, Subject, Tally};
use super::{Failure, Log, LogArgs, NAME_CHARACTERS, Output, ROWS, excerpt, not_intact, parse_time, table, takes_part};
use crate::audit::{AuditEntry, Record};
use crate::cli::output::{Format, unless_closed};

const CSV_HEADER: [&str; 7] = ["by", "collection", "name", "calls", "ids", "withheld", "unknown"];
/// The tables for people, with their headers.
const TABLES: [(Subject, &[&str]); 4] = [
    (Subject::User, &["user", "calls", "ids", "withheld", "unknown"]),
    (Subject::Document, &["collection", "document", "calls", "withheld"]),
    (Subject::Day, &["day (UTC)", "calls", "ids", "withheld", "unknown"]),
    (Subject::UnknownId, &["collection", "unknown id", "calls"]),
];
/// The word in the first cell of a row of CSV that holds a note.
const NOTE: &str = "note";

#[derive(Debug, Args)]
pub(in crate::cli) struct ReportArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Report calls that name this user, agent or asserting pipeline: `user:anne`.
    #[arg(long)]
    user: Option<String>,
    /// Report calls from this time on: `2026-11-25` or `2026-11-25T09:30:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Report calls before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
    /// Report calls about this collection.
    #[arg(long)]
    collection: Option<String>,
    /// The form of the report. The default is that of `--output`.
    #[arg(long, value_enum)]
    format: Option<ReportFormat>,
    /// Show at most this many rows in each table, those with the largest numbers. JSON and CSV have all rows.
    #[arg(long, default_value_t = ROWS)]
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// Tables for people.
    Table,
    /// JSON for programs.
    Json,
    /// One table for a spreadsheet.
    Csv,
}

/// The report, as JSON has it.
#[derive(Serialize)]
struct ObservedReport {
    /// The time of the first call that is reported.
    from: Option<String>,
    /// The time of the last one.
    to: Option<String>,
    #[serde(flatten)]
    total: Counts,
    rows: Vec<Row>,
    notes: Vec<String>,
}

pub(super) fn run(args: ReportArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let ReportArgs { log, user, since, until, collection, format, limit } = args;
    let log = Log::open(log, config)?;
    let is_wanted = |entry: &AuditEntry, record: &Record| {
        let of = record.request.as_ref().map(|request| &request.collection);
        user.as_ref().is_none_or(|user| takes_part(record, user))
            && since.as_ref().is_none_or(|since| entry.time >= *since)
            && until.as_ref().is_none_or(|until| entry.time < *until)
            && collection.as_ref().is_none_or(|wanted| of == Some(wanted))
    };
    let mut tally = Tally::default();
    let verified = log.read(|entry| tally.take(entry, |record| is_wanted(entry, record)))?;
    let (rows, notes) = (tally.rows(), tally.notes());
    let report = ObservedReport { from: tally.from, to: tally.to, total: tally.total, rows, notes };
    let as_text = || people(&report, limit);
    match format {
        None => output.result(&report, as_text)?,
        Some(ReportFormat::Table) => Output::new(Format::Table).result(&report, as_text)?,
        Some(ReportFormat::Json) => Output::new(Format::Json).result(&report, as_text)?,
        Some(ReportFormat::Csv) => unless_closed(write_csv(&report))?,
    }
    if verified.is_intact() { Ok(()) } else { Err(not_intact(verified.findings_total)) }
}

fn people(report: &ObservedReport, limit: usize) -> String {
    let Counts { calls, ids, withheld, unknown } = report.total;
    let mut parts = Vec::new();
    if let (Some(from), Some(to)) = (&report.from, &report.to) {
        parts.push(format!("from {from} to {to}"));
        parts.push(format!("observing calls: {calls}; ids: {ids}; would be withheld: {withheld}; unknown: {unknown}"));
    } else {
        parts.push("no observing call is recorded; a client makes one with the purpose `observe`".to_owned());
    }
    for (subject, header) in TABLES {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.by == subject).collect();
        if rows.is_empty() {
            continue;
        }
        parts.push(table(header, rows.iter().take(limit).map(|row| cells(row))));
        if let Some(more) = rows.len().checked_sub(limit).filter(|more| *more > 0) {
            parts.push(format!("and {more} more rows; `--limit` shows more"));
        }
    }
    parts.extend(report.notes.iter().map(|note| format!("note: {note}")));
    parts.join("\n")
}

/// Returns the cells of a row in a table for people.
fn cells(row: &Row) -> Vec<String> {
    let name = |text: &str| excerpt(text, NAME_CHARACTERS);
    let collection = row.collection.as_deref().map(name);
    let own = Some(row.name.as_deref().map_or_else(|| "(not known)".to_owned(), name));
    let numbers = [Some(row.calls), row.ids, row.withheld, row.unknown];
    let numbers = numbers.into_iter().flatten().map(|number| number.to_string());
    collection.into_iter().chain(own).chain(numbers).collect()
}

fn write_csv(report: &ObservedReport) -> io::Result<()> {
    let mut writer = csv_writer(io::stdout().lock());
    writer.write_record(CSV_HEADER).map_err(io_error)?;
    for row in &report.rows {
        writer.write_record(csv_row(row)).map_err(io_error)?;
    }
    for note in &report.notes {
        let empty = String::new;
        let cells = [NOTE.to_owned(), empty(), csv_cell(note), empty(), empty(), empty(), empty()];
        writer.write_record(cells).map_err(io_error)?;
    }
    writer.flush()
}

fn csv_row(row: &Row) -> [String; CSV_HEADER.len()] {
    let by = match row.by {
        Subject::User => "user",
        Subject::Document => "document",
        Subject::Day => "day",
        Subject::UnknownId => "unknown_id",
    };
    let name = |name: &Option<String>| csv_cell(name.as_deref().unwrap_or_default());
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        by.to_owned(),
        name(&row.collection),
        name(&row.name),
        row.calls.to_string(),
        number(row.ids),
        number(row.withheld),
        number(row.unknown),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_csv_names_its_subject_as_json_does() {
        for by in [Subject::User, Subject::Document, Subject::Day, Subject::UnknownId] {
            let name = Some("=HYPERLINK(1)".to_owned());
            let row = Row { by, collection: None, name, calls: 2, ids: None, withheld: Some(1), unknown: None };
            let json = serde_json::to_value(&row).expect("JSON");
            let [named, _, name, calls, ids, withheld, _] = csv_row(&row);
            assert_eq!(json["by"], named.as_str(), "{by:?}");
            assert_eq!((name.as_str(), calls.as_str()), ("'=HYPERLINK(1)", "2"), "{by:?}");
            assert_eq!((ids.as_str(), withheld.as_str()), ("", "1"), "{by:?}");
        }
    }
}
