//! Lists documents and collections.
//!
//! INVARIANT (only what one may write): a list for the bearer of a token is made of documents that the bearer may write, and of
//! nothing else. Its pages are filled from these, and the token of the next page names one of these. So documents that the bearer
//! may not write change no byte of any page.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::{IngestApi, WritingPrincipal, asked, check_request, documents_of, is_writable, uploader, writable_guards};
use crate::authz::enforce::Enforcer;
use crate::identity::Caller;
use crate::language::Object;
use crate::proto::ingest as message;
use crate::retrieval::FieldViolation;
use crate::server::audit::Draft;
use crate::server::refusal::Refusal;
use crate::vector_store::{ListedDocument, VectorStoreError};

/// The number of documents on a page for which nobody asks for a number.
const PAGE_SIZE: u32 = 100;
/// The largest number of documents on a page. With the longest ids and titles it has 2 MB.
const PAGE_SIZE_MAX: u32 = 1_000;
/// The smallest number of documents that are read from the store at a time, so that a reader of few does not make many calls.
const READ_MIN: usize = 256;
/// The longest source of a document that is listed, in bytes, as `ragward ingest --source` takes it.
const SOURCE_BYTES_MAX: usize = 128;
/// The largest number of collections in an answer.
const COLLECTIONS_MAX: usize = 1_000;

/// The page that a caller asks for.
#[derive(Debug, PartialEq, Eq)]
struct AskedPage {
    size: usize,
    /// The place at which it begins; `None` for the first page.
    from: Option<String>,
}

