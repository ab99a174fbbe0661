//! Writes any number of tuples to a server, in transactions of the size that the server accepts. It learns that size as it
//! goes.

use openfga_client::client::{
    ConsistencyPreference, ReadRequest, ReadRequestTupleKey, TupleKey, WriteRequest, WriteRequestWrites,
};
use prost::Message;
use tonic::{Code, Status};

use super::store::{OpenFgaStore, StoppedWrite, WriteError, option};
use super::wire;
use crate::authz::AuthzError;
use crate::language::RelationshipTuple;
use crate::language::limits::TUPLES_PER_WRITE_MAX;
use crate::tuple_store::OnConflict;

/// The most bytes of tuples in one transaction. By default a server accepts messages of 616,448 bytes.
const BYTES_PER_TRANSACTION: usize = 512 << 10;
/// The most repetitions of a transaction that collided with another writer's. Most collisions pass, but a server that
/// reports nothing else must not be asked for ever.
const RETRIES_MAX: usize = 4;

/// The reason why writing stopped, and how many tuples were written before.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The number of tuples that are written.
    pub(super) written: usize,
    pub(super) error: WriteError,
}

/// The reason why a server refused one transaction.
enum WriteRefusal {
    TooMany {
        tuples_max: Option<usize>,
    },
    TooLarge(AuthzError),
    /// A tuple is already there. The server was told to refuse it, or does not know `on_duplicate`.
    AlreadyThere(String),
    OtherCondition,
    Conflict(String),
    Other(AuthzError),
}

impl OpenFgaStore {
    /// Like [`OpenFgaStore::write_tuples`], and lets the caller choose what a tuple does that is already there.
    ///
    /// # Errors
    /// Like [`OpenFgaStore::write_tuples`]. The error says how many tuples were written.
    pub async fn write(&self, tuples: &[RelationshipTuple], on_duplicate: OnConflict) -> Result<(), StoppedWrite> {
        let model_id = self.server.model_id.clone().unwrap_or_default();
        let put = self.put_with(&model_id, tuples, on_duplicate).await;
        put.map_err(|Stopped { written, error }| StoppedWrite { done: written, of: tuples.len(), error })
    }

    /// Writes tuples in their order under the model with this id, or under the latest one if the id is empty. Tuples that
    /// are already there stay as they are, so a load that stopped half-way can run again.
    pub(super) async fn put(&self, model_id: &str, tuples: &[RelationshipTuple]) -> Result<(), Stopped> {
        self.put_with(model_id, tuples, OnConflict::Ignore).await
    }

    /// Like [`OpenFgaStore::put`], but may stop at a tuple that is already there.
    async fn put_with(
        &self,
        model_id: &str,
        tuples: &[RelationshipTuple],
        on_duplicate: OnConflict,
    ) -> Result<(), Stopped> {
        let stopped = |written: usize, error: WriteError| Stopped { written, error };
        let keys: Result<Vec<TupleKey>, AuthzError> = tuples.iter().map(wire::tuple_key).collect();
        let keys = keys.map_err(|error| stopped(0, error.into()))?;
        let (mut tuples_max, mut written, mut retries) = (TUPLES_PER_WRITE_MAX, 0, 0);
        // INVARIANT (it ends): each round writes tuples, lowers the maximum, or is one of a bounded number of retries.
        while let Some(rest) = keys.get(written..).filter(|rest| !rest.is_empty()) {
            let transaction = rest.get(..fitting(rest, tuples_max)).unwrap_or(rest);
            let count = transaction.len();
            let refused = match self.transact(model_id, transaction.to_vec(), on_duplicate).await {
                Ok(()) => {
                    (written, retries) = (written + count, 0);
                    continue;
                }
                Err(refused) => refused,
            };
            match refused {
                WriteRefusal::TooMany { tuples_max: Some(named) } if (1..count).contains(&named) => tuples_max = named,
                WriteRefusal::TooMany { .. } | WriteRefusal::TooLarge(_) if count > 1 => tuples_max = count / 2,
                WriteRefusal::TooMany { .. } => {
                    let error = AuthzError::Refused("it takes no tuples at all".to_owned());
                    return Err(stopped(written, error.into()));
                }
                WriteRefusal::TooLarge(error) | WriteRefusal::Other(error) => {
                    return Err(stopped(written, error.into()));
                }
                WriteRefusal::AlreadyThere(detail) if on_duplicate == OnConflict::Refuse => {
                    return Err(stopped(written, WriteError::AlreadySo(detail)));
                }
                WriteRefusal::AlreadyThere(_) | WriteRefusal::OtherCondition => {
                    let missing = self.missing(transaction).await.map_err(|error| stopped(written, error))?;
                    if missing.len() == count {
                        let error = WriteError::Conflict(
                            "the server refuses a tuple as already there, but does not have it".to_owned(),
                        );
                        return Err(stopped(written, error));
                    }
                    let completed = self.transact(model_id, missing, on_duplicate).await;
                    completed.map_err(|refused| stopped(written, refused.into()))?;
                    written += count;
                }
                WriteRefusal::Conflict(_) if retries < RETRIES_MAX => retries += 1,
                WriteRefusal::Conflict(detail) => return Err(stopped(written, WriteError::Conflict(detail))),
            }
        }
        Ok(())
    }

