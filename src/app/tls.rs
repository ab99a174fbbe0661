//! Decides whether the port has TLS, and refuses addresses where others could read along.
//!
//! INVARIANT (two questions): who is let in and what protects the way are decided apart. No identity mode stands in for TLS,
//! and TLS lets nobody in.

use std::net::SocketAddr;

use super::AppError;
use crate::config::Config;
use crate::server::Tls;
use crate::server_config::TlsConfig;

/// The protection that keeps others on the network from reading what the port sends and receives.
pub(super) enum Protection {
    /// Nothing, so only this machine may reach it.
    Loopback,
    /// TLS of the port.
    Tls(Tls),
    /// Something in front of the port, as the configuration says.
    Elsewhere,
}

impl Protection {
    /// Reads what the configuration says, and checks its addresses.
    ///
    /// # Errors
    /// When the files of TLS cannot be used, or others can reach an address without TLS.
    pub(super) fn of(config: &Config) -> Result<Self, AppError> {
        let protection = match &config.server.tls {
            None => Self::Loopback,
            Some(TlsConfig::Elsewhere) => Self::Elsewhere,
            Some(TlsConfig::Files(files)) => Self::Tls(Tls::new(files)?),
        };
        protection.admit_port(config.server.listen)?;
        if let Some(address) = config.telemetry.metrics_listen {
            protection.admit_metrics(address)?;
        }
        Ok(protection)
    }

    /// Checks the address of the port.
    ///
    /// # Errors
    /// When others can reach it without TLS.
    pub(super) fn admit_port(&self, address: SocketAddr) -> Result<(), AppError> {
        match self {
            Self::Tls(_) | Self::Elsewhere => Ok(()),
            Self::Loopback if is_loopback(address) => Ok(()),
            Self::Loopback => Err(AppError::Unprotected {
                setting: "server.listen",
                address,
                remedy: "name a certificate and its key in `[server.tls]`, or set `server.tls = \"elsewhere\"` if only a proxy \
                         with TLS can reach this address",
            }),
        }
    }

    /// Checks the address of the metrics, which has no TLS even if the port does.
    fn admit_metrics(&self, address: SocketAddr) -> Result<(), AppError> {
        match self {
            Self::Elsewhere => Ok(()),
            Self::Loopback | Self::Tls(_) if is_loopback(address) => Ok(()),
            Self::Loopback | Self::Tls(_) => Err(AppError::Unprotected {
                setting: "telemetry.metrics_listen",
                address,
                remedy: "the metrics have no TLS of their own, so listen on loopback, or set `server.tls = \"elsewhere\"` if only a \
                         proxy with TLS can reach both addresses",
            }),
        }
    }

    /// Returns the TLS of the port.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Loopback | Self::Elsewhere => None,
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app;
    use crate::error_code::ErrorCode;
    use crate::identity::config::IssuerConfig;
    use crate::server_config::TlsFiles;
    use crate::settings::SecretFile;

    const ADDRESSES: [(&str, bool); 9] = [
        ("127.0.0.1:8980", true),
        ("127.8.8.8:0", true),
        ("[::1]:8980", true),
        ("[::ffff:127.0.0.1]:8980", true),
        ("0.0.0.0:8980", false),
        ("[::]:8980", false),
        ("10.0.0.7:8980", false),
        ("[::ffff:10.0.0.7]:8980", false),
        ("[fe80::1]:0", false),
    ];
    const TLS: [&str; 3] = ["none", "files", "elsewhere"];
    /// Each way to say who is asking, and whether it is one.
    const IDENTITIES: [(&str, bool); 4] = [("believed", true), ("tokens", true), ("nobody", false), ("both", false)];

    fn tls(which: &str, directory: &Path) -> Option<TlsConfig> {
        let path = |name: &str| directory.join(name);
        let (cert_file, key_file) = (path("tls.crt"), SecretFile::new(path("tls.key")));
        match which {
            "none" => None,
            "files" => Some(TlsConfig::Files(TlsFiles { cert_file, key_file, client_ca_file: None })),
            "elsewhere" => Some(TlsConfig::Elsewhere),
            other => panic!("{other}"),
        }
    }

    fn write_pair(directory: &Path) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["rag.example".to_owned()]).unwrap();
        std::fs::write(directory.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), signing_key.serialize_pem()).unwrap();
    }

    fn config(directory: &Path, identity: &str) -> Config {
        let mut config = Config::default();
        config.data.directory = directory.join("data");
        if ["believed", "both"].contains(&identity) {
            config.server.insecure_identity = true;
        }
        if ["tokens", "both"].contains(&identity) {
            config.identity.audience = Some("ragward".to_owned());
            config.identity.issuers = vec![IssuerConfig::new("https://issuer.example")];
        }
        config
    }

    #[tokio::test]
    async fn tls_and_identity_never_stand_in_for_each_other() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path());
        for (address, is_loopback) in ADDRESSES {
            for which in TLS {
                for (identity, is_one) in IDENTITIES {
                    let row = format!("{address}, TLS {which}, {identity}");
                    let mut config = config(directory.path(), identity);
                    config.server.listen = address.parse().unwrap();
                    config.server.tls = tls(which, directory.path());
                    let expected = is_one && (is_loopback || which != "none");
                    let refused = app::check(&config).err().map(|e| e.to_string());
                    assert_eq!(refused.is_none(), expected, "{row}: {refused:?}");
                    if is_one {
                        let names = |text: &str| refused.as_ref().is_some_and(|error| error.contains(text));
                        assert_eq!(names("`server.listen` is"), !expected, "{row}: {refused:?}");
                        assert_eq!(names("server.tls = \"elsewhere\""), !expected, "{row}: {refused:?}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn the_metrics_have_no_tls() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path());
        for (address, is_loopback) in ADDRESSES {
            for which in TLS {
                let row = format!("{address}, TLS {which}");
                let mut config = config(directory.path(), "believed");
                config.telemetry.metrics_listen = Some(address.parse().unwrap());
                config.server.tls = tls(which, directory.path());
                let error = app::check(&config).err();
                assert_eq!(error.is_none(), is_loopback || which == "elsewhere", "{row}");
                if let Some(error) = error {
                    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{row}");
                    assert!(error.to_string().contains("`telemetry.metrics_listen` is"), "{row}: {error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_server_is_not_started_where_others_read_along() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path(), "believed");
        config.server.listen = "10.0.0.7:8980".parse().unwrap();
        let opened = app::App::open(&config).await.unwrap();
        assert!(matches!(opened.prepare().await.err(), Some(AppError::Unprotected { .. })));

        // A program that embeds the server may listen elsewhere than its configuration says.
        config.data.directory = directory.path().join("another");
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        let opened = app::App::open(&config).await.unwrap();
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let served = opened.serve(listener, std::future::ready(())).await;
        assert!(matches!(served, Err(AppError::Unprotected { .. })), "{served:?}");
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_refuse_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path(), "believed");
        config.server.tls = tls("files", directory.path());
        let error = app::check(&config).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().contains("`server.tls.cert_file` is"), "{error}");
        write_pair(directory.path());
        assert!(app::check(&config).is_ok());
    }
}
