//! Reads what a server says of itself as a protected resource (RFC 9728), and what an issuer says of itself (RFC 8414,
//! `OpenID` Connect Discovery). Dynamic registration (RFC 7591) makes this program known to an issuer.

use serde_json::{Map, Value, json};
use url::Url;

use super::device;
use super::error::LoginError;
use super::http::{HttpClient, PlainHttp, checked_url};
use crate::visible::visible_line;

const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";
const ISSUER_METADATA: &str = "/.well-known/oauth-authorization-server";
const OPENID_METADATA: &str = "/.well-known/openid-configuration";
/// Ragward's own member of the metadata: the name under which an issuer knows this program.
const LOGIN_CLIENT_ID: &str = "ragward_login_client_id";
/// The scope that an issuer with `OpenID` Connect asks for before it gives a refresh token.
const OFFLINE_ACCESS: &str = "offline_access";
const OPENID: &str = "openid";
/// The name under which a person sees a registered program at the issuer.
const CLIENT_NAME: &str = "ragward";

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
        url.set_path(&format!("{RESOURCE_METADATA}{path}"));
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

/// An issuer and its addresses.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: String,
    authorization_endpoint: Option<Url>,
    pub(super) token_endpoint: Url,
    pub(super) device_authorization_endpoint: Option<Url>,
    registration_endpoint: Option<Url>,
    pub(super) revocation_endpoint: Option<Url>,
    /// Whether it protects codes by PKCE with S256.
    takes_s256: bool,
    /// Whether it names itself when it sends a browser back (RFC 9207).
    pub(super) names_itself: bool,
    scopes: Vec<String>,
    /// Where its addresses may have no TLS.
    pub(super) plain: PlainHttp,
}

impl Issuer {
    /// Reads the metadata of an issuer.
    pub(super) async fn read(http: &HttpClient, name: &str, plain: PlainHttp) -> Result<Self, LoginError> {
        let base = checked_url(name, plain)?;
        if base.query().is_some() {
            return Err(LoginError::Setup(format!("the issuer `{name}` must have no query")));
        }
        let path = base.path().trim_end_matches('/');
        let (mut oauth, mut openid) = (base.clone(), base.clone());
        oauth.set_path(&format!("{ISSUER_METADATA}{path}"));
        openid.set_path(&format!("{path}{OPENID_METADATA}"));
        // An issuer with TLS has no address without it.
        let plain = if base.scheme() == "https" { PlainHttp::Never } else { plain };
        let members = match http.get(&oauth).await {
            Ok(answer) if answer.status.is_success() => answer.members,
            // An issuer that does not know this address may answer with a page instead of an error.
            Ok(_) | Err(LoginError::Setup(_)) => http.get(&openid).await?.of_success(&openid)?,
            Err(error @ (LoginError::Refused(_) | LoginError::Unreachable(_) | LoginError::File(_))) => {
                return Err(error);
            }
        };
        Self::of(&members, name, plain)
    }