    async fn transact(
        &self,
        model_id: &str,
        tuple_keys: Vec<TupleKey>,
        on_duplicate: OnConflict,
    ) -> Result<(), WriteRefusal> {
        if tuple_keys.is_empty() {
            return Ok(());
        }
        let request = WriteRequest {
            store_id: self.store_id.clone(),
            writes: Some(WriteRequestWrites { tuple_keys, on_duplicate: option(on_duplicate) }),
            deletes: None,
            authorization_model_id: model_id.to_owned(),
        };
        let mut client = self.server.client();
        let written = self.server.within(async { Ok(client.write(request).await.map(drop)) }).await;
        written.map_err(WriteRefusal::Other)?.map_err(|status| refused(&status))
    }

    /// Returns the tuples that are not stored yet.
    async fn missing(&self, tuples: &[TupleKey]) -> Result<Vec<TupleKey>, WriteError> {
        let mut missing = Vec::new();
        for tuple in tuples {
            let TupleKey { user, relation, object, condition } = tuple;
            let request = ReadRequest {
                store_id: self.store_id.clone(),
                tuple_key: Some(ReadRequestTupleKey {
                    user: user.clone(),
                    relation: relation.clone(),
                    object: object.clone(),
                }),
                page_size: None,
                continuation_token: String::new(),
                consistency: ConsistencyPreference::HigherConsistency.into(),
            };
            let mut client = self.server.client();
            let read = async { client.read(request).await.map_err(|e| wire::failed(&e)) };
            let stored = self.server.within(read).await?.into_inner().tuples.into_iter().next();
            // A server stores "no context" as an empty one.
            let context_of = |condition: &openfga_client::client::RelationshipCondition| {
                (condition.name.clone(), condition.context.clone().unwrap_or_default())
            };
            let condition = condition.as_ref().map(context_of);
            match stored.and_then(|stored| stored.key).map(|key| key.condition.as_ref().map(context_of)) {
                None => missing.push(tuple.clone()),
                Some(stored) if stored == condition => {}
                Some(_) => return Err(WriteError::OtherCondition(format!("{user} {relation} {object}"))),
            }
        }
        Ok(missing)
    }
}

impl From<WriteRefusal> for WriteError {
    fn from(refused: WriteRefusal) -> Self {
        match refused {
            WriteRefusal::TooMany { .. } => AuthzError::Refused("it takes fewer tuples in one write".to_owned()).into(),
            WriteRefusal::TooLarge(error) | WriteRefusal::Other(error) => error.into(),
            WriteRefusal::AlreadyThere(_) | WriteRefusal::OtherCondition => {
                Self::Conflict("another writer wrote a tuple meanwhile".to_owned())
            }
            WriteRefusal::Conflict(detail) => Self::Conflict(detail),
        }
    }
}

/// Returns how many of the first tuples fit one transaction; at least one.
fn fitting(tuples: &[TupleKey], tuples_max: usize) -> usize {
    let mut bytes = 0;
    let fits = tuples.iter().take(tuples_max).take_while(|tuple| {
        bytes += tuple.encoded_len();
        bytes <= BYTES_PER_TRANSACTION
    });
    fits.count().max(1)
}

fn refused(status: &Status) -> WriteRefusal {
    let message = status.message();
    if let Some(tuples_max) = message.strip_prefix("The number of write operations exceeds the allowed limit of ") {
        return WriteRefusal::TooMany { tuples_max: tuples_max.trim().parse().ok() };
    }
    // Another Ragward answers in these words.
    if message.starts_with("the write has ") {
        return WriteRefusal::TooMany { tuples_max: None };
    }
    let conflicts = ["already exists with a different condition", "is already there with another condition"];
    if conflicts.iter().any(|words| message.contains(words)) {
        return WriteRefusal::OtherCondition;
    }
    if message.starts_with("cannot write a tuple which already exists") {
        return WriteRefusal::AlreadyThere(message.to_owned());
    }
    if status.code() == Code::Aborted {
        return WriteRefusal::Conflict(message.to_owned());
    }
    let error = wire::failed(status);
    if matches!(error, AuthzError::MessageTooLarge(_)) {
        WriteRefusal::TooLarge(error)
    } else {
        WriteRefusal::Other(error)
    }
}
