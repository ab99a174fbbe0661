//! Asks sources over HTTPS, or over HTTP on this machine.
//!
//! INVARIANT (nothing leaks): of what a source or an authorization server answers, only the status is logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::address::{AddressRules, VettedNames};
use super::config::{SourceConfig, SourceMethod, SourceTextFrom};
use super::decisions::RememberedDecisions;
use super::exchange::{ExchangedToken, TokenExchange};
use super::setup::SourceSetupError;
use super::template::UrlTemplate;
use super::{
    SourceDocument, SourceError, SourceFault, SourceQuestion, SourceReply, SourceRule, SourceSystems, SourceText,
};
use crate::backend::Reach;
use crate::chunk::Metadata;
use crate::client_tls::{BodyError, TrustedAuthorities, bounded_body};
use crate::language::Object;
use crate::strict_json;
use crate::telemetry;

/// The largest text of a document in bytes, as for a chunk of a vector store.
const TEXT_BYTES_MAX: usize = 65_536;
/// The longest title of a document in bytes, as for a chunk of a vector store.
const TITLE_BYTES_MAX: usize = 1_024;
/// The largest answer in bytes. In JSON, a character of the text may take six bytes, and other members stand beside it.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;
/// The deepest nesting of an answer.
const DEPTH_MAX: usize = 32;

/// The sources of a configuration.
pub struct HttpSources {
    sources: Vec<Source>,
    /// The number of the source of each guard type.
    by_type: HashMap<String, usize>,
    classification_key: Option<String>,
    decisions: RememberedDecisions,
}

/// One source.
struct Source {
    name: String,
    template: UrlTemplate,
    method: SourceMethod,
    expect: Option<String>,
    text: SourceTextFrom,
    text_at: Option<String>,
    title_at: Option<String>,
    remember: Duration,
    http: Client,
    /// The documents that may be asked about at a time.
    slots: Semaphore,
    exchange: TokenExchange,
    reach: Reach,
}

/// The meaning of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Released,
    Withheld,
    /// The source does not take the token.
    Unauthorized,
    /// The status says neither yes nor no.
    Unclear(u16),
}

impl HttpSources {
    /// Prepares the sources. None is called yet. `classification_key` is the metadata key that holds a chunk's classification.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(configured: &[SourceConfig], classification_key: Option<&str>) -> Result<Self, SourceSetupError> {
        let (mut sources, mut by_type) = (Vec::new(), HashMap::new());
        for (number, settings) in configured.iter().enumerate() {
            let source = Source::new(settings);
            let named = |error| SourceSetupError::Source { name: settings.name.clone(), error: Box::new(error) };
            sources.push(source.map_err(named)?);
            by_type.insert(settings.guard_type.as_str().to_owned(), number);
        }
        let classification_key = classification_key.map(str::to_owned);
        Ok(Self { sources, by_type, classification_key, decisions: RememberedDecisions::default() })
    }

    /// Takes no exchanged token that names one of these audiences, too: those of this server.
    #[must_use]
    pub fn barring(self, audiences: &[String]) -> Self {
        let barring = |source: Source| Source { exchange: source.exchange.barring(audiences), ..source };
        Self { sources: self.sources.into_iter().map(barring).collect(), ..self }
    }

    fn of(&self, guard: &Object) -> Option<(usize, &Source)> {
        let number = *self.by_type.get(guard.type_name())?;
        Some((number, self.sources.get(number)?))
    }
}

#[async_trait]
impl SourceSystems for HttpSources {
    fn rule(&self, guard: &Object) -> Option<SourceRule> {
        let (number, source) = self.of(guard)?;
        Some(SourceRule { source: number, needs_metadata: source.template.needs_metadata(), text: source.text })
    }

    fn locate(&self, guard: &Object, metadata: Option<&Metadata>) -> Option<SourceDocument> {
        let (number, source) = self.of(guard)?;
        let value = source.template.value(guard, metadata)?;
        let url = source.template.url(&value)?;
        Some(SourceDocument { source: number, guard: guard.clone(), value, url: url.as_str().into() })
    }

    fn classification_key(&self) -> Option<&str> {
        self.classification_key.as_deref()
    }

    fn name(&self, source: usize) -> &str {
        self.sources.get(source).map(|source| source.name.as_str()).unwrap_or_default()
    }

    async fn ask(&self, question: &SourceQuestion<'_>) -> Result<SourceReply, SourceError> {
        let unavailable = |source_name: &str, fault| {
            let source_name = source_name.to_owned();
            SourceError::Unavailable { source_name, fault }
        };
        let Some(source) = self.sources.get(question.document.source) else {
            return Err(unavailable("", SourceFault::Unreachable));
        };
        if !source.exchange.takes(question.bearer) {
            return Err(SourceError::NoToken);
        }
        let is_remembered = source.text == SourceTextFrom::Store;
        if is_remembered && let Some(released) = self.decisions.get(question) {
            return Ok(if released { SourceReply::Released(None) } else { SourceReply::Withheld });
        }
        // The answer may be a little younger than this, which only makes it count for less time.
        let asked_at = Instant::now();
        let answered = source.ask(question).await;
        telemetry::source_asked(&source.name, outcome(&answered), asked_at.elapsed());
        match answered {
            Ok(reply) => {
                source.reach.answered();
                if is_remembered {
                    let released = matches!(reply, SourceReply::Released(_));
                    self.decisions.insert(question, released, asked_at, source.remember);
                }
                Ok(reply)
            }
            Err(fault) => {
                let error = unavailable(&source.name, fault);
                source.reach.failed(&error);
                Err(error)
            }
        }
    }
}

