//! Who is asking: access tokens from an issuer on loopback, through a real server, to answers.
#![cfg(test)]

mod absent_claims;
mod commands;
mod delegation;
#[path = "../support/dice.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod dice;
#[path = "../end_to_end/documents.rs"]
mod documents;
#[path = "../support/issuer.rs"]
mod issuer;
mod keys;
mod names;
#[path = "../support/openfga.rs"]
mod openfga;
mod people;
mod plain_http;
mod provider;
mod rpcs;
#[path = "../end_to_end/running.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod running;
mod secrets;
#[path = "../support/served.rs"]
mod served;
mod step_up;
mod tenant_claims;
mod tenants;
mod tokens;
mod twins;
mod world;
