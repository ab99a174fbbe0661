//! `ragward ingest`: reads documents from files and sends them to a collection.

mod pruning;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response;

use self::pruning::Pruning;
use super::{Connection, Failure, Output, documents};
use crate::chunk::Document;
use crate::client::{self, Client, document_message};
use crate::config::{Config, Overrides};
use crate::ingest::{
    CHARACTERS_MAX, CHARACTERS_MIN, ChunkSize, GuardRule, IngestError, Source, SourceDocument, SourceDocuments,
    SourceLabel, Totals, prune,
};
use crate::language::{Object, TypeName};
use crate::proto::ingest::{Embedded, UpsertDocumentsRequest, UpsertDocumentsResponse};

/// The name of the catalog that a folder may contain.
const CATALOG: &str = "catalog.jsonl";
/// The number of documents that are read ahead of the server.
const READ_AHEAD: usize = 64;
/// The number of skipped files and lines that are named. All are counted.
const PASSED_OVER_NAMED_MAX: usize = 100;

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("guards").args(["catalog", "guard", "guard_type"]))]
pub(super) struct IngestArgs {
    /// A folder of Markdown, HTML and plain text files, or a JSON Lines file of chunks with vectors.
    path: PathBuf,
    /// The collection that gets the documents. It is created if it does not exist.
    #[arg(long)]
    collection: String,
    /// A catalog (JSON Lines) that names each file's object. The default is `catalog.jsonl` in the folder, if it
    /// exists.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// One object that guards every file, such as `folder:handbook`.
    #[arg(long, value_name = "OBJECT")]
    guard: Option<String>,
    /// The type of the object that guards each file. Its id is the file's path, without the extension.
    #[arg(long, value_name = "TYPE")]
    guard_type: Option<String>,
    /// The longest chunk that a text is cut into, in characters. The default is that of the collection in the configuration
    /// (`ingest.chunk_characters`).
    #[arg(long, value_name = "CHARACTERS")]
    chunk_characters: Option<usize>,
    /// The most characters of a chunk that the next one repeats. The default is that of the collection in the configuration
    /// (`ingest.chunk_overlap`).
    #[arg(long, value_name = "CHARACTERS")]
    chunk_overlap: Option<usize>,
    /// Cut again only those files whose documents are in the collection, and put in no others. Use it after a change of the sizes
    /// or of Ragward: the server keeps chunks, and not the files that they came from.
    #[arg(long, conflicts_with = "prune")]
    recut: bool,
    /// Stop at the first file or line that cannot be read. Otherwise it is skipped and named at the end, and the exit
    /// code is 1.
    #[arg(long)]
    strict: bool,
    /// The name of this source, such as `handbook`. It is recorded in the documents, in the metadata `ingest_source`.
    #[arg(long, value_name = "LABEL", value_parser = SourceLabel::parse)]
    source: Option<SourceLabel>,
    /// Remove documents of this source whose files are gone. Nothing is removed if a file was skipped or nothing was read.
    #[arg(long, requires = "source")]
    prune: bool,
    /// The largest share of the source's documents that may be removed, in percent.
    #[arg(long, value_name = "PERCENT", requires = "prune", default_value_t = prune::SHARE_MAX,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    prune_max: u8,
    /// Remove documents of folders that are empty now, too. Without this, nothing is removed then: such a folder may be a disk
    /// that is not mounted.
    #[arg(long, requires = "prune")]
    prune_empty_folders: bool,
    /// Send and remove nothing; only list what would be removed.
    #[arg(long, requires = "prune")]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct IngestReport {
    documents: u64,
    chunks: u64,
    /// Files without any text. JSON has no other paths than texts, so here and below, what is not UTF-8 in a name is replaced.
    empty: Vec<String>,
    /// The first of the files that were read in another encoding than UTF-8.
    decoded: Vec<DecodedFile>,
    /// The first of the documents in the folder whose form is not read, such as PDF.
    not_read: Vec<String>,
    not_read_total: usize,
    /// How many documents of the collection have no file here, so that they stay as they were cut; none without `--recut`.
    not_recut: usize,
    /// Warnings about documents that nobody will see.
    warnings: Vec<String>,
    /// The model that the server sent texts to; left out if it sent none.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedded: Option<EmbeddedReport>,
    /// The first of the files and lines that were skipped, each with the reason.
    passed_over: Vec<String>,
    passed_over_total: usize,
    /// The documents that were removed, or would be in a dry run; none without `--prune`.
    removed: BTreeSet<String>,
    consistency_token: String,
}

