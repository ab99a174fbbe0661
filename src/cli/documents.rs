//! `ragward documents`: lists the documents of a collection and deletes some. `ragward collections` lists collections.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::Code;

use super::output::table;
use super::{Connection, Failure, Output};
use crate::client::Client;
use crate::proto::ingest::{DeleteDocumentsRequest, ListCollectionsRequest, ListDocumentsRequest, ListedDocument};

/// The number of documents on one page of a list, and in one deletion.
const PAGE: u32 = 1_000;
/// The largest number of documents that are listed for one command. They take about 1 GB.
const LISTED_MAX: usize = 4_000_000;

#[derive(Debug, Subcommand)]
pub(super) enum DocumentsCommand {
    /// List the documents of a collection.
    List {
        /// The collection to list.
        #[arg(long)]
        collection: String,
        /// The largest number of documents to list.
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
        limit: usize,
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete documents with all of their chunks.
    Delete {
        /// The collection to delete from.
        #[arg(long)]
        collection: String,
        #[command(flatten)]
        connection: Connection,
        /// The ids of the documents.
        #[arg(required = true)]
        document_ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CollectionsArgs {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct DocumentRow {
    document_id: String,
    title: String,
    chunks: u32,
    source: String,
}

#[derive(Serialize)]
struct DocumentsReport {
    documents: Vec<DocumentRow>,
    /// Whether the collection holds more than are listed.
    more: bool,
}

#[derive(Serialize)]
struct DeletedReport {
    deleted: u64,
}

#[derive(Serialize)]
struct CollectionRow {
    name: String,
    documents: u64,
    chunks: u64,
    dimension: u32,
}

pub(super) async fn run(command: DocumentsCommand, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    match command {
        DocumentsCommand::List { collection, limit, connection } => {
            let services = connection.open_existing(config).await?;
            let listed = list(services.client(), &collection, limit).await?;
            services.close().await;
            print(listed, output)
        }
        DocumentsCommand::Delete { collection, connection, document_ids } => {
            let services = connection.open_existing(config).await?;
            let asked = document_ids.len();
            let deleted = delete(services.client(), &collection, document_ids).await?;
            services.close().await;
            output.result(&DeletedReport { deleted }, || {
                format!("deleted {deleted} of {asked} documents from collection `{collection}`")
            })
        }
    }
}

pub(super) async fn collections(
    args: CollectionsArgs,
    config: Option<PathBuf>,
    output: &Output,
) -> Result<(), Failure> {
    let services = args.connection.open_existing(config).await?;
    let listed = services.client().ingest().list_collections(ListCollectionsRequest {}).await?.into_inner();
    services.close().await;
    let rows: Vec<CollectionRow> = listed
        .collections
        .into_iter()
        .map(|row| CollectionRow {
            name: row.name,
            documents: row.documents,
            chunks: row.chunks,
            dimension: row.dimension,
        })
        .collect();
    output.result(&rows, || {
        let cells = rows.iter().map(|row| {
            vec![row.name.clone(), row.documents.to_string(), row.chunks.to_string(), row.dimension.to_string()]
        });
        table(&["collection", "documents", "chunks", "dimension"], cells)
    })
}

fn print(listed: DocumentList, output: &Output) -> Result<(), Failure> {
    let DocumentList { documents, more } = listed;
    let row = |document: ListedDocument| DocumentRow {
        document_id: document.document_id,
        title: document.title,
        chunks: document.chunks,
        source: document.source,
    };
    let report = DocumentsReport { documents: documents.into_iter().map(row).collect(), more };
    output.result(&report, || {
        let cells = report
            .documents
            .iter()
            .map(|row| vec![row.document_id.clone(), row.title.clone(), row.chunks.to_string(), row.source.clone()]);
        let mut text = table(&["document", "title", "chunks", "source"], cells);
        if more {
            text.push_str("\nand more; raise `--limit`");
        }
        text
    })
}

/// Documents of a collection, in the order of its list.
struct DocumentList {
    documents: Vec<ListedDocument>,
    /// Whether the collection holds more than these.
    more: bool,
}

/// Lists documents page by page, at most `limit` of them.
async fn list(client: &Client, collection: &str, limit: usize) -> Result<DocumentList, Failure> {
    let (mut documents, mut page_token) = (Vec::new(), String::new());
    loop {
        let left = limit.saturating_sub(documents.len());
        // A page of 0 documents stands for the default size.
        let page_size = u32::try_from(left).unwrap_or(PAGE).clamp(1, PAGE);
        let request = ListDocumentsRequest { collection: collection.to_owned(), page_size, page_token };
        let page = client.ingest().list_documents(request).await?.into_inner();
        documents.extend(page.documents);
        page_token = page.next_page_token;
        if page_token.is_empty() || documents.len() >= limit {
            let more = !page_token.is_empty() || documents.len() > limit;
            documents.truncate(limit);
            return Ok(DocumentList { documents, more });
        }
    }
}

/// Lists all documents of a collection; none if there is no such collection.
pub(super) async fn all(client: &Client, collection: &str) -> Result<Vec<ListedDocument>, Failure> {
    let probe = ListDocumentsRequest { collection: collection.to_owned(), page_size: 1, page_token: String::new() };
    match client.ingest().list_documents(probe).await {
        Err(status) if status.code() == Code::NotFound => return Ok(Vec::new()),
        Err(status) => return Err(status.into()),
        Ok(_first) => {}
    }
    let DocumentList { documents, more } = list(client, collection, LISTED_MAX).await?;
    if more {
        let text = format!("collection `{collection}` has more than {LISTED_MAX} documents, too many to look through");
        return Err(Failure::failed(text));
    }
    Ok(documents)
}

/// Deletes documents, and returns how many of them were there.
pub(super) async fn delete(client: &Client, collection: &str, ids: Vec<String>) -> Result<u64, Failure> {
    let mut deleted = 0;
    let per_call = usize::try_from(PAGE).unwrap_or(usize::MAX);
    for part in ids.chunks(per_call) {
        let request = DeleteDocumentsRequest { collection: collection.to_owned(), document_ids: part.to_vec() };
        deleted += client.ingest().delete_documents(request).await?.into_inner().documents;
    }
    Ok(deleted)
}
