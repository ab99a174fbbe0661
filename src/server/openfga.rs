//! `OpenFGA`'s own API (`openfga.v1.OpenFGAService`) over the embedded engine. Any `OpenFGA` client can load models and
//! tuples through it and ask questions. It answers as an `OpenFGA` with default settings does, with `OpenFGA`'s error
//! numbers.
//!
//! A request passes three steps: the rules for its form (`rules`), its store and model ([`Resolved`]), and what it asks
//! for.
//!
//! The API differs from `OpenFGA` on purpose in these points:
//! - A deleted store loses what it held: it must not grant anything any more. (As in `OpenFGA`, a store that was never
//!   made is empty and no error.)
//! - A delete that names no relation or no object deletes nothing (error 2017). `OpenFGA`'s default datastore takes the
//!   empty name for "any".
//! - `ListStores` and `ReadAuthorizationModels` refuse a number as a token. `OpenFGA` takes it for an offset.
//! - `on_duplicate: ignore` takes a missing context and an empty one for the same.
//! - An operator without operands is refused wherever it stands.
//! - CEL expressions must not construct `google.protobuf` messages, and a context may be nested about 45 levels.

mod checks;
mod error;
mod expand;
mod form;
mod lists;
mod model;
mod relationships;
mod rules;
mod stores;
mod token;
mod tuples;
mod userset;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use openfga_client::client as api;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use self::error::{ErrorNumber, OpenFgaError};
use super::audit::OpenRecord;
use super::deadline::deadline;
use super::refusal::Refusal;
use crate::blocking_pool::BlockingPool;
use crate::engine::snapshot::Snapshot;
use crate::language::RelationshipTuple;
use crate::proto::openfga::open_f_g_a_service_server::OpenFGAService;
use crate::proto::openfga_model as wire;
use crate::tuple_store::{ModelId, RelationshipStore, RelationshipStores, StoreId};

pub(super) use self::tuples::context_map;
// A struct in the messages of Ragward is this type, too.
pub(super) use openfga_client::prost_wkt_types::Struct;

/// The number of entries of a page, unless the request names another.
const PAGE_SIZE: usize = 50;
/// How long a check may hold up the thread that its request arrived on. Handing a check to another thread and back takes
/// longer than most checks.
const TIME_IN_PLACE: Duration = Duration::from_micros(500);
/// The most objects of a stream that wait for a slow client. A list with more objects waits until the client takes
/// some, or until its deadline.
const STREAM_BUFFER: usize = 128;
/// The largest number of streamed lists at a time. Each holds a thread, until its deadline at most.
const STREAMS_MAX: usize = 4;
/// The most writes that may hold a thread. One of them is made durable, and the next one is prepared meanwhile.
const WRITES_MAX: usize = 2;
/// The header of an answer that names the model which decided.
const MODEL_HEADER: &str = "openfga-authorization-model-id";

/// Serves `OpenFGA`'s API over the embedded stores.
#[derive(Clone, Debug)]
pub(super) struct OpenFgaApi {
    stores: RelationshipStores,
    request_timeout: Duration,
    reads: BlockingPool,
    /// A pool apart from the reads. A writer that waits for the disk or for another writer must not hold reads up.
    writes: BlockingPool,
    /// The pool for lists whose clients may be slow to take them.
    streams: BlockingPool,
}

/// The store that a request is about, and the version of its model.
#[derive(Clone, Debug)]
struct Resolved {
    store: RelationshipStore,
    model_id: ModelId,
    snapshot: Arc<Snapshot>,
}

impl Resolved {
    /// Returns the state that one request is decided from, with its contextual tuples and its context.
    fn for_request(&self, tuples: &[RelationshipTuple], context: Option<&Struct>) -> Result<Snapshot, OpenFgaError> {
        let context = context.map(tuples::context_map).unwrap_or_default();
        let state = self.snapshot.for_request(tuples, context);
        state.map_err(|error| OpenFgaError::new(ErrorNumber::InvalidTuple, error.to_string()))
    }
}

