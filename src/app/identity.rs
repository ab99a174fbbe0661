//! Decides who is let in over the network, from the configuration.

use std::sync::Arc;

use super::{AppError, possession};
use crate::config::Config;
use crate::identity::approval::ApprovalRules;
use crate::identity::config::{BackchannelConfig, Delivery};
use crate::identity::{StepUpRules, TokenVerifier};
use crate::server::{Authentication, TokenAuthentication};

/// Decides whether callers need tokens, and makes the verifier of tokens if they do.
///
/// # Errors
/// If the configuration has neither an issuer nor `insecure_identity`, or has both, or combines `insecure_identity` with
/// something that needs tokens.
pub(super) fn authentication(config: &Config) -> Result<Authentication, AppError> {
    let identity = &config.identity;
    match (identity.issuers.is_empty(), config.server.insecure_identity) {
        // A page would act with whatever name it writes, in the browser of anybody who opens it.
        (true, true) if !config.server.cors_origins.is_empty() => Err(wrong(
            "`server.cors_origins` lets web pages call, and `--insecure-identity` believes the user that a page names: \
             leave one of them out",
        )),
        (true, true) if config.server.mcp.is_some() => Err(wrong(
            "`server.mcp` takes the user from the access token alone, and `--insecure-identity` asks for no token: leave one of \
             them out",
        )),
        (true, true) if !identity.approval.is_empty() || config.approval.is_some() => Err(wrong(
            "approvals (`identity.approval`, `approval`) ask people, and `--insecure-identity` knows none: leave one of them out",
        )),
        (true, true) if !config.sources.is_empty() => Err(wrong(
            "`sources` are asked with the access token of the user, and `--insecure-identity` asks for no token: leave one of \
             them out",
        )),
        (true, true) => Ok(Authentication::Believed),
        (true, false) => Err(wrong(
            "nobody says who is asking: name an issuer of tokens under `[[identity.issuers]]` and `identity.audience`, or \
             start with `--insecure-identity` to believe the user that each request names, and let only trusted callers \
             reach the address",
        )),
        (false, true) => Err(wrong(
            "`--insecure-identity` believes everybody, and `identity.issuers` asks for tokens: choose one of them",
        )),
        (false, false) => {
            let (verifier, step_up) = (TokenVerifier::new(identity)?, StepUpRules::new(identity)?);
            let tokens = TokenAuthentication::new(verifier, identity.write_relation.clone(), step_up).map_err(wrong)?;
            let tokens = tokens.with_approvals(ApprovalRules::new(identity)?);
            let tokens = match &config.approval {
                Some(BackchannelConfig { delivery: Delivery::Ping, .. }) if config.server.public_url.is_none() => {
                    return Err(wrong(
                        "`approval.delivery = \"ping\"` needs `server.public_url`, below which the issuer notifies \
                         `/ciba/notify`",
                    ));
                }
                Some(approval) => tokens.with_approver(approval).map_err(wrong)?,
                None => tokens,
            };
            let tokens = match &config.server.mcp {
                Some(mcp) => tokens.with_mcp(&mcp.url).map_err(wrong)?,
                None => tokens,
            };
            let tokens = tokens.with_possession(config.server.public_url.as_deref(), possession::of(identity)?);
            let tokens = if config.sources.is_empty() { tokens } else { tokens.for_sources() };
            Ok(Authentication::Tokens(Arc::new(tokens)))
        }
    }
}

fn wrong(text: impl Into<String>) -> AppError {
    AppError::Identity(text.into())
}
