//! `OpenFGA`'s API: as a client of it, as a copy of it, and as a server of it.
#![cfg(test)]

#[path = "../support/authorizer_suite.rs"]
mod authorizer_suite;
#[path = "../support/batch_check_reply.rs"]
mod batch_check_reply;
mod checks_faults;
#[path = "../support/conversation.rs"]
mod conversation;
mod deadlines;
mod decoys;
#[path = "../support/dice.rs"]
#[expect(dead_code, reason = "nothing is shuffled here")]
mod dice;
mod embedded_authorizer;
mod faults;
#[path = "../support/faulty_server.rs"]
mod faulty_server;
mod live_api;
mod live_authorizer;
mod live_checks;
mod live_load;
mod live_replica;
#[path = "../support/openfga.rs"]
mod openfga;
mod random_expressions;
