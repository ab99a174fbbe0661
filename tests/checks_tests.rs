//! Tests of how often the authorizer is asked, and of what happens when many ask at once.
#![cfg(test)]

mod checks {
    mod interleavings;
    mod newer_text;
    mod rounds;
    mod soak;
}

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
}
