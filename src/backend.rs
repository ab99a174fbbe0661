//! The parts that the adapters for `OpenFGA` and Qdrant share: the channel that carries their calls, and the secret
//! that they send.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use crate::client_tls::CaFileError;
use crate::client_tls::{EndpointError, TrustedAuthorities};
use crate::settings::{Secret, SecretError, ServerTls};

/// A server that accepts no connection within this time counts as out of reach.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which a peer may be silent before TCP probes it. HTTP/2 pings are no alternative, because gRPC servers
/// in Go close a connection that is pinged more than once in five minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE_RETRIES: u32 = 3;

/// A channel whose calls carry a secret.
pub type BackendChannel = InterceptedService<Channel, Credential>;

/// The reason why a server cannot be called with this configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The address is malformed.
    #[error("{setting} is `{address}`; {detail}")]
    Address {
        /// The setting that gives the address, as the user writes it.
        setting: &'static str,
        /// The address, as the configuration has it.
        address: String,
        /// The fault in the address; empty if it is not known.
        detail: String,
    },
    /// The file of a secret cannot be read.
    #[error(transparent)]
    SecretFile(#[from] SecretError),
    /// The file of the authorities to trust cannot be used.
    #[error(transparent)]
    CaFile(#[from] CaFileError),
    /// The secret cannot be sent as a header.
    #[error("the {0} holds characters that a header cannot carry")]
    Secret(&'static str),
    /// The system's certificates cannot be used.
    #[error("cannot prepare TLS for `{address}`: {detail}")]
    Tls {
        /// The address, as the configuration has it.
        address: String,
        /// The TLS library's error.
        detail: String,
    },
    /// A secret would be sent to another machine, and anybody on the way could read it.
    #[error(
        "{setting} is `{address}`, which is another machine without TLS, and its secret could be read on the way: use an \
         `https://` address, or set `{tls_setting} = \"elsewhere\"` if something else encrypts the way to that server"
    )]
    Unencrypted {
        /// The setting that gives the address, as the user writes it.
        setting: &'static str,
        /// The address, as the configuration has it.
        address: String,
        /// The setting that may say what else encrypts the way.
        tls_setting: &'static str,
    },
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(String),
}

/// The address of a server, with whom to trust there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerAddress<'a> {
    /// The setting or flag that gives the address, as the user writes it.
    pub(crate) setting: &'static str,
    pub(crate) address: &'a str,
    /// The file with the only authorities to trust; those of the system if there is none.
    pub(crate) ca_file: Option<&'a Path>,
}

/// The setting that may say that something else than this program encrypts the way to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayToServer {
    /// The key of the setting.
    pub(crate) setting: &'static str,
    pub(crate) tls: Option<ServerTls>,
}

/// Adds a secret to every call, or nothing if there is none.
#[derive(Clone, Debug, Default)]
pub struct Credential(Option<(&'static str, MetadataValue<Ascii>)>);

impl Credential {
    /// Sends the token as `Authorization: Bearer …`.
    #[cfg(feature = "openfga")]
    pub(crate) fn bearer(token: Option<&Secret>) -> Result<Self, BackendError> {
        Self::header("authorization", "token", token.map(|token| format!("Bearer {}", token.expose())))
    }

    /// Sends the key as `api-key: …`.
    #[cfg(feature = "qdrant")]
    pub(crate) fn api_key(key: Option<&Secret>) -> Result<Self, BackendError> {
        Self::header("api-key", "API key", key.map(|key| key.expose().to_owned()))
    }

    fn header(name: &'static str, what: &'static str, value: Option<String>) -> Result<Self, BackendError> {
        let Some(value) = value else { return Ok(Self(None)) };
        let Ok(mut value) = MetadataValue::try_from(value) else { return Err(BackendError::Secret(what)) };
        value.set_sensitive(true);
        Ok(Self(Some((name, value))))
    }

    fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

/// Returns whether nobody on the way can read a secret that is sent to this address: it has TLS, or it is on this machine.
pub(crate) fn keeps_secrets(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    is_loopback || address.scheme_str() == Some("https")
}

/// Makes a channel that connects at the first call, so that a server may be down when Ragward starts.
///
/// # Errors
/// When the address cannot be used, or a secret would go to another machine and nothing encrypts the way there.
pub(crate) fn channel(
    server: ServerAddress<'_>,
    credential: Credential,
    way: WayToServer,
) -> Result<BackendChannel, BackendError> {
    let endpoint = server.endpoint()?;
    if credential.is_some() && way.tls.is_none() && !keeps_secrets(endpoint.uri()) {
        let ServerAddress { setting, address, ca_file: _ } = server;
        return Err(BackendError::Unencrypted { setting, address: address.to_owned(), tls_setting: way.setting });
    }
    let channel = endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .tcp_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES))
        .connect_lazy();
    Ok(InterceptedService::new(channel, credential))
}

impl ServerAddress<'_> {
    /// Returns the endpoint to connect to. `https` means TLS.
    pub(crate) fn endpoint(self) -> Result<Endpoint, BackendError> {
        let Self { setting, address, ca_file } = self;
        let trusted = TrustedAuthorities::read(ca_file)?;
        trusted.endpoint(address).map_err(|error| match error {
            EndpointError::Malformed(_) | EndpointError::Plain => {
                BackendError::Address { setting, address: address.to_owned(), detail: error.to_string() }
            }
            EndpointError::Tls(detail) => BackendError::Tls { address: address.to_owned(), detail },
        })
    }
}

