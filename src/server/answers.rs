//! Bounds the memory of answers, for each connection and for all connections together.
//!
//! A request takes room for the largest answer it may get, before its handler runs. It gives room back when the size of its
//! answer is known, and the rest when the client has read the answer. So clients that do not read, or that ask for much at
//! once, make their own requests wait, and memory stays bounded. A request that waits for room holds no answer yet.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::Extensions;

use super::refusal::Refusal;

/// The bytes of one unit of room.
const UNIT_BYTES: usize = 1_024;
/// The room of all connections: 256 MiB, a small part of the memory of a machine that serves that many answers.
const ALL_UNITS: u32 = 256 * 1_024;
/// The room of one connection: 64 MiB, which is seven of the largest answers, or about eighty answers of ten chunks.
const CONNECTION_UNITS: u32 = 64 * 1_024;
/// The most large messages of requests that are in memory at a time, each from its first byte until its answer is ready.
/// Streams of uploads have places of their own (`ingest::turns`).
const LARGE_MESSAGES_MAX: usize = 16;
/// The most messages of a connection that are read at a time although nobody knows their callers' tokens. With 64 KiB each, they
/// are 1 MiB: as much as a connection of HTTP/2 holds while nobody reads it.
const UNJUDGED_MAX: usize = 16;
/// The wait after which a refused client should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The room for the answers of one connection, and the room for the answers of all connections together.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    all: Arc<Semaphore>,
    of_connection: Arc<Semaphore>,
    /// The places of one connection for messages that are read before their callers are judged.
    unjudged: Arc<Semaphore>,
    /// The places for large messages of requests, of all connections together.
    large: Arc<Semaphore>,
}

/// Room that an answer takes up.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Holds as many units as `all`.
    of_connection: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

/// The room of one answer. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct AnswerSlot {
    answers: Answers,
    until: Instant,
    /// How many times larger than its message the answer may become at the door.
    growth: usize,
    reserved: Arc<Mutex<Option<Reserved>>>,
    /// The place of the request's own message, if that may be large. It is free when the last clone of the slot is dropped.
    message: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Answers {
    pub(super) fn new() -> Self {
        let large = Arc::new(Semaphore::new(LARGE_MESSAGES_MAX));
        let unjudged = Arc::new(Semaphore::new(UNJUDGED_MAX));
        Self { all: semaphore(ALL_UNITS), of_connection: semaphore(CONNECTION_UNITS), unjudged, large }
    }

    /// Returns the room for one more connection.
    pub(super) fn for_connection(&self) -> Self {
        let (all, large) = (Arc::clone(&self.all), Arc::clone(&self.large));
        let unjudged = Arc::new(Semaphore::new(UNJUDGED_MAX));
        Self { all, of_connection: semaphore(CONNECTION_UNITS), unjudged, large }
    }
}

#[cfg(test)]
impl Answers {
    /// Returns the free units of the connection, and those of all connections.
    pub(super) fn free_units(&self) -> [usize; 2] {
        [self.of_connection.available_permits(), self.all.available_permits()]
    }
}

fn semaphore(units: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(units as usize))
}

impl AnswerSlot {
    /// Returns a slot without room, which waits for room until the moment `until`.
    pub(super) fn new(answers: &Answers, until: Instant) -> Self {
        let (reserved, message) = (Arc::default(), Arc::default());
        Self { answers: answers.clone(), until, growth: 1, reserved, message }
    }

    /// Makes each later reservation so many times larger, because the door writes the answer in a larger form.
    #[must_use]
    pub(super) fn growing(self, growth: usize) -> Self {
        Self { growth, ..self }
    }

    /// Takes a place for a message that may be large, before any of it is read.
    ///
    /// # Errors
    /// When no place is free in time.
    pub(super) async fn admit_large(&self) -> Result<(), Refusal> {
        let too_many = || Refusal::busy("too many large requests are being read; try again later", RETRY_AFTER);
        let place = timeout_at(self.until, Arc::clone(&self.answers.large).acquire_owned()).await;
        let place = place.map_err(|_elapsed| too_many())?.map_err(|_closed| too_many())?;
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    }

    /// Takes a place for a message that is read although its caller's token is not known to be good. The place is free when it is
    /// dropped.
    ///
    /// # Errors
    /// When no place of the connection is free in time.
    pub(super) async fn admit_unjudged(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let too_many = || Refusal::busy("too many messages arrive over this connection; try again later", RETRY_AFTER);
        let place = timeout_at(self.until, Arc::clone(&self.answers.unjudged).acquire_owned()).await;
        place.map_err(|_elapsed| too_many())?.map_err(|_closed| too_many())
    }

