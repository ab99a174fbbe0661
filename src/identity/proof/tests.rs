use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const LEEWAY_SECONDS: u64 = 30;
const TOKEN: &str = "an.access.token";
const URL: &str = "https://rag.example/v1/collections/handbook/retrieve";

/// A key that signs proofs.
enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn p256() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self::P256(pair.unwrap())
    }

    fn p384() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, document.as_ref(), &random);
        Self::P384(pair.unwrap())
    }

    fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn jwk(&self) -> Value {
        let point = |curve: &str, pair: &EcdsaKeyPair| {
            let bytes = &pair.public_key().as_ref()[1..];
            let (x, y) = bytes.split_at(bytes.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y)})
        };
        match self {
            Self::P256(pair) => point("P-256", pair),
            Self::P384(pair) => point("P-384", pair),
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref())})
            }
        }
    }

    fn thumbprint(&self) -> KeyThumbprint {
        KeyThumbprint(sha256(&canonical(self.jwk().as_object().unwrap()).unwrap()))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(pair) | Self::P384(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_texts(&header.to_string(), &claims.to_string())
    }

    fn sign_texts(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header.as_bytes()), encoded(claims.as_bytes()));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", encoded(&signature))
    }

    fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": self.algorithm(), "jwk": self.jwk()})
    }

    fn request(&self) -> ProvenRequest<'static> {
        ProvenRequest { method: "POST", url: URL, token: TOKEN, key: self.thumbprint() }
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn claims(id: &str) -> Value {
    json!({"jti": id, "htm": "POST", "htu": URL, "ath": encoded(&sha256(TOKEN)), "iat": NOW})
}

/// Returns `value` with another value of a member; without it for null.
fn with(mut value: Value, name: &str, member: Value) -> Value {
    let members = value.as_object_mut().unwrap();
    if member.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), member);
    }
    value
}

fn check(signer: &Signer, proof: &str) -> Result<NonceAge, ProofFault> {
    ProofChecker::new(LEEWAY_SECONDS).check(proof, signer.request(), None, NOW)
}

