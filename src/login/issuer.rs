//! Reads what an issuer says of itself (RFC 8414, `OpenID` Connect Discovery). Dynamic registration (RFC 7591) makes this
//! program known to an issuer.

use serde_json::{Map, Value, json};
use url::Url;

use super::device;
use super::error::LoginError;
use super::http::{HttpClient, PlainHttp, checked_url, text, texts};

const METADATA: &str = "/.well-known/oauth-authorization-server";
const OPENID_METADATA: &str = "/.well-known/openid-configuration";
/// The scope that an issuer with `OpenID` Connect asks for before it gives a refresh token.
const OFFLINE_ACCESS: &str = "offline_access";
const OPENID: &str = "openid";
/// The name under which a person sees a registered program at the issuer.
const CLIENT_NAME: &str = "ragward";

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
        oauth.set_path(&format!("{METADATA}{path}"));
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
        let pages = [&self.authorization_endpoint, &self.device_authorization_endpoint];
        pages.into_iter().flatten().find_map(|page| self.elsewhere(page))
    }

    /// Returns the origin of an address, if that is not the issuer's own origin.
    pub(super) fn elsewhere(&self, address: &Url) -> Option<String> {
        let (own, origin) = (Url::parse(&self.name).ok()?.origin(), address.origin());
        (origin != own).then(|| origin.ascii_serialization())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn members(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
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
