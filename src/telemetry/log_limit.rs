//! Keeps the log readable while something fails again and again. The first few warnings and errors of each minute are
//! logged for each place in the code, and the rest are left out. The next one that is logged says how many were left
//! out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The number of lines from one place in the code that are logged in one [`WINDOW`].
const LINES_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_mins(1);

/// A log format that leaves out events beyond the limit.
#[derive(Debug)]
pub struct LogLimit<F> {
    format: F,
    /// One entry for each place in the code that warns.
    windows: Mutex<HashMap<Identifier, Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    told: u32,
    left_out: u64,
}

impl<F> LogLimit<F> {
    /// Limits the events that a format writes.
    pub fn new(format: F) -> Self {
        Self { format, windows: Mutex::default() }
    }

    /// Returns `None` if an event is left out, and otherwise the number of events before it that were left out.
    fn admit(&self, metadata: &Metadata<'_>) -> Option<u64> {
        if *metadata.level() > Level::WARN {
            return Some(0);
        }
        let now = Instant::now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Window { began: now, told: 0, left_out: 0 };
        let window = windows.entry(metadata.callsite()).or_insert_with(new);
        let mut left_out = 0;
        if now.duration_since(window.began) >= WINDOW {
            left_out = window.left_out;
            *window = new();
        }
        if window.told == LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.told += 1;
        Some(left_out)
    }
}

impl<S, N, F> FormatEvent<S, N> for LogLimit<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(left_out) = self.admit(event.metadata()) else { return Ok(()) };
        if left_out > 0 {
            writeln!(writer, "({left_out} lines like the next one were left out)")?;
        }
        self.format.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tokio::time::advance;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_again_and_again_is_told_a_few_times() {
        let lines = Lines::default();
        let format = LogLimit::new(tracing_subscriber::fmt::format().without_time());
        let log = tracing_subscriber::fmt().event_format(format).with_writer(lines.clone()).finish();
        let _default = tracing::subscriber::set_default(log);
        let fail = |times: usize| (0..times).for_each(|time| tracing::error!(time, "the disk is full"));
        fail(1_500);
        tracing::warn!("something else");
        (0..20).for_each(|time| tracing::info!(time, "an answer"));
        let told = lines.take();
        assert_eq!(told.len(), LINES_MAX as usize + 1 + 20, "{told:?}");
        advance(WINDOW).await;
        fail(1);
        let told = lines.take();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("(1495 lines like the next one were left out)"), "{told:?}");
        assert!(told[1].contains("the disk is full"), "{told:?}");
        advance(WINDOW).await;
        fail(1);
        assert_eq!(lines.take().len(), 1, "nothing was left out meanwhile");
    }
}
