//! `ragward audit`: reads the audit log. Each command checks what it reads, and fails if the log was changed.

mod cells;
mod export;
mod report;
mod tally;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde::Serialize;

use super::output::{excerpt, print, table};
use super::{Failure, Output};
use crate::audit::{AuditEntry, AuditKey, AuditedRequest, Door, Event, FINDINGS_MAX, Mac, Record, Report, read_log};
use crate::config::{Config, Overrides};

/// The number of characters of a name that a table shows.
const NAME_CHARACTERS: usize = 40;
/// The number of entries between two updates of the progress bar.
const PROGRESS_ENTRIES: u64 = 1_000;
/// The number of rows that are shown by default.
const ROWS: usize = 50;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Verify that the log was not changed, and name each change by file and line.
    Verify(VerifyArgs),
    /// Show the latest records.
    Show(ShowArgs),
    /// Export all records, verifying them on the way.
    Export(export::ExportArgs),
    /// Report what observing re-checks would have withheld, by user, document and day.
    Report(report::ReportArgs),
    /// Print the JSON Schema of an entry.
    Schema,
}

/// The flags that say where the log is.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The data directory whose log is read.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The directory of the segments, instead of `audit.directory`.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The file of the key, instead of `audit.key_file`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Require that the log has this entry. An earlier run printed it as `SEQ:MAC`. An entry that you keep elsewhere
    /// shows whether the log was put back to an older state.
    #[arg(long, value_name = "SEQ:MAC", value_parser = parse_anchor)]
    anchor: Option<(u64, Mac)>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Show records that name this user, agent or asserting pipeline: `user:anne`.
    #[arg(long)]
    user: Option<String>,
    /// Show records from this time on: `2026-11-25` or `2026-11-25T09:30:00Z`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Show records of this collection.
    #[arg(long)]
    collection: Option<String>,
    /// Show records of this trace.
    #[arg(long, value_name = "TRACE_ID")]
    trace: Option<String>,
    /// Show at most this many records, the latest ones.
    #[arg(long, default_value_t = ROWS)]
    limit: usize,
}

/// The result of `verify`.
#[derive(Serialize)]
struct VerifyReport {
    intact: bool,
    findings: Vec<String>,
    findings_total: u64,
    segments: u64,
    entries: u64,
    records: u64,
    incomplete_bytes: Option<u64>,
    /// The last entry as `SEQ:MAC`.
    anchor: Option<String>,
}

/// A record, and its position in the log.
#[derive(Clone, Serialize)]
struct LoggedRecord {
    seq: u64,
    time: String,
    #[serde(flatten)]
    record: Record,
}

/// The directory of a log, which exists, and the key of its entries.
struct Log {
    directory: PathBuf,
    key: AuditKey,
}

pub(super) fn run(command: AuditCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify(args) => verify(args, config, output),
        AuditCommand::Show(args) => show(args, config, output),
        AuditCommand::Export(args) => export::run(args, config),
        AuditCommand::Report(args) => report::run(args, config, output),
        AuditCommand::Schema => {
            let schema = schemars::schema_for!(AuditEntry);
            print(&serde_json::to_string_pretty(&schema).map_err(|e| Failure::failed(e.to_string()))?)
        }
    }
}

impl Log {
    fn open(args: LogArgs, config: Option<&Path>) -> Result<Self, Failure> {
        let config = Config::load(config, &Overrides { data: args.data, ..Overrides::default() })?;
        let configured = config.audit.resolved(&config.data.directory);
        let directory = args.directory.unwrap_or(configured.directory);
        if !directory.is_dir() {
            let text =
                format!("there is no audit log in `{}`; name the data directory with `--data`", directory.display());
            return Err(Failure::usage(text));
        }
        let key = AuditKey::read(&args.key_file.unwrap_or(configured.key_file))?;
        Ok(Self { directory, key })
    }

