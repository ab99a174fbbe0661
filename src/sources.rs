//! The port to source systems: the systems that chunks were taken from, and that are asked once more before a chunk leaves.
//!
//! A source is asked as the user of the request. It gets a token of its own, for which an authorization server exchanges the
//! token of the call (RFC 8693). The source only narrows: it is asked about chunks that the authorizer has permitted, and
//! withholds some of them.
//!
//! INVARIANT (fail closed): only a source's yes releases a chunk. In every other case the chunk is withheld or the request fails.
//!
//! INVARIANT (tokens stay here): the token of a call goes to the authorization server alone, and a token for a source to that
//! source alone. Tokens for sources are in memory only, and no caller gets one.

#[cfg(feature = "server")]
mod address;
mod config;
#[cfg(feature = "server")]
mod decisions;
#[cfg(feature = "server")]
mod exchange;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod setup;
#[cfg(feature = "server")]
mod template;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::config::{
    ExchangeConfig, ExchangeGrant, SourceConfig, SourceMethod, SourceTextFrom, check, check_issuers,
};
#[cfg(feature = "server")]
pub use self::http::HttpSources;
#[cfg(feature = "server")]
pub use self::setup::SourceSetupError;
use crate::chunk::{Metadata, Version};
use crate::error_code::ErrorCode;
use crate::identity::BearerToken;
use crate::language::Object;

/// Asks source systems whether a user may see a document.
#[async_trait]
pub trait SourceSystems: Send + Sync {
    /// Returns how chunks under this guard are released; `None` if no source is asked about them.
    fn rule(&self, guard: &Object) -> Option<SourceRule>;

    /// Returns the document that a source knows under this guard and this metadata. Returns `None` if these name no document;
    /// then its chunks are withheld.
    fn locate(&self, guard: &Object, metadata: Option<&Metadata>) -> Option<SourceDocument>;

    /// Returns the metadata key that holds a chunk's classification, if there is one.
    fn classification_key(&self) -> Option<&str>;

    /// Returns the name of a source, for the record.
    fn name(&self, source: usize) -> &str;

    /// Asks a source about one document. The answer comes within the timeout of the source's settings.
    ///
    /// # Errors
    /// When the source does not say whether the user may see the document.
    async fn ask(&self, question: &SourceQuestion<'_>) -> Result<SourceReply, SourceError>;
}

/// The rule by which a source releases the chunks under a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// The number of the source, from 0.
    pub source: usize,
    /// Whether the document is located by the metadata of its chunks.
    pub needs_metadata: bool,
    /// Where the text of a released chunk comes from.
    pub text: SourceTextFrom,
}

/// A document as its source knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceDocument {
    /// The number of the source, from 0.
    pub source: usize,
    /// The guard of the chunks.
    pub guard: Object,
    /// The value of the URL's one field.
    pub value: String,
    /// The address of the document.
    pub url: Arc<str>,
}

/// A question to a source.
#[derive(Clone, Copy, Debug)]
pub struct SourceQuestion<'q> {
    /// The document to ask about.
    pub document: &'q SourceDocument,
    /// The version of the document in the vector store; `None` if another program wrote it.
    pub version: Option<Version>,
    /// The token of the call, whose subject is the user.
    pub bearer: &'q BearerToken,
    /// The earlier answers that may count.
    pub recall: Recall,
    /// The time of the request since 1970. The end of the token is compared with it.
    pub since_1970: Duration,
}

/// The earlier answers of a source that may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// All answers that are remembered.
    All,
    /// Answers from this moment or later.
    Since(Instant),
    /// No earlier answer counts.
    None,
}

/// The answer of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceReply {
    /// The user may see the document. The text is there if the rule takes it from the source.
    Released(Option<SourceText>),
    /// The user may not see the document, or the source has none of this name.
    Withheld,
}

/// The text of a document as its source gives it.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The text of the document.
    pub text: String,
    /// The title of the document; may be empty.
    pub title: String,
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceText").field("text_bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// The reason why a source does not say whether the user may see a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The call has no token of the user, or one of an issuer whose tokens are not exchanged. So no source can be asked as the user.
    #[error("the user's own access token is needed, because a source is asked as the user")]
    NoToken,
    /// The source or its authorization server gave no answer that counts.
    #[error("source `{source_name}`: {fault}")]
    Unavailable {
        /// The name of the source.
        source_name: String,
        /// The fault, in fixed words.
        fault: SourceFault,
    },
}

/// The fault of an answer. It repeats nothing of the request and the answer but a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SourceFault {
    /// Nothing came in time, or the connection broke.
    #[error("it did not answer")]
    Unreachable,
    /// The status says neither yes nor no.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The answer is larger than a chunk may be.
    #[error("its answer is too large")]
    TooLarge,
    /// The answer does not name the document that was asked for.
    #[error("its answer is not about the document that was asked for")]
    OtherDocument,
    /// The answer has no text where the settings say.
    #[error("its answer has no text")]
    NoText,
    /// The token endpoint did not answer.
    #[error("the token endpoint did not answer")]
    ExchangeUnreachable,
    /// The token endpoint refused.
    #[error("the token endpoint answered with status {0}")]
    ExchangeStatus(u16),
    /// The private key of the client signs nothing, so nothing was sent.
    #[error("the client's private key cannot be used")]
    ClientKey,
    /// The token endpoint gave no token for this user and this source.
    #[error("the token endpoint gave no token that can be used")]
    ExchangedToken,
    /// The token of the call ends now, so nothing is exchanged for it.
    #[error("the token of the call has ended")]
    Ended,
    /// An exchange for which others wait, too, has failed.
    #[error("an exchange that was under way has failed")]
    ExchangeFailed,
}

impl SourceError {
    /// Tells what the caller can do about it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoToken => ErrorCode::PermissionDenied,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
        }
    }
}
