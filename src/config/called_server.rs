//! The server that a command calls: the one of its flags, or the one that the environment names, so that nobody has to
//! repeat the flags.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;

/// The environment variable that may hold the address.
pub(super) const ADDRESS_VARIABLE: &str = "RAGWARD_SERVER";
/// The environment variable that may name the file of authorities.
pub(super) const CA_FILE_VARIABLE: &str = "RAGWARD_CA_FILE";

/// A server that a command calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalledServer {
    /// The address of the server.
    pub address: Option<String>,
    /// A file with the only authorities to trust there.
    pub ca_file: Option<PathBuf>,
}

impl CalledServer {
    /// Completes what the flags of a command say with the variables `RAGWARD_SERVER` and `RAGWARD_CA_FILE`. A flag wins
    /// over its variable. An empty variable counts as unset.
    ///
    /// # Errors
    /// When a variable is not UTF-8, or a file of authorities is named and no server.
    pub fn or_of_environment(self) -> Result<Self, ConfigError> {
        self.or_of(variable)
    }

    fn or_of(self, read: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let text = |name: &str| match read(name).filter(|value| !value.is_empty()) {
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_raw) => Err(ConfigError::Invalid(format!("`{name}` is not UTF-8"))),
            },
            None => Ok(None),
        };
        let address = match self.address {
            Some(address) => Some(address),
            None => text(ADDRESS_VARIABLE)?,
        };
        let Some(address) = address else {
            return match self.ca_file {
                Some(_) => Err(ConfigError::Invalid(format!(
                    "`--ca-file` is of use only with a server; name it with `--server` or `{ADDRESS_VARIABLE}`"
                ))),
                None => Ok(Self::default()),
            };
        };
        let ca_file = match self.ca_file {
            Some(file) => Some(file),
            // The variable is for every call of this environment. One to `http://localhost` has no use for it.
            None if is_plain(&address) => None,
            None => text(CA_FILE_VARIABLE)?.map(PathBuf::from),
        };
        Ok(Self { address: Some(address), ca_file })
    }
}

/// Returns whether an address has no TLS. A scheme may have capital letters, and `HTTPS://` must not mean other authorities
/// than `https://`.
fn is_plain(address: &str) -> bool {
    address.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(address: Option<&str>, ca_file: Option<&str>) -> CalledServer {
        CalledServer { address: address.map(str::to_owned), ca_file: ca_file.map(PathBuf::from) }
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let (far, near) = ("https://rag.example", "http://127.0.0.1:8980");
        let rows = [
            ("nothing", called(None, None), "", "", called(None, None)),
            ("flags", called(Some(far), Some("f")), "", "", called(Some(far), Some("f"))),
            ("variables", called(None, None), far, "v", called(Some(far), Some("v"))),
            ("flags and variables", called(Some(far), Some("f")), near, "v", called(Some(far), Some("f"))),
            ("the address by flag", called(Some(far), None), near, "v", called(Some(far), Some("v"))),
            ("the file by flag", called(None, Some("f")), far, "v", called(Some(far), Some("f"))),
            ("a variable for TLS, and an address without", called(Some(near), None), "", "v", called(Some(near), None)),
            ("capitals", called(Some("HTTPS://a"), None), "", "v", called(Some("HTTPS://a"), Some("v"))),
            ("capitals without TLS", called(Some("HTTP://a"), None), "", "v", called(Some("HTTP://a"), None)),
            (
                "a flag for TLS, and an address without",
                called(Some(near), Some("f")),
                "",
                "",
                called(Some(near), Some("f")),
            ),
            ("a file by variable, and no server", called(None, None), "", "v", called(None, None)),
        ];
        for (name, flags, address, ca_file, expected) in rows {
            let variable = |name: &str| {
                let value = if name == ADDRESS_VARIABLE { address } else { ca_file };
                Some(OsString::from(value))
            };
            assert_eq!(flags.or_of(variable).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn certificates_without_a_server_are_refused() {
        let refused = called(None, Some("f")).or_of(|_name| None).unwrap_err().to_string();
        assert!(refused.contains("`--ca-file` is of use only with a server"), "{refused}");
    }
}
