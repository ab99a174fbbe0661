//! What clients learn of this server as a protected resource (RFC 9728): whose tokens it takes, and with which scopes.
//! Served over HTTP on the port of the gRPC services, to everybody.

use axum::Router;
use axum::http::{Uri, header};
use axum::routing::get;
use serde_json::json;
use tonic::Status;
use tonic::body::Body;

use super::TokenAuthentication;
use crate::identity::Scope;

/// The folder of well-known addresses (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";
/// The path of the metadata; that of the audience follows (RFC 9728, section 3.1).
const PATH: &str = "/.well-known/oauth-protected-resource";

/// Where the metadata of an audience is: `None` for one that is no URL.
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

/// Whether a path is in the folder of well-known addresses.
pub(super) fn is_well_known(path: &str) -> bool {
    path.starts_with(WELL_KNOWN)
}

fn path(audience: &str) -> String {
    let uri: Uri = audience.parse().unwrap_or_default();
    let has_authority = uri.authority().is_some();
    let suffix = uri.path().trim_end_matches('/').to_owned();
    if has_authority { format!("{PATH}{suffix}") } else { PATH.to_owned() }
}

/// Serves the metadata. Any other path has no service, and is answered as gRPC answers that.
pub(super) fn router(tokens: &TokenAuthentication) -> Router {
    let verifier = tokens.verifier();
    let document = json!({
        "resource": verifier.audience(),
        "authorization_servers": verifier.issuers().collect::<Vec<&str>>(),
        "scopes_supported": Scope::ALL.map(Scope::as_str),
        "bearer_methods_supported": ["header"],
        "resource_name": "Ragward",
    })
    .to_string();
    let answer = move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], document.clone()));
    Router::new()
        .route(&path(verifier.audience()), get(answer))
        .fallback(|| std::future::ready(Status::unimplemented("").into_http::<Body>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_audience_follows() {
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