/// A file that was read in another encoding than UTF-8.
#[derive(Serialize)]
struct DecodedFile {
    path: String,
    encoding: &'static str,
}

/// Where the server sent texts to, and how many.
#[derive(Serialize)]
struct EmbeddedReport {
    model: String,
    host: String,
    chunks: u64,
}

pub(super) async fn run(args: IngestArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let source = source(&args)?;
    let size = chunk_size(&args, config.as_deref())?;
    let (totals, errors) = source.totals()?;
    if let (true, Some(first)) = (args.strict, errors.into_iter().next()) {
        return Err(first.into());
    }
    let empty_folders = if args.prune && !args.prune_empty_folders { source.empty_folders()? } else { Vec::new() };
    let not_read = source.not_read();
    let mut entries = source.documents_of_size(size)?;
    if let Some(label) = args.source.clone() {
        entries = label.record_in(entries);
    }
    let services =
        if args.dry_run { args.connection.open_existing(config).await? } else { args.connection.open(config).await? };
    // Without a server, the token is of no use after this process.
    let has_server = services.are_of_server();
    let known = if args.recut { Some(documents_to_recut(services.client(), &args.collection).await?) } else { None };
    if let Some(known) = known.clone() {
        entries = Box::new(entries.filter(move |entry| is_known(entry, &known)));
    }
    let on_error = if args.strict { OnError::Stop } else { OnError::PassOver };
    let collection = &args.collection;
    let pruning = match args.source.filter(|_| args.prune) {
        Some(label) => Some(Pruning::begin(services.client(), collection, label, args.prune_max, empty_folders).await?),
        None => None,
    };
    let sent = if args.dry_run {
        only_read(entries, on_error, progress(totals)).await?
    } else {
        send(services.client(), collection, entries, on_error, progress(totals)).await?
    };
    let pruned = match pruning {
        Some(pruning) if args.dry_run => pruning.only_list(&sent),
        Some(pruning) => pruning.finish(services.client(), &sent).await?,
        None => Ok(BTreeSet::new()),
    };
    services.close().await;
    let SendOutcome { answer, ids, empty, decoded, passed_over, passed_over_total } = sent;
    let not_recut = known.map_or(0, |known| known.difference(&ids).count());
    let consistency_token = client::consistency_token(&answer).to_owned();
    let UpsertDocumentsResponse { documents, chunks, warnings, embedded, .. } = answer.into_inner();
    let embedded = embedded.map(|Embedded { model, host, chunks }| EmbeddedReport { model, host, chunks });
    // These counts are of this run; the collection may hold other documents.
    let mut lines = vec![format!("put {documents} documents ({chunks} chunks) into collection `{collection}`")];
    // Whoever ingests has to learn that texts leave the server.
    lines.extend(embedded.as_ref().map(|EmbeddedReport { model, host, chunks }| match host.as_str() {
        "" => format!("the model `{model}` made vectors of {chunks} chunks in the server"),
        _ => format!("sent the texts of {chunks} chunks to `{host}`, where the model `{model}` made their vectors"),
    }));
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    let empty = shown(&empty);
    lines.extend(empty.iter().map(|path| format!("passed over, no text: {path}")));
    lines.extend(decoded.iter().map(|file| format!("read as {}: {}", file.encoding, file.path)));
    let not_read_total = not_read.len();
    let not_read = shown(not_read.get(..PASSED_OVER_NAMED_MAX).unwrap_or(&not_read));
    lines.extend(not_read.iter().map(|path| format!("not read, make it text first: {path}")));
    if not_read_total > not_read.len() {
        lines.push(format!("and {} more that are not read", not_read_total - not_read.len()));
    }
    if not_recut > 0 {
        lines.push(format!("{not_recut} documents of the collection have no file here and stay as they are"));
    }
    lines.extend(passed_over.iter().map(|why| format!("passed over: {why}")));
    if passed_over_total > passed_over.len() {
        lines.push(format!("and {} more; `--strict` stops at the first", passed_over_total - passed_over.len()));
    }
    if args.prune {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        let count = pruned.as_ref().map_or(0, BTreeSet::len);
        lines.push(format!("{verb} {count} documents from collection `{collection}`"));
    }
    if has_server {
        lines.push(format!("consistency token: {consistency_token}"));
    }
    let (removed, refused) = match pruned {
        Ok(removed) => (removed, None),
        Err(refused) => (BTreeSet::new(), Some(refused)),
    };
    let report = IngestReport {
        documents,
        chunks,
        empty,
        decoded,
        not_read,
        not_read_total,
        not_recut,
        warnings,
        embedded,
        passed_over,
        passed_over_total,
        removed,
        consistency_token,
    };
    output.result(&report, || lines.join("\n"))?;
    let passed_over = match passed_over_total {
        0 => None,
        1 => Some("1 file or line was passed over".to_owned()),
        more => Some(format!("{more} files or lines were passed over")),
    };
    let faults: Vec<String> = passed_over.into_iter().chain(refused.map(|refused| refused.to_string())).collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::failed(faults.join("; "))) }
}

