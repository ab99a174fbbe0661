//! `ragward audit export`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Failure, Log, LogArgs, not_intact, released};
use crate::audit::{Entry, Event};
use crate::cli::output::unless_closed;
use crate::visible::{visible, visible_json};

const CSV_HEADER: [&str; 22] = [
    "seq",
    "time",
    "call",
    "code",
    "refusal",
    "subject",
    "actors",
    "client_id",
    "issuer",
    "asserted_by",
    "token_digest",
    "purposes",
    "collection",
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
    let mut target: Box<dyn Write> = match &args.to {
        Some(path) => {
            let file = File::create_new(path);
            Box::new(file.map_err(|e| Failure::usage(format!("cannot write `{}`: {e}", path.display())))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut target = BufWriter::new(&mut target);
    let mut written: io::Result<()> = Ok(());
    if args.format == ExportFormat::Csv {
        written = writeln!(target, "{}", CSV_HEADER.join(","));
    }
    let report = log.read(|entry| {
        if written.is_ok() {
            written = match args.format {
                ExportFormat::Jsonl => write_json(&mut target, entry),
                ExportFormat::Csv => write_csv(&mut target, entry),
            };
        }
    })?;
    unless_closed(written.and_then(|()| target.flush()))?;
    if report.is_intact() { Ok(()) } else { Err(not_intact(report.findings_total)) }
}

fn write_json(target: &mut impl Write, entry: &Entry) -> io::Result<()> {
    writeln!(target, "{}", visible_json(&serde_json::to_string(entry)?))
}

fn write_csv(target: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let Event::Record(record) = &entry.event else { return Ok(()) };
    let principal = record.principal.clone().unwrap_or_default();
    let request = record.request.clone().unwrap_or_default();
    let decision = record.decision.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let chunk_ids = record.released.as_ref().map(|released| json_cell(&released.chunk_ids));
    let cells: [Option<String>; CSV_HEADER.len()] = [
        Some(entry.seq.to_string()),
        Some(entry.time.clone()),
        Some(record.call.clone()),
        Some(record.code.clone()),
        record.refusal.clone(),
        principal.subject,
        Some(json_cell(&principal.actors)),
        principal.client_id,
        principal.issuer,
        principal.asserted_by,
        principal.token_digest,
        Some(json_cell(&principal.purposes)),
        Some(request.collection),
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
    writeln!(target, "{}", cells.map(|cell| csv_cell(&cell.unwrap_or_default())).join(","))
}

/// Writes several names into one cell, as a JSON array, since a chunk's id may hold any separator. Without names, the
/// cell is empty.
fn json_cell(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { serde_json::Value::from(names).to_string() }
}

/// Writes a cell as in RFC 4180. A cell that a spreadsheet would take for a formula begins with an apostrophe, and
/// invisible characters are escaped. JSON Lines have the text itself.
fn csv_cell(text: &str) -> String {
    let text = visible(text);
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{}", if formula { "'" } else { "" }, text.replace('"', "\"\""));
    if text.contains([',', '"', '\n', '\r', ' ']) { format!("\"{text}\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_one_form_and_is_no_formula() {
        let rows = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("=1+1", "'=1+1"),
            ("", ""),
            ("a\u{202e}b", "a\\u{202e}b"),
        ];
        for (text, expected) in rows {
            assert_eq!(csv_cell(text), expected, "{text}");
        }
    }
}
