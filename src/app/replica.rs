//! Provides the wall clock that a replica compares with the dates in its server's changelog.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::authz::replica::UnixClock;

/// Returns the system's clock. A time before 1970 counts as 1970.
pub(super) fn unix_clock() -> UnixClock {
    Arc::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i128::try_from(since_1970.as_nanos()).unwrap_or(i128::MAX)
    })
}
