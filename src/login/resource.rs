//! Reads what a server says of itself as a protected resource (RFC 9728).

use serde_json::{Map, Value};
use url::Url;

use super::error::LoginError;
use super::http::{HttpClient, text, texts};
use crate::visible::visible_line;

const METADATA: &str = "/.well-known/oauth-protected-resource";
/// Ragward's own member of the metadata: the name under which an issuer knows this program.
const LOGIN_CLIENT_ID: &str = "ragward_login_client_id";

/// A server as its issuers know it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) identifier: String,
    issuers: Vec<String>,
    pub(super) login_client_id: Option<String>,
}

impl Resource {
    /// Reads the metadata of the server at an address. `named` is its identifier, if it is not the address.
    pub(super) async fn read(http: &HttpClient, address: &Url, named: Option<&str>) -> Result<Self, LoginError> {
        let expected = named.unwrap_or(address.as_str());
        // The path of an identifier that is a name (`urn:…`) is no part of the address of the metadata.
        let identifier = Url::parse(expected).ok().filter(Url::has_host);
        let path = identifier.map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default();
        let mut url = address.clone();
        url.set_query(None);
        url.set_path(&format!("{METADATA}{path}"));
        let members = http.get(&url).await?.of_success(&url).map_err(|error| match error {
            LoginError::Setup(text) if named.is_none() => LoginError::Setup(format!(
                "{text}; a server whose `identity.audience` is not its address is named by `--resource`, and one without \
                 `identity.issuers` needs no login"
            )),
            other @ (LoginError::Setup(_) | LoginError::Refused(_) | LoginError::Unreachable(_) | LoginError::File(_)) => {
                other
            }
        })?;
        Self::of(&members, expected)
    }

    /// Takes the metadata of the server that is `expected`.
    fn of(members: &Map<String, Value>, expected: &str) -> Result<Self, LoginError> {
        let identifier = text(members, "resource").unwrap_or_default();
        // RFC 9728, section 3.3. Otherwise a server could get tokens that are meant for another one.
        if identifier.trim_end_matches('/') != expected.trim_end_matches('/') {
            let identifier = visible_line(identifier);
            return Err(LoginError::Setup(format!(
                "the server says that it is `{identifier}`, not `{expected}`; if you trust it with tokens for \
                 `{identifier}`, say so with `--resource`"
            )));
        }
        let login_client_id = text(members, LOGIN_CLIENT_ID).map(str::to_owned);
        Ok(Self {
            identifier: identifier.to_owned(),
            issuers: texts(members, "authorization_servers"),
            login_client_id,
        })
    }

    /// Returns the issuer to log in at: the one that the person named, or the only one.
    pub(super) fn issuer(&self, named: Option<&str>) -> Result<&str, LoginError> {
        let listed =
            self.issuers.iter().map(|issuer| format!("`{}`", visible_line(issuer))).collect::<Vec<String>>().join(", ");
        match (named, self.issuers.as_slice()) {
            (_, []) => Err(LoginError::Setup("the server names no issuer".to_owned())),
            (Some(named), issuers) => {
                issuers.iter().find(|issuer| *issuer == named).map(String::as_str).ok_or_else(|| {
                    LoginError::Setup(format!("the server takes no tokens of `{named}`, only those of {listed}"))
                })
            }
            (None, [one]) => Ok(one),
            (None, _) => Err(LoginError::Setup(format!("name the issuer with `--issuer`: {listed}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn a_server_is_the_one_that_was_asked() {
        let rows = [
            ("itself", "https://rag.example", "https://rag.example/", true),
            ("itself with a slash", "https://rag.example/", "https://rag.example/", true),
            ("with the path that was named", "https://rag.example/api", "https://rag.example/api", true),
            ("another server", "https://other.example", "https://rag.example/", false),
            ("a path that was not named", "https://rag.example/api", "https://rag.example/", false),
            ("another port", "https://rag.example:444", "https://rag.example/", false),
            ("a name that begins like it", "https://rag.example.evil.example", "https://rag.example/", false),
            ("nothing", "", "https://rag.example/", false),
        ];
        for (row, says, asked, expected) in rows {
            let read = Resource::of(&members(&json!({"resource": says, "authorization_servers": []})), asked);
            assert_eq!(read.is_ok(), expected, "{row}: {read:?}");
        }
    }

    /// The name of a row, the issuers of the server, the one that the person names, and the one that is taken.
    type IssuerRow = (&'static str, &'static [&'static str], Option<&'static str>, Option<&'static str>);

    #[test]
    fn the_issuer_is_the_only_one_or_the_one_that_is_named() {
        const A: &str = "https://a.example";
        const B: &str = "https://b.example";
        let rows: [IssuerRow; 6] = [
            ("the only one", &[A], None, Some(A)),
            ("the only one by name", &[A], Some(A), Some(A)),
            ("one of two", &[A, B], Some(B), Some(B)),
            ("two and no name", &[A, B], None, None),
            ("another one", &[A], Some(B), None),
            ("none", &[], Some(A), None),
        ];
        for (row, issuers, named, expected) in rows {
            let metadata = json!({"resource": "r", "authorization_servers": issuers});
            let resource = Resource::of(&members(&metadata), "r").unwrap();
            assert_eq!(resource.issuer(named).ok(), expected, "{row}");
        }
    }

    #[test]
    fn what_a_server_says_adds_no_line_to_an_error() {
        let hostile = "https://a.example`\nerror: open https://evil.example\u{1b}[2A";
        let metadata = json!({"resource": hostile, "authorization_servers": [hostile, "https://b.example"]});
        let as_another = Resource::of(&members(&metadata), "https://rag.example").unwrap_err();
        let two = Resource::of(&members(&metadata), hostile).unwrap().issuer(None).unwrap_err();
        for (row, error) in [("another server", as_another), ("two issuers", two)] {
            let shown = error.to_string();
            assert!(shown.contains("\\u{a}error") && !shown.contains(char::is_control), "{row}: {shown}");
        }
    }

    #[test]
    fn the_server_may_name_the_client() {
        let metadata = json!({"resource": "r", "authorization_servers": [], "ragward_login_client_id": "cli"});
        assert_eq!(Resource::of(&members(&metadata), "r").unwrap().login_client_id.as_deref(), Some("cli"));
    }
}
