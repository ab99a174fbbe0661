//! The keys of an issuer (JWK sets, RFC 7517) and the verification of signatures (RFC 7518, RFC 8037). There are public
//! keys only. No algorithm with a shared secret exists here, so a public key can never be mistaken for a secret.
//!
//! A signature is verified by one call of `ring`. The crate `jsonwebtoken` is not used: it keeps its cryptography in a
//! process-wide global, and panics without it. Beyond that one call it would add nothing, because this module's
//! siblings hold the strict rules for JSON, header and claims.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::strict_json;

/// The most keys in a set; issuers have a handful.
const KEYS_MAX: usize = 64;
/// The deepest nesting of a key set.
const DEPTH_MAX: usize = 8;
/// The longest key id, in bytes.
pub(super) const KEY_ID_BYTES_MAX: usize = 256;

/// The id of a key that needs none.
const EMBEDDED_KEY_ID: &str = "embedded";

/// An algorithm that signs tokens (RFC 7518, section 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// A public key that verifies signatures.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    /// The key's id. A key without one can only be the only key of its set.
    id: Option<String>,
    /// The only algorithm that the key is for, if its set says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The keys of one issuer, as read at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Arc<PublicKey>>,
    /// Whether no key was skipped.
    is_whole: bool,
}

/// The reason why a set has no usable keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("the key set is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the key set has no list `keys`")]
    NoKeys,
    #[error("the key set has {0} keys, at most {KEYS_MAX} are read")]
    TooMany(usize),
}

impl Algorithm {
    /// All algorithms that Ragward can verify.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Returns the algorithm's name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Returns the algorithm with this name, compared byte by byte. Returns `None` for all others, including `none` and
    /// algorithms with shared secrets.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            D::Error::custom(format!("`{name}` is not a known algorithm: name one with a public key, such as `ES256`"))
        })
    }
}

impl KeySet {
    /// Reads a key set. Keys that cannot verify a token are skipped: those of other types, and those for encryption.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let set = strict_json::object(bytes, DEPTH_MAX)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if listed.len() > KEYS_MAX {
            return Err(KeySetError::TooMany(listed.len()));
        }
        let keys: Vec<Arc<PublicKey>> =
            listed.iter().filter_map(Value::as_object).filter_map(public_key).map(Arc::new).collect();
        let is_whole = keys.len() == listed.len();
        Ok(Self { keys, is_whole })
    }

    /// Returns the only key of the set if an algorithm can use it, or `None` if there are more.
    pub(super) fn only_key(&self, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        match self.keys.as_slice() {
            [only] if self.is_whole && only.fits(algorithm) => Some(Arc::clone(only)),
            _ => None,
        }
    }

    /// Returns the key with this id that an algorithm can use, or `None` if there is none or more than one.
    pub(super) fn key(&self, id: &str, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        let mut fitting = self.keys.iter().filter(|key| key.id.as_deref() == Some(id) && key.fits(algorithm));
        let found = fitting.next();
        if fitting.next().is_some() { None } else { found.cloned() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn public_key(jwk: &Map<String, Value>) -> Option<PublicKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let verifies = |operations: &Value| operations.as_array().is_some_and(|o| o.iter().any(|o| o == "verify"));
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") || jwk.get("key_ops").is_some_and(|o| !verifies(o)) {
        return None;
    }
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == length && y.len() == length).then(|| [[4].as_slice(), &x, &y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", None) => {
            let without_zeros = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            Material::Rsa { modulus: without_zeros(bytes("n")?), exponent: without_zeros(bytes("e")?) }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        (_, _) => return None,
    };
    let id = match jwk.get("kid") {
        None => None,
        Some(_) => Some(text("kid").filter(|id| !id.is_empty() && id.len() <= KEY_ID_BYTES_MAX)?.to_owned()),
    };
    Some(PublicKey { id, algorithm: text("alg").map(str::to_owned), material })
}

impl PublicKey {
    /// Reads a key that stands in the header of a proof, where it needs no id.
    pub(super) fn embedded(jwk: &Map<String, Value>) -> Option<Self> {
        let mut jwk = jwk.clone();
        jwk.insert("kid".to_owned(), EMBEDDED_KEY_ID.into());
        public_key(&jwk)
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let named = self.algorithm.as_ref().is_none_or(|named| named == algorithm.as_str());
        named
            && matches!(
                (&self.material, algorithm.curve()),
                (Material::Rsa { .. }, None)
                    | (Material::P256(_), Some(Curve::P256))
                    | (Material::P384(_), Some(Curve::P384))
                    | (Material::Ed25519(_), Some(Curve::Ed25519))
            )
    }

    /// Returns whether the signature is this key's signature of the message.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let elliptic = |verification: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(verification, key).verify(message, signature).is_ok()
        };
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            Material::Rsa { modulus, exponent } => algorithm.rsa_parameters().is_some_and(|parameters| {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }),
            Material::P256(point) => elliptic(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => elliptic(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => elliptic(&signature::ED25519, point),
        }
    }
}

enum Curve {
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// Returns the curve of an elliptic key, and `None` for RSA.
    const fn curve(self) -> Option<Curve> {
        match self {
            Self::Es256 => Some(Curve::P256),
            Self::Es384 => Some(Curve::P384),
            Self::EdDsa => Some(Curve::Ed25519),
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => None,
        }
    }

    /// Returns the parameters of RSA. A key must have 2,048 to 8,192 bits.
    fn rsa_parameters(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}
