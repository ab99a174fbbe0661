//! The small token with which a client proves who it is by a private key (`private_key_jwt`; RFC 7523, section 2.2).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::json;

use crate::client_tls;

/// The type of an assertion in a request for a token.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The lifetime of an assertion, in seconds. It is made for one request, and the clocks may differ by a part of this time.
const LIFETIME_SECONDS: u64 = 60;
/// The length of an assertion's id before it is encoded.
const ID_BYTES: usize = 16;

/// A private key that signs assertions.
pub(super) enum SigningKey {
    P256(Box<EcdsaKeyPair>),
    P384(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// The claims of an assertion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims<'c> {
    pub(super) client_id: &'c str,
    pub(super) audience: &'c str,
    /// The current time, in seconds since 1970.
    pub(super) now: u64,
}

/// The reason why a key signs nothing. The text repeats nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssertionError {
    #[error("it is no private key in PEM form (`-----BEGIN PRIVATE KEY-----`, PKCS#8)")]
    Pem,
    #[error("it is no key of RSA (2,048 to 4,096 bits), P-256, P-384 or Ed25519")]
    Kind,
    #[error("it does not sign")]
    Signature,
}

impl SigningKey {
    pub(super) fn of_pem(text: &str) -> Result<Self, AssertionError> {
        let der = client_tls::pkcs8_of_pem(text).ok_or(AssertionError::Pem)?;
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random) {
            return Ok(Self::P256(Box::new(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der, &random) {
            return Ok(Self::P384(Box::new(pair)));
        }
        // Other programs write this key without its public half.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        match RsaKeyPair::from_pkcs8(&der) {
            Ok(pair) => Ok(Self::Rsa(Box::new(pair))),
            Err(_rejected) => Err(AssertionError::Kind),
        }
    }

    /// Makes an assertion that no other one equals.
    pub(super) fn assertion(&self, claims: Claims<'_>, key_id: Option<&str>) -> Result<String, AssertionError> {
        let Claims { client_id, audience, now } = claims;
        let mut id = [0; ID_BYTES];
        SystemRandom::new().fill(&mut id).map_err(|_unspecified| AssertionError::Signature)?;
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm() });
        if let (Some(members), Some(key_id)) = (header.as_object_mut(), key_id) {
            members.insert("kid".to_owned(), key_id.into());
        }
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now, "exp": now.saturating_add(LIFETIME_SECONDS),
        });
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AssertionError> {
        let random = SystemRandom::new();
        let failed = |_unspecified: ring::error::Unspecified| AssertionError::Signature;
        match self {
            Self::P256(pair) | Self::P384(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}