/// Returns paths as texts.
fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

/// Returns the size of chunks: that of the flags, and otherwise that of the configuration.
fn chunk_size(args: &IngestArgs, config: Option<&Path>) -> Result<ChunkSize, Failure> {
    let configured = Config::load(config, &Overrides::default())?.ingest.size(&args.collection);
    let characters = args.chunk_characters.unwrap_or(configured.characters());
    let overlap = args.chunk_overlap.unwrap_or(configured.overlap());
    ChunkSize::new(characters, overlap).ok_or_else(|| {
        Failure::usage(format!(
            "`--chunk-characters` must be from {CHARACTERS_MIN} to {CHARACTERS_MAX}, and `--chunk-overlap` at most half of it"
        ))
    })
}

/// Returns the ids of all documents of a collection. Fails if there are none.
async fn documents_to_recut(client: &Client, collection: &str) -> Result<BTreeSet<String>, Failure> {
    let listed = documents::all(client, collection).await?;
    if listed.is_empty() {
        return Err(Failure::usage(format!("collection `{collection}` has no documents to cut again")));
    }
    Ok(listed.into_iter().map(|document| document.document_id).collect())
}

/// Returns whether an entry is that of a document which is there, or an error.
fn is_known(entry: &Result<SourceDocument, IngestError>, known: &BTreeSet<String>) -> bool {
    match entry {
        Ok(entry) => entry.document.as_ref().is_some_and(|document| known.contains(&document.id)),
        Err(_) => true,
    }
}

fn source(args: &IngestArgs) -> Result<Source, Failure> {
    let path = args.path.clone();
    let named = path.display();
    let names_a_guard = args.guard.is_some() || args.guard_type.is_some();
    if path.is_file() {
        if names_a_guard || args.catalog.is_some() {
            let text =
                format!("each line of `{named}` names its own guard; remove `--guard`, `--guard-type` and `--catalog`");
            return Err(Failure::usage(text));
        }
        if path.extension().is_none_or(|extension| extension != "jsonl" && extension != "ndjson") {
            let text = format!(
                "a single file must be JSON Lines (`.jsonl`), which `{named}` is not; for texts, name their folder"
            );
            return Err(Failure::usage(text));
        }
        return Ok(Source::JsonLines { path });
    }
    if !path.is_dir() {
        return Err(Failure::usage(format!("`{named}` is neither a folder nor a file")));
    }
    if names_a_guard && path.join(CATALOG).is_file() {
        let text = format!("`{CATALOG}` in `{named}` names the guards; remove `--guard`, or move the catalog away");
        return Err(Failure::usage(text));
    }
    let malformed = |e: crate::language::ParseError| Failure::usage(e.to_string());
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

/// Says whether the run goes on after a file or line that it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnError {
    /// It is skipped, and the rest is sent.
    PassOver,
    /// The run stops, and nothing after it is sent.
    Stop,
}

/// The outcome of a run.
struct SendOutcome {
    answer: Response<UpsertDocumentsResponse>,
    /// The ids of the documents that were read.
    ids: BTreeSet<String>,
    empty: Vec<PathBuf>,
    decoded: Vec<DecodedFile>,
    /// The first of the files and lines that were skipped.
    passed_over: Vec<String>,
    passed_over_total: usize,
}

/// The counts of what was read.
#[derive(Default)]
struct ReadOutcome {
    ids: BTreeSet<String>,
    empty: Vec<PathBuf>,
    decoded: Vec<DecodedFile>,
    errors: Vec<IngestError>,
    errors_total: usize,
}

