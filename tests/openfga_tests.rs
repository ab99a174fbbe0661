//! `OpenFGA`'s API: Ragward as a client of it, with a copy of its data, and as a server of it.
#![cfg(test)]

mod openfga {
    mod checks_faults;
    mod deadlines;
    mod decoys;
    mod embedded_authorizer;
    mod faults;
    mod live_api;
    mod live_authorizer;
    mod live_checks;
    mod live_credentials;
    mod live_explain;
    mod live_http;
    mod live_load;
    mod live_replica;
    mod random_expressions;
}

mod support {
    pub(crate) mod authorizer_suite;
    pub(crate) mod batch_check_reply;
    pub(crate) mod conversation;
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
    pub(crate) mod faulty_server;
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "the tests of the HTTP doors use the rest of it")]
    pub(crate) mod http;
    #[expect(dead_code, reason = "the tests of identity use the rest of it")]
    pub(crate) mod issuer;
    pub(crate) mod openfga;
    #[expect(dead_code, reason = "the relationships are a server's here")]
    pub(crate) mod running;
}
