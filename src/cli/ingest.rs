//! `ragward ingest`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response;

use super::{Connection, Failure, Output};
use crate::client::{self, Client, document_message};
use crate::ingest::{Entries, GuardRule, IngestError, Source, Totals};
use crate::proto::ingest::{UpsertDocumentsRequest, UpsertDocumentsResponse};
use crate::relationship::{Object, TypeName};

/// The catalog that a folder may bring along.
const CATALOG: &str = "catalog.jsonl";
/// Documents that may be read ahead of the server.
const READ_AHEAD: usize = 64;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("guards").args(["catalog", "guard", "guard_type"]))]
pub(super) struct IngestArgs {
    /// A folder of Markdown and text files, or a file of chunks with vectors (JSON Lines).
    path: PathBuf,
    /// The collection that they go into; made when it is not there.
    #[arg(long)]
    collection: String,
    /// A catalog (JSON Lines) that names each file's object; `catalog.jsonl` in the folder when there is one.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// One object that guards every file, `folder:handbook`.
    #[arg(long, value_name = "OBJECT")]
    guard: Option<String>,
    /// The type of the object that guards each file; its id is the file's path, without the extension.
    #[arg(long, value_name = "TYPE")]
    guard_type: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Shown {
    documents: u64,
    chunks: u64,
    /// Files that hold no text.
    empty: Vec<PathBuf>,
    consistency_token: String,
}

pub(super) async fn run(args: IngestArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let source = source(&args)?;
    let totals = source.totals()?;
    let entries = source.documents()?;
    // Without a server the token ends with this process.
    let has_server = args.connection.server.is_some();
    let services = args.connection.open(config).await?;
    let (answer, empty) = send(&services, &args.collection, entries, progress(totals)).await?;
    let consistency_token = client::consistency_token(&answer).to_owned();
    let UpsertDocumentsResponse { documents, chunks } = answer.into_inner();
    let collection = &args.collection;
    let mut lines = vec![format!("{documents} documents ({chunks} chunks) are in collection `{collection}`")];
    lines.extend(empty.iter().map(|path| format!("passed over, no text: {}", path.display())));
    if has_server {
        lines.push(format!("consistency token: {consistency_token}"));
    }
    output.result(&Shown { documents, chunks, empty, consistency_token }, || lines.join("\n"))
}

fn source(args: &IngestArgs) -> Result<Source, Failure> {
    let path = args.path.clone();
    let shown = path.display();
    let names_a_guard = args.guard.is_some() || args.guard_type.is_some();
    if path.is_file() {
        if names_a_guard || args.catalog.is_some() {
            let text =
                format!("each line of `{shown}` names its own guard; remove `--guard`, `--guard-type` and `--catalog`");
            return Err(Failure::usage(text));
        }
        if path.extension().is_none_or(|extension| extension != "jsonl" && extension != "ndjson") {
            let text = format!(
                "a single file must be JSON Lines (`.jsonl`), which `{shown}` is not; for texts, name their folder"
            );
            return Err(Failure::usage(text));
        }
        return Ok(Source::JsonLines { path });
    }
    if !path.is_dir() {
        return Err(Failure::usage(format!("`{shown}` is neither a folder nor a file")));
    }
    if names_a_guard && path.join(CATALOG).is_file() {
        let text = format!("`{CATALOG}` in `{shown}` names the guards; remove `--guard`, or move the catalog away");
        return Err(Failure::usage(text));
    }
    let malformed = |e: crate::relationship::ParseError| Failure::usage(e.to_string());
    let guard = match (&args.guard, &args.guard_type) {
        (Some(guard), _) => GuardRule::One(Object::parse(guard).map_err(malformed)?),
        (None, Some(type_name)) => GuardRule::Type(TypeName::parse(type_name).map_err(malformed)?),
        (None, None) => return catalog(args, path),
    };
    Ok(Source::Folder { root: path, guard })
}

fn catalog(args: &IngestArgs, root: PathBuf) -> Result<Source, Failure> {
    let beside = root.join(CATALOG);
    let path = match &args.catalog {
        Some(catalog) => catalog.clone(),
        None if beside.is_file() => beside,
        None => {
            let text = "which object guards each file? Name a catalog with `--catalog`, one object with `--guard`, or \
                        the objects' type with `--guard-type`";
            return Err(Failure::usage(text));
        }
    };
    Ok(Source::Catalog { path, root })
}

fn progress(totals: Totals) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {bytes}/{total_bytes} {wide_bar} {pos:>3} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(totals.bytes).with_style(style)
}

/// Sends documents as they are read. A bad one ends the stream: those before it are in, and the error says how many.
async fn send(
    client: &Client,
    collection: &str,
    entries: Entries,
    progress: ProgressBar,
) -> Result<(Response<UpsertDocumentsResponse>, Vec<PathBuf>), Failure> {
    let (messages, stream) = mpsc::channel(READ_AHEAD);
    let collection = collection.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut empty = Vec::new();
        for entry in entries {
            let entry = entry?;
            progress.inc(entry.bytes);
            let Some(document) = entry.document else {
                empty.push(entry.path);
                continue;
            };
            let document = Some(document_message(document));
            if messages.blocking_send(UpsertDocumentsRequest { collection: collection.clone(), document }).is_err() {
                // The server has refused the stream; its answer says why.
                break;
            }
        }
        progress.finish_and_clear();
        Ok(empty)
    });
    let written = client.ingest().upsert_documents(ReceiverStream::new(stream)).await;
    let read: Result<Vec<PathBuf>, IngestError> = reading.await.map_err(|e| Failure::failed(e.to_string()))?;
    let written = written?;
    match read {
        Ok(empty) => Ok((written, empty)),
        Err(error) => {
            let before = format_args!("; documents before it that are in: {}", written.get_ref().documents);
            Err(Failure::from(error).followed_by(before))
        }
    }
}

/// The documents of a folder with a catalog, all sent.
pub(super) async fn ingest_catalog(client: &Client, collection: &str, root: &Path) -> Result<u64, Failure> {
    let source = Source::Catalog { path: root.join(CATALOG), root: root.to_owned() };
    let entries = source.documents()?;
    let (written, _empty) = send(client, collection, entries, ProgressBar::hidden()).await?;
    Ok(written.into_inner().documents)
}
