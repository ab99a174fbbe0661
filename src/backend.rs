//! The parts that the adapters for `OpenFGA` and Qdrant share: the channel that carries their calls, and the secret
//! that they send.

#[cfg(feature = "server")]
mod oauth;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, StatusCode, Uri};
use tonic::transport::{Channel, Endpoint};

pub use crate::client_tls::CaFileError;
use crate::client_tls::{EndpointError, TrustedAuthorities};
#[cfg(feature = "openfga")]
use crate::settings::ClientCredentials;
use crate::settings::{LiveSecret, Secret, SecretError, SecretFile, ServerTls};

/// A server that accepts no connection within this time counts as out of reach.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which a peer may be silent before TCP probes it. HTTP/2 pings are no alternative, because gRPC servers
/// in Go close a connection that is pinged more than once in five minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE_RETRIES: u32 = 3;
/// The shortest time between two lines of the log that say that a server does not answer.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// A channel whose calls carry a secret.
#[derive(Clone, Debug)]
pub struct BackendChannel {
    channel: Channel,
    credential: Credential,
}

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

/// The secret that every call carries, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Credential(Kind);

#[derive(Clone, Debug, Default)]
enum Kind {
    #[default]
    Nothing,
    /// One header for all calls.
    #[cfg(feature = "server")]
    Fixed(SecretHeader),
    /// The secret of a file, which may change.
    OfFile { header: HeaderForm, file: LiveSecret },
    /// An access token, which is asked for again before it ends.
    #[cfg(feature = "server")]
    OAuth(oauth::TokenSource),
}

/// A header with a secret in it.
#[derive(Clone, Debug)]
struct SecretHeader {
    name: &'static str,
    value: HeaderValue,
}

/// The header that a secret stands in.
#[derive(Clone, Copy, Debug)]
struct HeaderForm {
    name: &'static str,
    /// The text in front of the secret.
    scheme: &'static str,
}

/// `Authorization: Bearer …`.
#[cfg(feature = "openfga")]
const BEARER: HeaderForm = HeaderForm { name: "authorization", scheme: "Bearer " };
/// `api-key: …`.
#[cfg(feature = "qdrant")]
const API_KEY: HeaderForm = HeaderForm { name: "api-key", scheme: "" };

impl HeaderForm {
    fn with(self, secret: &Secret) -> Option<SecretHeader> {
        let mut value = HeaderValue::from_str(&format!("{}{}", self.scheme, secret.expose())).ok()?;
        value.set_sensitive(true);
        Some(SecretHeader { name: self.name, value })
    }
}

impl Credential {
    /// Sends the token as `Authorization: Bearer …`.
    #[cfg(feature = "server")]
    pub(crate) fn bearer(token: Option<&Secret>) -> Result<Self, BackendError> {
        let Some(token) = token else { return Ok(Self::default()) };
        BEARER.with(token).map(|header| Self(Kind::Fixed(header))).ok_or(BackendError::Secret("token"))
    }

    /// Sends the token of a file as `Authorization: Bearer …`.
    #[cfg(feature = "openfga")]
    pub(crate) fn bearer_of_file(file: Option<&SecretFile>) -> Result<Self, BackendError> {
        Self::of_file(BEARER, file)
    }

    /// Sends access tokens that Ragward gets for itself. `setting` is the table of these settings, for errors.
    #[cfg(feature = "server")]
    pub(crate) fn oauth(setting: &'static str, settings: &ClientCredentials) -> Result<Self, BackendError> {
        oauth::TokenSource::new(setting, settings).map(|source| Self(Kind::OAuth(source)))
    }

    /// Refuses the settings, because nothing here gets access tokens.
    #[cfg(all(feature = "openfga", not(feature = "server")))]
    pub(crate) fn oauth(setting: &'static str, settings: &ClientCredentials) -> Result<Self, BackendError> {
        Err(BackendError::Setting(format!(
            "`{setting}` names the client `{}`, and access tokens need the feature `server`, which this program was built without",
            settings.client.client_id
        )))
    }

    /// Sends the key of a file as `api-key: …`.
    #[cfg(feature = "qdrant")]
    pub(crate) fn api_key_of_file(file: Option<&SecretFile>) -> Result<Self, BackendError> {
        Self::of_file(API_KEY, file)
    }

