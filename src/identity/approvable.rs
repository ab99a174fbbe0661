//! Requests that a person approves, and their approvals. This module decides nothing.

use ring::digest::{Context, SHA256};

/// The first bytes under the digest of a request. They change whenever the form of the bytes does.
const DIGEST_DOMAIN: &[u8] = b"ragward approval 1\0";

/// The action that a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Search for chunks that answer a query, and read their texts.
    Retrieve,
    /// Check whether chunks that the caller holds may still be seen.
    Recheck,
    /// Read the texts of chunks that the caller names.
    Fetch,
}

/// A request, as far as an approval is about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovableRequest {
    /// The action that is asked for.
    pub action: Action,
    /// The collection that is read.
    pub collection: String,
    /// The highest classification that is asked for; `None` if the request names none.
    pub classification_max: Option<String>,
    /// The most chunks that the request can give, over all pages.
    pub chunks_max: u64,
    /// The words of the request: the text of its query, or the ids that it names. `None` if it has none. They decide nothing.
    pub words: Option<String>,
    /// Bytes that are equal only for equal requests. The pages of one search are one request.
    pub encoded: Vec<u8>,
    /// The token of a further page of an approved search; `None` for the first page.
    pub page_token: Option<String>,
}

/// An approval that a person gave, or is asked for, through this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The random text that tells this approval from every other one.
    pub nonce: String,
    /// The digest of the request and the nonce, in hexadecimal.
    pub request_sha256: String,
    /// The most chunks, on all pages.
    pub chunks_max: u64,
}

/// An approval of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The nonce that tells this approval from every other one.
    pub nonce: String,
    /// The digest of the approved request, in hexadecimal.
    pub request_sha256: String,
    /// The most chunks, on all pages.
    pub chunks_max: u64,
    /// The end of the approval, in seconds since 1970.
    pub expires_at: u64,
}

impl Action {
    /// Returns the action's name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Recheck => "recheck",
            Self::Fetch => "fetch",
        }
    }
}

impl Grant {
    /// Makes the approval of a request that this nonce tells from every other one.
    #[must_use]
    pub fn of(request: &ApprovableRequest, nonce: String, chunks_max: u64) -> Self {
        Self { request_sha256: request_sha256(&request.encoded, &nonce), nonce, chunks_max }
    }

    /// Returns whether this approval is of a request.
    #[must_use]
    pub fn is_of(&self, request: &ApprovableRequest) -> bool {
        self.request_sha256 == request_sha256(&request.encoded, &self.nonce)
    }
}

/// Returns the digest of a request and a nonce, in hexadecimal.
pub(super) fn request_sha256(encoded: &[u8], nonce: &str) -> String {
    let mut digest = Context::new(&SHA256);
    digest.update(DIGEST_DOMAIN);
    for part in [encoded, nonce.as_bytes()] {
        digest.update(&length(part));
        digest.update(part);
    }
    base16ct::lower::encode_string(digest.finish().as_ref())
}

/// Returns the length of bytes that stand before others under a digest.
pub(super) fn length(bytes: &[u8]) -> [u8; 8] {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes()
}
