//! The forms that settings have beside plain numbers and texts: durations, sizes, addresses and secrets.
//!
//! Each module describes its own settings in its own `Config`. These types give all of them one form, in the file and in
//! the environment alike. A value carries its unit (`"500ms"`, `"64MiB"`), so no key names one.

mod client_credentials;
mod live_secret;
mod oauth_client;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::client_credentials::ClientCredentials;
pub use self::live_secret::LiveSecret;
pub use self::oauth_client::{OAuthClientConfig, SecretPlace};

/// The name of a duration's definition in a JSON schema.
pub const DURATION_DEFINITION: &str = "Duration";
/// The name of a size's definition in a JSON schema.
pub const BYTE_SIZE_DEFINITION: &str = "ByteSize";

/// The longest duration of a setting, 292 million years. Adding it to the time of now never overflows a clock.
const DURATION_MAX: Duration = Duration::from_millis(i64::MAX.unsigned_abs());

/// How a duration is written: `500ms`, `30s`, `1h 30m`. It serves as the `with` of a field that is a [`Duration`]; zero is
/// allowed.
#[derive(Debug)]
pub enum HumanDuration {}

/// Like [`HumanDuration`], for settings that cannot be zero.
#[derive(Debug)]
pub enum PositiveDuration {}

/// Like [`HumanDuration`], for settings that may be unset.
#[derive(Debug)]
pub enum OptionalDuration {}

struct DurationVisitor;

impl HumanDuration {
    /// Reads a duration: whole milliseconds, with a unit.
    ///
    /// # Errors
    /// When the text has no unit or an unknown one, is finer than a millisecond, or is too long for a clock.
    pub fn parse(text: &str) -> Result<Duration, String> {
        // In this notation `M` is a month. Somebody who writes it most likely means minutes.
        if text.contains('M') {
            return Err(not_a_duration(text, "`M` would be months; minutes are `m`"));
        }
        let duration = humantime::parse_duration(text).map_err(|e| not_a_duration(text, &e.to_string()))?;
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return Err(not_a_duration(text, "it is finer than a millisecond"));
        }
        if duration > DURATION_MAX {
            return Err(not_a_duration(text, "it is too long"));
        }
        Ok(duration)
    }

    /// Writes a duration in the form that [`HumanDuration::parse`] reads.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// Reads a duration from its text.
    ///
    /// # Errors
    /// When the value is no text, or [`HumanDuration::parse`] refuses it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

impl PositiveDuration {
    /// Writes a duration as [`HumanDuration::serialize`] does.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        HumanDuration::serialize(duration, serializer)
    }

    /// Reads a duration that is not zero.
    ///
    /// # Errors
    /// As [`HumanDuration::deserialize`], and for zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let duration = HumanDuration::deserialize(deserializer)?;
        if duration.is_zero() { Err(D::Error::custom("it must be at least `1ms`")) } else { Ok(duration) }
    }
}

impl OptionalDuration {
    /// Writes a duration as [`HumanDuration::serialize`] does, if there is one.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => HumanDuration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the duration of a setting that is set.
    ///
    /// # Errors
    /// As [`HumanDuration::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        HumanDuration::deserialize(deserializer).map(Some)
    }
}

fn not_a_duration(text: &str, detail: &str) -> String {
    format!("`{text}` must be a duration such as \"500ms\", \"30s\" or \"5m\": {detail}")
}

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"500ms\", \"30s\" or \"5m\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
        HumanDuration::parse(text).map_err(E::custom)
    }
}

fn duration_schema() -> Schema {
    json_schema!({
        "type": "string",
        "description": "A duration with its unit, such as `500ms`, `30s`, `5m` or `1h 30m`.",
    })
}

// All three share one definition in the schema, because they are written in the same way.
impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        DURATION_DEFINITION.into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        duration_schema()
    }
}

impl JsonSchema for PositiveDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        HumanDuration::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        HumanDuration::schema_id()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        duration_schema()
    }
}

impl JsonSchema for OptionalDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        HumanDuration::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        HumanDuration::schema_id()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        duration_schema()
    }
}

