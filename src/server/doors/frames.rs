//! The messages of gRPC bodies: a mark, a length and the encoded message, each.

use std::pin::pin;

use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use prost::bytes::{Buf, BufMut, BytesMut};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Bytes;

use crate::server::refusal::Refusal;

/// The bytes before a message: whether it is compressed, and its length.
pub(in crate::server) const HEAD_BYTES: usize = 5;
/// The mark of a message that is not compressed.
const PLAIN: u8 = 0;

/// Returns an encoded message with `mark` and its length before it.
///
/// # Errors
/// When the length does not fit.
pub(super) fn marked(mark: u8, message: &[u8]) -> Result<Bytes, Refusal> {
    let too_large = |_large| Refusal::new(Code::ResourceExhausted, "the message is too large");
    let length = u32::try_from(message.len()).map_err(too_large)?;
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len());
    bytes.put_u8(mark);
    bytes.put_u32(length);
    bytes.put_slice(message);
    Ok(bytes.freeze())
}

/// Returns an encoded message as gRPC sends it.
///
/// # Errors
/// When the length does not fit.
pub(in crate::server) fn framed(message: &[u8]) -> Result<Bytes, Refusal> {
    marked(PLAIN, message)
}

/// Reads an answer of one message to its end.
///
/// # Errors
/// The refusal at its end, or that of an answer which is not exactly one message.
pub(in crate::server) async fn only(body: Body) -> Result<Bytes, Refusal> {
    let mut messages = pin!(messages(body));
    let first = messages.next().await.unwrap_or_else(|| Err(lost()))?;
    match messages.next().await {
        None => Ok(first),
        Some(Ok(_another)) => Err(lost()),
        Some(Err(refusal)) => Err(refusal),
    }
}

/// Returns the messages of an answer. A refusal is the last item.
pub(super) fn messages(body: Body) -> impl Stream<Item = Result<Bytes, Refusal>> + Send {
    let reading = Reading { body, arrived: BytesMut::new(), has_ended: false };
    stream::unfold(reading, async |mut reading| {
        let next = reading.next().await?;
        reading.has_ended = next.is_err();
        Some((next, reading))
    })
}

struct Reading {
    body: Body,
    arrived: BytesMut,
    has_ended: bool,
}

impl Reading {
    /// Returns the next message, the refusal at the end, or nothing after an answer that ended well.
    async fn next(&mut self) -> Option<Result<Bytes, Refusal>> {
        if self.has_ended {
            return None;
        }
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => return Some(Err(Refusal::from(&status))),
                None => return Some(Err(lost())),
            };
            match frame.into_data() {
                // Most answers are one piece, whose memory is taken over.
                Ok(data) if self.arrived.is_empty() => self.arrived = BytesMut::from(data),
                Ok(data) => self.arrived.extend_from_slice(&data),
                Err(frame) => {
                    self.has_ended = true;
                    return match Refusal::of_trailers(frame.trailers_ref()) {
                        Some(refusal) => Some(Err(refusal)),
                        None if self.arrived.is_empty() => None,
                        None => Some(Err(lost())),
                    };
                }
            }
        }
    }

    /// Takes the next message out of the bytes that have arrived, once it is whole.
    fn take(&mut self) -> Option<Result<Bytes, Refusal>> {
        let mut head = self.arrived.get(..HEAD_BYTES)?;
        let (mark, length) = (head.get_u8(), head.get_u32() as usize);
        if mark != PLAIN {
            // Nobody here asks for compressed answers.
            return Some(Err(lost()));
        }
        if self.arrived.len() < HEAD_BYTES + length {
            return None;
        }
        self.arrived.advance(HEAD_BYTES);
        Some(Ok(self.arrived.split_to(length).freeze()))
    }
}

fn lost() -> Refusal {
    tracing::error!("the answer of a service is not made of whole messages");
    Refusal::lost()
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::Status;
    use tonic::codegen::http::{HeaderMap, HeaderValue};

    use super::*;

    /// Returns a body with these pieces of data and this status at its end.
    fn body(pieces: &[&[u8]], status: Option<&'static str>) -> Body {
        let mut frames: Vec<Result<Frame<Bytes>, Status>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        frames.extend(status.map(|status| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            Ok(Frame::trailers(trailers))
        }));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    type BodyRow<'a> = (&'a str, Vec<&'a [u8]>, Option<&'static str>, Vec<Result<&'a str, Code>>);

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let two: &[u8] = b"\0\0\0\0\x02ab\0\0\0\0\0";
        let whole = || vec![Ok("ab"), Ok("")];
        let rows: [BodyRow<'_>; 8] = [
            ("in one piece", vec![two], Some("0"), whole()),
            ("byte by byte", two.chunks(1).collect(), Some("0"), whole()),
            ("none", vec![], Some("0"), vec![]),
            ("a refusal at the end", vec![two], Some("8"), vec![Ok("ab"), Ok(""), Err(Code::ResourceExhausted)]),
            ("a refusal alone", vec![], Some("3"), vec![Err(Code::InvalidArgument)]),
            ("no end", vec![two], None, vec![Ok("ab"), Ok(""), Err(Code::Internal)]),
            ("half a message", vec![b"\0\0\0\0\x02a"], Some("0"), vec![Err(Code::Internal)]),
            ("compressed", vec![b"\x01\0\0\0\x02ab"], Some("0"), vec![Err(Code::Internal)]),
        ];
        for (row, pieces, status, expected) in rows {
            let found = messages(body(&pieces, status)).map(|message| message.map_err(|refusal| refusal.code()));
            let found: Vec<Result<Bytes, Code>> = found.collect().await;
            let expected: Vec<_> =
                expected.into_iter().map(|item| item.map(|text| Bytes::from(text.to_owned()))).collect();
            assert_eq!(found, expected, "{row}");
        }
    }

    type OnlyRow<'a> = (&'a str, Vec<&'a [u8]>, Result<&'a str, Code>);

    #[tokio::test]
    async fn one_message_is_exactly_one() {
        let framed = framed(b"ab").unwrap();
        let rows: [OnlyRow<'_>; 3] = [
            ("one", vec![&framed], Ok("ab")),
            ("none", vec![], Err(Code::Internal)),
            ("two", vec![&framed, &framed], Err(Code::Internal)),
        ];
        for (row, pieces, expected) in rows {
            let found = only(body(&pieces, Some("0"))).await.map_err(|refusal| refusal.code());
            assert_eq!(found, expected.map(|text| Bytes::from(text.to_owned())), "{row}");
        }
    }
}
