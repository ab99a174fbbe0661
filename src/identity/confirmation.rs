//! The key that a token is bound to (RFC 7800), which proves that a bearer is the one whom the token was issued to: that of a
//! certificate of the client's connection (RFC 8705), or one that signs a proof with each request (RFC 9449).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::Refusal;

/// The member of `cnf` that names a certificate (RFC 8705, section 3.1).
const CERTIFICATE_METHOD: &str = "x5t#S256";
/// The member of `cnf` that names a key by its thumbprint (RFC 9449, section 6.1).
const KEY_METHOD: &str = "jkt";

/// The key that a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// The key of a certificate, which the client shows in the handshake of its connection.
    Certificate(CertificateThumbprint),
    /// A key that signs a proof with each request.
    Key(KeyThumbprint),
}

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
}

/// The SHA-256 digest of the canonical form of a public key (RFC 7638).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyThumbprint(pub(super) [u8; 32]);

impl Confirmation {
    /// Reads the key that a token is bound to from its claim `cnf`.
    ///
    /// # Errors
    /// When the claim asks for several proofs, or for a proof of a kind that Ragward cannot check.
    pub(super) fn of_claim(claim: &Value) -> Result<Self, Refusal> {
        let methods = claim.as_object().filter(|methods| methods.len() == 1).ok_or(Refusal::Confirmation)?;
        let (method, value) = methods.iter().next().ok_or(Refusal::Confirmation)?;
        let text = value.as_str().ok_or(Refusal::Confirmation)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_malformed| Refusal::Confirmation)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_wrong_length| Refusal::Confirmation)?;
        match method.as_str() {
            CERTIFICATE_METHOD => Ok(Self::Certificate(CertificateThumbprint(bytes))),
            KEY_METHOD => Ok(Self::Key(KeyThumbprint(bytes))),
            _ => Err(Refusal::Confirmation),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_bound_to_one_key() {
        let thumbprint = CertificateThumbprint::of(b"a certificate");
        let text = URL_SAFE_NO_PAD.encode(thumbprint.0);
        let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        let key = KeyThumbprint(URL_SAFE_NO_PAD.decode(jkt).unwrap().try_into().unwrap());
        let rows = [
            ("a certificate", json!({"x5t#S256": text}), Ok(Confirmation::Certificate(thumbprint))),
            ("a key of DPoP", json!({"jkt": jkt}), Ok(Confirmation::Key(key))),
            ("a certificate and a key", json!({"x5t#S256": text, "jkt": jkt}), Err(Refusal::Confirmation)),
            ("a key itself", json!({"jwk": {"kty": "OKP"}}), Err(Refusal::Confirmation)),
            ("a key of another name", json!({"kid": jkt}), Err(Refusal::Confirmation)),
            ("a key in capitals", json!({"JKT": jkt}), Err(Refusal::Confirmation)),
            ("SHA-1", json!({"x5t": text}), Err(Refusal::Confirmation)),
            ("padded", json!({"x5t#S256": format!("{text}=")}), Err(Refusal::Confirmation)),
            ("a padded key", json!({"jkt": format!("{jkt}=")}), Err(Refusal::Confirmation)),
            ("too short", json!({"x5t#S256": "AAAA"}), Err(Refusal::Confirmation)),
            ("a key that is too short", json!({"jkt": "AAAA"}), Err(Refusal::Confirmation)),
            ("too long", json!({"x5t#S256": format!("{text}AAAA")}), Err(Refusal::Confirmation)),
            ("empty", json!({"x5t#S256": ""}), Err(Refusal::Confirmation)),
            ("an empty key", json!({"jkt": ""}), Err(Refusal::Confirmation)),
            ("a number", json!({"x5t#S256": 1}), Err(Refusal::Confirmation)),
            ("a list", json!({"x5t#S256": [text]}), Err(Refusal::Confirmation)),
            ("a list of keys", json!({"jkt": [jkt]}), Err(Refusal::Confirmation)),
            ("no method", json!({}), Err(Refusal::Confirmation)),
            ("null", json!(null), Err(Refusal::Confirmation)),
            ("a text", json!(text), Err(Refusal::Confirmation)),
        ];
        for (row, claim, expected) in rows {
            assert_eq!(Confirmation::of_claim(&claim), expected, "{row}");
        }
    }
}
