//! The audience of an access token that can be read. An issuer that does not know `resource` (RFC 8707) gives tokens for whatever
//! its client is set up for. So a server that names the issuer and the client of another server would get tokens of that server,
//! and could use them there.
//!
//! No signature is verified, because that is the server's part. A token that cannot be read passes: its audience is known to the
//! issuer alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::settings::Secret;
use crate::strict_json;

/// The deepest nesting of the claims of a token.
const CLAIMS_DEPTH_MAX: usize = 16;

/// Returns the claims of a token; `None` if it is no JWT. Whoever made the token may have written anything into them.
pub(crate) fn unverified_claims(token: &Secret) -> Option<Map<String, Value>> {
    let payload = token.expose().split('.').nth(1)?;
    strict_json::object(&URL_SAFE_NO_PAD.decode(payload).ok()?, CLAIMS_DEPTH_MAX).ok()
}

/// Returns whether a token says for whom it is, and does not name `resource`.
pub(super) fn is_of_another(token: &Secret, resource: &str) -> bool {
    let Some(audience) = unverified_claims(token).and_then(|mut claims| claims.remove("aud")) else { return false };
    // A slash at the end is no other server, as in the metadata.
    let is_named = |name: &Value| name.as_str().is_some_and(|name| are_equal_but_for_slash(name, resource));
    match audience {
        Value::Array(names) => !names.iter().any(is_named),
        name @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            !is_named(&name)
        }
    }
}

fn are_equal_but_for_slash(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_that_names_others_alone_is_not_taken() {
        let jwt = |claims: Value| format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let rows = [
            ("the server", jwt(json!({"aud": "https://rag.example"})), false),
            ("the server with a slash", jwt(json!({"aud": "https://rag.example/"})), false),
            ("the server among others", jwt(json!({"aud": ["https://a.example", "https://rag.example"]})), false),
            ("another server", jwt(json!({"aud": "https://other.example"})), true),
            ("a path of the server", jwt(json!({"aud": "https://rag.example/mcp"})), true),
            ("a name that begins like it", jwt(json!({"aud": "https://rag.example.evil.example"})), true),
            ("others alone", jwt(json!({"aud": ["https://a.example", "https://b.example"]})), true),
            ("nobody", jwt(json!({"aud": []})), true),
            ("no text", jwt(json!({"aud": null})), true),
            ("a JWT that does not say", jwt(json!({"sub": "anne"})), false),
            ("an opaque token", "opaque".to_owned(), false),
            ("an opaque token with dots", "a.b.c".to_owned(), false),
        ];
        for (row, token, expected) in rows {
            assert_eq!(is_of_another(&Secret::new(token), "https://rag.example"), expected, "{row}");
        }
    }
}
