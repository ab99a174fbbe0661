//! The store of relationships that a command reads or changes: in a data directory, or on a server. A server is Ragward with
//! the embedded engine, or OpenFGA; both serve the same API.

use std::path::Path;

use clap::Args;

use super::{Connection, Failure, Uses, data_is_there};
use crate::authz::AuthzError;
use crate::authz::openfga::{
    Assertion, Creation, OpenFgaStore, OpenStoreError, StoreSelector, decode_assertions, encode_assertions,
};
use crate::authz::replica::source::Page;
use crate::config::{AuthorizerKind, Config, Overrides};
use crate::language::RelationshipTuple;
use crate::language::limits::ASSERTIONS_BYTES_MAX;
use crate::language::model::AuthorizationModel;
use crate::language::validate::ValidModel;
use crate::storage::StorageError;
use crate::tuple_store::{
    DEFAULT_STORE_NAME, ModelId, OnConflict, RelationshipStore, RelationshipStores, StoreId, TUPLES_PER_WRITE_MAX,
    TupleFilter, TupleWrite,
};

/// The number of tuples that are read from a data directory at a time.
const PAGE_SIZE: usize = 1_000;
/// The most pages that are read of one store. With a server's pages of a hundred tuples that is far more than a store file
/// can hold, so only a server whose pages never end reaches it.
const PAGES_MAX: u32 = 1_000_000;

/// The flags that say which store a command works on.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    connection: Connection,
    /// The name of the store. Without this and `--store-id`, it is the configured store, and `ragward` on a `--server`.
    #[arg(long, value_name = "NAME")]
    store_name: Option<String>,
    /// The id of the store.
    #[arg(long, value_name = "ID", conflicts_with = "store_name")]
    store_id: Option<String>,
}

/// One store of relationships.
pub(super) enum Relationships {
    /// A store in the data directory, which this command has opened.
    Embedded { name: String, store: RelationshipStore },
    /// A store of a server.
    Server(OpenFgaStore),
}

/// The outcome of a load.
pub(super) struct LoadOutcome {
    pub(super) model_id: String,
    /// Whether the model decides now.
    pub(super) decides: bool,
    /// A sentence on the tuples.
    pub(super) told: String,
}

impl StoreArgs {
    /// Opens the store. If it does not exist, `creation` says whether to create it.
    pub(super) async fn open(self, config: Option<&Path>, creation: Creation) -> Result<Relationships, Failure> {
        let Self { connection, store_name, store_id } = self;
        let named = store_id.map(StoreSelector::Id).or(store_name.map(StoreSelector::Name));
        if let Some(client) = connection.named_server().await? {
            let store = named.unwrap_or_else(|| StoreSelector::Name(DEFAULT_STORE_NAME.to_owned()));
            let opened = client.store(store, creation).await;
            return opened.map(Relationships::Server).map_err(|error| {
                // The words are the server's own, so this only looks for what each of them says.
                if matches!(&error, AuthzError::Refused(detail) if detail.contains("token")) {
                    return Failure::from(error).followed_by(
                        "; give one with `--token-file` or `RAGWARD_TOKEN`, or log in with `ragward login`",
                    );
                }
                let remedy = match creation {
                    Creation::Never => "; name the store with `--store-name`",
                    Creation::First | Creation::Always => {
                        "; correct `--store-name`, or create the store with `--create-store`"
                    }
                };
                with_remedy(error, remedy)
            });
        }
        let config = Config::load(config, &Overrides { data: connection.data, ..Overrides::default() })?;
        if config.authorizer.kind == AuthorizerKind::Embedded {
            return embedded(&config, named, creation);
        }
        let mut openfga = config.authorizer.openfga;
        if let Some(named) = named {
            // The configured model is one of the configured store.
            openfga.authorization_model_id = None;
            (openfga.store_id, openfga.store_name) = match named {
                StoreSelector::Id(id) => (Some(id), openfga.store_name),
                StoreSelector::Name(name) => (None, name),
            };
        }
        let opened = OpenFgaStore::open_with(&openfga, creation).await;
        opened.map(Relationships::Server).map_err(|error| match error {
            OpenStoreError::Config(_) => error.into(),
            OpenStoreError::Server(error) => {
                let remedy = match creation {
                    Creation::Never => "; correct `authorizer.openfga.store_name`",
                    Creation::First | Creation::Always => {
                        "; correct `authorizer.openfga.store_name`, or create the store with `--create-store`"
                    }
                };
                with_remedy(error, remedy)
            }
        })
    }
}

/// Adds what helps if the store is missing.
fn with_remedy(error: AuthzError, remedy: &str) -> Failure {
    let is_missing = matches!(error, AuthzError::NoStore(_));
    let failure = Failure::from(error);
    if is_missing { failure.followed_by(remedy) } else { failure }
}

