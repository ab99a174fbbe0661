//! The whole of Ragward, used as its users use it.
#![cfg(test)]
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of a test are small")]

mod audit;
mod commands;
#[path = "../support/dice.rs"]
mod dice;
mod documents;
mod keps;
mod killed;
#[path = "../support/late_log.rs"]
mod late_log;
mod leak_channels;
mod limits;
mod newer_text;
#[path = "../support/openfga.rs"]
mod openfga;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../support/oracle.rs"]
mod oracle;
mod pages;
mod process;
#[expect(dead_code, reason = "no server is shared with others here")]
#[path = "../support/qdrant_process.rs"]
mod qdrant_process;
#[expect(dead_code, reason = "what was asked is not looked at here")]
#[path = "../support/qdrant_server.rs"]
mod qdrant_server;
#[expect(dead_code, reason = "what was asked is not looked at here")]
#[path = "../support/qdrant_servers.rs"]
mod qdrant_servers;
#[path = "../support/questions.rs"]
mod questions;
mod quiet_log;
mod running;
#[path = "../support/served.rs"]
mod served;
mod server;
mod servers;
#[path = "../support/shared.rs"]
mod shared;
mod soak;
mod tune;
mod twin_worlds;
