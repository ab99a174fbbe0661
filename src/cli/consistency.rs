//! The flags that say how fresh the relationships behind an answer must be.

use clap::Args;

use crate::proto::retrieval::Consistency;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ConsistencyArgs {
    /// Forbid the authorizer to use its caches.
    #[arg(long)]
    higher_consistency: bool,
    /// Count everything that was written before this token, which `healthcheck`, `ingest` or `retrieve` printed.
    #[arg(long, value_name = "TOKEN")]
    consistency_token: Option<String>,
}

impl ConsistencyArgs {
    /// Returns the two fields of a request.
    pub(super) fn read(self) -> (Consistency, String) {
        match (self.higher_consistency, self.consistency_token) {
            (_, Some(token)) => (Consistency::AtLeastAsFresh, token),
            (true, None) => (Consistency::HigherConsistency, String::new()),
            (false, None) => (Consistency::Unspecified, String::new()),
        }
    }
}
