//! Checks a configuration before anything is opened or called. `serve` and `config validate` share these checks, so
//! `serve` accepts every configuration that `config validate` calls valid.

use std::path::Path;

#[cfg(feature = "qdrant")]
use super::qdrant;
use super::tls::Protection;
use super::{AppError, identity, pages};
use crate::audit::AuditKey;
use crate::authz::openfga::OpenFgaAuthorizer;
use crate::config::{AuthorizerKind, Config, ConfigError, VectorStoreKind};
use crate::identity::RequestContextRules;
use crate::telemetry::SpanExport;

/// Checks that a server can start with a configuration, as far as that can be known without a network. Call it inside tokio.
///
/// # Errors
/// If a setting makes no sense, a secret or a certificate cannot be read, a directory cannot be written, or others could reach an
/// address that has no TLS.
pub fn check(config: &Config) -> Result<(), AppError> {
    pages(&config.retrieval)?;
    identity::authentication(config)?;
    super::other_systems(config)?;
    RequestContextRules::new(&config.identity)?;
    Protection::of(config)?;
    SpanExport::check(&config.telemetry).map_err(|e| ConfigError::Invalid(e.to_string()))?;
    if config.authorizer.kind == AuthorizerKind::Openfga {
        OpenFgaAuthorizer::new(&config.authorizer.openfga)?;
    }
    if config.vector_store.kind == VectorStoreKind::Qdrant {
        #[cfg(feature = "qdrant")]
        qdrant::open_configured(config)?;
        #[cfg(not(feature = "qdrant"))]
        return Err(AppError::LeftOut { setting: "vector_store.kind", feature: "qdrant" });
    }
    if uses_data_directory(config) {
        check_directory("data.directory", &config.data.directory)?;
    }
    if config.audit.enabled {
        let audit = config.audit.resolved(&config.data.directory);
        check_directory("audit.directory", &audit.directory)?;
        if audit.key_file.exists() {
            AuditKey::read(&audit.key_file)?;
        } else {
            check_directory("audit.key_file", audit.key_file.parent().unwrap_or(Path::new("")))?;
        }
    }
    Ok(())
}

/// Returns whether a server keeps more in the data directory than its audit log.
fn uses_data_directory(config: &Config) -> bool {
    let has_replica =
        config.authorizer.kind == AuthorizerKind::Openfga && config.authorizer.replica.mode.used_for().is_some();
    has_replica
        || config.authorizer.kind == AuthorizerKind::Embedded
        || config.vector_store.kind == VectorStoreKind::Embedded
}

/// Checks that a directory can be written, or created if it does not exist.
fn check_directory(key: &str, path: &Path) -> Result<(), ConfigError> {
    let wrong = |detail: String| ConfigError::Invalid(format!("`{key}` is `{}`: {detail}", path.display()));
    let named = |path: &'_ Path| if path.as_os_str().is_empty() { Path::new(".").to_owned() } else { path.to_owned() };
    let nearest = path.ancestors().map(named).find(|ancestor| ancestor.exists());
    let nearest = nearest.ok_or_else(|| wrong("it cannot be created".to_owned()))?;
    if !nearest.is_dir() {
        return Err(wrong(format!("`{}` is not a directory", nearest.display())));
    }
    // The temporary file has no name and is deleted at once.
    match tempfile::tempfile_in(&nearest) {
        Ok(_file) => Ok(()),
        Err(e) => Err(wrong(format!("cannot write into `{}`: {e}", nearest.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_code::ErrorCode;
    use crate::settings::{SecretFile, ServerTls};

    const NEIGHBOUR: &str = "http://neighbour:1";
    const ELSEWHERE: Option<ServerTls> = Some(ServerTls::Elsewhere);
    /// The name of each row, the address, whether there is a key, what the configuration says of TLS, and whether a server may
    /// start.
    const ROWS: [(&str, &str, bool, Option<ServerTls>, bool); 6] = [
        ("this machine", "http://127.0.0.1:1", true, None, true),
        ("TLS", "https://neighbour:1", true, None, true),
        ("a neighbour", NEIGHBOUR, true, None, false),
        ("a neighbour without a key", NEIGHBOUR, false, None, true),
        ("a neighbour behind a service mesh", NEIGHBOUR, true, ELSEWHERE, true),
        ("a neighbour behind a service mesh, without a key", NEIGHBOUR, false, ELSEWHERE, true),
    ];

    fn refused(config: &Config) -> Option<String> {
        let error = check(config).err()?;
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        Some(error.to_string())
    }

    /// Checks every row. `set` puts an address, the file of a key and the word about TLS into a configuration.
    fn try_rows(setting: &str, set: impl Fn(&mut Config, &str, Option<SecretFile>, Option<ServerTls>)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "canary-93\n").unwrap();
        for (row, address, has_key, tls, expected) in ROWS {
            let mut config = Config::default();
            config.data.directory = directory.path().join("data");
            config.server.insecure_identity = true;
            set(&mut config, address, has_key.then(|| SecretFile::new(&path)), tls);
            let refused = refused(&config);
            assert_eq!(refused.is_none(), expected, "{row}: {refused:?}");
            if let Some(refused) = refused {
                assert!(refused.contains(&format!("`{setting}.tls = \"elsewhere\"`")), "{row}: {refused}");
                assert!(!refused.contains("canary-93"), "{row}: {refused}");
            }
        }
    }

    #[tokio::test]
    async fn no_key_of_openfga_is_sent_to_another_machine_without_tls() {
        try_rows("authorizer.openfga", |config, address, key, tls| {
            config.authorizer.kind = AuthorizerKind::Openfga;
            let openfga = &mut config.authorizer.openfga;
            (openfga.address, openfga.api_token_file, openfga.tls) = (address.to_owned(), key, tls);
        });
    }

    #[cfg(feature = "qdrant")]
    #[tokio::test]
    async fn no_key_of_qdrant_is_sent_to_another_machine_without_tls() {
        try_rows("vector_store.qdrant", |config, address, key, tls| {
            config.vector_store.kind = VectorStoreKind::Qdrant;
            let qdrant = &mut config.vector_store.qdrant;
            (qdrant.url, qdrant.api_key_file, qdrant.tls) = (address.to_owned(), key, tls);
        });
    }
}
