//! A request on its way in. Its body has to arrive in good time, and a request that has arrived whole waits until there is
//! room for its answer.
//!
//! The port and the calls within the process bound their requests by the one function [`bounded`], so neither can leave a
//! bound out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::codegen::{Bytes, StdError};

use super::answers::{AnswerSlot, Answers};
use super::deadline;
use super::operations::{Messages, REQUEST_BYTES_MAX, Route};
use super::refusal::Refusal;

/// How long the one message of a request may take to arrive.
pub(super) const MESSAGE_MAX: Duration = Duration::from_secs(30);
/// How long a stream of messages may be silent. Ingest ends a silent upload before that, and says why.
const SILENCE_MAX: Duration = Duration::from_secs(75);

type Reserving = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Bounds how long a request may take to arrive, and how much memory its answer may take up.
///
/// A request of one message ends only once `answers` has room for the largest answer that the request may get. Its
/// handler waits for that end. The returned slot holds the room. When the answer is ready, the caller takes the room
/// out of the slot, and keeps it until the answer has been read. `growth` tells how many times larger than its message the
/// answer may become at the door.
pub(super) fn bounded<B>(
    request: Request<B>,
    route: &Route,
    answers: &Answers,
    growth: usize,
    request_timeout: Duration,
) -> (Request<Body>, AnswerSlot)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let slot = AnswerSlot::new(answers, deadline::of_headers(request.headers(), request_timeout)).growing(growth);
    let is_upload = route.operation().is_some_and(|operation| operation.request == Messages::Many);
    let (parts, body) = request.into_parts();
    let body = if is_upload {
        Arriving::stream(body, SILENCE_MAX)
    } else {
        let (room, bytes) = (slot.clone(), route.answer_bytes_max().unwrap_or_default());
        let message = Arriving::message(body, MESSAGE_MAX, Box::pin(async move { room.reserve(bytes).await }));
        if route.operation().is_some_and(|operation| operation.request_bytes_max > REQUEST_BYTES_MAX) {
            let place = slot.clone();
            message.after(Box::pin(async move { place.admit_large().await }))
        } else {
            message
        }
    };
    let mut request = Request::from_parts(parts, Body::new(body));
    request.extensions_mut().insert(slot.clone());
    (request, slot)
}

/// A body that is refused when it is late.
struct Arriving<B> {
    body: Pin<Box<B>>,
    is_whole: bool,
    overdue: Pin<Box<Sleep>>,
    /// The longest silence of a stream of messages; `None` for one message, which must have arrived whole by the moment
    /// `overdue`.
    silence_max: Option<Duration>,
    /// Waits for a place before the request is read.
    admitting: Option<Reserving>,
    /// Waits for room once the request is whole.
    reserving: Option<Reserving>,
}

impl<B> Arriving<B> {
    /// Returns one message, which has to be whole within `arrives_within` and then waits for `reserving`.
    fn message(body: B, arrives_within: Duration, reserving: Reserving) -> Self {
        let (body, overdue) = (Box::pin(body), Box::pin(sleep(arrives_within)));
        Self { body, is_whole: false, overdue, silence_max: None, admitting: None, reserving: Some(reserving) }
    }

    /// Reads nothing before `admitting` is ready.
    fn after(self, admitting: Reserving) -> Self {
        Self { admitting: Some(admitting), ..self }
    }

    /// Returns a stream of messages with no longer silence between them than `silence_max`.
    fn stream(body: B, silence_max: Duration) -> Self {
        let (body, overdue) = (Box::pin(body), Box::pin(sleep(silence_max)));
        Self { body, is_whole: false, overdue, silence_max: Some(silence_max), admitting: None, reserving: None }
    }
}

impl<B> HttpBody for Arriving<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(admitting) = &mut self.admitting {
            let admitted = ready!(admitting.as_mut().poll(context));
            self.admitting = None;
            if let Err(no_place) = admitted {
                return Poll::Ready(Some(Err(no_place.into())));
            }
            // Only the request's own time counts.
            self.overdue.as_mut().reset(Instant::now() + MESSAGE_MAX);
        }
        if !self.is_whole {
            match self.body.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(silence_max) = self.silence_max {
                        self.overdue.as_mut().reset(Instant::now() + silence_max);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                Poll::Ready(None) => self.is_whole = true,
                Poll::Pending => {
                    ready!(self.overdue.as_mut().poll(context));
                    let text = "the request did not arrive in time";
                    return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
                }
            }
        }
        if let Some(reserving) = &mut self.reserving {
            let reserved = ready!(reserving.as_mut().poll(context));
            self.reserving = None;
            if let Err(no_room) = reserved {
                return Poll::Ready(Some(Err(no_room.into())));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::{pending, ready};

    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, sleep};
    use tonic::Code;

    use super::*;

    /// A row's name; how the request arrives; the seconds before each frame; what follows the last frame; the outcome.
    type Row = (&'static str, Messages, Vec<u64>, AfterFrames, Result<usize, Code>);

    /// The behaviour of a body after its last frame.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum AfterFrames {
        End,
        Silence,
    }

    /// Returns a body with a frame after each of so many seconds, which then ends or goes on in silence.
    fn body(after: &[u64], then: AfterFrames) -> impl HttpBody<Data = Bytes, Error = Status> + Send + 'static {
        let frames = stream::unfold(after.iter().copied().collect::<VecDeque<u64>>(), move |mut after| async move {
            match after.pop_front() {
                Some(seconds) => {
                    sleep(Duration::from_secs(seconds)).await;
                    Some((Ok(Frame::data(Bytes::from_static(b"ab"))), after))
                }
                None if then == AfterFrames::End => None,
                None => pending().await,
            }
        });
        StreamBody::new(frames)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_comes_in_good_time_or_is_refused() {
        use AfterFrames::{End, Silence};
        use Messages::{Many, One};
        let late = Err(Code::DeadlineExceeded);
        let rows: [Row; 7] = [
            ("a message", One, vec![0, 1], End, Ok(4)),
            ("a message in the last moment", One, vec![9], End, Ok(2)),
            ("a message that never begins", One, vec![], Silence, late),
            ("a message that never ends", One, vec![1, 1], Silence, late),
            ("a message that trickles", One, vec![4, 4, 4], End, late),
            ("a stream that goes on", Many, vec![9, 9, 9, 9], End, Ok(8)),
            ("a stream that falls silent", Many, vec![9, 9], Silence, late),
        ];
        for (what, messages, after, then, expected) in rows {
            let inner = body(&after, then);
            let allowed = Duration::from_secs(10);
            let arriving = match messages {
                One => Arriving::message(inner, allowed, Box::pin(ready(Ok(())))),
                Many => Arriving::stream(inner, allowed),
            };
            let collected = arriving.collect().await.map(|body| body.to_bytes().len()).map_err(|status| status.code());
            assert_eq!(collected, expected, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_request_waits_for_room() {
        let began = Instant::now();
        let waiting = async {
            sleep(Duration::from_secs(3)).await;
            Ok(())
        };
        let arriving = Arriving::message(body(&[0], AfterFrames::End), Duration::from_secs(1), Box::pin(waiting));
        assert_eq!(arriving.collect().await.unwrap().to_bytes().len(), 2);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        let none = ready(Err(Refusal::new(Code::ResourceExhausted, "no room")));
        let arriving = Arriving::message(body(&[0], AfterFrames::End), Duration::from_secs(1), Box::pin(none));
        assert_eq!(arriving.collect().await.unwrap_err().code(), Code::ResourceExhausted);
    }
}