    /// Reads the log and shows its progress.
    fn read(&self, mut visit: impl FnMut(&AuditEntry)) -> Result<Report, Failure> {
        let progress = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let mut entries = 0;
        let report = read_log(&self.directory, &self.key, |_file, _line, entry| {
            entries += 1;
            if entries % PROGRESS_ENTRIES == 0 {
                progress.set_message(format!("{entries} entries"));
                progress.tick();
            }
            visit(entry);
        });
        progress.finish_and_clear();
        Ok(report?)
    }
}

fn verify(args: VerifyArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let log = Log::open(args.log, config)?;
    let mut anchored = args.anchor.is_none();
    // Each entry holds the MAC of the one before it, so the entry after the anchor shows that the anchor is there.
    let follows = args.anchor.map(|(seq, mac)| (seq + 1, mac));
    let report = log.read(|entry| anchored |= follows == Some((entry.seq, entry.prev)))?;
    let last = report.last.as_ref().map(|last| (last.seq, last.mac));
    anchored |= args.anchor.is_some() && args.anchor == last;
    let mut findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let mut findings_total = report.findings_total;
    if let Some((seq, _)) = args.anchor.filter(|_| !anchored) {
        findings.push(format!("entry {seq} of `--anchor` is not in the log"));
        findings_total += 1;
    }
    let verified = VerifyReport {
        intact: findings_total == 0,
        findings,
        findings_total,
        segments: report.segments,
        entries: report.entries,
        records: report.records,
        incomplete_bytes: report.incomplete_bytes,
        anchor: last.map(|(seq, mac)| format!("{seq}:{mac}")),
    };
    output.result(&verified, || people(&verified))?;
    if verified.intact { Ok(()) } else { Err(not_intact(findings_total)) }
}

fn people(verified: &VerifyReport) -> String {
    let VerifyReport { segments, entries, records, .. } = verified;
    let mut lines = verified.findings.clone();
    if let Some(more) = verified.findings_total.checked_sub(verified.findings.len() as u64).filter(|more| *more > 0) {
        lines.push(format!("and {more} more; the first {FINDINGS_MAX} are shown"));
    }
    if let Some(bytes) = verified.incomplete_bytes {
        lines.push(format!(
            "incomplete last record: {bytes} bytes of a line that the process was writing when it ended, or is \
             writing now; no answer was sent for it"
        ));
    }
    let state = if verified.intact { "intact" } else { "not intact" };
    lines.push(format!("{state}: {records} records, {entries} entries, {segments} segments"));
    lines.extend(verified.anchor.iter().map(|anchor| format!("last entry, for a later `--anchor`: {anchor}")));
    lines.join("\n")
}

fn not_intact(findings_total: u64) -> Failure {
    Failure::failed(format!("the audit log was changed in {findings_total} places; `ragward audit verify` lists them"))
}

fn show(args: ShowArgs, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let log = Log::open(args.log, config)?;
    let is_wanted = |entry: &AuditEntry, record: &Record| {
        let collection = record.request.as_ref().map(|request| &request.collection);
        args.user.as_ref().is_none_or(|user| takes_part(record, user))
            && args.since.as_ref().is_none_or(|since| entry.time >= *since)
            && args.collection.as_ref().is_none_or(|wanted| collection == Some(wanted))
            && args.trace.as_ref().is_none_or(|wanted| record.trace_id == *wanted)
    };
    let mut latest: VecDeque<LoggedRecord> = VecDeque::new();
    let report = log.read(|entry| {
        let Event::Record(record) = &entry.event else { return };
        if is_wanted(entry, record) {
            latest.push_back(LoggedRecord { seq: entry.seq, time: entry.time.clone(), record: (**record).clone() });
            if latest.len() > args.limit {
                latest.pop_front();
            }
        }
    })?;
    output.result(&latest, || {
        let header = [
            "seq",
            "time",
            "call",
            "door",
            "code",
            "refusal",
            "approval",
            "for",
            "collection",
            "released",
            "withheld",
            "µs",
            "trace",
        ];
        table(&header, latest.iter().map(row))
    })?;
    if report.is_intact() { Ok(()) } else { Err(not_intact(report.findings_total)) }
}

