//! `OpenFGA` as the authorizer, over gRPC.
//!
//! The adapter asks with `BatchCheck` and accounts for every answer: either each question has exactly one decision, or none
//! has.
//!
//! The client is the crate `openfga-client`. Its alternative, `openfga-rs`, knows neither `BatchCheck` nor consistency, and
//! needs an old tonic and a system `protoc`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use openfga_client::client::{
    BatchCheckItem, BatchCheckRequest, CheckRequestTupleKey, ConsistencyPreference, ListStoresRequest,
    OpenFgaServiceClient, ReadAuthorizationModelRequest, ReadAuthorizationModelsRequest,
};
use tokio::time::{Instant, timeout_at};
use tonic::Request;

use super::copy::ModelVersion;
use super::decider::{
    Basis, CONTEXTUAL_BYTES_PER_CALL, Decider, Inquiry, NumberedOutcome, Outcome, Question, Questions, Recall,
};
use super::{
    Abilities, Authorizer, AuthzError, Check, CheckBatch, Consistency, DecidingModel, Decisions, Source, SubtractedBy,
    SubtractedByLast, VisiblePositions, VisibleSetQuery,
};
use crate::backend::{BackendChannel, BackendError, Credential, Reach, ServerAddress, WayToServer, channel};
use crate::language::Relation;
use crate::language::json;
use crate::language::model::AuthorizationModel;
use crate::language::tuple::shown;

mod assertions;
mod changelog;
mod contents;
mod list;
mod load;
mod source;
mod store;
mod transactions;
mod wire;

pub use super::openfga_config::{OpenFgaConfig, StoreSelector};
pub use assertions::{Assertion, decode_assertions, encode_assertions};
pub use changelog::{ChangelogWatch, watch};
pub use load::{LoadError, Loaded};
pub use source::OpenFgaSource;
pub use store::{Creation, OpenFgaStore, OpenStoreError, StoppedWrite, WriteError};

/// The most calls of one batch that run at the same time. This adapter has no queue of its own, so this bound alone
/// keeps one request from taking the whole server.
const CALLS_IN_FLIGHT_MAX: usize = 8;
/// The time for which the store's latest model is used before it is looked up again. A new model may take effect this late.
const LATEST_MODEL_AGE_MAX: Duration = Duration::from_secs(5);
/// The most stores of the server that an error names when the configured one is missing.
const STORES_NAMED_MAX: i32 = 10;
/// The largest message that is accepted. A model has at most 256 KiB in a server's default settings, and an answer to 50
/// checks is far smaller.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The longest that one call of a command may take. Nobody waits for a page meanwhile, and a model of the largest size takes a
/// busy server seconds.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks an `OpenFGA` server, without any cache, queue or repetition.
#[derive(Debug)]
pub struct OpenFgaAuthorizer {
    server: Server,
    config: OpenFgaConfig,
    latest: Mutex<Option<LatestModel>>,
    subtracted: SubtractedByLast,
    reach: Reach,
}

/// The store's latest model.
#[derive(Clone, Debug)]
struct LatestModel {
    model: ModelVersion,
    /// When the store was looked up by its name. The model is at least as new.
    looked_up: Instant,
}

/// One store of a server, and how long to wait for it.
#[derive(Clone, Debug)]
struct Server {
    channel: BackendChannel,
    store: StoreSelector,
    model_id: Option<String>,
    timeout: Duration,
}

