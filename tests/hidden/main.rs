//! What a user may not see changes nothing that the user sees.
#![cfg(test)]

#[path = "../support/dice.rs"]
mod dice;
#[path = "../end_to_end/documents.rs"]
mod documents;
mod leak_channels;
#[path = "../end_to_end/running.rs"]
mod running;
mod twin_worlds;
