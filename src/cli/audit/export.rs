//! `ragward audit export`: writes the entries of the log as lines of JSON, or its records as CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::cells::{csv_cell, csv_writer, io_error, json_cell};
use super::{Failure, Log, LogArgs, not_intact, released};
use crate::audit::{AuditEntry, Door, Event};
use crate::cli::output::unless_closed;
use crate::visible::visible_json;

const CSV_HEADER: [&str; 26] = [
    "seq",
    "time",
    "call",
    "door",
    "code",
    "refusal",
    "approval",
    "approved_by",
    "subject",
    "actors",
    "client_id",
    "issuer",
    "asserted_by",
    "token_digest",
    "purposes",
    "collection",
    "purpose",
    "query_digest",
    "model_id",
    "plan",
    "completion",
    "released",
    "withheld",
    "total_us",
    "trace_id",
    "chunk_ids",
];

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    log: LogArgs,
    /// The form of the export.
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    format: ExportFormat,
    /// The file to write, which must not exist yet. The default is standard output.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Every entry as a line of JSON.
    Jsonl,
    /// Every record as a row of a table.
    Csv,
}

pub(super) fn run(args: ExportArgs, config: Option<&Path>) -> Result<(), Failure> {
    let log = Log::open(args.log, config)?;
    let target: Box<dyn Write> = match &args.to {
        Some(path) => {
            let file = File::create_new(path);
            Box::new(file.map_err(|e| Failure::usage(format!("cannot write `{}`: {e}", path.display())))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut export = Export::new(target, args.format);
    let mut written = export.begin();
    let report = log.read(|entry| {
        if written.is_ok() {
            written = export.write(entry);
        }
    })?;
    unless_closed(written.and_then(|()| export.flush()))?;
    if report.is_intact() { Ok(()) } else { Err(not_intact(report.findings_total)) }
}

/// Writes entries in one format.
enum Export<W: Write> {
    Jsonl(BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Export<W> {
    fn new(target: W, format: ExportFormat) -> Self {
        match format {
            ExportFormat::Jsonl => Self::Jsonl(BufWriter::new(target)),
            ExportFormat::Csv => Self::Csv(Box::new(csv_writer(target))),
        }
    }

    /// Writes what stands before the first entry.
    fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(writer) => writer.write_record(CSV_HEADER).map_err(io_error),
        }
    }

    fn write(&mut self, entry: &AuditEntry) -> io::Result<()> {
        match self {
            Self::Jsonl(target) => writeln!(target, "{}", visible_json(&serde_json::to_string(entry)?)),
            Self::Csv(writer) => {
                let Some(row) = csv_row(entry) else { return Ok(()) };
                writer.write_record(row).map_err(io_error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(target) => target.flush(),
            Self::Csv(writer) => writer.flush(),
        }
    }
}

/// Returns the row for a record. Other entries have no row.
fn csv_row(entry: &AuditEntry) -> Option<[String; CSV_HEADER.len()]> {
    let Event::Record(record) = &entry.event else { return None };
    let principal = record.principal.clone().unwrap_or_default();
    let request = record.request.clone().unwrap_or_default();
    let decision = record.decision.clone().unwrap_or_default();
    let approval = record.approval.clone();
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let chunk_ids = record.released.as_ref().map(|released| json_cell(&released.chunk_ids));
    let cells: [Option<String>; CSV_HEADER.len()] = [
        Some(entry.seq.to_string()),
        Some(entry.time.clone()),
        Some(record.call.clone()),
        record.door.map(Door::name).map(str::to_owned),
        Some(record.code.clone()),
        record.refusal.clone(),
        approval.as_ref().map(|approval| approval.state.clone()),
        approval.and_then(|approval| approval.approved_by),
        principal.subject,
        Some(json_cell(&principal.actors)),
        principal.client_id,
        principal.issuer,
        principal.asserted_by,
        principal.token_digest,
        Some(json_cell(&principal.purposes)),
        Some(request.collection),
        request.purpose,
        request.query_digest,
        decision.model_id,
        decision.plan,
        decision.completion,
        number(released(record)),
        number(decision.withheld),
        Some(record.latency_us.total.to_string()),
        Some(record.trace_id.clone()),
        chunk_ids,
    ];
    Some(cells.map(|cell| csv_cell(&cell.unwrap_or_default())))
}
