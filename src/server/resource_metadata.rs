//! The public documents that say what this server is as a protected resource (RFC 9728): whose tokens it takes, and which
//! scopes there are. There is one for each audience of tokens. Everybody may read them over plain HTTP, on the port of the
//! gRPC services.

use serde_json::json;
use tonic::codegen::Bytes;
use tonic::codegen::http::Uri;

use crate::identity::{Scope, TokenVerifier};

/// The path of the metadata. The path of the audience is appended to it (RFC 9728, section 3.1).
const PATH: &str = "/.well-known/oauth-protected-resource";
/// Ragward's own member of the document: the client of `ragward login` at the issuers.
const LOGIN_CLIENT_ID: &str = "ragward_login_client_id";
/// The member that names the algorithms of proofs (RFC 9449).
const PROOF_ALGORITHMS: &str = "dpop_signing_alg_values_supported";

/// Returns the URL of the metadata of an audience; `None` for an audience that is no URL.
///
/// # Errors
/// For a URL whose path cannot be served.
pub(super) fn url(audience: &str) -> Result<Option<String>, String> {
    let Ok(uri) = audience.parse::<Uri>() else { return Ok(None) };
    let (Some("https" | "http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Ok(None) };
    if uri.query().is_some() || audience.contains(['#', '{', '}', '*']) {
        return Err(format!("`identity.audience` `{audience}` must have no query, no fragment and none of `{{}}*`"));
    }
    let scheme = uri.scheme_str().unwrap_or_default();
    Ok(Some(format!("{scheme}://{authority}{}", path(audience))))
}

fn path(audience: &str) -> String {
    let uri: Uri = audience.parse().unwrap_or_default();
    let has_authority = uri.authority().is_some();
    let suffix = uri.path().trim_end_matches('/').to_owned();
    if has_authority { format!("{PATH}{suffix}") } else { PATH.to_owned() }
}

/// The document and the path that it is served at.
#[derive(Clone, Debug)]
pub(super) struct ResourceMetadata {
    path: String,
    json: Bytes,
}

/// Says whether tokens that are bound to a client's certificate can be used (RFC 8705).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoundTokens {
    Taken,
    /// The port asks no client for a certificate, so nobody can prove to have it.
    Refused,
}

impl ResourceMetadata {
    pub(super) fn of(
        verifier: &TokenVerifier,
        scopes: &[Scope],
        bound_tokens: BoundTokens,
        proof_algorithms: &[&str],
        login_client_id: Option<&str>,
    ) -> Self {
        let mut json = json!({
            "resource": verifier.audience(),
            "authorization_servers": verifier.issuers().collect::<Vec<&str>>(),
            "scopes_supported": scopes.iter().map(|scope| scope.as_str()).collect::<Vec<&str>>(),
            "bearer_methods_supported": ["header"],
            "tls_client_certificate_bound_access_tokens": bound_tokens == BoundTokens::Taken,
            "dpop_bound_access_tokens_required": false,
            "resource_name": "Ragward",
        });
        if let Some(members) = json.as_object_mut() {
            if let Some(id) = login_client_id {
                members.insert(LOGIN_CLIENT_ID.to_owned(), id.into());
            }
            // Where this is missing, no token that is bound to a key is taken (RFC 9728, section 2).
            if !proof_algorithms.is_empty() {
                members.insert(PROOF_ALGORITHMS.to_owned(), proof_algorithms.into());
            }
        }
        Self { path: path(verifier.audience()), json: json.to_string().into() }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn json(&self) -> &Bytes {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_audience_follows_the_path_of_the_metadata() {
        let rows = [
            ("https://rag.example", Some("https://rag.example/.well-known/oauth-protected-resource")),
            ("https://rag.example/", Some("https://rag.example/.well-known/oauth-protected-resource")),
            ("https://rag.example:8980/a/b", Some("https://rag.example:8980/.well-known/oauth-protected-resource/a/b")),
            ("ragward", None),
            ("urn:example:ragward", None),
        ];
        for (audience, expected) in rows {
            assert_eq!(url(audience).unwrap().as_deref(), expected, "{audience}");
        }
        for refused in ["https://rag.example/?a=b", "https://rag.example/{a}", "https://rag.example/#a"] {
            assert!(url(refused).is_err(), "{refused}");
        }
    }
}
