//! A login of a person at the issuer of a server, for the command line.
//!
//! The server says whose tokens it takes (RFC 9728), and the issuer says where it gives them (RFC 8414). The person logs in
//! with a browser on this machine (authorization code with PKCE, RFC 8252) or with any other browser (device flow, RFC
//! 8628). The tokens lie in a file that only this person can read. Each login is for one server, and its token goes to that
//! server alone.
//!
//! A server or an issuer is believed no further than that: no redirect is followed, an issuer speaks only for itself,
//! and nothing is sent without TLS except on this machine.

mod audience;
mod device;
mod error;
mod http;
mod issuer;
mod loopback;
mod random;
mod resource;
mod store;
mod token_endpoint;

use std::path::Path;

use url::Url;

use self::audience::is_of_another;
pub(crate) use self::audience::unverified_claims;
use self::device::DeviceCode;
pub(crate) use self::error::LoginError;
use self::http::{Form, HttpClient, PlainHttp};
use self::issuer::Issuer;
use self::loopback::{ExpectedRedirect, Loopback};
use self::random::{Verifier, random_text};
use self::resource::Resource;
pub(crate) use self::store::{LoginStore, StoredLogin};
use self::token_endpoint::{OAuthError, TokenAnswer, Tokens};
use crate::settings::Secret;

/// A token that ends within this time is renewed before it is used, since it might end on the way. In seconds.
const RENEWED_BEFORE_SECONDS: u64 = 30;

/// A login that a person asks for.
#[derive(Debug)]
pub(crate) struct LoginRequest<'a> {
    /// The address of the server.
    pub(crate) address: &'a str,
    /// The only authorities to trust for the server.
    pub(crate) ca_file: Option<&'a Path>,
    /// The identifier of the server at its issuer, if it is not the address.
    pub(crate) resource: Option<&'a str>,
    /// The issuer that the person expects.
    pub(crate) issuer: Option<&'a str>,
    /// The name of this program at the issuer.
    pub(crate) client_id: Option<&'a str>,
    /// The scopes to ask for.
    pub(crate) scopes: &'a [String],
}

/// A login whose server and issuer are known. Nothing was sent to the issuer yet but questions for public documents.
#[derive(Debug)]
pub(crate) struct PreparedLogin {
    origin: String,
    resource: Resource,
    issuer: Issuer,
    client_id: Option<String>,
    scope: String,
    http: HttpClient,
    /// Whether the person has logged in at this issuer before.
    is_known: bool,
}

/// A login that waits for the person in a browser on this machine.
#[derive(Debug)]
pub(crate) struct BrowserLogin {
    login: PreparedLogin,
    loopback: Loopback,
    expected: ExpectedRedirect,
    verifier: Verifier,
    client_id: String,
    url: String,
}

/// A login that waits for the person in a browser anywhere.
#[derive(Debug)]
pub(crate) struct DeviceLogin {
    login: PreparedLogin,
    device: DeviceCode,
    client_id: String,
}

/// A login with the tokens that the issuer gave.
#[derive(Debug)]
pub(crate) struct FinishedLogin {
    login: PreparedLogin,
    client_id: String,
    tokens: Tokens,
}

/// The outcome of a logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logout {
    /// Nobody was logged in.
    NoLogin,
    /// The issuer was told, and takes the tokens no longer.
    Revoked,
    /// The tokens are deleted here. The issuer does not know of it.
    DeletedHere,
}

/// Returns the origin of a server, by which its login is kept. `None` for an address that no login can be for.
pub(crate) fn origin(address: &str) -> Option<String> {
    http::checked_url(address, PlainHttp::OnLoopback).ok().map(|url| url.origin().ascii_serialization())
}

impl PreparedLogin {
    /// Asks the server for its issuers, and the issuer for its addresses. `known` is the login that is stored for the server.
    ///
    /// # Errors
    /// When the server or the issuer cannot be asked, or what they say does not fit together.
    pub(crate) async fn new(request: &LoginRequest<'_>, known: Option<&StoredLogin>) -> Result<Self, LoginError> {
        let address = http::checked_url(request.address, PlainHttp::OnLoopback)?;
        let resource = Resource::read(&HttpClient::new(request.ca_file)?, &address, request.resource).await?;
        let named = resource.issuer(request.issuer)?;
        // Only a server on this machine may name an issuer on it. One elsewhere could send this person to whoever listens on a
        // port here.
        let plain = if address.scheme() == "http" { PlainHttp::OnLoopback } else { PlainHttp::Never };
        // The file of authorities is the server's. An issuer has certificates of its own.
        let http = HttpClient::new(None)?;
        let issuer = Issuer::read(&http, named, plain).await?;
        let known = known.filter(|known| known.issuer == issuer.name);
        let of_known = known.map(|known| known.client_id.clone());
        let client_id = request.client_id.map(str::to_owned).or_else(|| resource.login_client_id.clone()).or(of_known);
        let scope = issuer.scope_of(request.scopes);
        let origin = address.origin().ascii_serialization();
        Ok(Self { origin, resource, issuer, client_id, scope, http, is_known: known.is_some() })
    }

