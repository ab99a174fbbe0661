//! Models, tuples and the evaluator, against `OpenFGA`'s own data and against an evaluator that shares no code with it.
#![cfg(test)]

#[path = "../support/dice.rs"]
mod dice;
mod evaluator_oracle;
#[path = "../support/fga.rs"]
mod fga;
mod language;
#[path = "../support/oracle.rs"]
mod oracle;
#[path = "../support/random_world.rs"]
mod random_world;
mod sample_stores;
mod store_files;
#[path = "../support/shared.rs"]
mod support;
mod visible_set;