fn embedded(config: &Config, named: Option<StoreSelector>, creation: Creation) -> Result<Relationships, Failure> {
    if creation == Creation::Never {
        data_is_there(config, Uses::Relationships)?;
    }
    let stores = RelationshipStores::open(&config.data.directory).map_err(|error| {
        let is_in_use = matches!(error, StorageError::InUse(_));
        let failure = Failure::from(error);
        if is_in_use { failure.followed_by("; `--server` names a running server") } else { failure }
    })?;
    let (name, store) = match named {
        Some(StoreSelector::Id(id)) => {
            let found = StoreId::parse(&id).map(|id| stores.find(id)).transpose()?.flatten();
            let found = found.ok_or_else(|| Failure::usage(format!("the data directory has no store `{id}`")))?;
            (found.name, stores.store(found.id))
        }
        Some(StoreSelector::Name(name)) if name != DEFAULT_STORE_NAME => {
            let store = by_name(&stores, &name, creation)?;
            (name, store)
        }
        Some(StoreSelector::Name(_)) | None => {
            let store = match creation {
                Creation::Never => stores.default_store().ok_or(AuthzError::NoModel)?,
                Creation::First | Creation::Always => stores.default_store_or_new()?,
            };
            (DEFAULT_STORE_NAME.to_owned(), store)
        }
    };
    Ok(Relationships::Embedded { name, store })
}

fn by_name(stores: &RelationshipStores, name: &str, creation: Creation) -> Result<RelationshipStore, Failure> {
    // Two stores are enough to see that the name is not unique.
    match stores.list(Some(name), None, 2)?.as_slice() {
        [one] => Ok(stores.store(one.id)),
        [_, _, ..] => {
            Err(Failure::usage(format!("more than one store is named `{name}`; name one of them by `--store-id`")))
        }
        [] => {
            let is_first = stores.list(None, None, 1)?.is_empty();
            if creation == Creation::Always || creation == Creation::First && is_first {
                return Ok(stores.store(stores.create(name)?.id));
            }
            let remedy = if creation == Creation::Never { "" } else { "; create it with `--create-store`" };
            Err(Failure::usage(format!("the data directory has no store named `{name}`{remedy}")))
        }
    }
}

impl Relationships {
    /// Returns the name of the store.
    pub(super) async fn name(&self) -> Result<String, Failure> {
        match self {
            Self::Embedded { name, .. } => Ok(name.clone()),
            Self::Server(store) => Ok(store.name().await?),
        }
    }

    /// Writes tuples. In a data directory all are written or none; a server takes them in transactions.
    pub(super) async fn write(&self, tuples: Vec<RelationshipTuple>, on_duplicate: OnConflict) -> Result<(), Failure> {
        match self {
            Self::Embedded { store, .. } => Ok(store.write_all(tuples, on_duplicate).map(drop)?),
            Self::Server(store) => Ok(store.write(&tuples, on_duplicate).await?),
        }
    }

    /// Deletes tuples in transactions.
    pub(super) async fn delete(&self, tuples: Vec<RelationshipTuple>, on_missing: OnConflict) -> Result<(), Failure> {
        let store = match self {
            Self::Embedded { store, .. } => store,
            Self::Server(store) => return Ok(store.delete(&tuples, on_missing).await?),
        };
        let (mut done, of) = (0, tuples.len());
        for deletes in tuples.chunks(TUPLES_PER_WRITE_MAX) {
            let request = TupleWrite { deletes: deletes.to_vec(), on_missing, ..TupleWrite::default() };
            let deleted = store.write(&request);
            let before = format!("; {done} of {of} tuples were done before");
            deleted.map_err(|error| Failure::from(error).followed_by(before))?;
            done += deletes.len();
        }
        Ok(())
    }