impl OpenFgaAuthorizer {
    /// Prepares the calls. The first call contacts the server, which may be down until then. Must run inside tokio.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &OpenFgaConfig) -> Result<Self, BackendError> {
        Self::with_credential(config, credential(config)?)
    }

    /// Like [`OpenFgaAuthorizer::new`], with a credential that other callers of the server share.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn with_credential(config: &OpenFgaConfig, credential: Credential) -> Result<Self, BackendError> {
        if config.checks_per_call == 0 {
            return Err(BackendError::Setting("`checks_per_call` must be at least 1".to_owned()));
        }
        let server = Server::with(config, credential)?;
        Ok(Self {
            server,
            config: config.clone(),
            latest: Mutex::new(None),
            subtracted: SubtractedByLast::default(),
            reach: Reach::new("openfga"),
        })
    }

    /// Returns the longest time by which the relationships behind a decision may be older than the question.
    pub(super) fn behind_max(&self, consistency: Consistency) -> Duration {
        match consistency {
            Consistency::MinimizeLatency => self.config.cache_age_max,
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => Duration::ZERO,
        }
    }

    /// Finds the one model for all calls of a batch, so that its decisions belong together. For higher consistency,
    /// that is the store's latest model now. For answers since a moment, it is the latest model at that moment or
    /// later.
    pub(super) async fn model_for(&self, consistency: Consistency) -> Result<ModelVersion, AuthzError> {
        if let (StoreSelector::Id(store_id), Some(id)) = (&self.server.store, &self.server.model_id) {
            return Ok(ModelVersion { store_id: store_id.clone(), model_id: id.clone() });
        }
        let is_new_enough = |latest: &LatestModel| match consistency {
            Consistency::MinimizeLatency => latest.looked_up.elapsed() < LATEST_MODEL_AGE_MAX,
            Consistency::AtLeastAsFresh(moment) => {
                latest.looked_up.elapsed() < LATEST_MODEL_AGE_MAX && latest.looked_up >= moment
            }
            Consistency::HigherConsistency => false,
        };
        let known = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known.filter(is_new_enough) {
            Some(latest) => Ok(latest.model),
            None => self.look_up_model().await,
        }
    }

    async fn look_up_model(&self) -> Result<ModelVersion, AuthzError> {
        let looked_up = Instant::now();
        let model = self.noting(self.server.find_model().await)?;
        self.put_latest(&model, looked_up);
        Ok(model)
    }

    /// Asks the server which model decides now. A known store costs one call. If it has no model any more, another store may
    /// have taken its name, so the search begins again from the name.
    async fn model_now(&self) -> Result<ModelVersion, AuthzError> {
        let known = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(known) = known else { return self.look_up_model().await };
        match self.noting(self.server.find_model_of(known.model.store_id).await) {
            Ok(model) => {
                // The store keeps the time of its look-up by name. A deleted store still tells its models, although
                // another one may have its name by now. If every answer renewed that time, a caller that asks often
                // would keep the deleted store for good.
                self.put_latest(&model, known.looked_up);
                Ok(model)
            }
            Err(AuthzError::NoModel | AuthzError::NoStore(_) | AuthzError::Refused(_)) => {
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.look_up_model().await
            }
            Err(error) => Err(error),
        }
    }

    fn put_latest(&self, model: &ModelVersion, looked_up: Instant) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // The answer to a slow look-up must not replace a newer one.
        if latest.as_ref().is_some_and(|known| known.looked_up > looked_up) {
            return;
        }
        let before = latest.replace(LatestModel { model: model.clone(), looked_up }).map(|latest| latest.model);
        if before.is_some_and(|before| before != *model) {
            let ModelVersion { store_id, model_id } = model;
            tracing::info!(store_id, model_id, "another authorization model decides from now on");
        }
    }

    /// Logs when the server stops answering and when it answers again.
    fn noting<T>(&self, answer: Result<T, AuthzError>) -> Result<T, AuthzError> {
        match &answer {
            Err(error @ AuthzError::Unavailable(_)) => self.reach.failed(error),
            Ok(_) | Err(_) => self.reach.answered(),
        }
        answer
    }

    async fn check_all(&self, batch: &CheckBatch, deadline: Instant) -> Result<Decisions, AuthzError> {
        let model = self.model_for(batch.consistency).await?;
        // This adapter remembers nothing, so the generation does not matter.
        let basis = Basis {
            store_id: model.store_id,
            model_id: model.model_id,
            consistency: batch.consistency,
            generation: 0,
            recall: Recall::Nothing,
            source: Source::Authority,
        };
        let question = |check: &Check| Question { check: check.clone(), contextual: Arc::clone(&batch.contextual) };
        let list: Vec<Question> = batch.checks.iter().map(question).collect();
        // Every check of a call repeats what the request adds.
        let fitting = CONTEXTUAL_BYTES_PER_CALL / batch.contextual.wire_bytes().max(1);
        let checks_per_call = self.config.checks_per_call.min(fitting.max(1));
        let asked =
            Inquiry { at: Instant::now(), source: basis.source, behind_max: self.behind_max(batch.consistency) };
        let calls = list.chunks(checks_per_call).enumerate().map(|(index, questions)| {
            let first = index * checks_per_call;
            self.ask(&basis, first, questions, deadline)
        });
        let calls: Vec<_> = calls.collect();
        // The first failure ends the whole batch, because a batch without all of its decisions has no answer.
        let answers: Vec<Vec<NumberedOutcome>> =
            stream::iter(calls).buffer_unordered(CALLS_IN_FLIGHT_MAX).try_collect().await?;
        let decisions = answers.into_iter().flatten().map(|answered| answered.into_decision(&asked));
        Ok(Decisions::new(decisions.collect::<Result<_, _>>()?, basis.source, basis.model_id.as_str().into()))
    }

    /// Makes one call. The correlation ids count up from `first`.
    async fn ask(
        &self,
        basis: &Basis,
        first: usize,
        questions: &[Question],
        deadline: Instant,
    ) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let mut unsendable = Vec::new();
        let mut checks = Vec::with_capacity(questions.len());
        let mut sent: Vec<(usize, &Check)> = Vec::with_capacity(questions.len());
        // All questions of one request share their contextual part, so it is made once.
        let mut known = None;
        for (question, position) in questions.iter().zip(first..) {
            match wire::contextual(&mut known, &question.contextual) {
                Ok((contextual_tuples, context)) => {
                    checks.push(BatchCheckItem { contextual_tuples, context, ..item(&question.check, position) });
                    sent.push((position, &question.check));
                }
                Err(error) => unsendable.push(NumberedOutcome { position, outcome: Outcome::Failed(error) }),
            }
        }
        if sent.is_empty() {
            return Ok(unsendable);
        }
        let request = BatchCheckRequest {
            store_id: basis.store_id.clone(),
            authorization_model_id: basis.model_id.clone(),
            checks,
            consistency: consistency(basis.consistency).into(),
        };
        let as_of = Instant::now();
        let mut request = Request::new(request);
        request.set_timeout(deadline.saturating_duration_since(as_of));
        let response = wire::batch_check(self.server.channel.clone(), request).await.map_err(|e| wire::failed(&e));
        let response = self.noting(response)?;
        let mut answers = wire::account(&sent, as_of, response)?;
        answers.extend(unsendable);
        Ok(answers)
    }
}