    /// Returns the room of the connection that this slot belongs to, and the room of all connections.
    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Returns whether a request has a slot, without which nothing bounds its answer.
    pub(super) fn is_in(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }

    /// Takes the slot of a request.
    ///
    /// # Errors
    /// When there is none: the request did not come by a connection or by an in-process call.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or_else(Refusal::lost)
    }

    /// Reserves room for an answer whose message has `bytes`, in place of the room that the slot holds. An answer that is larger than
    /// a connection's room takes all of it.
    ///
    /// # Errors
    /// When there is no room in time.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<(), Refusal> {
        let wanted = units_of(bytes.saturating_mul(self.growth));
        let held = self.take();
        let held_units = held.as_ref().map_or(0, Reserved::units);
        let reserved = match held {
            Some(held) if wanted <= held_units => Some(held.shrunk_to(wanted)),
            None if wanted == 0 => None,
            held => {
                // Room is given back before the wait. Otherwise several answers that grow would wait for each other.
                drop(held);
                Some(timeout_at(self.until, self.acquire(wanted)).await.map_err(|_elapsed| no_room())??)
            }
        };
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = reserved;
        Ok(())
    }

    /// Fits the room to an answer of `bytes` that is in memory already.
    ///
    /// INVARIANT (no answer without room): it does not wait, and gives back no room before it has more. If it waited as
    /// [`AnswerSlot::reserve`] does, then any number of answers could wait in memory without room.
    ///
    /// # Errors
    /// When there is no room at once.
    pub(super) fn fit(&self, bytes: usize) -> Result<(), Refusal> {
        let wanted = units_of(bytes);
        let fitted = match self.take() {
            Some(held) if wanted <= held.units() => Some(held.shrunk_to(wanted)),
            None if wanted == 0 => None,
            held => Some(self.grown_to(held, wanted)?),
        };
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = fitted;
        Ok(())
    }

    fn grown_to(&self, held: Option<Reserved>, units: u32) -> Result<Reserved, Refusal> {
        let more = units.saturating_sub(held.as_ref().map_or(0, Reserved::units));
        let Answers { all, of_connection, .. } = &self.answers;
        let of_connection = Arc::clone(of_connection).try_acquire_many_owned(more).map_err(|_none| no_room())?;
        let all = Arc::clone(all).try_acquire_many_owned(more).map_err(|_none| no_room())?;
        Ok(match held {
            Some(mut held) => {
                held.of_connection.merge(of_connection);
                held.all.merge(all);
                held
            }
            None => Reserved { of_connection, all },
        })
    }

    /// Takes the room out of the slot, for the caller to keep with the answer.
    pub(super) fn take(&self) -> Option<Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn acquire(&self, units: u32) -> Result<Reserved, Refusal> {
        // The wait for the connection's own room comes first, so that it keeps no other connection waiting. Neither
        // semaphore is ever closed.
        let of_connection = Arc::clone(&self.answers.of_connection).acquire_many_owned(units).await;
        let of_connection = of_connection.map_err(|_closed| no_room())?;
        let all = Arc::clone(&self.answers.all).acquire_many_owned(units).await.map_err(|_closed| no_room())?;
        Ok(Reserved { of_connection, all })
    }
}

/// Returns the units that `bytes` take. An answer that is larger than a connection's room takes all of it.
fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(CONNECTION_UNITS)
}

fn no_room() -> Refusal {
    Refusal::busy("too many answers wait to be read; read them, or try again later", RETRY_AFTER)
}

impl Reserved {
    fn units(&self) -> u32 {
        u32::try_from(self.all.num_permits()).unwrap_or(u32::MAX)
    }

    fn shrunk_to(mut self, units: u32) -> Self {
        let surplus = self.all.num_permits().saturating_sub(units as usize);
        drop((self.all.split(surplus), self.of_connection.split(surplus)));
        self
    }
}

/// The body of an answer, with a value that is kept until the client has read the answer or given it up.
pub(super) struct HeldBody<T> {
    body: Body,
    _kept: T,
}

impl<T> HeldBody<T> {
    pub(super) fn new(body: Body, kept: T) -> Self {
        Self { body, _kept: kept }
    }
}

