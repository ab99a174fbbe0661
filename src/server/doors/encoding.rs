//! The encoding of a body. Clients of Connect may send gzip: that for Python does so by default.

use std::io::Read;

use flate2::bufread::GzDecoder;
use tonic::Code;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, header};

use crate::server::refusal::Refusal;

/// The way in which a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// The result of unpacking a body within a limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unpacked {
    Whole(Bytes),
    /// The body is larger than the limit, packed or unpacked. No more than that was unpacked.
    TooLarge,
}

impl Encoding {
    /// Returns the encoding that a request names; `None` if it names another one, or several.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
        match (named.next().map(HeaderValue::as_bytes), named.next()) {
            (None | Some(b"identity"), None) => Some(Self::Identity),
            (Some(b"gzip"), None) => Some(Self::Gzip),
            (_, _) => None,
        }
    }
}

/// Unpacks a body of gzip, of which at most `bytes_max` bytes come out.
///
/// The packed body is bounded by `bytes_max`, too, because a few megabytes of empty blocks would keep a thread busy for a
/// second. Gzip makes no body noticeably larger, so the bound refuses no honest caller.
///
/// # Errors
/// When the body is not exactly one piece of gzip.
pub(super) fn unpacked(packed: &[u8], bytes_max: usize) -> Result<Unpacked, Refusal> {
    let wrong = || Refusal::new(Code::InvalidArgument, "the body is not exactly one piece of gzip");
    if packed.len() > bytes_max {
        return Ok(Unpacked::TooLarge);
    }
    let mut decoder = GzDecoder::new(packed);
    let mut plain = Vec::new();
    // One byte more tells whether the body ends here.
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut plain).map_err(|_not_gzip| wrong())?;
    if plain.len() > bytes_max {
        return Ok(Unpacked::TooLarge);
    }
    if decoder.into_inner().is_empty() { Ok(Unpacked::Whole(plain.into())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_is_one_piece_of_gzip_within_its_limit() {
        const BYTES_MAX: usize = 1_000;
        let whole = packed(b"{}");
        let empty_blocks = [&whole[..10], &[0, 0, 0, 0xff, 0xff].repeat(BYTES_MAX / 5), &whole[10..]].concat();
        let whole_of = |bytes: usize| Ok(Unpacked::Whole(vec![b' '; bytes].into()));
        let rows = [
            ("a piece", whole.clone(), Ok(Unpacked::Whole(Bytes::from_static(b"{}")))),
            ("an empty piece", packed(b""), whole_of(0)),
            ("as large as may be", packed(&[b' '; BYTES_MAX]), whole_of(BYTES_MAX)),
            ("a byte more", packed(&[b' '; BYTES_MAX + 1]), Ok(Unpacked::TooLarge)),
            ("a thousand times more", packed(&vec![b' '; BYTES_MAX * 1_000]), Ok(Unpacked::TooLarge)),
            ("a large piece of which little comes out", empty_blocks, Ok(Unpacked::TooLarge)),
            ("nothing", Vec::new(), Err(Code::InvalidArgument)),
            ("no gzip", b"{}".to_vec(), Err(Code::InvalidArgument)),
            ("a half", whole[..whole.len() / 2].to_vec(), Err(Code::InvalidArgument)),
            ("without its end", whole[..whole.len() - 1].to_vec(), Err(Code::InvalidArgument)),
            ("a wrong checksum", [&whole[..whole.len() - 8], &[0; 8]].concat(), Err(Code::InvalidArgument)),
            ("two pieces", [whole.clone(), whole.clone()].concat(), Err(Code::InvalidArgument)),
            ("a byte behind it", [whole.as_slice(), b" "].concat(), Err(Code::InvalidArgument)),
        ];
        for (row, body, expected) in rows {
            assert_eq!(unpacked(&body, BYTES_MAX).map_err(|refusal| refusal.code()), expected, "{row}");
        }
    }

    #[test]
    fn one_encoding_is_named_or_none() {
        let rows: [(&[&str], Option<Encoding>); 8] = [
            (&[], Some(Encoding::Identity)),
            (&["identity"], Some(Encoding::Identity)),
            (&["gzip"], Some(Encoding::Gzip)),
            (&["br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "gzip"], None),
            (&["identity", "gzip"], None),
            (&[""], None),
        ];
        for (named, expected) in rows {
            let mut headers = HeaderMap::new();
            for value in named {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(Encoding::of(&headers), expected, "{named:?}");
        }
    }
}