    /// Returns the server that the login is for.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the issuer where the person will log in.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer.name
    }

    /// Returns whether the person has to say that the issuer is the right one, unless they named it themselves. An issuer that was
    /// right before may name the pages of another one by now.
    pub(crate) fn needs_confirmation(&self) -> bool {
        !self.is_known || self.page_elsewhere().is_some()
    }

    /// Returns where the person will log in, if that is not at the issuer itself.
    pub(crate) fn page_elsewhere(&self) -> Option<String> {
        self.issuer.page_elsewhere()
    }

    /// Prepares a login with a browser on this machine.
    ///
    /// # Errors
    /// When the issuer has no such login, does not protect it with PKCE, or does not know this program.
    pub(crate) async fn by_browser(self) -> Result<BrowserLogin, LoginError> {
        let endpoint = self.issuer.protected_authorization_endpoint()?.clone();
        let loopback = Loopback::open().await?;
        let client_id = self.client_id(loopback.redirect_uri()).await?;
        let (state, verifier) = (random_text()?, Verifier::new()?);
        let mut url = endpoint;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", loopback.redirect_uri())
            .append_pair("scope", &self.scope)
            .append_pair("state", &state)
            .append_pair("code_challenge", &verifier.challenge())
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &self.resource.identifier);
        if Issuer::asks_for_offline_access(&self.scope) {
            // OpenID Connect Core, section 11: without this parameter, an issuer passes the scope over.
            url.query_pairs_mut().append_pair("prompt", "consent");
        }
        let expected =
            ExpectedRedirect { state, issuer: self.issuer.name.clone(), issuer_names_itself: self.issuer.names_itself };
        Ok(BrowserLogin { login: self, loopback, expected, verifier, client_id, url: url.into() })
    }

    /// Asks the issuer for a code that the person types into any browser.
    ///
    /// # Errors
    /// When the issuer has no such login or refuses it.
    pub(crate) async fn by_device(self) -> Result<DeviceLogin, LoginError> {
        let Some(endpoint) = self.issuer.device_authorization_endpoint.clone() else {
            let name = &self.issuer.name;
            return Err(LoginError::Refused(format!("`{name}` offers no login by device; leave out `--device`")));
        };
        // No redirect goes to this machine, but a registration has to name an address.
        let client_id = self.client_id(loopback::REDIRECT_WITHOUT_PORT).await?;
        let form = Form::default()
            .with("client_id", &client_id)
            .with("scope", &self.scope)
            .with("resource", &self.resource.identifier);
        let device = DeviceCode::ask(&self.http, &endpoint, &form, self.issuer.plain).await?;
        Ok(DeviceLogin { login: self, device, client_id })
    }

    async fn client_id(&self, redirect_uri: &str) -> Result<String, LoginError> {
        match &self.client_id {
            Some(id) => Ok(id.clone()),
            None => self.issuer.register(&self.http, redirect_uri).await,
        }
    }

    /// Ends the login with the tokens that the issuer gave.
    ///
    /// # Errors
    /// When the access token is for another server.
    fn finished(self, client_id: String, tokens: Tokens) -> Result<FinishedLogin, LoginError> {
        if is_of_another(&tokens.access_token, &self.resource.identifier) {
            return Err(for_another(&self.issuer.name, &self.resource.identifier));
        }
        Ok(FinishedLogin { login: self, client_id, tokens })
    }
}

impl BrowserLogin {
    /// Returns the address that the person opens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the person, and exchanges the code that the issuer gave for tokens.
    ///
    /// # Errors
    /// When the person or the issuer refuses, or nobody logs in in time.
    pub(crate) async fn finish(self) -> Result<FinishedLogin, LoginError> {
        let Self { login, loopback, expected, verifier, client_id, url: _ } = self;
        let redirect_uri = loopback.redirect_uri().to_owned();
        let code = loopback.code(expected).await?;
        let form = Form::default()
            .with("grant_type", "authorization_code")
            .with_secret("code", code.expose())
            .with_secret("code_verifier", verifier.expose())
            .with("redirect_uri", &redirect_uri)
            .with("client_id", &client_id)
            .with("resource", &login.resource.identifier);
        match token_endpoint::ask(&login.http, &login.issuer.token_endpoint, &form).await? {
            TokenAnswer::Granted(tokens) => login.finished(client_id, tokens),
            TokenAnswer::Denied(error) => Err(refused(&login.issuer.name, &error)),
        }
    }
}