    /// Reads the tuples that match a filter, in the order of writing.
    pub(super) fn tuples(&self, filter: TupleFilter) -> TuplePages<'_> {
        TuplePages { store: self, filter, next: Some(String::new()), pages_left: PAGES_MAX }
    }

    async fn page(&self, filter: &TupleFilter, token: &str) -> Result<Page<RelationshipTuple>, Failure> {
        let store = match self {
            Self::Embedded { store, .. } => store,
            Self::Server(store) => return Ok(store.tuples(filter, token).await?),
        };
        // The token of a data directory is the last tuple's place in the order of writing.
        let after = if token.is_empty() { Ok(0) } else { token.parse::<u64>() };
        let after = after.map_err(|e| Failure::failed(format!("`{token}` is no token: {e}")))?;
        let found = store.tuples(filter, after, PAGE_SIZE)?;
        let last = found.last().filter(|_| found.len() == PAGE_SIZE);
        let next = last.map(|last| last.sequence.to_string()).unwrap_or_default();
        Ok(Page { items: found.into_iter().map(|stored| stored.tuple).collect(), next })
    }

    /// Returns one version of the model with its id; without an `id`, the version that decides.
    pub(super) async fn model(&self, id: Option<&str>) -> Result<(String, AuthorizationModel), Failure> {
        let store = match self {
            Self::Embedded { store, .. } => store,
            Self::Server(store) => return Ok(store.model(id).await?),
        };
        let found = match id {
            Some(id) => ModelId::parse(id),
            None => store.latest_model_id()?,
        };
        let stored = found.map(|id| store.model(id)).transpose()?.flatten();
        match (stored, id) {
            (Some(stored), _) => Ok((stored.id.to_string(), stored.model)),
            (None, Some(id)) => Err(Failure::usage(format!("the store has no model `{id}`"))),
            (None, None) => Err(AuthzError::NoModel.into()),
        }
    }

    /// Returns the ids of the newest versions of the model, newest first, and at most `limit` of them.
    pub(super) async fn model_ids(&self, limit: usize) -> Result<Vec<String>, Failure> {
        let store = match self {
            Self::Embedded { store, .. } => {
                return Ok(store.models(None, limit)?.into_iter().map(|stored| stored.id.to_string()).collect());
            }
            Self::Server(store) => store,
        };
        let (mut ids, mut token) = (Vec::new(), String::new());
        // INVARIANT (it ends): a page without ids ends the list, so each round brings one of at most `limit` ids.
        while ids.len() < limit {
            let page = store.model_ids(&token).await?;
            let is_last = page.next.is_empty() || page.items.is_empty();
            ids.extend(page.items);
            if is_last {
                break;
            }
            token = page.next;
        }
        ids.truncate(limit);
        Ok(ids)
    }

    /// Loads a model together with tuples. Tuples that are there already stay as they are. In a data directory all of it
    /// happens at once.
    pub(super) async fn load(&self, model: ValidModel, tuples: Vec<RelationshipTuple>) -> Result<LoadOutcome, Failure> {
        match self {
            Self::Embedded { store, .. } => {
                let (model_id, written) = store.write_model_with_tuples(model, tuples)?;
                // The text makes clear that a reload replaces nothing.
                let (added, held) = (written.added, store.tuple_count()?);
                let told = format!("{added} tuples were added, {held} are stored; a load deletes none");
                Ok(LoadOutcome { model_id: model_id.to_string(), decides: true, told })
            }
            Self::Server(store) => {
                let loaded = store.load(&model, &tuples).await?;
                let told = format!("{} tuples are in; a load deletes none", tuples.len());
                Ok(LoadOutcome { model_id: loaded.model_id, decides: loaded.decides, told })
            }
        }
    }

    /// Returns the assertions of one version of the model.
    pub(super) async fn assertions(&self, model_id: &str) -> Result<Vec<Assertion>, Failure> {
        match self {
            Self::Embedded { store, .. } => {
                let stored = ModelId::parse(model_id).map(|id| store.assertions(id)).transpose()?;
                Ok(decode_assertions(&stored.unwrap_or_default())?)
            }
            Self::Server(store) => Ok(store.assertions(model_id).await?),
        }
    }

    /// Replaces the assertions of one version of the model.
    pub(super) async fn write_assertions(&self, model_id: &str, assertions: &[Assertion]) -> Result<(), Failure> {
        match self {
            Self::Embedded { store, .. } => {
                let encoded = encode_assertions(assertions)?;
                let id = ModelId::parse(model_id);
                let id = id.ok_or_else(|| Failure::failed(format!("`{model_id}` is not the id of a model")))?;
                if encoded.len() > ASSERTIONS_BYTES_MAX {
                    let bytes = encoded.len();
                    let text = format!("they have {bytes} bytes, at most {ASSERTIONS_BYTES_MAX} are kept");
                    return Err(Failure::usage(text));
                }
                Ok(store.write_assertions(id, &encoded)?)
            }
            Self::Server(store) => Ok(store.write_assertions(model_id, assertions).await?),
        }
    }
}

/// The tuples of a store that match a filter, page by page.
pub(super) struct TuplePages<'a> {
    store: &'a Relationships,
    filter: TupleFilter,
    /// The token of the next page; `None` after the last one.
    next: Option<String>,
    pages_left: u32,
}

impl TuplePages<'_> {
    /// Returns the next page, or `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<RelationshipTuple>>, Failure> {
        let Some(token) = self.next.take() else { return Ok(None) };
        let page = self.store.page(&self.filter, &token).await?;
        self.pages_left = self.pages_left.saturating_sub(1);
        if page.next == token && !token.is_empty() || self.pages_left == 0 {
            return Err(Failure::failed("the pages of the server do not end"));
        }
        self.next = Some(page.next).filter(|next| !next.is_empty());
        Ok(Some(page.items))
    }
}
