//! Lists documents and collections.
//!
//! INVARIANT (only what one may write): a list for the bearer of a token is made of documents that the bearer may write, and of
//! nothing else. Its pages are filled from these, and the token of the next page names one of these. So documents that the bearer
//! may not write change no byte of any page.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::{IngestApi, WritingPrincipal, asked, check_request, documents_of, is_writable, uploader, writable_guards};
use crate::audit::Released;
use crate::authz::enforce::Enforcer;
use crate::identity::Caller;
use crate::language::Object;
use crate::proto::ingest as message;
use crate::retrieval::FieldViolation;
use crate::server::audit::Draft;
use crate::server::refusal::Refusal;
use crate::vector_store::{GuardTable, ListedDocument, VectorStoreError};

/// The number of documents on a page for which nobody asks for a number.
const PAGE_SIZE: u32 = 100;
/// The largest number of documents on a page. With the longest ids and titles it has 2 MB.
const PAGE_SIZE_MAX: u32 = 1_000;
/// The smallest number of documents that are read from the store at a time, so that a reader of few does not make many calls.
pub(super) const READ_MIN: usize = 256;
/// The longest source of a document that is listed, in bytes, as `ragward ingest --source` takes it.
const SOURCE_BYTES_MAX: usize = 128;
/// The largest number of collections in an answer.
const COLLECTIONS_MAX: usize = 1_000;
/// The most documents of one collection that are looked at to learn whether the writer may write one of them, if it is known
/// which guards are likely. Reading so many takes the embedded engine some hundredths of a second.
pub(super) const LOOKED_AT_MAX: usize = 10_000;
/// Like [`LOOKED_AT_MAX`], if no guard is known to be likely. Then each document may cost a check, and one call to an `OpenFGA`
/// server holds 50 checks.
pub(super) const CHECKED_MAX: usize = 1_000;
/// The most guards that are asked about if the writer may write none of the documents that were looked at.
const GUARDS_ASKED_MAX: usize = 16;
/// The part of a request's time that the visible set of one collection may take: one in this many.
const LIST_PART_OF_TIME: u32 = 4;

/// The outcome of a look for a document that the writer may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    /// There are more documents than may be looked at.
    TooMany,
}

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
        draft: &Draft,
        caller: &Caller,
        peer: Option<IpAddr>,
    ) -> Result<message::ListCollectionsResponse, Refusal> {
        let writer = self.writer(caller)?;
        let uploader = uploader(writer.as_ref(), peer);
        // A caller without a token is believed. It gets every collection with its counts, as an administrator does.
        let named_for = if caller.may_administer() { None } else { writer.as_ref() };
        let listing = async {
            let _place = self.lists.open(&uploader).await?;
            // A guard that several collections share is asked about once.
            let deadline = Instant::now() + self.request_timeout;
            let mut enforcer = named_for.map(|writer| self.enforcer(writer, deadline));
            let mut collections = Vec::new();
            for name in self.documents.collection_names().await? {
                if collections.len() == COLLECTIONS_MAX {
                    break;
                }
                // A collection that wants a stronger login is not there for this one.
                if self.authentication.admit_login(caller, &name).is_err() {
                    continue;
                }
                let listed = match &mut enforcer {
                    Some(enforcer) => self.named(enforcer, &name).await,
                    None => self.counted(&name).await,
                };
                collections.extend(listed?);
            }
            Ok::<_, Refusal>(message::ListCollectionsResponse { collections })
        };
        let listed = self.within(listing).await?;
        let collections = Some(listed.collections.len() as u64);
        draft.released(Released { collections, ..Released::default() });
        Ok(listed)
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
    ///
    /// INVARIANT (bounded): a collection of documents that the writer may not write costs one visible set and one look. Without
    /// that set, or where the writer may write some, no more than a bound is looked at. So a large collection of others does not
    /// make the list fail, which would tell of it.
    async fn named(
        &self,
        enforcer: &mut Enforcer<'_>,
        name: &str,
    ) -> Result<Option<message::ListedCollection>, Refusal> {
        // One document is looked at without asking, to learn whether the collection has a list at all.
        if unless_unlisted(self.documents.list(name, None, 1).await)?.is_none() {
            return Ok(None);
        }
        let Some(table) = unless_unlisted(self.vector_store.guards(name).await)? else { return Ok(None) };
        let likely = match &table {
            Some(table) => self.likely_writable(enforcer, table).await,
            None => None,
        };
        let is_writers = match &likely {
            Some(likely) if likely.is_empty() => false,
            Some(likely) => match self.find_writable(enforcer, name, Some(likely), LOOKED_AT_MAX).await? {
                Found::Yes => true,
                Found::No => false,
                // These guards are in use, and a caller who may write under one of them knows of the collection.
                Found::TooMany => {
                    let some: BTreeSet<Object> = likely.iter().take(GUARDS_ASKED_MAX).cloned().collect();
                    !writable_guards(enforcer, &some).await?.is_empty()
                }
            },
            None => self.find_writable(enforcer, name, None, CHECKED_MAX).await? == Found::Yes,
        };
        let collection = || message::ListedCollection { name: name.to_owned(), ..message::ListedCollection::default() };
        Ok(is_writers.then(collection))
    }

    /// Returns the guards under which the writer may write, as a hint; `None` where the authorizer cannot tell them all at once.
    async fn likely_writable(&self, enforcer: &mut Enforcer<'_>, table: &GuardTable) -> Option<HashSet<Object>> {
        let list_deadline = Instant::now() + self.request_timeout / LIST_PART_OF_TIME;
        let listed = enforcer.known_visible_set(&table.guards, &table.in_use, list_deadline).await;
        // An authorizer that cannot make the list may still decide each check. If it cannot do that either, the checks fail.
        let positions = listed.unwrap_or_else(|error| {
            tracing::debug!(%error, "the guards of a writer are not known, so documents are looked at");
            None
        });
        let guard_at = |position: u32| table.guards.get(usize::try_from(position).ok()?).cloned();
        positions.map(|positions| positions.iter().filter_map(guard_at).collect())
    }

    /// Looks for a document that the writer may write, among about `looked_at_max` documents of a collection. Without a hint,
    /// the guards of all of these are checked.
    async fn find_writable(
        &self,
        enforcer: &mut Enforcer<'_>,
        collection: &str,
        likely: Option<&HashSet<Object>>,
        looked_at_max: usize,
    ) -> Result<Found, Refusal> {
        let is_likely = |document: &ListedDocument| {
            let guards = document.guards.as_ref();
            likely.is_none_or(|likely| guards.is_some_and(|guards| guards.iter().all(|guard| likely.contains(guard))))
        };
        let (mut from, mut looked_at): (Option<String>, usize) = (None, 0);
        while looked_at < looked_at_max {
            let page = unless_unlisted(self.documents.list(collection, from.as_deref(), READ_MIN).await)?;
            let Some(page) = page else { return Ok(Found::No) };
            // A part of the list may be empty, and still costs a look.
            looked_at = looked_at.saturating_add(page.documents.len().max(1));
            let candidates: Vec<ListedDocument> = page.documents.into_iter().filter(is_likely).collect();
            if !only_writable(enforcer, candidates).await?.is_empty() {
                return Ok(Found::Yes);
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(Found::No),
            }
        }
        Ok(Found::TooMany)
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