/// A number of bytes, written as `"64MiB"`, as `"16MB"` or as a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

struct ByteSizeVisitor;

impl ByteSize {
    /// Returns a size of this many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns a size of this many mebibytes (1,048,576 bytes each).
    #[must_use]
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(bytesize::MIB))
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    /// Writes the size exactly: in the largest binary unit that divides it, or in bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", bytesize::GIB), ("MiB", bytesize::MIB), ("KiB", bytesize::KIB)];
        match units.into_iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\", or a number of bytes")
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_negative| E::custom(not_a_size(&bytes.to_string())))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        let size: Result<bytesize::ByteSize, _> = text.parse();
        size.map(|size| ByteSize(size.as_u64())).map_err(|_syntax| E::custom(not_a_size(text)))
    }
}

fn not_a_size(text: &str) -> String {
    format!("`{text}` must be a size such as \"64MiB\", or a number of bytes")
}

impl JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        BYTE_SIZE_DEFINITION.into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "description": "A size with its unit, such as `64MiB` or `16MB`, or a number of bytes.",
        })
    }
}

/// A key, token or password. Neither `Debug` nor serialization shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for the one place that sends or uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The path of a file that holds a secret. The configuration holds the path alone, so printing it shows no secret; the
/// module that needs the secret reads the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct SecretFile(PathBuf);

/// An error: the file of a secret cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{path}`: {detail}")]
pub struct SecretError {
    /// The file that holds the secret.
    pub path: PathBuf,
    /// The operating system's reason.
    pub detail: String,
}

impl SecretFile {
    /// Names a file. It is read when the secret is needed.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the path of the file, which is not read for this.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret, without white space at its end: editors put a line break there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(Secret::new(text.trim_end())),
            Err(e) => Err(SecretError { path: self.0.clone(), detail: e.to_string() }),
        }
    }
}

/// The setting `tls` of a server that Ragward calls at an address without TLS. When it is unset, no secret leaves this
/// machine for such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerTls {
    /// Something else encrypts the way to the server, such as a service mesh or a tunnel.
    Elsewhere,
}

/// Reads an address to listen on. A host name may stand for several addresses, so none is looked up.
///
/// # Errors
/// When the text is no IP address with a port.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_syntax| format!("`{text}` must be an IP address and a port, such as `127.0.0.1:8980`"))
}

/// Deserializes an address to listen on.
///
/// # Errors
/// As [`socket_address`].
pub fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    socket_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Deserializes an address to listen on that may be unset.
///
/// # Errors
/// As [`socket_address`].
pub fn optional_listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    listen_address(deserializer).map(Some)
}

/// Deserializes a number or size that cannot be zero.
///
/// # Errors
/// When the value is zero or has another type.
pub fn at_least_one<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let value = T::deserialize(deserializer)?;
    if value == T::default() { Err(D::Error::custom("it must be at least 1")) } else { Ok(value) }
}