/// Remembers whether the last call to a server was answered. The log gets a line when that changes, not at every call.
#[derive(Debug)]
pub(crate) struct Reach {
    server: &'static str,
    is_up: AtomicBool,
}

impl Reach {
    /// Creates the state of a server that is presumed to be up.
    pub(crate) const fn new(server: &'static str) -> Self {
        Self { server, is_up: AtomicBool::new(true) }
    }

    /// Notes that a call was answered, even if with a refusal.
    pub(crate) fn answered(&self) {
        if !self.is_up.swap(true, Ordering::Relaxed) {
            tracing::info!(server = self.server, "the server answers again");
        }
    }

    /// Notes that a call was not answered.
    pub(crate) fn failed(&self, error: &dyn fmt::Display) {
        if self.is_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(server = self.server, %error, "the server does not answer");
        }
    }
}

/// Returns whether a status was made on this side because the connection or the protocol failed, rather than sent by
/// the server or by a proxy in front of it. Whatever its code, such a status says nothing about the question, and the
/// next attempt may succeed.
pub(crate) fn is_of_the_connection(status: &Status) -> bool {
    // A status that was made on this side has the underlying error as its source. A status that was sent has no source.
    // If an answer ends without a status, there is no source either, and tonic says only these texts.
    let says = |beginning| status.message().starts_with(beginning);
    status.source().is_some()
        || says("grpc-status header missing")
        || says("protocol error: missing grpc-status trailer")
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((name, value)) = &self.0 {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WORD: WayToServer = WayToServer { setting: "setting.tls", tls: None };

    fn at(address: &str) -> ServerAddress<'_> {
        ServerAddress { setting: "`setting`", address, ca_file: None }
    }

    #[tokio::test]
    async fn an_address_is_a_url() {
        for good in ["http://127.0.0.1:8081", "http://openfga:8081", "https://example.org"] {
            assert!(channel(at(good), Credential::default(), NO_WORD).is_ok(), "`{good}` was refused");
        }
        for bad in ["", "127.0.0.1:8081", "ftp://example.org", "http://", "not a url"] {
            let refused = channel(at(bad), Credential::default(), NO_WORD).map(|_| ()).expect_err(bad).to_string();
            assert!(refused.starts_with(&format!("`setting` is `{bad}`; it must have")), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_secret_goes_to_another_machine_only_if_nobody_can_read_it_on_the_way() {
        let word = WayToServer { tls: Some(ServerTls::Elsewhere), ..NO_WORD };
        let (canary, secretless) = (Secret::new("canary-93"), None);
        let secret = Some(&canary);
        let rows = [
            ("loopback", "http://127.0.0.1:8081", secret, NO_WORD, true),
            ("another address of loopback", "http://127.8.8.8:8081", secret, NO_WORD, true),
            ("loopback of IPv6", "http://[::1]:8081", secret, NO_WORD, true),
            ("loopback of IPv4 in IPv6", "http://[::ffff:127.0.0.1]:8081", secret, NO_WORD, true),
            ("localhost", "http://localhost:8081", secret, NO_WORD, true),
            ("TLS", "https://openfga.example", secret, NO_WORD, true),
            ("TLS in capitals", "HTTPS://openfga.example", secret, NO_WORD, true),
            ("no secret", "http://openfga:8081", secretless, NO_WORD, true),
            ("a neighbour", "http://openfga:8081", secret, NO_WORD, false),
            ("an address of the network", "http://10.0.0.7:8081", secret, NO_WORD, false),
            ("every address", "http://0.0.0.0:8081", secret, NO_WORD, false),
            ("a name that begins like loopback", "http://127.0.0.1.example:8081", secret, NO_WORD, false),
            ("a user like loopback", "http://127.0.0.1@openfga:8081", secret, NO_WORD, false),
            ("a neighbour behind something with TLS", "http://openfga:8081", secret, word, true),
            ("TLS twice", "https://openfga.example", secret, word, true),
        ];
        for (row, address, secret, way, expected) in rows {
            let credential = Credential::header("api-key", "API key", secret.map(|secret| secret.expose().to_owned()));
            let made = channel(at(address), credential.expect("a header"), way).map(drop);
            let refused = made.err().map(|error| error.to_string());
            assert_eq!(refused.is_none(), expected, "{row}: {refused:?}");
            if let Some(refused) = refused {
                let says = |text: &str| assert!(refused.contains(text), "{row}: {refused}");
                says(&format!("`setting` is `{address}`"));
                says("`setting.tls = \"elsewhere\"`");
                assert!(!refused.contains("canary-93"), "{row}: {refused}");
            }
        }
    }

    #[test]
    fn a_status_that_no_server_sent_is_told_apart() {
        let broken = || Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        let rows = [
            ("sent", Status::unknown("transport error"), false),
            ("sent as unavailable", Status::unavailable("later"), false),
            ("a connection that broke", Status::from_error(broken()), true),
            (
                "no status at the end",
                Status::unknown("grpc-status header missing, mapped from HTTP status code 200"),
                true,
            ),
            (
                "a page of HTML",
                Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404"),
                true,
            ),
        ];
        for (what, status, expected) in rows {
            assert_eq!(is_of_the_connection(&status), expected, "{what}: {status:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let canary = Secret::new("canary-93");
        let credential = Credential::api_key(Some(&canary)).expect("a header");
        let shown = format!("{canary:?} {credential:?}");
        assert!(!shown.contains("canary-93"), "{shown}");
        let unsendable = Credential::bearer(Some(&Secret::new("canary-93\n"))).expect_err("a line break");
        assert!(!format!("{unsendable} {unsendable:?}").contains("canary-93"));
    }
}
