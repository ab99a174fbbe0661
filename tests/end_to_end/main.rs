//! The whole of Ragward, used as its users use it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of a test are small")]

mod documents;
mod keps;
#[path = "../support/oracle.rs"]
mod oracle;
mod process;
mod running;
mod server;
#[path = "../support/shared.rs"]
mod shared;
