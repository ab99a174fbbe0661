//! Reads the server's changelog, so that what is remembered is forgotten once it may be wrong.
//!
//! Any change of the store ends its generation: which decisions it touches is not looked into. The server's log is not
//! strictly in the order in which changes took effect, so a change can appear behind the position that was read already
//! and be missed here; it is for such a change that a remembered decision also has an age.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openfga_client::client::ReadChangesRequest;
use openfga_client::prost_wkt_types::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{OpenFgaAuthorizer, wire};
use crate::authz::validity::Validity;
use crate::authz::{AuthzError, Consistency};

/// The most changes that a server gives in one answer.
const CHANGES_PER_PAGE: i32 = 100;
/// Pages that are read in one go; what is left is read the next time, and until then nothing is confirmed.
const PAGES_MAX: usize = 100;
/// The first reading goes so far back, since the server's clock may be behind ours.
const CLOCK_SKEW_MAX: Duration = Duration::from_hours(1);

/// The reader of a changelog; dropping it ends the reading.
#[derive(Debug)]
pub struct ChangelogWatch(JoinHandle<()>);

/// How far the log of a store was read.
#[derive(Debug)]
struct Position {
    store_id: String,
    start_time: Timestamp,
    continuation_token: String,
}

/// Reads the changelog of the authorizer's store every `interval` and tells `validity` what it finds. When it cannot be
/// read, `validity` is not confirmed and ends by itself. Must run inside tokio.
#[must_use]
pub fn watch(openfga: Arc<OpenFgaAuthorizer>, validity: Arc<Validity>, every: Duration) -> ChangelogWatch {
    ChangelogWatch(tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut position = None;
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            let read = timeout_at(openfga.server.deadline(), openfga.read_changes(&mut position, &validity)).await;
            match read.unwrap_or(Err(AuthzError::DeadlineExceeded)) {
                Ok(to_the_end) => {
                    if to_the_end {
                        validity.confirm(asked);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the changelog cannot be read; past `changelog_age_max_ms` remembered decisions are not used");
                }
            }
        }
    }))
}

impl Drop for ChangelogWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl OpenFgaAuthorizer {
    /// Whether it came to the end of the log.
    ///
    /// INVARIANT (told before it is passed): whatever becomes of a reading, `validity` knows of each change that lies before
    /// the position, since no later reading comes upon it again.
    async fn read_changes(&self, position: &mut Option<Position>, validity: &Validity) -> Result<bool, AuthzError> {
        let store_id = self.model_for(Consistency::MinimizeLatency).await?.store_id;
        let known = position.take().filter(|position| position.store_id == store_id);
        if known.is_none() {
            validity.invalidate();
        }
        let position = position.insert(known.unwrap_or_else(|| Position::new(store_id)));
        for _ in 0..PAGES_MAX {
            let request = ReadChangesRequest {
                store_id: position.store_id.clone(),
                r#type: String::new(),
                page_size: Some(CHANGES_PER_PAGE),
                continuation_token: position.continuation_token.clone(),
                start_time: position.continuation_token.is_empty().then_some(position.start_time),
            };
            let page = self.server.client().read_changes(request).await.map_err(|e| wire::failed(&e))?.into_inner();
            if page.changes.is_empty() {
                return Ok(true);
            }
            tracing::debug!("the relationships changed; decisions are forgotten");
            validity.invalidate();
            if page.continuation_token == position.continuation_token || page.continuation_token.is_empty() {
                return Err(AuthzError::BadAnswer("its changelog does not say where it goes on".to_owned()));
            }
            position.continuation_token = page.continuation_token;
        }
        Ok(false)
    }
}

impl Position {
    /// Shortly before now. Our clock is read this once; afterwards the server's tokens tell the position.
    fn new(store_id: String) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_1970.saturating_sub(CLOCK_SKEW_MAX).as_secs();
        let start_time = Timestamp { seconds: i64::try_from(seconds).unwrap_or_default(), nanos: 0 };
        Self { store_id, start_time, continuation_token: String::new() }
    }
}