fn item(check: &Check, position: usize) -> BatchCheckItem {
    BatchCheckItem {
        tuple_key: Some(CheckRequestTupleKey {
            user: check.user.to_string(),
            relation: check.relation.to_string(),
            object: check.object.to_string(),
        }),
        contextual_tuples: None,
        context: None,
        correlation_id: position.to_string(),
    }
}

fn consistency(consistency: Consistency) -> ConsistencyPreference {
    match consistency {
        Consistency::MinimizeLatency => ConsistencyPreference::MinimizeLatency,
        Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => ConsistencyPreference::HigherConsistency,
    }
}

#[async_trait]
impl Authorizer for OpenFgaAuthorizer {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        if batch.checks.is_empty() {
            return Ok(Decisions::now([]));
        }
        let deadline = batch.deadline.min(self.server.deadline());
        if deadline <= Instant::now() {
            return Err(AuthzError::DeadlineExceeded);
        }
        match timeout_at(deadline, self.check_all(batch, deadline)).await {
            Ok(decisions) => decisions,
            Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
        }
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let deadline = query.deadline.min(self.server.deadline());
        match timeout_at(deadline, self.list_visible(query)).await {
            Ok(visible) => visible,
            Err(_elapsed) => Ok(None),
        }
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        self.server.within(self.model_now()).await.map(|model| model.model_id.into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { lists_by_call: true, ..Abilities::default() }
    }

    fn model(&self) -> Option<&dyn DecidingModel> {
        Some(self)
    }
}

#[async_trait]
impl DecidingModel for OpenFgaAuthorizer {
    async fn subtracted(&self) -> Result<SubtractedBy, AuthzError> {
        let reading = async {
            let model = self.model_for(Consistency::MinimizeLatency).await?;
            if let Some(known) = self.subtracted.get(&model.model_id) {
                return Ok(known);
            }
            let definition = self.server.read_model(&model).await?;
            Ok(self.subtracted.put(&model.model_id, &definition))
        };
        self.server.within(reading).await
    }