    fn of(members: &Map<String, Value>, name: &str, plain: PlainHttp) -> Result<Self, LoginError> {
        // RFC 8414, section 3.3: otherwise one issuer could speak for another.
        if text(members, "issuer") != Some(name) {
            return Err(LoginError::Setup(format!("the metadata of `{name}` names another issuer")));
        }
        let endpoint = |member: &str| text(members, member).map(|text| checked_url(text, plain)).transpose();
        let Some(token_endpoint) = endpoint("token_endpoint")? else {
            return Err(LoginError::Setup(format!("the metadata of `{name}` has no `token_endpoint`")));
        };
        let names_itself = members.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            name: name.to_owned(),
            authorization_endpoint: endpoint("authorization_endpoint")?,
            token_endpoint,
            device_authorization_endpoint: endpoint("device_authorization_endpoint")?,
            registration_endpoint: endpoint("registration_endpoint")?,
            revocation_endpoint: endpoint("revocation_endpoint")?,
            takes_s256: texts(members, "code_challenge_methods_supported").iter().any(|method| method == "S256"),
            names_itself: names_itself.and_then(Value::as_bool).unwrap_or_default(),
            scopes: texts(members, "scopes_supported"),
            plain,
        })
    }

    /// Returns the origin of the page where a person logs in, if that is not the issuer's own origin. Honest issuers may have
    /// such pages. So may an attacker, who names the pages of another issuer and gets its code at a token endpoint of their own
    /// (RFC 9207, section 1). Issuers that do not name themselves cannot be told apart by the answer, so the person has to see
    /// the page's origin.
    pub(super) fn page_elsewhere(&self) -> Option<String> {
        let own = Url::parse(&self.name).ok()?.origin();
        let pages = [&self.authorization_endpoint, &self.device_authorization_endpoint];
        let elsewhere = pages.into_iter().flatten().map(Url::origin).find(|origin| *origin != own);
        elsewhere.map(|origin| origin.ascii_serialization())
    }

    /// Returns the address where a browser begins.
    ///
    /// # Errors
    /// When there is none, or a code could be used by whoever sees it.
    pub(super) fn protected_authorization_endpoint(&self) -> Result<&Url, LoginError> {
        let name = &self.name;
        match (&self.authorization_endpoint, self.takes_s256) {
            (Some(endpoint), true) => Ok(endpoint),
            (Some(_), false) => Err(LoginError::Setup(format!(
                "`{name}` does not say that it protects codes (`code_challenge_methods_supported` lacks `S256`); try `--device`"
            ))),
            (None, _) => Err(LoginError::Setup(format!("`{name}` has no login by browser; try `--device`"))),
        }
    }

    /// Returns the scopes to ask for, in one text. If the issuer has a scope for refresh tokens, the text has it, too.
    pub(super) fn scope_of(&self, scopes: &[String]) -> String {
        let mut all: Vec<&str> = scopes.iter().flat_map(|scope| scope.split_whitespace()).collect();
        if self.scopes.iter().any(|scope| scope == OFFLINE_ACCESS) {
            let of_openid = [OPENID, OFFLINE_ACCESS];
            all.extend(of_openid.into_iter().filter(|known| self.scopes.iter().any(|scope| scope == known)));
        }
        let mut once: Vec<&str> = Vec::new();
        for scope in all {
            if !once.contains(&scope) {
                once.push(scope);
            }
        }
        once.join(" ")
    }

    /// Returns whether the scopes ask for a refresh token by a scope of `OpenID` Connect.
    pub(super) fn asks_for_offline_access(scope: &str) -> bool {
        scope.split(' ').any(|scope| scope == OFFLINE_ACCESS)
    }

    /// Registers this program as a public client, which has no secret, and returns its name.
    pub(super) async fn register(&self, http: &HttpClient, redirect_uri: &str) -> Result<String, LoginError> {
        let Some(endpoint) = &self.registration_endpoint else {
            return Err(LoginError::Setup(format!(
                "`{}` does not know this program: name its client with `--client-id`, or on the server with \
                 `server.login_client_id`",
                self.name
            )));
        };
        let mut grants = vec!["authorization_code", "refresh_token"];
        if self.device_authorization_endpoint.is_some() {
            grants.push(device::GRANT_TYPE);
        }
        let request = json!({
            "client_name": CLIENT_NAME,
            "application_type": "native",
            "redirect_uris": [redirect_uri],
            "response_types": ["code"],
            "grant_types": grants,
            "token_endpoint_auth_method": "none",
        });
        let members = http.post_json(endpoint, &request).await?.of_success(endpoint)?;
        let method = text(&members, "token_endpoint_auth_method").unwrap_or("none");
        match text(&members, "client_id") {
            Some(id) if method == "none" => Ok(id.to_owned()),
            Some(_) => {
                Err(LoginError::Setup(format!("`{endpoint}` registers no public clients; name one with `--client-id`")))
            }
            None => Err(LoginError::Setup(format!("the answer of `{endpoint}` has no `client_id`"))),
        }
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

fn texts(members: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = members.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_issuer_speaks_for_itself_and_over_tls() {
        let name = "https://login.example";
        let token = "https://login.example/token";
        let rows = [
            ("all is well", json!({"issuer": name, "token_endpoint": token}), true),
            ("elsewhere with TLS", json!({"issuer": name, "token_endpoint": "https://tokens.example"}), true),
            ("another issuer", json!({"issuer": "https://evil.example", "token_endpoint": token}), false),
            ("a slash more", json!({"issuer": "https://login.example/", "token_endpoint": token}), false),
            ("no token endpoint", json!({"issuer": name}), false),
            ("tokens without TLS", json!({"issuer": name, "token_endpoint": "http://login.example/token"}), false),
            ("tokens on this machine", json!({"issuer": name, "token_endpoint": "http://127.0.0.1:1/token"}), false),
            (
                "a login on this machine",
                json!({"issuer": name, "token_endpoint": token, "authorization_endpoint": "http://127.0.0.1:1/"}),
                false,
            ),
            (
                "a script as the login",
                json!({"issuer": name, "token_endpoint": token, "authorization_endpoint": "javascript:alert(1)"}),
                false,
            ),
        ];
        for (row, metadata, expected) in rows {
            let read = Issuer::of(&members(&metadata), name, PlainHttp::Never);
            assert_eq!(read.is_ok(), expected, "{row}: {read:?}");
        }
    }

    #[test]
    fn an_issuer_with_the_pages_of_another_is_told_from_others() {
        let (own, other) = ("https://login.example/a", "https://other.example/b");
        let rows = [
            ("no pages", json!(null), json!(null), None),
            ("its own", json!(own), json!(own), None),
            ("the login of another", json!(other), json!(own), Some("https://other.example")),
            ("the codes for devices of another", json!(own), json!(other), Some("https://other.example")),
            ("another port", json!("https://login.example:444/"), json!(null), Some("https://login.example:444")),
        ];
        for (row, browser, device, expected) in rows {
            let name = "https://login.example";
            let metadata = json!({
                "issuer": name,
                "token_endpoint": own,
                "authorization_endpoint": browser,
                "device_authorization_endpoint": device,
            });
            let issuer = Issuer::of(&members(&metadata), name, PlainHttp::Never).unwrap();
            assert_eq!(issuer.page_elsewhere().as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn a_code_that_anybody_can_use_is_not_asked_for() {
        let (name, login) = ("https://login.example", "https://login.example/auth");
        let rows = [
            ("S256", json!(["S256"]), true),
            ("S256 among others", json!(["plain", "S256"]), true),
            ("plain alone", json!(["plain"]), false),
            ("nothing", json!([]), false),
            ("not said", json!(null), false),
        ];
        for (row, methods, expected) in rows {
            let metadata = json!({
                "issuer": name,
                "token_endpoint": login,
                "authorization_endpoint": login,
                "code_challenge_methods_supported": methods,
            });
            let issuer = Issuer::of(&members(&metadata), name, PlainHttp::Never).unwrap();
            assert_eq!(issuer.protected_authorization_endpoint().is_ok(), expected, "{row}");
        }
    }

    #[test]
    fn a_refresh_token_is_asked_for_where_there_is_a_scope_for_it() {
        let rows: [(&str, &[&str], &[&str], &str); 4] = [
            ("no such scope", &["openid"], &["ragward:retrieve"], "ragward:retrieve"),
            ("OpenID", &["openid", "offline_access"], &["ragward:retrieve"], "ragward:retrieve openid offline_access"),
            ("OAuth alone", &["offline_access"], &["ragward:retrieve"], "ragward:retrieve offline_access"),
            ("each once", &["openid", "offline_access"], &["a b", "openid a"], "a b openid offline_access"),
        ];
        for (row, supported, asked, expected) in rows {
            let name = "https://login.example";
            let metadata = json!({"issuer": name, "token_endpoint": name, "scopes_supported": supported});
            let issuer = Issuer::of(&members(&metadata), name, PlainHttp::Never).unwrap();
            let asked: Vec<String> = asked.iter().map(|scope| (*scope).to_owned()).collect();
            assert_eq!(issuer.scope_of(&asked), expected, "{row}");
        }
    }
}
