//! How often is asked, and what happens when many ask at once.
#![cfg(test)]

#[expect(dead_code, reason = "nothing is shuffled here")]
#[path = "../support/dice.rs"]
mod dice;
mod interleavings;
mod newer_text;
mod rounds;
mod soak;