/// RFC 7638, section 3.1, and RFC 8037, appendix A.3.
#[test]
fn a_thumbprint_is_that_of_the_standards() {
    let rsa_modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
        FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM\
        QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let rows = [
        (
            "RSA",
            json!({"kty": "RSA", "n": rsa_modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        ),
        (
            "Ed25519",
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        ),
        (
            "the key of RFC 9449, section 4.2",
            json!({
                "kty": "EC", "crv": "P-256",
                "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
            }),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        ),
    ];
    for (row, jwk, expected) in rows {
        assert_eq!(encoded(&sha256(&canonical(jwk.as_object().unwrap()).unwrap())), expected, "{row}");
    }
}

#[test]
fn good_proofs_of_all_forms_are_taken() {
    let (p256, p384, ed25519) = (Signer::p256(), Signer::p384(), Signer::ed25519());
    for signer in [&p256, &p384, &ed25519] {
        let proof = signer.sign(&signer.header(), &claims("1"));
        assert_eq!(check(signer, &proof), Ok(NonceAge::Current), "{}", signer.algorithm());
    }
    let jwk =
        |more: &[(&str, Value)]| more.iter().fold(p256.jwk(), |jwk, (name, value)| with(jwk, name, value.clone()));
    let exported = jwk(&[("ext", json!(true)), ("key_ops", json!(["verify"]))]);
    let of_a_set = jwk(&[("use", json!("sig")), ("alg", json!("ES256")), ("kid", json!("mine"))]);
    let rows = [
        ("a key as browsers export it", with(p256.header(), "jwk", exported), claims("1")),
        ("a key as it stands in a set", with(p256.header(), "jwk", of_a_set), claims("1")),
        ("a key id in the header", with(p256.header(), "kid", json!("mine")), claims("1")),
        ("a URL with a query", p256.header(), with(claims("1"), "htu", json!(format!("{URL}?a=b")))),
        ("the default port", p256.header(), with(claims("1"), "htu", json!(URL.replace("example", "example:443")))),
        ("claims that nobody knows", p256.header(), with(claims("1"), "act", json!({"sub": "me"}))),
        ("a nonce that nobody asked for", p256.header(), with(claims("1"), "nonce", json!("x"))),
        ("the longest id", p256.header(), claims(&"i".repeat(ID_BYTES_MAX))),
    ];
    for (row, header, claims) in rows {
        assert_eq!(check(&p256, &p256.sign(&header, &claims)), Ok(NonceAge::Current), "{row}");
    }
}

#[test]
fn a_proof_with_one_wrong_thing_is_refused() {
    use ProofFault::{Algorithm, Form, Header, Id, Key, Method, OtherKey, Time, Token, Type, Url};
    let (own, other) = (Signer::p256(), Signer::p256());
    let header = |name: &str, value: Value| own.sign(&with(own.header(), name, value), &claims("1"));
    let claim = |name: &str, value: Value| own.sign(&own.header(), &with(claims("1"), name, value));
    let in_key = |name: &str, value: Value| header("jwk", with(own.jwk(), name, value));
    let good = own.sign(&own.header(), &claims("1"));
    let doubled = claims("1").to_string().replacen('{', r#"{"htm":"GET","#, 1);
    let hash_of_another = encoded(&sha256("another.access.token"));
    let long_id = "i".repeat(ID_BYTES_MAX + 1);
    let rows = [
        ("no proof", String::new(), Form),
        ("one part", "abc".to_owned(), Form),
        ("two parts", "abc.def".to_owned(), Form),
        ("four parts", format!("{good}.abc"), Form),
        ("padding", format!("{good}="), Form),
        ("a line break", format!("{good}\n"), Form),
        ("a header that is a list", own.sign_texts("[]", &claims("1").to_string()), Form),
        ("claims that are a text", own.sign_texts(&own.header().to_string(), "\"a\""), Form),
        ("a doubled claim", own.sign_texts(&own.header().to_string(), &doubled), Form),
        ("claims that are nested deeply", claim("x", json!([[[[[[[[[[1]]]]]]]]]])), Form),
        ("a proof that is too long", claim("x", json!("a".repeat(PROOF_BYTES_MAX))), Form),
        ("no type", header("typ", json!(null)), Type),
        ("the type of an access token", header("typ", json!("at+jwt")), Type),
        ("the type JWT", header("typ", json!("JWT")), Type),
        ("the type in capitals", header("typ", json!("DPOP+JWT")), Type),
        ("no algorithm", header("alg", json!(null)), Algorithm),
        ("no signature", header("alg", json!("none")), Algorithm),
        ("a shared secret", header("alg", json!("HS256")), Algorithm),
        ("an algorithm for no proof", header("alg", json!("RS512")), Algorithm),
        ("an algorithm in small letters", header("alg", json!("es256")), Algorithm),
        ("the algorithm of another curve", header("alg", json!("ES384")), ProofFault::Signature),
        ("the algorithm of another type", header("alg", json!("RS256")), ProofFault::Signature),
        ("critical parameters", header("crit", json!(["b64"])), Header),
        ("an address of keys", header("jku", json!("https://attacker.example/keys")), Header),
        ("an address of a certificate", header("x5u", json!("https://attacker.example/crt")), Header),
        ("a certificate", header("x5c", json!(["AAAA"])), Header),
        ("content that is not encoded", header("b64", json!(false)), Header),
        ("compression", header("zip", json!("DEF")), Header),
        ("no key", header("jwk", json!(null)), Key),
        ("a key that is a text", header("jwk", json!("key")), Key),
        ("an empty key", header("jwk", json!({})), Key),
        ("a private key", in_key("d", json!("AAAA")), Key),
        ("a prime of a private key", in_key("p", json!("AAAA")), Key),
        ("a shared secret as the key", header("jwk", json!({"kty": "oct", "k": "AAAA"})), Key),
        ("a key for encryption", in_key("use", json!("enc")), Key),
        ("a key that only signs", in_key("key_ops", json!(["sign"])), Key),
        ("a curve that nobody knows", in_key("crv", json!("secp256k1")), Key),
        ("a point that is too short", in_key("x", json!("AAAA")), Key),
        ("a point with padding", in_key("x", json!(format!("{}=", own.jwk()["x"].as_str().unwrap()))), Key),
        ("a certificate in the key", in_key("x5c", json!(["AAAA"])), Key),
        ("another key", header("jwk", other.jwk()), OtherKey),
        ("another key, which signed", other.sign(&other.header(), &claims("1")), OtherKey),
        ("its key, but another one signed", other.sign(&own.header(), &claims("1")), ProofFault::Signature),
        ("no id", claim("jti", json!(null)), Id),
        ("an empty id", claim("jti", json!("")), Id),
        ("an id that is a number", claim("jti", json!(1)), Id),
        ("an id that is too long", claim("jti", json!(long_id)), Id),
        ("no method", claim("htm", json!(null)), Method),
        ("another method", claim("htm", json!("GET")), Method),
        ("the method in small letters", claim("htm", json!("post")), Method),
        ("a list of methods", claim("htm", json!(["POST"])), Method),
        ("no URL", claim("htu", json!(null)), Url),
        ("another path", claim("htu", json!("https://rag.example/mcp")), Url),
        ("another host", claim("htu", json!(URL.replace("rag.", "other."))), Url),
        ("no TLS", claim("htu", json!(URL.replace("https", "http"))), Url),
        ("the path alone", claim("htu", json!("/v1/collections/handbook/retrieve")), Url),
        ("a list of URLs", claim("htu", json!([URL])), Url),
        ("no token", claim("ath", json!(null)), Token),
        ("another token", claim("ath", json!(hash_of_another)), Token),
        ("the token itself", claim("ath", json!(TOKEN)), Token),
        ("the token's hash with padding", claim("ath", json!(format!("{}=", encoded(&sha256(TOKEN))))), Token),
        ("no time", claim("iat", json!(null)), Time),
        ("a time that is a text", claim("iat", json!(NOW.to_string())), Time),
        ("a negative time", claim("iat", json!(-1)), Time),
        ("a time in milliseconds", claim("iat", json!(NOW * 1_000)), Time),
        ("a time from the future", claim("iat", json!(NOW + LEEWAY_SECONDS + 1)), Time),
        ("a time long past", claim("iat", json!(NOW - AGE_SECONDS_MAX - LEEWAY_SECONDS - 1)), Time),
        ("the end of all time", claim("iat", json!(u64::MAX)), Time),
    ];
    assert_eq!(check(&own, &good), Ok(NonceAge::Current), "the proof that the rows change");
    for (row, proof, expected) in rows {
        assert_eq!(check(&own, &proof), Err(expected), "{row}");
    }
    // Every changed byte of the signed parts is noticed.
    for at in 0..good.rfind('.').unwrap() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(check(&own, &String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
    }
}

#[test]
fn the_window_holds_to_the_second() {
    let own = Signer::ed25519();
    let rows = [
        ("the oldest", NOW - AGE_SECONDS_MAX - LEEWAY_SECONDS, true),
        ("too old", NOW - AGE_SECONDS_MAX - LEEWAY_SECONDS - 1, false),
        ("the most ahead", NOW + LEEWAY_SECONDS, true),
        ("too far ahead", NOW + LEEWAY_SECONDS + 1, false),
    ];
    for (row, issued_at, expected) in rows {
        let proof = own.sign(&own.header(), &with(claims("1"), "iat", json!(issued_at)));
        assert_eq!(check(&own, &proof).is_ok(), expected, "{row}");
    }
}

#[test]
fn a_proof_is_used_once_for_as_long_as_it_is_good() {
    let (own, other) = (Signer::ed25519(), Signer::p256());
    let checker = ProofChecker::new(LEEWAY_SECONDS);
    let last = NOW + AGE_SECONDS_MAX + LEEWAY_SECONDS;
    let first = own.sign(&own.header(), &claims("1"));
    let same_id = own.sign(&own.header(), &with(claims("1"), "iat", json!(NOW + 1)));
    let wrong = own.sign(&own.header(), &with(claims("2"), "htm", json!("GET")));
    let rows = [
        ("the first time", &own, &first, NOW, Ok(NonceAge::Current)),
        ("again", &own, &first, NOW, Err(ProofFault::Used)),
        ("in its last second", &own, &first, last, Err(ProofFault::Used)),
        ("after that", &own, &first, last + 1, Err(ProofFault::Time)),
        ("another proof with this id", &own, &same_id, NOW, Err(ProofFault::Used)),
        (
            "the id of another key's proof",
            &other,
            &other.sign(&other.header(), &claims("1")),
            NOW,
            Ok(NonceAge::Current),
        ),
        ("one that is refused", &own, &wrong, NOW, Err(ProofFault::Method)),
        ("its id is still good", &own, &own.sign(&own.header(), &claims("2")), NOW, Ok(NonceAge::Current)),
    ];
    for (row, signer, proof, now, expected) in rows {
        assert_eq!(checker.check(proof, signer.request(), None, now), expected, "{row}");
    }
}

#[test]
fn a_key_that_floods_shuts_nobody_out() {
    let (flood, own) = (Signer::ed25519(), Signer::p256());
    let checker = ProofChecker::new(LEEWAY_SECONDS);
    let until = NOW + AGE_SECONDS_MAX + LEEWAY_SECONDS + 1;
    for n in 0..USED.entries_per_owner_max {
        let id = sha256(&format!("flood {n}"));
        checker.used.lock().unwrap().begin(flood.thumbprint().0, id, until, NOW).unwrap();
    }
    let of = |signer: &Signer, now: u64| {
        let proof = signer.sign(&signer.header(), &with(claims("1"), "iat", json!(now)));
        checker.check(&proof, signer.request(), None, now)
    };
    assert_eq!(of(&flood, NOW), Err(ProofFault::Full));
    assert_eq!(of(&own, NOW), Ok(NonceAge::Current), "another key");
    assert_eq!(of(&flood, until), Ok(NonceAge::Current), "after its proofs have ended");
}

#[test]
fn a_nonce_is_repeated_where_one_is_asked_for() {
    let own = Signer::ed25519();
    let (key, another) = (NonceKey::new(&[7; 32]).unwrap(), NonceKey::new(&[8; 32]).unwrap());
    let rows = [
        ("the nonce of now", json!(key.nonce(NOW)), Ok(NonceAge::Current)),
        ("the one before", json!(key.nonce(NOW - 300)), Ok(NonceAge::Old)),
        ("an older one", json!(key.nonce(NOW - 600)), Err(ProofFault::Nonce)),
        ("none", json!(null), Err(ProofFault::Nonce)),
        ("an empty one", json!(""), Err(ProofFault::Nonce)),
        ("a number", json!(7), Err(ProofFault::Nonce)),
        ("that of another server", json!(another.nonce(NOW)), Err(ProofFault::Nonce)),
    ];
    let checker = ProofChecker::new(LEEWAY_SECONDS);
    for (row, nonce, expected) in rows {
        let proof = own.sign(&own.header(), &with(claims(row), "nonce", nonce));
        assert_eq!(checker.check(&proof, own.request(), Some(&key), NOW), expected, "{row}");
        // A proof that lacks a good nonce is not used up by that.
        let again = checker.check(&proof, own.request(), None, NOW);
        assert_eq!(again.is_ok(), expected.is_err(), "{row}, without nonces");
    }
}
