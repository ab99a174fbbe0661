//! The proof that a bearer is the one whom its token was issued to: the certificate of the client's connection (RFC 8705).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::Refusal;

/// The member of `cnf` that names a certificate (RFC 8705, section 3.1).
const CERTIFICATE_METHOD: &str = "x5t#S256";

/// The SHA-256 digest of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateThumbprint([u8; 32]);

impl CertificateThumbprint {
    /// Returns the thumbprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Reads the certificate that a token is bound to from its claim `cnf` (RFC 7800).
    ///
    /// # Errors
    /// When the claim asks for any other proof, alone or beside the certificate: that proof could not be checked.
    pub(super) fn of_claim(claim: &Value) -> Result<Self, Refusal> {
        let methods = claim.as_object().filter(|methods| methods.len() == 1).ok_or(Refusal::Confirmation)?;
        let text = methods.get(CERTIFICATE_METHOD).and_then(Value::as_str).ok_or(Refusal::Confirmation)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_malformed| Refusal::Confirmation)?;
        bytes.try_into().map(Self).map_err(|_wrong_length| Refusal::Confirmation)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_bound_to_one_certificate() {
        let thumbprint = CertificateThumbprint::of(b"a certificate");
        let text = URL_SAFE_NO_PAD.encode(thumbprint.0);
        let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        let rows = [
            ("a certificate", json!({"x5t#S256": text}), Ok(thumbprint)),
            ("a key of DPoP", json!({"jkt": jkt}), Err(Refusal::Confirmation)),
            ("a certificate and a key", json!({"x5t#S256": text, "jkt": jkt}), Err(Refusal::Confirmation)),
            ("a key itself", json!({"jwk": {"kty": "OKP"}}), Err(Refusal::Confirmation)),
            ("SHA-1", json!({"x5t": text}), Err(Refusal::Confirmation)),
            ("padded", json!({"x5t#S256": format!("{text}=")}), Err(Refusal::Confirmation)),
            ("too short", json!({"x5t#S256": "AAAA"}), Err(Refusal::Confirmation)),
            ("too long", json!({"x5t#S256": format!("{text}AAAA")}), Err(Refusal::Confirmation)),
            ("empty", json!({"x5t#S256": ""}), Err(Refusal::Confirmation)),
            ("a number", json!({"x5t#S256": 1}), Err(Refusal::Confirmation)),
            ("a list", json!({"x5t#S256": [text]}), Err(Refusal::Confirmation)),
            ("no method", json!({}), Err(Refusal::Confirmation)),
            ("null", json!(null), Err(Refusal::Confirmation)),
            ("a text", json!(text), Err(Refusal::Confirmation)),
        ];
        for (row, claim, expected) in rows {
            assert_eq!(CertificateThumbprint::of_claim(&claim), expected, "{row}");
        }
    }
}