fn row(LoggedRecord { seq, time, record }: &LoggedRecord) -> Vec<String> {
    let name = |text: &str| excerpt(text, NAME_CHARACTERS);
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    vec![
        seq.to_string(),
        time.clone(),
        call_name(record),
        record.door.map(Door::name).unwrap_or_default().to_owned(),
        record.code.clone(),
        record.refusal.clone().unwrap_or_default(),
        record.approval.as_ref().map(|approval| approval.state.clone()).unwrap_or_default(),
        name(&who(record)),
        name(record.request.as_ref().map(|request| request.collection.as_str()).unwrap_or_default()),
        number(released(record)),
        number(record.decision.as_ref().and_then(|decision| decision.withheld)),
        record.latency_us.total.to_string(),
        record.trace_id.clone(),
    ]
}

/// Returns whether a record names this user, agent or asserting pipeline.
fn takes_part(record: &Record, user: &str) -> bool {
    record.principal.as_ref().is_some_and(|principal| {
        let named = [principal.subject.as_deref(), principal.asserted_by.as_deref()];
        named.contains(&Some(user)) || principal.actors.iter().any(|actor| actor == user)
    })
}

/// Returns the method of a call: `Retrieve` for `ragward.retrieval.v1.RetrievalService/Retrieve`. An observing re-check
/// says so, because its caller does not leave out what was withheld.
fn call_name(record: &Record) -> String {
    let method = record.call.rsplit_once('/').map_or(record.call.as_str(), |(_, method)| method);
    let observes = record.request.as_ref().is_some_and(AuditedRequest::observes);
    if observes { format!("{method} (observe)") } else { method.to_owned() }
}

/// Returns the user or client of a record, followed by the agents and the pipeline in between.
fn who(record: &Record) -> String {
    let Some(principal) = &record.principal else { return String::new() };
    let through = principal.actors.iter().chain(&principal.asserted_by);
    let subject = principal.subject.clone().or_else(|| principal.client_id.clone()).unwrap_or_default();
    through.fold(subject, |who, actor| format!("{who} via {actor}"))
}

/// Returns how many chunks, documents or collections were released.
fn released(record: &Record) -> Option<u64> {
    let released = record.released.as_ref()?;
    Some(released.documents.or(released.collections).unwrap_or(released.chunk_ids.len() as u64))
}

/// Parses a time into the form of the log, so that the two compare as texts.
fn parse_time(text: &str) -> Result<String, String> {
    let date = || text.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0)).map(|time| time.and_utc());
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).ok().or_else(date);
    let time = time.ok_or("must be a date such as `2026-11-25` or a time such as `2026-11-25T09:30:00Z`")?;
    let ends_with_z = true;
    Ok(time.to_rfc3339_opts(SecondsFormat::Micros, ends_with_z))
}

fn parse_anchor(text: &str) -> Result<(u64, Mac), String> {
    let parsed = text.split_once(':').and_then(|(seq, mac)| Some((seq.parse().ok()?, Mac::parse(mac)?)));
    parsed.ok_or_else(|| "must be `SEQ:MAC`, as `ragward audit verify` prints it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_anchors_have_one_form() {
        let midnight = "2026-11-25T00:00:00.000000Z";
        assert_eq!(parse_time("2026-11-25").unwrap(), midnight);
        assert_eq!(parse_time("2026-11-25T01:00:00+01:00").unwrap(), midnight);
        assert!(parse_time("yesterday").is_err());
        let mac = "0".repeat(64);
        assert_eq!(parse_anchor(&format!("7:{mac}")).unwrap(), (7, Mac::NONE));
        assert!(parse_anchor("7").is_err() && parse_anchor(&format!("x:{mac}")).is_err());
    }
}
