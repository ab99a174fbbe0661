//! The HTTP doors of the port, as HTTP clients use them.
#![cfg(test)]

mod doors {
    mod bad_input;
    mod bodies;
    mod browser;
    mod browser_pages;
    mod clients;
    mod mcp;
    mod mcp_clients;
    mod mcp_input;
    mod openapi;
    mod records;
    mod revocation;
    mod world;
}

mod support {
    pub(crate) mod chromium;
    pub(crate) mod documents;
    #[expect(dead_code, reason = "the tests of relationships use the rest of it")]
    pub(crate) mod fga;
    pub(crate) mod held_port;
    pub(crate) mod http;
    #[expect(dead_code, reason = "the tests of identity use the rest of it")]
    pub(crate) mod issuer;
    #[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
    pub(crate) mod model_server;
    pub(crate) mod provider;
    #[expect(dead_code, reason = "the end-to-end tests use the rest of it")]
    pub(crate) mod running;
    #[expect(dead_code, reason = "the tests of identity use its gRPC client")]
    pub(crate) mod served;
}
