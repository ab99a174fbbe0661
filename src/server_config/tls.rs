//! The key `server.tls`: the files of the port's TLS, or the word for a proxy that has TLS in the port's place.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use crate::settings::SecretFile;

/// The word of a port without TLS that only a proxy with TLS reaches.
const ELSEWHERE: &str = "elsewhere";

/// Where the port's TLS ends. It says nothing about who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// At the port, with the certificate of these files.
    Files(TlsFiles),
    /// At something in front of the port, which alone can reach it. In the file, this is the word `elsewhere`.
    Elsewhere,
}

/// The files of the port's TLS, all in PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate of the server, with the intermediate ones after it.
    pub cert_file: PathBuf,
    /// The private key of the certificate, not encrypted.
    pub key_file: SecretFile,
    /// The authorities whose certificates clients may show. When unset, clients are not asked for one. A client without a
    /// certificate is let in, and a wrong certificate ends its connection.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

impl Serialize for TlsConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Files(files) => files.serialize(serializer),
            Self::Elsewhere => serializer.serialize_str(ELSEWHERE),
        }
    }
}

impl<'de> Deserialize<'de> for TlsConfig {
    // By hand, because an error about a derived enum without tags would not tell what is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TlsVisitor)
    }
}

struct TlsVisitor;

impl<'de> Visitor<'de> for TlsVisitor {
    type Value = TlsConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with `cert_file` and `key_file`, or the word \"elsewhere\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TlsConfig, E> {
        if text == ELSEWHERE {
            Ok(TlsConfig::Elsewhere)
        } else {
            Err(E::custom(format!(
                "`{text}` must be a table with `cert_file` and `key_file`, or the word \"elsewhere\""
            )))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TlsConfig, A::Error> {
        TlsFiles::deserialize(MapAccessDeserializer::new(map)).map(TlsConfig::Files)
    }
}

impl JsonSchema for TlsConfig {
    fn schema_name() -> Cow<'static, str> {
        "TlsConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // One definition for both forms: the keywords of a table do not concern a text, nor does `pattern` a table.
        let mut schema = TlsFiles::json_schema(generator);
        schema.insert("type".to_owned(), json!(["object", "string"]));
        schema.insert("pattern".to_owned(), json!(format!("^{ELSEWHERE}$")));
        schema
    }
}