/// Says whether the reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    GoesOn,
    Ends,
}

impl ReadOutcome {
    /// Reads documents and gives each of them to `take`.
    fn read(
        entries: SourceDocuments,
        on_error: OnError,
        progress: &ProgressBar,
        mut take: impl FnMut(Document) -> Reading,
    ) -> Self {
        let mut read = Self::default();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    read.errors_total += 1;
                    if read.errors.len() < PASSED_OVER_NAMED_MAX {
                        read.errors.push(error);
                    }
                    if on_error == OnError::Stop {
                        break;
                    }
                    continue;
                }
            };
            progress.inc(entry.bytes);
            if let Some(encoding) = entry.encoding.filter(|_| read.decoded.len() < PASSED_OVER_NAMED_MAX) {
                read.decoded.push(DecodedFile { path: entry.path.display().to_string(), encoding });
            }
            let Some(document) = entry.document else {
                read.empty.push(entry.path);
                continue;
            };
            let id = document.id.clone();
            if take(document) == Reading::Ends {
                break;
            }
            read.ids.insert(id);
        }
        progress.finish_and_clear();
        read
    }

    /// Joins what was read with the answer to it. Fails if a file or line that cannot be read stops the run, or if no
    /// document can be read. The error says how many documents were sent.
    fn answered(self, answer: Response<UpsertDocumentsResponse>, on_error: OnError) -> Result<SendOutcome, Failure> {
        let Self { ids, empty, decoded, errors, errors_total } = self;
        match errors.first() {
            Some(first) if on_error == OnError::Stop || ids.is_empty() => {
                let before = format_args!("; documents written before it: {}", answer.get_ref().documents);
                Err(Failure::from(first.clone()).followed_by(before))
            }
            _ => {
                let passed_over = errors.iter().map(ToString::to_string).collect();
                Ok(SendOutcome { answer, ids, empty, decoded, passed_over, passed_over_total: errors_total })
            }
        }
    }
}

/// Sends documents as they are read.
async fn send(
    client: &Client,
    collection: &str,
    entries: SourceDocuments,
    on_error: OnError,
    progress: ProgressBar,
) -> Result<SendOutcome, Failure> {
    let (messages, stream) = mpsc::channel(READ_AHEAD);
    let collection = collection.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        ReadOutcome::read(entries, on_error, &progress, |document| {
            let document = Some(document_message(document));
            match messages.blocking_send(UpsertDocumentsRequest { collection: collection.clone(), document }) {
                Ok(()) => Reading::GoesOn,
                // The server has refused the stream, and its answer says why.
                Err(_gone) => Reading::Ends,
            }
        })
    });
    let written = client.ingest().upsert_documents(ReceiverStream::new(stream)).await;
    let read = reading.await.map_err(|e| Failure::failed(e.to_string()))?;
    read.answered(written?, on_error)
}

/// Reads documents and sends none.
async fn only_read(entries: SourceDocuments, on_error: OnError, progress: ProgressBar) -> Result<SendOutcome, Failure> {
    let reading = tokio::task::spawn_blocking(move || {
        ReadOutcome::read(entries, on_error, &progress, |_document| Reading::GoesOn)
    });
    let read = reading.await.map_err(|e| Failure::failed(e.to_string()))?;
    read.answered(Response::new(UpsertDocumentsResponse::default()), on_error)
}

/// Sends all documents of a folder with a catalog, or all chunks of a JSON Lines file. Stops at the first that cannot be
/// read.
pub(super) async fn ingest_all(client: &Client, collection: &str, path: &Path) -> Result<u64, Failure> {
    if path.is_dir() {
        return ingest_catalog(client, collection, path).await;
    }
    let entries = Source::JsonLines { path: path.to_owned() }.documents()?;
    let sent = send(client, collection, entries, OnError::Stop, ProgressBar::hidden()).await?;
    Ok(sent.answer.into_inner().documents)
}

/// Sends all documents of a folder with a catalog.
pub(super) async fn ingest_catalog(client: &Client, collection: &str, root: &Path) -> Result<u64, Failure> {
    let source = Source::Catalog { path: root.join(CATALOG), root: root.to_owned() };
    let entries = source.documents()?;
    let sent = send(client, collection, entries, OnError::Stop, ProgressBar::hidden()).await?;
    Ok(sent.answer.into_inner().documents)
}