    async fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Result<Option<String>, AuthzError> {
        let reading = async {
            let model = self.model_for(Consistency::MinimizeLatency).await?;
            self.server.read_model(&model).await
        };
        match self.server.within(reading).await {
            Ok(definition) => Ok(definition.lack(type_name, relation)),
            // A model that this program cannot read may have any names.
            Err(AuthzError::BadAnswer(detail)) => {
                tracing::warn!(detail, "the server's model cannot be read here, so names are not looked up in it");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Asks all of the questions in one call.
#[async_trait]
impl Decider for OpenFgaAuthorizer {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        if questions.list.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = questions.deadline.min(self.server.deadline());
        if deadline <= Instant::now() {
            return Err(AuthzError::DeadlineExceeded);
        }
        match timeout_at(deadline, self.ask(&questions.basis, 0, &questions.list, deadline)).await {
            Ok(answers) => answers,
            Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
        }
    }
}

/// Returns the secret that calls of the configured server carry. Calls that share it ask for a new access token once.
///
/// # Errors
/// When a file of a secret cannot be read, or the settings cannot be used.
pub fn credential(config: &OpenFgaConfig) -> Result<Credential, BackendError> {
    match &config.client_credentials {
        Some(settings) => Credential::oauth("authorizer.openfga.client_credentials", settings),
        None => Credential::bearer_of_file(config.api_token_file.as_ref()),
    }
}

impl Server {
    fn new(config: &OpenFgaConfig) -> Result<Self, BackendError> {
        Self::with(config, credential(config)?)
    }

    /// Prepares calls that carry a credential. Several of these may share one.
    fn with(config: &OpenFgaConfig, credential: Credential) -> Result<Self, BackendError> {
        let address = ServerAddress {
            setting: "`authorizer.openfga.address`",
            address: &config.address,
            ca_file: config.ca_file.as_deref(),
        };
        let way = WayToServer { setting: "authorizer.openfga.tls", tls: config.tls };
        Ok(Self {
            channel: channel(address, credential, way)?,
            store: config.store(),
            model_id: config.authorization_model_id.clone(),
            timeout: config.timeout,
        })
    }

    /// Prepares calls on a channel that is there already.
    fn on(channel: BackendChannel, store: StoreSelector) -> Self {
        Self { channel, store, model_id: None, timeout: COMMAND_TIMEOUT }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Makes one call, and gives it up at the configured timeout.
    async fn within<T>(&self, call: impl Future<Output = Result<T, AuthzError>> + Send) -> Result<T, AuthzError> {
        match timeout_at(self.deadline(), call).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
        }
    }

    fn client(&self) -> OpenFgaServiceClient<BackendChannel> {
        OpenFgaServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Finds the id of the store. Returns `None` when no store has the configured name.
    async fn find_store(&self) -> Result<Option<String>, AuthzError> {
        let name = match &self.store {
            StoreSelector::Id(id) => return Ok(Some(id.clone())),
            StoreSelector::Name(name) => name,
        };
        // Two stores are enough to see that the name is not unique.
        let request = ListStoresRequest { page_size: Some(2), continuation_token: String::new(), name: name.clone() };
        let found = self.client().list_stores(request).await.map_err(|e| wire::failed(&e))?.into_inner().stores;
        match found.as_slice() {
            [] => Ok(None),
            [store] if store.name == *name => Ok(Some(store.id.clone())),
            [store] => Err(AuthzError::BadAnswer(format!("asked for store `{name}`, got `{}`", store.name))),
            [_, _, ..] => Err(AuthzError::Refused(format!("more than one store is named `{name}`; set `store_id`"))),
        }
    }

    /// Reads a model as it was written.
    async fn read_model(&self, model: &ModelVersion) -> Result<AuthorizationModel, AuthzError> {
        let request = ReadAuthorizationModelRequest { store_id: model.store_id.clone(), id: model.model_id.clone() };
        let read = self.client().read_authorization_model(request).await.map_err(|e| wire::failed(&e))?;
        let message = read.into_inner().authorization_model.ok_or(AuthzError::NoModel)?;
        let not_understood = |e: String| AuthzError::BadAnswer(format!("model `{}`: {e}", model.model_id));
        let text = serde_json::to_string(&message).map_err(|e| not_understood(e.to_string()))?;
        json::read(&text).map_err(|e| not_understood(e.to_string()))
    }

    /// Finds out why no store has the configured name. If the server has other stores, the name is most likely a typing error,
    /// which loading a model would not mend.
    async fn missing_store(&self) -> AuthzError {
        let StoreSelector::Name(name) = &self.store else { return AuthzError::NoModel };
        let page_size = Some(STORES_NAMED_MAX);
        let request = ListStoresRequest { page_size, continuation_token: String::new(), name: String::new() };
        let others = match self.client().list_stores(request).await {
            Ok(listed) => listed.into_inner(),
            Err(status) => return wire::failed(&status),
        };
        let names: Vec<String> = others.stores.iter().map(|store| format!("`{}`", shown(&store.name))).collect();
        if names.is_empty() {
            return AuthzError::NoModel;
        }
        let more = if others.continuation_token.is_empty() { "" } else { " and others" };
        AuthzError::NoStore(format!(
            "the OpenFGA server has no store named `{name}`; it has {}{more}",
            names.join(", ")
        ))
    }

    async fn find_model(&self) -> Result<ModelVersion, AuthzError> {
        let Some(store_id) = self.find_store().await? else { return Err(self.missing_store().await) };
        self.find_model_of(store_id).await
    }

    async fn find_model_of(&self, store_id: String) -> Result<ModelVersion, AuthzError> {
        if let Some(id) = &self.model_id {
            let request = ReadAuthorizationModelRequest { store_id: store_id.clone(), id: id.clone() };
            self.client().read_authorization_model(request).await.map_err(|e| wire::failed(&e))?;
            return Ok(ModelVersion { store_id, model_id: id.clone() });
        }
        // The server lists the latest model first.
        let request = ReadAuthorizationModelsRequest {
            store_id: store_id.clone(),
            page_size: Some(1),
            continuation_token: String::new(),
        };
        let models = self.client().read_authorization_models(request).await.map_err(|e| wire::failed(&e))?;
        let Some(latest) = models.into_inner().authorization_models.into_iter().next() else {
            return Err(AuthzError::NoModel);
        };
        Ok(ModelVersion { store_id, model_id: latest.id })
    }
}