impl Source {
    fn new(settings: &SourceConfig) -> Result<Self, SourceSetupError> {
        let wrong = |key: &str, rule: &dyn std::fmt::Display| SourceSetupError::Setting(format!("`{key}`: {rule}"));
        let template = UrlTemplate::parse(&settings.url).map_err(|rule| wrong("url", &rule))?;
        let rules = AddressRules::new(template.sample(), &settings.private_addresses)
            .map_err(|text| wrong("private_addresses", &format!("`{text}` is no address and no network")))?;
        if !rules.admits_host(template.sample()) {
            return Err(wrong(
                "url",
                &"it names a private or link-local address that `private_addresses` does not list",
            ));
        }
        let authorities = TrustedAuthorities::read(settings.ca_file.as_deref())?;
        let http = authorities.http_client_by(settings.timeout, Arc::new(VettedNames::of_system(rules)));
        Ok(Self {
            name: settings.name.clone(),
            template,
            method: settings.method,
            expect: settings.expect.clone(),
            text: settings.text,
            text_at: settings.text_at.clone(),
            title_at: settings.title_at.clone(),
            remember: settings.remember,
            http: http.map_err(|e| wrong("url", &e))?,
            slots: Semaphore::new(usize::try_from(settings.concurrency).unwrap_or(Semaphore::MAX_PERMITS)),
            exchange: TokenExchange::new(&settings.name, &settings.exchange)?,
            reach: Reach::new("source"),
        })
    }

    async fn ask(&self, question: &SourceQuestion<'_>) -> Result<SourceReply, SourceFault> {
        let SourceQuestion { document, bearer, since_1970, .. } = *question;
        let token = self.exchange.token(bearer, since_1970).await?;
        if let Some(reply) = self.ask_with(document, &token).await? {
            return Ok(reply);
        }
        // The source may have withdrawn the token. One new exchange shows whether it takes any.
        let token = self.exchange.token_after(&token, bearer, since_1970).await?;
        let reply = self.ask_with(document, &token).await?;
        reply.ok_or(SourceFault::Status(StatusCode::UNAUTHORIZED.as_u16()))
    }

    /// Asks with this token; `None` if the source does not take it. A slot is held only while the source is asked: whoever waits
    /// for a token must not keep the source from those who have one.
    async fn ask_with(
        &self,
        document: &SourceDocument,
        token: &ExchangedToken,
    ) -> Result<Option<SourceReply>, SourceFault> {
        // Nobody closes the semaphore.
        let _slot = self.slots.acquire().await.map_err(|_closed| SourceFault::Unreachable)?;
        let answered = self.send(document, token).await?;
        match verdict(answered.status()) {
            Verdict::Released => self.read(document, answered).await.map(Some),
            Verdict::Withheld => Ok(Some(SourceReply::Withheld)),
            Verdict::Unauthorized => Ok(None),
            Verdict::Unclear(status) => Err(SourceFault::Status(status)),
        }
    }

    async fn send(&self, document: &SourceDocument, token: &ExchangedToken) -> Result<Response, SourceFault> {
        let method = match self.method {
            SourceMethod::Head => Method::HEAD,
            SourceMethod::Get => Method::GET,
        };
        let request = self.http.request(method, &*document.url).header("authorization", token.authorization());
        let request = if self.expect.is_some() { request.header("accept", "application/json") } else { request };
        request.send().await.map_err(|_lost| SourceFault::Unreachable)
    }

    /// Reads an answer whose status releases the document, as far as the settings look at it.
    async fn read(&self, document: &SourceDocument, answered: Response) -> Result<SourceReply, SourceFault> {
        let Some(expect) = &self.expect else { return Ok(SourceReply::Released(None)) };
        let answer = Value::Object(members(answered).await?);
        let is_about = match answer.pointer(expect) {
            Some(Value::String(text)) => *text == document.value,
            Some(Value::Number(number)) => number.to_string() == document.value,
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => false,
        };
        if !is_about {
            return Err(SourceFault::OtherDocument);
        }
        match self.text {
            SourceTextFrom::Store => Ok(SourceReply::Released(None)),
            SourceTextFrom::Source => {
                let at = |place: &Option<String>| answer.pointer(place.as_deref()?).and_then(Value::as_str);
                let text = at(&self.text_at).ok_or(SourceFault::NoText)?;
                if text.len() > TEXT_BYTES_MAX {
                    return Err(SourceFault::TooLarge);
                }
                let title = at(&self.title_at).filter(|title| title.len() <= TITLE_BYTES_MAX).unwrap_or_default();
                Ok(SourceReply::Released(Some(SourceText { text: text.to_owned(), title: title.to_owned() })))
            }
        }
    }
}

/// Names how a question ended, for the metrics.
fn outcome(answered: &Result<SourceReply, SourceFault>) -> &'static str {
    match answered {
        Ok(SourceReply::Released(_)) => "released",
        Ok(SourceReply::Withheld) => "withheld",
        Err(_) => "failed",
    }
}

/// Says what a status means.
fn verdict(status: StatusCode) -> Verdict {
    match status {
        StatusCode::OK | StatusCode::NO_CONTENT => Verdict::Released,
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => Verdict::Withheld,
        StatusCode::UNAUTHORIZED => Verdict::Unauthorized,
        other => Verdict::Unclear(other.as_u16()),
    }
}

/// Reads an answer that is a JSON object.
async fn members(answered: Response) -> Result<Map<String, Value>, SourceFault> {
    let bytes = bounded_body(answered, ANSWER_BYTES_MAX).await.map_err(|error| match error {
        BodyError::Lost(_) => SourceFault::Unreachable,
        BodyError::TooLarge => SourceFault::TooLarge,
    })?;
    strict_json::object(&bytes, DEPTH_MAX).map_err(|_malformed| SourceFault::OtherDocument)
}

#[cfg(test)]
mod tests;
