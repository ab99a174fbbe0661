//! Lets a client ask its person before a call goes on: the multi round-trip requests of revision 2026-07-28.
//!
//! The person approves at the issuer, on a device of their own. So the client shows the code and waits until its person goes on.
//! A yes to the client approves nothing: only the issuer's answer counts.
//!
//! INVARIANT (sealed state): the state that a client brings back is the sealed approval, which is bound to its caller, its request
//! and its end. It is judged like the argument `approval`, and the door keeps nothing between the two calls.

use serde_json::{Map, Value as Json, json};

use super::message::{CAPABILITIES_KEY, Fault, INVALID_PARAMS, Message, Revision};
use crate::retrieval::FieldViolation;
use crate::server::refusal::{APPROVAL_PENDING, APPROVAL_REQUIRED, Refusal};

/// The name of the question in an answer, under which the client brings back what its person said.
const QUESTION: &str = "approval";

/// The questions that a client can ask its person, and the state that it brings back from an earlier call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    forms: Forms,
    /// The state that an earlier answer gave; `None` at the first call.
    state: Option<String>,
    reply: Reply,
}

/// The forms of questions that a client can show its person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Forms {
    /// A text, and fields to fill in.
    form: bool,
    /// A text, and a page to open.
    url: bool,
}

/// The person's response to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reply {
    /// The call goes on. The issuer still has to say whether the person approved.
    #[default]
    GoOn,
    /// The call ends.
    Stop,
}

impl Input {
    /// Reads the questions and the state of a message. The older revision has none.
    ///
    /// # Errors
    /// When the state or the response of the client has another form.
    pub(super) fn of(message: &Message) -> Result<Self, Fault> {
        if message.revision == Revision::Handshake {
            return Ok(Self::default());
        }
        let wrong = |text: &'static str| Fault { id: message.id.clone(), ..Fault::new(INVALID_PARAMS, text) };
        let params = &message.params;
        let state = match params.get("requestState") {
            None => None,
            Some(Json::String(state)) => Some(state.clone()),
            Some(_) => return Err(wrong("`requestState` is not a text")),
        };
        let reply = match params.get("inputResponses") {
            None => Reply::GoOn,
            Some(Json::Object(responses)) => responses.get(QUESTION).map_or(Reply::GoOn, Reply::of),
            Some(_) => return Err(wrong("`inputResponses` is not an object")),
        };
        let capabilities = params.get("_meta").and_then(|meta| meta.get(CAPABILITIES_KEY));
        let elicitation =
            capabilities.and_then(|capabilities| capabilities.get("elicitation")).and_then(Json::as_object);
        Ok(Self { forms: elicitation.map(Forms::of).unwrap_or_default(), state, reply })
    }

    /// Puts the state that came back into the request of an RPC.
    ///
    /// # Errors
    /// When the person ended the call, or the arguments name an approval, too.
    pub(super) fn complete(&self, mut request: Json) -> Result<Json, Refusal> {
        let Some(state) = &self.state else { return Ok(request) };
        if self.reply == Reply::Stop {
            return Err(Refusal::denied("the person ended this call, so nothing was read for it"));
        }
        if let Some(fields) = request.as_object_mut()
            && fields.insert("approval".to_owned(), state.as_str().into()).is_some()
        {
            return Err(FieldViolation::new("approval", "must be left out beside `requestState`").into());
        }
        Ok(request)
    }

    /// Returns the result that makes the client ask its person; `None` if the call waits for nobody, or the client cannot ask.
    /// `page` is the page at which people answer, if there is one.
    pub(super) fn asked(&self, refusal: &Refusal, page: Option<&str>) -> Option<Json> {
        let (state, code) = match refusal.reason()? {
            APPROVAL_REQUIRED => (fact(refusal, "approval")?, Some(fact(refusal, "code")?)),
            APPROVAL_PENDING => (self.state.as_deref()?, None),
            _ => return None,
        };
        let question = self.question(code, page)?;
        Some(json!({
            "resultType": "input_required",
            "inputRequests": { QUESTION: { "method": "elicitation/create", "params": question } },
            "requestState": state,
        }))
    }

    /// Returns the question in a form that the client can show. `code` is `None` once the person was shown it.
    fn question(&self, code: Option<&str>, page: Option<&str>) -> Option<Json> {
        let Forms { form, url } = self.forms;
        // A page that is open already is opened again only where the client can show nothing else.
        let page = page.filter(|_| url && (code.is_some() || !form));
        let place = if page.is_some() { "on this page" } else { "on your device" };
        let message = match code {
            Some(code) => format!(
                "You are asked to approve this call {place}, with the code {code}. Say yes there only if the code is the same. Go on \
                 here once you have answered; what you say here approves nothing."
            ),
            None => format!(
                "You have not answered {place} yet. Go on here once you have; what you say here approves nothing."
            ),
        };
        match (page, form) {
            (Some(page), _) => Some(json!({ "mode": "url", "url": page, "message": message })),
            (None, true) => {
                let no_fields = json!({ "type": "object", "properties": {} });
                Some(json!({ "mode": "form", "message": message, "requestedSchema": no_fields }))
            }
            (None, false) => None,
        }
    }
}

impl Forms {
    /// Reads the capability of a client. An empty one stands for forms alone.
    fn of(elicitation: &Map<String, Json>) -> Self {
        let has = |name: &str| elicitation.get(name).is_some_and(Json::is_object);
        Self { form: has("form") || elicitation.is_empty(), url: has("url") }
    }
}

impl Reply {
    /// Reads the response to the question. Every response but an agreement ends the call.
    fn of(response: &Json) -> Self {
        match response.get("action").and_then(Json::as_str) {
            Some("accept") => Self::GoOn,
            Some(_) | None => Self::Stop,
        }
    }
}

/// Returns a fact that a refusal tells.
fn fact<'r>(refusal: &'r Refusal, name: &str) -> Option<&'r str> {
    refusal.facts().iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}