impl OpenFgaApi {
    pub(super) fn new(stores: RelationshipStores, request_timeout: Duration) -> Self {
        Self {
            stores,
            request_timeout,
            reads: BlockingPool::cpu_bound(),
            writes: BlockingPool::with_slots(WRITES_MAX),
            streams: BlockingPool::with_slots(STREAMS_MAX),
        }
    }

    /// Runs work that reads the data directory.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RelationshipStores) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        self.run_in(&self.reads, work).await
    }

    async fn run_in<T: Send + 'static>(
        &self,
        pool: &BlockingPool,
        work: impl FnOnce(&RelationshipStores) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        let stores = self.stores.clone();
        Ok(Response::new(blocking(pool, move || work(&stores)).await?))
    }

    /// Runs work that writes the data directory. The work runs to its end, even if the caller goes away.
    async fn change<T: Send + 'static>(
        &self,
        record: &OpenRecord,
        work: impl FnOnce(&RelationshipStores) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        let api = self.clone();
        record.run_whole(async move { api.run_in(&api.writes, work).await }).await
    }

    /// Runs work under a version of a store's model, and names that version in the answer.
    async fn run_under<T: Send + 'static>(
        &self,
        store_id: &str,
        model_id: &str,
        work: impl FnOnce(&Resolved) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        self.run_under_in(&self.reads, store_id, model_id, work).await
    }

    async fn run_under_in<T: Send + 'static>(
        &self,
        pool: &BlockingPool,
        store_id: &str,
        model_id: &str,
        work: impl FnOnce(&Resolved) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        let (stores, store_id, model_id) = (self.stores.clone(), store_id.to_owned(), model_id.to_owned());
        let work = move || {
            let resolved = resolve(&stores, &store_id, &model_id)?;
            Ok((resolved.model_id.to_string(), work(&resolved)?))
        };
        let (model_id, answer) = blocking(pool, work).await?;
        Ok(under(model_id, answer))
    }

    /// Decides under a version of a store's model, until `deadline`.
    ///
    /// Most checks are decided from memory in less time than it takes to hand them to another thread, so a check begins on the
    /// thread of its request. One that takes longer than [`TIME_IN_PLACE`] begins again on a thread that it may hold up.
    async fn decide_under<T: Send + 'static>(
        &self,
        store_id: &str,
        model_id: &str,
        deadline: Instant,
        decide: impl Fn(&Resolved, &mut dyn FnMut() -> bool) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        if let Some(resolved) = resolve_in_memory(&self.stores, store_id, model_id) {
            let soon = deadline.min(Instant::now() + TIME_IN_PLACE);
            let mut interrupted = false;
            let decided = decide(&resolved, &mut || {
                interrupted = Instant::now() >= soon;
                !interrupted
            });
            if !interrupted {
                return Ok(under(resolved.model_id.to_string(), decided?));
            }
        }
        let work = move |resolved: &Resolved| decide(resolved, &mut || Instant::now() < deadline);
        self.run_under(store_id, model_id, work).await
    }

    /// Runs work that writes under a version of a store's model. The work runs to its end, even if the caller goes
    /// away.
    async fn change_under<T: Send + 'static>(
        &self,
        record: &OpenRecord,
        store_id: String,
        model_id: String,
        work: impl FnOnce(&Resolved) -> Result<T, OpenFgaError> + Send + 'static,
    ) -> Result<Response<T>, Refusal> {
        let api = self.clone();
        let work = async move { api.run_under_in(&api.writes, &store_id, &model_id, work).await };
        record.run_whole(work).await
    }
}

async fn blocking<T: Send + 'static>(
    pool: &BlockingPool,
    work: impl FnOnce() -> Result<T, OpenFgaError> + Send + 'static,
) -> Result<T, OpenFgaError> {
    let done = pool.run(work).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a request was lost");
        Err(OpenFgaError::internal())
    })
}

