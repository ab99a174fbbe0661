//! The flags that say how fresh the relationships behind an answer must be.

use clap::Args;

use crate::proto::retrieval::Consistency;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ConsistencyArgs {
    /// Forbid the authorizer from using its caches.
    #[arg(long)]
    higher_consistency: bool,
    /// Take into account everything that was written before `healthcheck`, `ingest` or `retrieve` printed this token.
    #[arg(long, value_name = "TOKEN")]
    consistency_token: Option<String>,
}

impl ConsistencyArgs {
    /// Returns the values for `consistency` and `consistency_token` of a request.
    pub(super) fn read(self) -> (Consistency, String) {
        match (self.higher_consistency, self.consistency_token) {
            (_, Some(token)) => (Consistency::AtLeastAsFresh, token),
            (true, None) => (Consistency::HigherConsistency, String::new()),
            (false, None) => (Consistency::Unspecified, String::new()),
        }
    }
}
