//! `ragward login`, `logout` and `whoami` begin, end and show the login of a person at a server.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Output};
use crate::config::{CalledServer, state_directory};
use crate::login::{self, LoginRequest, LoginStore, Logout, PreparedLogin, StoredLogin};
use crate::settings::Secret;
use crate::visible::{visible, visible_line};

/// The folder of the logins in the folder of states.
const LOGINS: &str = "logins";

/// The server that a login is for.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The address of the server, such as `https://rag.example`. Without it, the variable `RAGWARD_SERVER` may hold the
    /// address.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted from a server with an `https://` address. Without
    /// it, the variable `RAGWARD_CA_FILE` may name the file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Log in with a browser on any machine, by a code that you type there.
    #[arg(long)]
    device: bool,
    /// The issuer to log in at. Without it, you are asked whether the server's issuer is the right one.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The client as which the issuer knows this program. Without it, the server may name the client, or the issuer may
    /// register one.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The server's `identity.audience`, if it is not the address of the server.
    #[arg(long, value_name = "URL")]
    resource: Option<String>,
    /// A scope to ask for. Repeat it for more.
    #[arg(long = "scope", value_name = "SCOPE", default_value = "ragward:retrieve")]
    scopes: Vec<String>,
}

/// A login as it is shown.
#[derive(Serialize)]
struct LoginReport {
    server: String,
    issuer: String,
    /// The subject that the token names; only the server verifies it. `None` for a token that cannot be read.
    subject: Option<String>,
    client_id: String,
    scope: String,
    /// The date at which the access token ends; `None` if the issuer named none.
    expires_at: Option<String>,
    /// Whether the token is renewed without another login.
    renewable: bool,
}

#[derive(Serialize)]
struct LogoutReport {
    server: String,
    /// Whether the issuer takes the tokens no longer.
    revoked: bool,
}

pub(super) async fn log_in(args: LoginArgs, output: &Output) -> Result<(), Failure> {
    let LoginArgs { server, device, issuer, client_id, resource, scopes } = args;
    let CalledServer { address, ca_file } = server.called()?;
    let address = address.ok_or_else(no_server)?;
    let store =
        store().ok_or_else(|| Failure::usage("there is no folder for the login: set `HOME` or `XDG_STATE_HOME`"))?;
    // A file that cannot be used is replaced. Then the issuer is confirmed as at the first login.
    let known = login::origin(&address).and_then(|origin| store.read(&origin).ok().flatten());
    let request = LoginRequest {
        address: &address,
        ca_file: ca_file.as_deref(),
        resource: resource.as_deref(),
        issuer: issuer.as_deref(),
        client_id: client_id.as_deref(),
        scopes: &scopes,
    };
    let prepared = PreparedLogin::new(&request, known.as_ref()).await?;
    let page = prepared.page_elsewhere();
    if issuer.is_none() && prepared.needs_confirmation() {
        confirm(prepared.origin(), prepared.issuer(), page.as_deref())?;
    }
    let finished = if device {
        let begun = prepared.by_device().await?;
        let page_of_code = begun.page_elsewhere();
        if issuer.is_none() && page_of_code.is_some() && page_of_code != page {
            confirm(begun.origin(), begun.issuer(), page_of_code.as_deref())?;
        }
        let (url, code) = (begun.address(), begun.user_code());
        tell(&format!("Open this address in a browser:\n\n    {url}\n\nand type this code there:\n\n    {code}\n"))?;
        begun.finish().await?
    } else {
        let begun = prepared.by_browser().await?;
        tell(&format!("Open this address in a browser on this machine:\n\n    {}\n", begun.url()))?;
        begun.finish().await?
    };
    let stored = finished.store(&store, now()).await?;
    let report = LoginReport::of(&stored);
    output.result(&report, || format!("logged in\n{}", report.text()))
}

pub(super) async fn log_out(args: ServerArgs, output: &Output) -> Result<(), Failure> {
    let origin = args.origin()?;
    let outcome = match store() {
        Some(store) => login::log_out(&store, &origin).await?,
        None => Logout::NoLogin,
    };
    let told = match outcome {
        Logout::NoLogin => format!("nobody was logged in at {origin}"),
        Logout::Revoked => format!("logged out of {origin}; the issuer takes the tokens no longer"),
        Logout::DeletedHere => {
            format!(
                "logged out of {origin}; the tokens are deleted here, but the issuer did not confirm that they ended"
            )
        }
    };
    output.result(&LogoutReport { server: origin, revoked: outcome == Logout::Revoked }, || told)
}

