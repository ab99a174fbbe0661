//! Takes apart a signed token in compact form (RFC 7515, section 7.1), before anything in it is believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Refusal;
use super::key_set::{Algorithm, KEY_ID_BYTES_MAX, PublicKey};
use crate::strict_json;

/// The longest token, in bytes. gRPC's own limit for all headers of a request is about as large.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The deepest nesting of a token's claims and header.
const DEPTH_MAX: usize = 16;
/// Header parameters that lead to a key elsewhere, or that change what is signed and how it is read.
const REFUSED_PARAMETERS: [&str; 8] = ["crit", "jku", "x5u", "jwk", "x5c", "b64", "zip", "enc"];

/// The parts of a token. None of them is believed yet.
pub(super) struct Jws<'t> {
    signed: &'t str,
    signature: Vec<u8>,
    /// The header's `typ`. Whether it is that of an access token depends on the issuer.
    pub(super) media_type: Option<String>,
    pub(super) algorithm: Algorithm,
    /// The header's `kid`.
    pub(super) key_id: Option<String>,
    claims: Map<String, Value>,
}

/// The header of a token.
struct Header {
    media_type: Option<String>,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl<'t> Jws<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Size);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_malformed| Refusal::Form);
        let signature = decode(signature)?;
        let Header { media_type, algorithm, key_id } = Header::read(&object(&decode(header)?)?)?;
        Ok(Self { signed, signature, media_type, algorithm, key_id, claims: object(&decode(payload)?)? })
    }

    /// Returns the issuer that the token claims. That is enough to choose the keys that can prove the claim.
    pub(super) fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Returns the claims if the key proves the signature.
    pub(super) fn verify(self, key: &PublicKey) -> Result<Map<String, Value>, Refusal> {
        if key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
            Ok(self.claims)
        } else {
            Err(Refusal::Signature)
        }
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    strict_json::object(bytes, DEPTH_MAX).map_err(|_malformed| Refusal::Form)
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, Refusal> {
        if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
            return Err(Refusal::Header);
        }
        let text = |name: &str, fault: Refusal| {
            let value = header.get(name).map(|value| value.as_str().map(str::to_owned).ok_or(fault));
            value.transpose()
        };
        let media_type = text("typ", Refusal::Type)?;
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        let key_id = text("kid", Refusal::Key)?;
        if key_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > KEY_ID_BYTES_MAX) {
            return Err(Refusal::Key);
        }
        Ok(Self { media_type, algorithm, key_id })
    }
}