impl<T: Unpin> HttpBody for HeldBody<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;
    use tonic::Code;

    use super::*;
    use crate::server::connections::STREAMS_MAX;
    use crate::server::operations::{Access, OPERATIONS};
    use crate::server_config::ServerConfig;

    #[test]
    fn answers_that_need_no_token_leave_room_for_others() {
        let connections = ServerConfig::default().connections_max;
        for operation in OPERATIONS.iter().filter(|operation| operation.access == Access::Open) {
            // A stream without a bound takes no room at all.
            let units = operation.answer_bytes_max.unwrap_or_default().div_ceil(UNIT_BYTES);
            let all = units * STREAMS_MAX as usize * connections;
            assert!(all < ALL_UNITS as usize, "{}: {all} of {ALL_UNITS}", operation.path);
        }
    }

    const CONNECTION_BYTES: usize = CONNECTION_UNITS as usize * UNIT_BYTES;

    fn slot(answers: &Answers) -> AnswerSlot {
        AnswerSlot::new(answers, Instant::now() + Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_fitted_and_given_back() {
        let answers = Answers::new();
        let all = answers.free_units();
        let less = |units: usize| all.map(|free| free - units);
        let slot = slot(&answers);
        for (bytes, units) in [(9_000, 9), (9_000, 9), (1, 1), (0, 0), (2_048, 2), (5_000, 5)] {
            slot.reserve(bytes).await.unwrap();
            assert_eq!(answers.free_units(), less(units), "{bytes}");
        }
        let held = slot.take();
        drop(slot);
        assert_eq!(answers.free_units(), less(5), "whoever took the room holds it");
        drop(held);
        assert_eq!(answers.free_units(), all);
    }

    #[tokio::test(start_paused = true)]
    async fn few_large_messages_are_in_memory() {
        let answers = Answers::new();
        let slots: Vec<AnswerSlot> = (0..LARGE_MESSAGES_MAX).map(|_| slot(&answers.for_connection())).collect();
        for slot in &slots {
            slot.admit_large().await.unwrap();
        }
        let late = slot(&answers.for_connection()).admit_large().await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::ResourceExhausted);
        drop(slots);
        slot(&answers.for_connection()).admit_large().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn few_messages_are_read_before_their_callers_are_judged() {
        let answers = Answers::new();
        let connection = answers.for_connection();
        let mut places = Vec::new();
        for _ in 0..UNJUDGED_MAX {
            places.push(slot(&connection).admit_unjudged().await.unwrap());
        }
        let late = slot(&connection).admit_unjudged().await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::ResourceExhausted);
        let elsewhere = slot(&answers.for_connection()).admit_unjudged().await;
        assert!(elsewhere.is_ok(), "other connections have places of their own");
        places.pop();
        assert!(slot(&connection).admit_unjudged().await.is_ok(), "a place that is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_grow_do_not_wait_for_each_other() {
        let answers = Answers::new();
        let grow = async |slot: AnswerSlot| {
            slot.reserve(CONNECTION_BYTES / 5 * 2).await?;
            tokio::task::yield_now().await;
            slot.reserve(CONNECTION_BYTES / 5 * 4).await
        };
        let (first, second) = futures::join!(grow(slot(&answers)), grow(slot(&answers)));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_memory_never_waits_without_room() {
        let answers = Answers::new();
        let all = answers.free_units();
        let slot = slot(&answers).growing(2);
        slot.reserve(10 * UNIT_BYTES).await.unwrap();
        assert_eq!(answers.free_units(), all.map(|free| free - 20), "room for the form at the door");
        for units in [15, 30, 0, 3] {
            slot.fit(units * UNIT_BYTES).unwrap();
            assert_eq!(answers.free_units(), all.map(|free| free - units));
        }
        let other = AnswerSlot::new(&answers, Instant::now() + Duration::from_secs(1));
        other.reserve(CONNECTION_BYTES - 5 * UNIT_BYTES).await.unwrap();
        assert_eq!(slot.fit(6 * UNIT_BYTES).map_err(|refusal| refusal.code()), Err(Code::ResourceExhausted));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_waits_and_others_do_not() {
        let mine = Answers::new();
        let others = mine.for_connection();
        let (first, second) = (slot(&mine), slot(&mine));
        first.reserve(10 * CONNECTION_BYTES).await.unwrap();
        let mut waiting = Box::pin(second.reserve(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        slot(&others).reserve(CONNECTION_BYTES).await.unwrap();
        drop(first);
        waiting.await.unwrap();

        let (holder, late) = (slot(&others), slot(&others));
        holder.reserve(CONNECTION_BYTES).await.unwrap();
        let (refused, ()) = futures::join!(late.reserve(1), advance(Duration::from_secs(2)));
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
        drop(holder);
        // Four full connections take all the room.
        let full: Vec<(Answers, AnswerSlot)> = (0..4)
            .map(|_| {
                let connection = mine.for_connection();
                (connection.clone(), slot(&connection))
            })
            .collect();
        drop(second);
        for (_, slot) in &full {
            slot.reserve(CONNECTION_BYTES).await.unwrap();
        }
        assert!(slot(&mine).reserve(1).now_or_never().is_none());
    }
}