/// Returns the store of an id whose form was checked. As in `OpenFGA`, a store that was never made is empty. An id may
/// also be too large a number to be given to any store; the store of such an id is empty, too.
fn store_of(stores: &RelationshipStores, id: &str) -> RelationshipStore {
    stores.store(StoreId::parse(id).unwrap_or(StoreId::NEVER_GIVEN))
}

/// Returns an answer that names the model which decided.
fn under<T>(model_id: String, answer: T) -> Response<T> {
    let mut response = Response::new(answer);
    if let Ok(model_id) = MetadataValue::try_from(model_id) {
        response.metadata_mut().insert(MODEL_HEADER, model_id);
    }
    response
}

/// Like [`resolve`], but returns `None` unless store and model are in memory.
fn resolve_in_memory(stores: &RelationshipStores, store_id: &str, model_id: &str) -> Option<Resolved> {
    let store = store_of(stores, store_id);
    let named = if model_id.is_empty() { None } else { Some(ModelId::parse(model_id)?) };
    let (model_id, snapshot) = store.snapshot_in_memory(named)?;
    Some(Resolved { store, model_id, snapshot })
}

/// Returns the version of the model that a request names, or the latest.
fn resolve(stores: &RelationshipStores, store_id: &str, model_id: &str) -> Result<Resolved, OpenFgaError> {
    let store = store_of(stores, store_id);
    let found = if model_id.is_empty() { store.latest_model_id()? } else { ModelId::parse(model_id) };
    let snapshot = found.map(|id| store.snapshot_under(id)).transpose()?.flatten();
    match (found, snapshot) {
        (Some(model_id), Some(snapshot)) => Ok(Resolved { store, model_id, snapshot }),
        _ if model_id.is_empty() => {
            let message = format!("No authorization models found for store '{store_id}'");
            Err(OpenFgaError::new(ErrorNumber::LatestAuthorizationModelNotFound, message))
        }
        _ => {
            let message = format!("Authorization Model '{model_id}' not found");
            Err(OpenFgaError::new(ErrorNumber::AuthorizationModelNotFound, message))
        }
    }
}

fn page_size(asked: Option<i32>) -> usize {
    asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(PAGE_SIZE)
}

#[tonic::async_trait]
impl OpenFGAService for OpenFgaApi {
    async fn create_store(
        &self,
        request: Request<api::CreateStoreRequest>,
    ) -> Result<Response<api::CreateStoreResponse>, Status> {
        let record = OpenRecord::of(&request)?;
        let request = request.into_inner();
        rules::create_store(&request)?;
        Ok(self.change(&record, move |stores| stores::create(stores, &request)).await?)
    }

    // `OpenFGA` has this method in its API and does not implement it, either.
    async fn update_store(
        &self,
        request: Request<api::UpdateStoreRequest>,
    ) -> Result<Response<api::UpdateStoreResponse>, Status> {
        rules::update_store(request.get_ref())?;
        Err(Status::unimplemented("method UpdateStore not implemented"))
    }

    async fn delete_store(
        &self,
        request: Request<api::DeleteStoreRequest>,
    ) -> Result<Response<api::DeleteStoreResponse>, Status> {
        let record = OpenRecord::of(&request)?;
        let request = request.into_inner();
        rules::delete_store(&request)?;
        Ok(self.change(&record, move |stores| stores::delete(stores, &request)).await?)
    }

    async fn get_store(
        &self,
        request: Request<api::GetStoreRequest>,
    ) -> Result<Response<api::GetStoreResponse>, Status> {
        let request = request.into_inner();
        rules::get_store(&request)?;
        Ok(self.run(move |stores| stores::get(stores, &request)).await?)
    }

    async fn list_stores(
        &self,
        request: Request<api::ListStoresRequest>,
    ) -> Result<Response<api::ListStoresResponse>, Status> {
        let request = request.into_inner();
        rules::list_stores(&request)?;
        Ok(self.run(move |stores| stores::list(stores, &request)).await?)
    }