pub(super) fn who_am_i(args: ServerArgs, output: &Output) -> Result<(), Failure> {
    let origin = args.origin()?;
    let stored = store().map(|store| store.read(&origin)).transpose()?.flatten();
    let Some(stored) = stored else {
        return Err(Failure::failed(format!(
            "nobody is logged in at `{origin}`; log in with `ragward login --server {origin}`"
        )));
    };
    let report = LoginReport::of(&stored);
    output.result(&report, || report.text())
}

/// Returns the token of the login at a server; `None` if nobody is logged in there.
pub(super) async fn stored_token(address: &str) -> Result<Option<Secret>, Failure> {
    match (login::origin(address), store()) {
        (Some(origin), Some(store)) => Ok(login::stored_token(&store, &origin, now()).await?),
        (None, _) | (_, None) => Ok(None),
    }
}

impl ServerArgs {
    fn called(self) -> Result<CalledServer, Failure> {
        Ok(CalledServer { address: self.server, ca_file: self.ca_file }.or_of_environment()?)
    }

    fn origin(self) -> Result<String, Failure> {
        let address = self.called()?.address.ok_or_else(no_server)?;
        let malformed =
            || Failure::usage(format!("`{address}` is not the address of a server that a login can be for"));
        login::origin(&address).ok_or_else(malformed)
    }
}

impl LoginReport {
    fn of(stored: &StoredLogin) -> Self {
        let expires_at = stored.expires_at.and_then(|end| i64::try_from(end).ok());
        let expires_at = expires_at.and_then(|end| DateTime::from_timestamp(end, 0));
        Self {
            server: stored.origin.clone(),
            issuer: stored.issuer.clone(),
            subject: subject(&stored.access_token),
            client_id: stored.client_id.clone(),
            scope: stored.scope.clone(),
            expires_at: expires_at.map(|date| date.to_rfc3339_opts(SecondsFormat::Secs, true)),
            renewable: stored.refresh_token.is_some(),
        }
    }

    fn text(&self) -> String {
        let Self { server, issuer, subject, client_id, scope, expires_at, renewable } = self;
        let subject = subject.as_deref().map_or_else(|| "(the token does not say)".to_owned(), visible_line);
        let (client_id, scope) = (visible_line(client_id), visible_line(scope));
        let end = expires_at.as_deref().unwrap_or("(the issuer does not say)");
        let after = if *renewable { "renewed without a login" } else { "needs another login" };
        format!(
            "server:  {server}\nsubject: {subject}\nissuer:  {issuer}\nclient:  {client_id}\nscopes:  {scope}\n\
             ends:    {end}, then {after}"
        )
    }
}

/// Returns the `sub` of a token that is a JWT. Its signature is not verified: this is for showing alone.
fn subject(token: &Secret) -> Option<String> {
    login::unverified_claims(token)?.get("sub").and_then(Value::as_str).map(str::to_owned)
}

/// Asks whether the issuer that a server names is the right one. `page` is where its pages are, if they are not its own.
fn confirm(origin: &str, issuer: &str, page: Option<&str>) -> Result<(), Failure> {
    let page = page.map(|page| format!(", on a page of {page}")).unwrap_or_default();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "`{origin}` names the issuer `{issuer}`{page}; if that is where you log in, say so with `--issuer {issuer}`"
        )));
    }
    tell(&format!("{origin} sends you to {issuer} to log in{page}. Is that right? [y/N]"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::failed("you are not logged in"))
}

/// Tells the person something that is no result.
fn tell(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stderr(), "{}", visible(text))?)
}

fn no_server() -> Failure {
    Failure::usage("name the server with `--server` or `RAGWARD_SERVER`")
}

/// Returns the store of the logins; `None` if the environment names no home.
fn store() -> Option<LoginStore> {
    state_directory().map(|directory| LoginStore::new(directory.join(LOGINS)))
}

/// Returns the seconds since 1970. The end of a token is a date.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn the_subject_of_a_token_is_shown_if_it_can_be_read() {
        let jwt = |claims: &str| format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims));
        let rows = [
            ("a JWT", jwt(r#"{"sub": "anne", "aud": ["a"]}"#), Some("anne")),
            ("no subject", jwt("{}"), None),
            ("a number", jwt(r#"{"sub": 7}"#), None),
            ("two subjects", jwt(r#"{"sub": "anne", "sub": "bob"}"#), None),
            ("no object", jwt("[]"), None),
            ("no base64", "a.*.b".to_owned(), None),
            ("an opaque token", "opaque".to_owned(), None),
        ];
        for (row, token, expected) in rows {
            assert_eq!(subject(&Secret::new(token)).as_deref(), expected, "{row}");
        }
    }
}