impl AskedPage {
    fn read(message: &message::ListDocumentsRequest) -> Result<Self, Refusal> {
        let size = match message.page_size {
            0 => PAGE_SIZE,
            size if size > PAGE_SIZE_MAX => {
                let description = format!("is {size}, must be from 1 to {PAGE_SIZE_MAX}");
                return Err(FieldViolation::new("page_size", description).into());
            }
            size => size,
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if message.page_token.is_empty() {
            return Ok(Self { size, from: None });
        }
        let place = URL_SAFE_NO_PAD.decode(&message.page_token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match place {
            Some(place) => Ok(Self { size, from: Some(place) }),
            None => Err(wrong_token()),
        }
    }
}

fn wrong_token() -> Refusal {
    FieldViolation::new("page_token", "is not a token of this list; send one back as it was given").into()
}

fn token_of(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

impl IngestApi {
    pub(super) async fn list(
        &self,
        draft: &Draft,
        caller: &Caller,
        peer: Option<IpAddr>,
        message: &message::ListDocumentsRequest,
    ) -> Result<message::ListDocumentsResponse, Refusal> {
        let writer = self.writer(caller)?;
        check_request(&message.collection, &[])?;
        self.authentication.admit_login(caller, &message.collection)?;
        draft.request(asked(&message.collection, None));
        let AskedPage { size, from } = AskedPage::read(message)?;
        // The first document of the next page is looked for, too: without one there is no next page.
        let wanted = size.saturating_add(1);
        let uploader = uploader(writer.as_ref(), peer);
        let reading = async {
            let _place = self.lists.open(&uploader).await?;
            self.writable_from(writer.as_ref(), &message.collection, from, wanted).await
        };
        let mut documents = self.within(reading).await?;
        let next = if documents.len() > size { documents.pop() } else { None };
        draft.released(documents_of(documents.len() as u64));
        Ok(message::ListDocumentsResponse {
            documents: documents.into_iter().map(listed).collect(),
            next_page_token: next.map(|next| token_of(&next.place)).unwrap_or_default(),
        })
    }

    /// Lists those collections in which the caller may write a document, and all of them for an administrator.
    pub(super) async fn collections(
        &self,
        caller: &Caller,
        peer: Option<IpAddr>,
    ) -> Result<message::ListCollectionsResponse, Refusal> {
        let writer = self.writer(caller)?;
        let uploader = uploader(writer.as_ref(), peer);
        let may_count = caller.may_administer();
        let listing = async {
            let _place = self.lists.open(&uploader).await?;
            let mut collections = Vec::new();
            for name in self.documents.collection_names().await? {
                if collections.len() == COLLECTIONS_MAX {
                    break;
                }
                // A collection that wants a stronger login is not there for this one.
                if self.authentication.admit_login(caller, &name).is_err() {
                    continue;
                }
                let listed =
                    if may_count { self.counted(&name).await } else { self.named(writer.as_ref(), &name).await };
                collections.extend(listed?);
            }
            Ok::<_, Refusal>(message::ListCollectionsResponse { collections })
        };
        self.within(listing).await
    }

    /// Returns a collection with its totals; `None` for one that cannot be searched, or is gone by now.
    async fn counted(&self, name: &str) -> Result<Option<message::ListedCollection>, Refusal> {
        let Some(info) = unless_unlisted(self.vector_store.collection(name).await)? else { return Ok(None) };
        Ok(Some(message::ListedCollection {
            name: name.to_owned(),
            documents: info.documents,
            chunks: info.chunks,
            dimension: info.dimension.and_then(|dimension| u32::try_from(dimension).ok()).unwrap_or_default(),
        }))
    }

    /// Returns the name of a collection if the writer may write a document of it.
    async fn named(
        &self,
        writer: Option<&WritingPrincipal>,
        name: &str,
    ) -> Result<Option<message::ListedCollection>, Refusal> {
        let found = self.first_writable(writer, name).await?;
        let collection = || message::ListedCollection { name: name.to_owned(), ..message::ListedCollection::default() };
        Ok(found.map(|_document| collection()))
    }

    async fn first_writable(
        &self,
        writer: Option<&WritingPrincipal>,
        collection: &str,
    ) -> Result<Option<ListedDocument>, Refusal> {
        // One document is looked at without asking, to learn whether the collection has a list at all.
        if unless_unlisted(self.documents.list(collection, None, 1).await)?.is_none() {
            return Ok(None);
        }
        Ok(self.writable_from(writer, collection, None, 1).await?.into_iter().next())
    }

    /// Reads on until it has as many documents as are wanted that the writer may write, or the list ends. The request's
    /// deadline bounds it.
    async fn writable_from(
        &self,
        writer: Option<&WritingPrincipal>,
        collection: &str,
        mut from: Option<String>,
        wanted: usize,
    ) -> Result<Vec<ListedDocument>, Refusal> {
        let deadline = Instant::now() + self.request_timeout;
        let mut enforcer = writer.map(|writer| self.enforcer(writer, deadline));
        let mut kept = Vec::new();
        loop {
            let read = self.documents.list(collection, from.as_deref(), wanted.max(READ_MIN)).await;
            let page = read.map_err(|error| refused_list(from.as_deref(), error))?;
            kept.extend(match &mut enforcer {
                Some(enforcer) => only_writable(enforcer, page.documents).await?,
                None => page.documents,
            });
            if page.next.is_none() || kept.len() >= wanted {
                break;
            }
            from = page.next;
        }
        kept.truncate(wanted);
        Ok(kept)
    }
}

/// Keeps the documents that the writer may write. Their guards are of the same version as what is listed of them.
async fn only_writable(
    enforcer: &mut Enforcer<'_>,
    documents: Vec<ListedDocument>,
) -> Result<Vec<ListedDocument>, Refusal> {
    let guards: BTreeSet<Object> =
        documents.iter().filter_map(|document| document.guards.as_ref()).flatten().cloned().collect();
    let may_write = writable_guards(enforcer, &guards).await?;
    Ok(documents.into_iter().filter(|document| is_writable(document.guards.as_ref(), &may_write)).collect())
}

/// Returns nothing for a collection that Ragward cannot search or does not fill, and for one that is gone by now. A list of
/// many collections leaves it out.
fn unless_unlisted<T>(answer: Result<T, VectorStoreError>) -> Result<Option<T>, Refusal> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(
            VectorStoreError::Unsupported(_) | VectorStoreError::Refused(_) | VectorStoreError::UnknownCollection(_),
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the refusal of a list. A store calls a place invalid that is not of its lists.
fn refused_list(from: Option<&str>, error: VectorStoreError) -> Refusal {
    match (from, error) {
        (Some(_), VectorStoreError::Invalid(_)) => wrong_token(),
        (_, error) => error.into(),
    }
}

fn listed(document: ListedDocument) -> message::ListedDocument {
    let source = document.source.filter(|source| source.len() <= SOURCE_BYTES_MAX).unwrap_or_default();
    message::ListedDocument { document_id: document.id, title: document.title, chunks: document.chunks, source }
}