    async fn write_authorization_model(
        &self,
        request: Request<wire::WriteAuthorizationModelRequest>,
    ) -> Result<Response<api::WriteAuthorizationModelResponse>, Status> {
        let record = OpenRecord::of(&request)?;
        let request = request.into_inner();
        rules::write_authorization_model(&request)?;
        Ok(self.change(&record, move |stores| stores::write_model(stores, request)).await?)
    }

    async fn read_authorization_model(
        &self,
        request: Request<api::ReadAuthorizationModelRequest>,
    ) -> Result<Response<wire::ReadAuthorizationModelResponse>, Status> {
        let request = request.into_inner();
        rules::read_authorization_model(&request)?;
        Ok(self.run(move |stores| stores::read_model(stores, &request)).await?)
    }

    async fn read_authorization_models(
        &self,
        request: Request<api::ReadAuthorizationModelsRequest>,
    ) -> Result<Response<wire::ReadAuthorizationModelsResponse>, Status> {
        let request = request.into_inner();
        rules::read_authorization_models(&request)?;
        Ok(self.run(move |stores| stores::read_models(stores, &request)).await?)
    }

    async fn write_assertions(
        &self,
        request: Request<api::WriteAssertionsRequest>,
    ) -> Result<Response<api::WriteAssertionsResponse>, Status> {
        let record = OpenRecord::of(&request)?;
        let request = request.into_inner();
        rules::write_assertions(&request)?;
        let api::WriteAssertionsRequest { store_id, authorization_model_id, assertions } = request;
        let work = move |resolved: &Resolved| stores::write_assertions(resolved, assertions);
        Ok(self.change_under(&record, store_id, authorization_model_id, work).await?)
    }

    async fn read_assertions(
        &self,
        request: Request<api::ReadAssertionsRequest>,
    ) -> Result<Response<api::ReadAssertionsResponse>, Status> {
        let request = request.into_inner();
        rules::read_assertions(&request)?;
        Ok(self.run_under(&request.store_id, &request.authorization_model_id, stores::read_assertions).await?)
    }