impl DeviceLogin {
    /// Returns the address that the person opens.
    pub(crate) fn address(&self) -> &str {
        self.device.verification_uri.as_str()
    }

    /// Returns where the person types the code, if that is not at the issuer itself. An issuer may begin a login by device at
    /// another one, and lead the person to its page and its code. Then the issuer gets the other one's tokens.
    pub(crate) fn page_elsewhere(&self) -> Option<String> {
        self.login.issuer.elsewhere(&self.device.verification_uri)
    }

    /// Returns the server that the login is for.
    pub(crate) fn origin(&self) -> &str {
        self.login.origin()
    }

    /// Returns the issuer that gave the code.
    pub(crate) fn issuer(&self) -> &str {
        self.login.issuer()
    }

    /// Returns the code that the person types there.
    pub(crate) fn user_code(&self) -> &str {
        &self.device.user_code
    }

    /// Asks the issuer, as often as it lets, whether the person has logged in.
    ///
    /// # Errors
    /// When the person or the issuer refuses, or nobody logs in in time.
    pub(crate) async fn finish(self) -> Result<FinishedLogin, LoginError> {
        let Self { login, device, client_id } = self;
        let form = Form::default()
            .with("grant_type", device::GRANT_TYPE)
            .with_secret("device_code", device.code.expose())
            .with("client_id", &client_id)
            .with("resource", &login.resource.identifier);
        let tokens = device.wait(&login.http, &login.issuer.token_endpoint, &form).await?;
        login.finished(client_id, tokens)
    }
}

impl FinishedLogin {
    /// Writes the tokens to the file of the server. `now` is the time in seconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) async fn store(self, store: &LoginStore, now: u64) -> Result<StoredLogin, LoginError> {
        let Self { login, client_id, tokens } = self;
        let PreparedLogin { origin, resource, issuer, client_id: _, scope, http: _, is_known: _ } = login;
        let stored = StoredLogin {
            scope: tokens.scope.unwrap_or(scope),
            expires_at: expiry(tokens.lifetime_seconds, now),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            origin,
            issuer: issuer.name,
            resource: resource.identifier,
            client_id,
            token_endpoint: issuer.token_endpoint.into(),
            revocation_endpoint: issuer.revocation_endpoint.map(Url::into),
        };
        let locked = store.lock(&stored.origin).await?;
        locked.write(&stored)?;
        Ok(stored)
    }
}

/// Returns the token that is stored for a server, renewed if it ends soon; `None` if nobody is logged in there.
///
/// # Errors
/// When the file cannot be used, or the token has ended and the issuer gives no other.
pub(crate) async fn stored_token(store: &LoginStore, origin: &str, now: u64) -> Result<Option<Secret>, LoginError> {
    let Some(stored) = store.read(origin)? else { return Ok(None) };
    if lasts(&stored, now, RENEWED_BEFORE_SECONDS) {
        return Ok(Some(stored.access_token));
    }
    let locked = store.lock(origin).await?;
    // Another command may have renewed the token, or ended the login, while this one waited for the lock. A refresh token
    // that is used twice looks stolen to the issuer, which then ends the login.
    let Some(mut stored) = store.read(origin)? else { return Ok(None) };
    if lasts(&stored, now, RENEWED_BEFORE_SECONDS) {
        return Ok(Some(stored.access_token));
    }
    let Some(refresh_token) = &stored.refresh_token else {
        return if lasts(&stored, now, 0) { Ok(Some(stored.access_token)) } else { Err(ended(origin)) };
    };
    // This finds a folder that cannot be written. Once the issuer has answered, it may take this refresh token no longer, and
    // the next one would be lost.
    if let Err(error) = locked.write(&stored) {
        return if lasts(&stored, now, 0) { Ok(Some(stored.access_token)) } else { Err(error) };
    }
    let endpoint = http::checked_url(&stored.token_endpoint, PlainHttp::OnLoopback)?;
    let form = Form::default()
        .with("grant_type", "refresh_token")
        .with_secret("refresh_token", refresh_token.expose())
        .with("client_id", &stored.client_id)
        .with("resource", &stored.resource);
    match token_endpoint::ask(&HttpClient::new(None)?, &endpoint, &form).await {
        Ok(TokenAnswer::Granted(tokens)) if is_of_another(&tokens.access_token, &stored.resource) => {
            // The issuer may take the former refresh token no longer.
            stored.refresh_token = tokens.refresh_token.or(stored.refresh_token);
            locked.write(&stored)?;
            if lasts(&stored, now, 0) {
                Ok(Some(stored.access_token))
            } else {
                Err(for_another(&stored.issuer, &stored.resource))
            }
        }
        Ok(TokenAnswer::Granted(tokens)) => {
            stored.renew(tokens, now);
            // The tokens are stored before they are used: the issuer may take the former refresh token no longer.
            locked.write(&stored)?;
            Ok(Some(stored.access_token))
        }
        Ok(TokenAnswer::Denied(error)) if error.code == "invalid_grant" => {
            // A refresh token that was refused is not sent again.
            stored.refresh_token = None;
            locked.write(&stored)?;
            if lasts(&stored, now, 0) { Ok(Some(stored.access_token)) } else { Err(ended(origin)) }
        }
        // The stored access token is still good, whatever is wrong at the issuer.
        Ok(TokenAnswer::Denied(_)) | Err(_) if lasts(&stored, now, 0) => Ok(Some(stored.access_token)),
        Ok(TokenAnswer::Denied(error)) => Err(refused(&stored.issuer, &error)),
        Err(error) => Err(error),
    }
}

