//! Authentication: access tokens from an issuer on loopback, through a real server, to answers.
#![cfg(test)]

mod identity {
    mod absent_claims;
    mod approval;
    mod approval_reads;
    mod approval_secrets;
    mod approval_twins;
    mod approver;
    mod approver_bounds;
    mod approver_commands;
    mod commands;
    mod delegation;
    mod env_proxy;
    mod explain;
    mod keycloak;
    mod keys;
    mod login;
    mod mcp;
    mod mcp_explain;
    mod mcp_tools;
    mod names;
    mod people;
    mod ping;
    mod plain_http;
    mod possession;
    mod profiles;
    mod provider;
    mod provider_shapes;
    mod public;
    mod request_context;
    mod rpcs;
    mod secrets;
    mod sources;
    mod step_up;
    mod tenant_claims;
    mod tenants;
    mod tls;
    mod tokens;
    mod twins;
    mod world;
}

mod support {
    pub(crate) mod certificates;
    pub(crate) mod chromium;
    #[expect(dead_code, reason = "other tests use more of it")]
    pub(crate) mod dice;
    pub(crate) mod documents;
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "the tests of the HTTP doors use the rest of it")]
    pub(crate) mod http;
    pub(crate) mod issuer;
    pub(crate) mod keycloak;
    pub(crate) mod openfga;
    pub(crate) mod provider;
    #[expect(dead_code, reason = "searches and counts are not looked at here")]
    pub(crate) mod qdrant_server;
    #[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
    pub(crate) mod running;
    pub(crate) mod served;
    pub(crate) mod untimed;
}