    async fn write(&self, request: Request<api::WriteRequest>) -> Result<Response<api::WriteResponse>, Status> {
        let record = OpenRecord::of(&request)?;
        let request = request.into_inner();
        rules::write(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        Ok(self
            .change_under(&record, store_id, model_id, move |resolved| relationships::write(resolved, &request))
            .await?)
    }

    async fn read(&self, request: Request<api::ReadRequest>) -> Result<Response<api::ReadResponse>, Status> {
        let request = request.into_inner();
        rules::read(&request)?;
        Ok(self.run(move |stores| relationships::read(stores, &request)).await?)
    }

    async fn read_changes(
        &self,
        request: Request<api::ReadChangesRequest>,
    ) -> Result<Response<api::ReadChangesResponse>, Status> {
        let request = request.into_inner();
        rules::read_changes(&request)?;
        Ok(self.run(move |stores| relationships::read_changes(stores, &request)).await?)
    }

    async fn check(&self, request: Request<api::CheckRequest>) -> Result<Response<api::CheckResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let request = request.into_inner();
        rules::check(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        let decide = move |resolved: &Resolved, go_on: &mut dyn FnMut() -> bool| {
            let key = request.tuple_key.clone().unwrap_or_default();
            let (tuples, context) = (request.contextual_tuples.as_ref(), request.context.as_ref());
            let allowed = checks::check(resolved, &key, tuples, context, go_on)?;
            Ok(api::CheckResponse { allowed, resolution: String::new() })
        };
        Ok(self.decide_under(&store_id, &model_id, deadline, decide).await?)
    }

    async fn batch_check(
        &self,
        request: Request<api::BatchCheckRequest>,
    ) -> Result<Response<api::BatchCheckResponse>, Status> {
        let deadline = deadline(request.metadata(), self.request_timeout);
        let request = request.into_inner();
        rules::batch_check(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        let decide =
            move |resolved: &Resolved, go_on: &mut dyn FnMut() -> bool| checks::batch_check(resolved, &request, go_on);
        Ok(self.decide_under(&store_id, &model_id, deadline, decide).await?)
    }

    async fn expand(&self, request: Request<api::ExpandRequest>) -> Result<Response<api::ExpandResponse>, Status> {
        let request = request.into_inner();
        rules::expand(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        let work = move |resolved: &Resolved| {
            let key = request.tuple_key.unwrap_or_default();
            expand::expand(resolved, &key, request.contextual_tuples.as_ref())
        };
        Ok(self.run_under(&store_id, &model_id, work).await?)
    }

    async fn list_objects(
        &self,
        request: Request<api::ListObjectsRequest>,
    ) -> Result<Response<api::ListObjectsResponse>, Status> {
        let deadline = lists::list_deadline(deadline(request.metadata(), self.request_timeout));
        let request = request.into_inner();
        rules::list_objects(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        let work = move |resolved: &Resolved| {
            let mut objects = Vec::new();
            lists::list_objects(resolved, &request, deadline, &mut |object| {
                objects.push(object.to_string());
                objects.len() < lists::RESULTS_MAX
            })?;
            Ok(api::ListObjectsResponse { objects })
        };
        Ok(self.run_under(&store_id, &model_id, work).await?)
    }

    type StreamedListObjectsStream =
        Pin<Box<dyn Stream<Item = Result<api::StreamedListObjectsResponse, Status>> + Send>>;

    async fn streamed_list_objects(
        &self,
        request: Request<api::StreamedListObjectsRequest>,
    ) -> Result<Response<Self::StreamedListObjectsStream>, Status> {
        let deadline = lists::list_deadline(deadline(request.metadata(), self.request_timeout));
        let request = request.into_inner();
        let request = api::ListObjectsRequest {
            store_id: request.store_id,
            authorization_model_id: request.authorization_model_id,
            r#type: request.r#type,
            relation: request.relation,
            user: request.user,
            contextual_tuples: request.contextual_tuples,
            context: request.context,
            consistency: request.consistency,
        };
        rules::list_objects(&request)?;
        let stores = self.stores.clone();
        let (found, objects) = tokio::sync::mpsc::channel(STREAM_BUFFER);
        let runtime = tokio::runtime::Handle::current();
        let listing = move || {
            let send =
                |answer| runtime.block_on(timeout_at(deadline, found.send(answer))).is_ok_and(|sent| sent.is_ok());
            let listed = resolve(&stores, &request.store_id, &request.authorization_model_id).and_then(|resolved| {
                lists::list_objects(&resolved, &request, deadline, &mut |object| {
                    send(Ok(api::StreamedListObjectsResponse { object: object.to_string() }))
                })
            });
            if let Err(error) = listed {
                // If the client is gone, or takes nothing until the deadline, this error is not sent, and nobody misses
                // it.
                send(Err(error.into()));
            }
        };
        let slot = timeout_at(deadline, self.streams.slot()).await.map_err(|_elapsed| Refusal::late())?;
        let slot = slot.map_err(|_closed| Refusal::lost())?;
        // The task ends when the list ends, when the client is gone, or at the deadline, even if the client takes
        // nothing.
        let listing = tokio::spawn(slot.run(listing));
        // A list that ended in a panic is no whole list, so the stream ends with an error.
        let ended = stream::once(listing).filter_map(|ended| {
            future::ready(match ended {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some(Err(Refusal::lost().into())),
            })
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(objects).chain(ended))))
    }

    async fn list_users(
        &self,
        request: Request<api::ListUsersRequest>,
    ) -> Result<Response<api::ListUsersResponse>, Status> {
        let deadline = lists::list_deadline(deadline(request.metadata(), self.request_timeout));
        let request = request.into_inner();
        rules::list_users(&request)?;
        let (store_id, model_id) = (request.store_id.clone(), request.authorization_model_id.clone());
        Ok(self
            .run_under(&store_id, &model_id, move |resolved| lists::list_users(resolved, &request, deadline))
            .await?)
    }
}

#[cfg(test)]
mod tests;