    fn of_file(header: HeaderForm, file: Option<&SecretFile>) -> Result<Self, BackendError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let fits = |text: &str| match HeaderValue::from_str(text) {
            Ok(_value) => Ok(()),
            Err(_unfit) => Err("it holds characters that a header cannot carry".to_owned()),
        };
        Ok(Self(Kind::OfFile { header, file: LiveSecret::read(file, fits)? }))
    }

    fn is_some(&self) -> bool {
        !matches!(self.0, Kind::Nothing)
    }

    /// Returns the header that a call carries now.
    ///
    /// # Errors
    /// When a call needs a header and there is none. Such a call must not leave.
    #[cfg_attr(not(feature = "server"), expect(clippy::unused_async, reason = "access tokens are waited for"))]
    async fn header(&self) -> Result<Option<SecretHeader>, Status> {
        match &self.0 {
            Kind::Nothing => Ok(None),
            #[cfg(feature = "server")]
            Kind::Fixed(header) => Ok(Some(header.clone())),
            Kind::OfFile { header, file } => match header.with(&file.current()) {
                Some(header) => Ok(Some(header)),
                None => Err(Status::unavailable("the secret for the server cannot be sent")),
            },
            #[cfg(feature = "server")]
            Kind::OAuth(source) => match source.authorization().await {
                Ok(value) => Ok(Some(SecretHeader { name: BEARER.name, value })),
                Err(no_token) => Err(Status::unavailable(no_token.to_string())),
            },
        }
    }

    /// Notes that the server has refused a call with this header. So a secret that has changed is soon read.
    fn refused(&self, header: &SecretHeader) {
        match &self.0 {
            Kind::Nothing => tracing::debug!(header = header.name, "a server refuses a secret that it was not sent"),
            // The caller has the only copy of the header.
            #[cfg(feature = "server")]
            Kind::Fixed(_) => {}
            Kind::OfFile { file, .. } => file.refused(),
            #[cfg(feature = "server")]
            Kind::OAuth(source) => source.refused(&header.value),
        }
    }
}

impl BackendChannel {
    pub(crate) fn new(channel: Channel, credential: Credential) -> Self {
        Self { channel, credential }
    }
}

impl Service<http::Request<Body>> for BackendChannel {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The channel that was polled is called, because only that one is known to be ready.
        let waiting = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, waiting);
        let credential = self.credential.clone();
        Box::pin(async move {
            let secret = match credential.header().await {
                Ok(secret) => secret,
                Err(status) => return Ok(status.into_http()),
            };
            let Some(secret) = secret else { return channel.call(request).await };
            request.headers_mut().insert(secret.name, secret.value.clone());
            let answer = channel.call(request).await?;
            if answer.status() == StatusCode::UNAUTHORIZED || is_unauthenticated(answer.headers()) {
                credential.refused(&secret);
                return Ok(answer);
            }
            // A server that has sent headers tells its status at the end.
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    if frame.trailers_ref().is_some_and(is_unauthenticated) {
                        credential.refused(&secret);
                    }
                    frame
                }))
            }))
        })
    }
}

/// Returns whether headers, or trailers, say that a server does not take the secret of a call.
fn is_unauthenticated(headers: &HeaderMap) -> bool {
    let number = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    // gRPC's own code, and `OpenFGA`'s numbers for tokens.
    matches!(number, Some(16 | 1_001..=1_500))
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
    Ok(BackendChannel::new(channel, credential))
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

/// Remembers whether the last call to a server was answered. The log gets a line only when that changes, and at most one a
/// minute: otherwise a user whose calls always fail, in turn with other users, would fill the log.
#[derive(Debug)]
pub(crate) struct Reach {
    server: &'static str,
    is_up: AtomicBool,
    /// Whether the log says that the server does not answer.
    is_told: AtomicBool,
    told_at: Mutex<Option<Instant>>,
}

impl Reach {
    /// Creates the state of a server that is presumed to be up.
    pub(crate) const fn new(server: &'static str) -> Self {
        Self { server, is_up: AtomicBool::new(true), is_told: AtomicBool::new(false), told_at: Mutex::new(None) }
    }

    /// Notes that a call was answered, even if with a refusal.
    pub(crate) fn answered(&self) {
        if !self.is_up.swap(true, Ordering::Relaxed) && self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!(server = self.server, "the server answers again");
        }
    }

    /// Notes that a call was not answered.
    pub(crate) fn failed(&self, error: &dyn fmt::Display) {
        if self.fails() {
            tracing::warn!(server = self.server, %error, "the server does not answer");
        }
    }

    /// Notes that a call was not answered, and returns whether the log should say so.
    fn fails(&self) -> bool {
        self.is_up.store(false, Ordering::Relaxed);
        if self.is_told.load(Ordering::Relaxed) {
            return false;
        }
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|told_at| told_at.elapsed() < TELL_INTERVAL) {
            return false;
        }
        *told_at = Some(Instant::now());
        self.is_told.store(true, Ordering::Relaxed);
        true
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

#[cfg(test)]
#[cfg(feature = "server")]
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
            let credential = Credential::bearer(secret);
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

    #[tokio::test(start_paused = true)]
    async fn failures_that_come_and_go_are_told_now_and_then() {
        let rows = [
            ("the first", 0, false, true),
            ("it goes on", 10, false, false),
            ("after an answer, at once", 0, true, false),
            ("after another answer, within the minute", 40, true, false),
            ("that one goes on past the minute", 20, false, true),
            ("it goes on for long", 600, false, false),
            ("after an answer, long after", 600, true, true),
        ];
        let reach = Reach::new("server");
        for (row, seconds, is_answered, is_told) in rows {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            if is_answered {
                reach.answered();
            }
            assert_eq!(reach.fails(), is_told, "{row}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let canary = Secret::new("canary-93");
        let credential = Credential::bearer(Some(&canary)).expect("a header");
        let shown = format!("{canary:?} {credential:?}");
        assert!(!shown.contains("canary-93"), "{shown}");
        let unsendable = Credential::bearer(Some(&Secret::new("canary-93\n"))).expect_err("a line break");
        assert!(!format!("{unsendable} {unsendable:?}").contains("canary-93"));
    }
}
