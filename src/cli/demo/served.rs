//! The server of the demos with access tokens. It takes the tokens of the demo's issuer, also those of agents.

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::issuer::Issuer;
use crate::app::App;
use crate::cli::Failure;
use crate::identity::config::{DelegationConfig, IdentityConfig, IssuerConfig};
use crate::identity::{Algorithm, DelegationOn};
use crate::language::Relation;
use crate::settings::Secret;

/// The audience of the doors of gRPC and HTTP.
pub(super) const AUDIENCE: &str = "https://ragward.example";
/// The relation that lets an agent act for a user.
pub(super) const ACTS_FOR: &str = "can_act_for";

/// An access token, and who sends it.
pub(super) struct BearerToken {
    pub(super) who: &'static str,
    pub(super) claims: Value,
    pub(super) token: Secret,
}

impl BearerToken {
    /// Makes a token with these claims. Its id is the name of its bearer.
    pub(super) fn new(issuer: &Issuer, who: &'static str, claims: Value) -> Result<Self, Failure> {
        let token = Secret::new(issuer.token(who, &claims)?);
        Ok(Self { who, claims, token })
    }
}

/// Returns the settings for the tokens of one issuer.
pub(super) fn identity(issuer: &Issuer) -> IdentityConfig {
    let issuer = IssuerConfig { algorithms: vec![Algorithm::Es256], ..IssuerConfig::new(issuer.url()) };
    IdentityConfig {
        audience: Some(AUDIENCE.to_owned()),
        issuers: vec![issuer],
        delegation: DelegationConfig { relation: Some(Relation::from_static(ACTS_FOR)), on: DelegationOn::User },
        ..IdentityConfig::default()
    }
}

/// Serves, with an issuer beside the server that `issuing` serves, until `asking` has its answers, and returns them.
pub(super) async fn while_serving<Answers>(
    app: &App,
    listener: TcpListener,
    issuing: impl Future<Output = Result<(), tonic::transport::Error>>,
    asking: impl Future<Output = Result<Answers, Failure>>,
) -> Result<Answers, Failure> {
    let (stop, stopped) = oneshot::channel();
    let asking = async {
        let answers = asking.await;
        // The server seals its log when it ends, which must happen before its directory is deleted.
        if stop.send(()).is_err() {
            tracing::debug!("the server has ended by itself");
        }
        answers
    };
    let serving = async { Ok(app.serve(listener, async { stopped.await.unwrap_or_default() }).await?) };
    let (answers, ()) = tokio::select! {
        ended = async { tokio::try_join!(asking, serving) } => ended?,
        ended = issuing => return Err(Failure::failed(format!("the issuer ended early: {ended:?}"))),
    };
    Ok(answers)
}
