//! Ragward as a whole, used as its users use it.
#![cfg(test)]
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of a test are small")]

mod end_to_end {
    mod audit;
    mod commands;
    mod demos;
    mod documents;
    mod eval;
    mod keps;
    mod killed;
    mod leak_channels;
    mod limits;
    mod mcp;
    mod meaning;
    mod newer_text;
    mod observing;
    mod odd_files;
    mod pages;
    mod process;
    mod quiet_log;
    mod relationships;
    mod server;
    mod servers;
    mod soak;
    mod tune;
    mod twin_worlds;
}

mod support {
    pub(crate) mod dice;
    pub(crate) mod documents;
    pub(crate) mod fga;
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "the tests of the HTTP doors use the rest of it")]
    pub(crate) mod http;
    pub(crate) mod json_door;
    pub(crate) mod late_log;
    pub(crate) mod model_server;
    pub(crate) mod openfga;
    #[expect(dead_code, reason = "other tests use the rest of it")]
    pub(crate) mod oracle;
    #[expect(dead_code, reason = "no server is shared with others here")]
    pub(crate) mod qdrant_process;
    #[expect(dead_code, reason = "what was asked is not looked at here")]
    pub(crate) mod qdrant_server;
    #[expect(dead_code, reason = "what was asked is not looked at here")]
    pub(crate) mod qdrant_servers;
    pub(crate) mod questions;
    pub(crate) mod running;
    #[expect(dead_code, reason = "the address is only used with TLS")]
    pub(crate) mod served;
    pub(crate) mod shared_data;
    pub(crate) mod untimed;
}