/// Ends the login at a server: the issuer is asked to revoke the tokens (RFC 7009), and they are deleted here in any case.
///
/// # Errors
/// When the file cannot be deleted.
pub(crate) async fn log_out(store: &LoginStore, origin: &str) -> Result<Logout, LoginError> {
    // This comes before the lock, which creates the folder. Somebody who never logged in gets none.
    if matches!(store.read(origin), Ok(None)) {
        return Ok(Logout::NoLogin);
    }
    let locked = store.lock(origin).await?;
    let stored = match store.read(origin) {
        Ok(None) => return Ok(Logout::NoLogin),
        Ok(Some(stored)) => Some(stored),
        // A file that cannot be used is deleted, too: others may have read it.
        Err(_unusable) => None,
    };
    locked.remove()?;
    let Some(stored) = stored else { return Ok(Logout::DeletedHere) };
    let Some(endpoint) = &stored.revocation_endpoint else { return Ok(Logout::DeletedHere) };
    let Ok(endpoint) = http::checked_url(endpoint, PlainHttp::OnLoopback) else { return Ok(Logout::DeletedHere) };
    let (token, hint) = match &stored.refresh_token {
        // RFC 7009, section 2.1: with a refresh token, the access tokens of the same login end.
        Some(token) => (token, "refresh_token"),
        None => (&stored.access_token, "access_token"),
    };
    let form = Form::default()
        .with_secret("token", token.expose())
        .with("token_type_hint", hint)
        .with("client_id", &stored.client_id);
    let told = HttpClient::new(None)?.post_form_for_status(&endpoint, &form).await;
    Ok(if told.is_ok_and(|status| status == 200) { Logout::Revoked } else { Logout::DeletedHere })
}

impl StoredLogin {
    fn renew(&mut self, tokens: Tokens, now: u64) {
        self.access_token = tokens.access_token;
        self.expires_at = expiry(tokens.lifetime_seconds, now);
        // RFC 6749, section 6: an issuer that gives no new refresh token goes on with the former one.
        if tokens.refresh_token.is_some() {
            self.refresh_token = tokens.refresh_token;
        }
        if let Some(scope) = tokens.scope {
            self.scope = scope;
        }
    }
}

/// Returns whether an access token lasts for more than `seconds` from now. A token without an end lasts until the server
/// refuses it.
fn lasts(stored: &StoredLogin, now: u64, seconds: u64) -> bool {
    stored.expires_at.is_none_or(|end| end > now.saturating_add(seconds))
}

fn expiry(lifetime_seconds: Option<u64>, now: u64) -> Option<u64> {
    lifetime_seconds.map(|lifetime| now.saturating_add(lifetime))
}

fn ended(origin: &str) -> LoginError {
    LoginError::Refused(format!(
        "the login at `{origin}` has ended; log in again with `ragward login --server {origin}`"
    ))
}

fn for_another(issuer: &str, resource: &str) -> LoginError {
    LoginError::Refused(format!(
        "`{issuer}` gave a token whose `aud` is not `{resource}`; it is not used, because a server could use it at another one"
    ))
}

fn refused(issuer: &str, error: &OAuthError) -> LoginError {
    LoginError::Refused(format!("`{issuer}` refused: {error}{}", error.advice()))
}

#[cfg(test)]
mod tests;
