//! Refuses settings that only a server obeys, if the library is built without one.
//!
//! A program that embeds the library names the principal itself, and nothing records what the program does with an
//! answer. An operator who configured records or issuers relies on them, so ignoring these settings would break a
//! promise.

use super::AppError;
use crate::config::Config;

/// Checks that a configuration asks for nothing that only a server does.
///
/// # Errors
/// When answers must be recorded, or issuers, sources or models are configured.
pub(super) fn check(config: &Config) -> Result<(), AppError> {
    if config.audit.enabled && config.audit.required {
        return Err(AppError::ServerOnly {
            setting: "audit.required",
            remedy: "nothing else keeps records, so set `audit.required = false`",
        });
    }
    if !config.identity.issuers.is_empty() {
        return Err(AppError::ServerOnly {
            setting: "identity.issuers",
            remedy: "nothing else reads tokens, so leave the issuers out and name the user yourself",
        });
    }
    if !config.sources.is_empty() {
        return Err(AppError::ServerOnly {
            setting: "sources",
            remedy: "nothing else has the tokens that sources are asked with, so leave the sources out",
        });
    }
    let models = [("embedding", config.embedding.is_empty()), ("rerank", config.rerank.is_empty())];
    if let Some((setting, _)) = models.into_iter().find(|(_, is_empty)| !is_empty) {
        return Err(AppError::ServerOnly {
            setting,
            remedy: "nothing else calls the endpoints of models, so leave them out",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    #[cfg(not(feature = "server"))]
    use crate::app::App;

    #[test]
    fn settings_that_only_a_server_heeds_are_refused() {
        let with_audit = |enabled: bool, required: bool| {
            let mut config = Config::default();
            (config.audit.enabled, config.audit.required) = (enabled, required);
            config
        };
        let mut with_issuer = with_audit(false, false);
        with_issuer.identity.issuers = vec![serde_json::from_value(json!({ "issuer": "https://issuer" })).unwrap()];
        let mut with_source = with_audit(false, false);
        with_source.sources = vec![
            serde_json::from_value(json!({
                "name": "wiki", "guard_type": "document", "url": "https://wiki/{id}",
                "exchange": { "token_url": "https://login/token", "client_id": "c", "client_secret_file": "s" },
            }))
            .unwrap(),
        ];
        let mut with_model = with_audit(false, false);
        with_model.embedding = vec![
            serde_json::from_value(json!({ "collections": ["a"], "url": "https://models/v1", "model": "m" })).unwrap(),
        ];
        let rows = [
            ("the defaults", Config::default(), Some("audit.required")),
            ("records that need not be kept", with_audit(true, false), None),
            ("no records", with_audit(false, true), None),
            ("an issuer", with_issuer, Some("identity.issuers")),
            ("a source", with_source, Some("sources")),
            ("a model", with_model, Some("embedding")),
        ];
        for (row, config, expected) in rows {
            let error = check(&config).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error.is_empty(), expected.is_none(), "{row}: {error}");
            assert!(error.contains(expected.unwrap_or_default()), "{row}: {error}");
        }
    }

    /// This test is compiled only without the feature `server`, because a server obeys these settings.
    #[cfg(not(feature = "server"))]
    #[tokio::test]
    async fn nothing_is_opened_with_such_settings() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.directory = directory.path().join("data");
        assert!(matches!(App::open(&config).await, Err(AppError::ServerOnly { .. })));
        assert!(!config.data.directory.exists());
        config.audit.required = false;
        assert!(App::open(&config).await.is_ok());
    }
}
