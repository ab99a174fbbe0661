//! How fresh the relationships behind an answer must be.

use clap::Args;

use crate::proto::retrieval::Consistency;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ConsistencyArgs {
    /// Do not let the authorizer use its caches.
    #[arg(long)]
    higher_consistency: bool,
    /// Count all that was written before this token was given out: by `healthcheck`, `ingest` or `retrieve`.
    #[arg(long, value_name = "TOKEN")]
    consistency_token: Option<String>,
}

impl ConsistencyArgs {
    /// The two fields of a request.
    pub(super) fn read(self) -> (Consistency, String) {
        match (self.higher_consistency, self.consistency_token) {
            (_, Some(token)) => (Consistency::AtLeastAsFresh, token),
            (true, None) => (Consistency::HigherConsistency, String::new()),
            (false, None) => (Consistency::Unspecified, String::new()),
        }
    }
}