/// Deserializes a share, from 0 to 1.
///
/// # Errors
/// When the value is outside of that range or no number.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(D::Error::custom("it must be from 0 to 1")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        #[serde(with = "HumanDuration")]
        wait: Duration,
        size: ByteSize,
    }

    fn wait(written: &serde_json::Value) -> Result<Duration, String> {
        let read = serde_json::from_value::<Sample>(json!({"wait": written, "size": 1}));
        read.map(|sample| sample.wait).map_err(|e| e.to_string())
    }

    fn size(written: &serde_json::Value) -> Result<u64, String> {
        let read = serde_json::from_value::<Sample>(json!({"wait": "1s", "size": written}));
        read.map(|sample| sample.size.as_u64()).map_err(|e| e.to_string())
    }

    #[test]
    fn durations_have_a_unit() {
        let rows = [
            ("milliseconds", "500ms", 500),
            ("seconds", "30s", 30_000),
            ("minutes", "5m", 300_000),
            ("hours", "2h", 7_200_000),
            ("days", "1d", 86_400_000),
            ("several units", "1h 30m", 5_400_000),
            ("without a space", "1m30s", 90_000),
            ("a space before the unit", "10 s", 10_000),
            ("a fraction", "1.5s", 1_500),
            ("whole milliseconds in a finer unit", "2000us", 2),
            ("zero", "0s", 0),
            ("the longest", "9223372036854775s 807ms", u64::try_from(i64::MAX).unwrap()),
        ];
        for (name, text, milliseconds) in rows {
            assert_eq!(wait(&json!(text)), Ok(Duration::from_millis(milliseconds)), "{name}");
        }
    }

    #[test]
    fn other_forms_of_durations_are_refused() {
        let rows = [
            ("no unit", json!("500"), "time unit needed"),
            ("a number", json!(500), "expected a duration such as \"500ms\""),
            ("a number with a fraction", json!(0.5), "expected a duration such as \"500ms\""),
            ("an empty text", json!(""), "must be a duration such as \"500ms\""),
            ("a negative number", json!("-1s"), "must be a duration such as \"500ms\""),
            ("an unknown unit", json!("5 parsecs"), "unknown time unit"),
            ("months, by a slip for minutes", json!("5M"), "minutes are `m`"),
            ("finer than a millisecond", json!("1us"), "finer than a millisecond"),
            ("too long", json!("9223372036854775808ms"), "must be a duration"),
            ("too long in larger units", json!("300000000y"), "too long"),
            ("more than a number holds", json!("99999999999999999999s"), "must be a duration"),
        ];
        for (name, written, expected) in rows {
            let error = wait(&written).expect_err(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        let rows = [
            ("mebibytes", json!("16MiB"), 16 << 20),
            ("a space before the unit", json!("16 MiB"), 16 << 20),
            ("small letters", json!("16mib"), 16 << 20),
            ("kibibytes", json!("3KiB"), 3 << 10),
            ("gibibytes", json!("2GiB"), 2 << 30),
            ("megabytes", json!("16MB"), 16_000_000),
            ("a fraction", json!("1.5KiB"), 1_536),
            ("bytes", json!("100B"), 100),
            ("a number in a text, as a variable has it", json!("1048576"), 1 << 20),
            ("a number", json!(1_048_576), 1 << 20),
            ("zero", json!(0), 0),
        ];
        for (name, written, bytes) in rows {
            assert_eq!(size(&written), Ok(bytes), "{name}");
        }
        let refused = [
            ("an empty text", json!("")),
            ("an unknown unit", json!("16 miles")),
            ("a negative number", json!(-1)),
            ("a negative text", json!("-1")),
            ("a fraction of a byte", json!(1.5)),
            ("a list", json!([1])),
        ];
        for (name, written) in refused {
            let error = size(&written).expect_err(name);
            assert!(error.contains("a size such as \"64MiB\", or a number of bytes"), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let millisecond = Duration::from_millis(1);
        for wait in [Duration::ZERO, millisecond, 90_500 * millisecond, Duration::from_hours(24 * 400), DURATION_MAX] {
            for bytes in [0, 1, 1_023, 1_024, 1_500, 64 << 20, (64 << 20) + 1, 5 << 30, u64::MAX] {
                let sample = Sample { wait, size: ByteSize::bytes(bytes) };
                let written = serde_json::to_string(&sample).expect("JSON");
                assert_eq!(serde_json::from_str::<Sample>(&written).expect(&written), sample, "{written}");
            }
        }
        let written = serde_json::to_value(Sample { wait: 500 * millisecond, size: ByteSize::mib(64) });
        assert_eq!(written.expect("JSON"), json!({"wait": "500ms", "size": "64MiB"}));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "canary-93\n").expect("written");
        let file = SecretFile::new(&path);
        let secret = file.read().expect("read");
        assert_eq!(secret.expose(), "canary-93");
        let shown = format!("{secret:?} {file:?} {}", serde_json::to_string(&file).expect("JSON"));
        assert!(!shown.contains("canary-93"), "{shown}");
        let absent = SecretFile::new(directory.path().join("absent")).read().expect_err("absent").to_string();
        assert!(absent.contains("absent"), "{absent}");
    }
}
