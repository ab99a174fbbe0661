//! The rest of a request that was answered before it had arrived whole, such as that of a caller without a token.
//!
//! Over HTTP/1 the connection closes after such an answer. A client that is still sending may then meet a broken connection
//! before it reads the answer, and never learn why it was refused. So a small rest is read and thrown away first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Version, header};

/// The largest rest that is read. It is the body of most requests; a larger upload is cut off.
const BYTES_MAX: usize = 1024 * 1024;
/// How long the rest may take. A client sends a small body right after its head.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The body of a request, of which somebody else holds the [`Leftover`].
pub(super) struct Watched<B>(Arc<Mutex<Pin<Box<B>>>>);

/// The part of a request's body that nobody has read yet. Over HTTP/2 there is no such part, because the end of a
/// stream does not end its connection.
pub(super) struct Leftover<B>(Option<Arc<Mutex<Pin<Box<B>>>>>);

/// Splits a body into what the service reads, and a handle to the rest.
pub(super) fn watched<B>(request: Request<B>) -> (Request<Watched<B>>, Leftover<B>) {
    // A client that waits for `100 Continue` sends nothing before it, and reads the answer instead.
    let ends_connection = request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(Box::pin(body)));
    let leftover = Leftover(ends_connection.then(|| Arc::clone(&body)));
    (Request::from_parts(parts, Watched(body)), leftover)
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // Nobody waits for this lock: the rest is read once this body is gone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

impl<B: HttpBody<Data = Bytes>> Leftover<B> {
    /// Reads a small rest and throws it away, unless the service still reads the body.
    pub(super) async fn discard(self) {
        let Some(body) = self.0.and_then(Arc::into_inner) else { return };
        let mut body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > BYTES_MAX {
                    return;
                }
            }
        };
        if timeout(WAIT_MAX, reading).await.is_err() {
            tracing::debug!("a request was answered before it arrived, and its rest did not follow");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep};
    use tonic::Status;

    use super::*;

    /// Returns a request whose body has so many pieces of so many bytes, with this wait before each.
    fn request(pieces: usize, bytes: usize, wait: Duration) -> Request<impl HttpBody<Data = Bytes, Error = Status>> {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            sleep(wait).await;
            Ok(Frame::data(Bytes::from(vec![0; bytes])))
        });
        Request::new(StreamBody::new(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_rest_is_read_in_a_short_time() {
        let rows = [
            ("a small rest", 3, 10, Duration::from_millis(10), Duration::from_millis(30)),
            ("no rest", 0, 0, Duration::ZERO, Duration::ZERO),
            ("a large rest", 1_000, BYTES_MAX, Duration::from_millis(10), Duration::from_millis(20)),
            ("a slow rest", 1_000, 10, Duration::from_millis(10), WAIT_MAX),
        ];
        for (row, pieces, bytes, wait, expected) in rows {
            let (request, leftover) = watched(request(pieces, bytes, wait));
            drop(request);
            let began = Instant::now();
            leftover.discard().await;
            assert_eq!(began.elapsed(), expected, "{row}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_service_reads_is_left_to_it() {
        let (request, leftover) = watched(request(2, 10, Duration::from_secs(1)));
        let began = Instant::now();
        leftover.discard().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_and_a_waiting_client_are_not_waited_for() {
        let mut over_http2 = request(1, 10, WAIT_MAX);
        *over_http2.version_mut() = Version::HTTP_2;
        let mut waiting = request(1, 10, WAIT_MAX);
        waiting.headers_mut().insert(header::EXPECT, tonic::codegen::http::HeaderValue::from_static("100-continue"));
        for (row, request) in [("HTTP/2", over_http2), ("a client that waits", waiting)] {
            let (request, leftover) = watched(request);
            drop(request);
            let began = Instant::now();
            leftover.discard().await;
            assert_eq!(began.elapsed(), Duration::ZERO, "{row}");
        }
    }
}
