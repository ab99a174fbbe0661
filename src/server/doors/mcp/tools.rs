//! The tools: how a call becomes the request of an RPC.
//!
//! No argument names a person. The caller's token alone says for whom a tool is called.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use tonic::Code;

use super::place::{Place, SCHEME};
use crate::retrieval::FieldViolation;
use crate::server::refusal::Refusal;
use crate::server_config::McpSearchBy;

/// The most chunks that a search returns unless its caller names a number.
const TOP_K: u32 = 10;
/// The answer about every chunk that is not shown, whether it is hidden, gone, or named by no id at all.
pub(super) const NOTHING_THERE: &str = "nothing has this id, or you may not see it";
/// The refusal of a caller who may learn of hidden chunks, too.
pub(super) const NO_CHUNK: &str = "no chunk has this id";

/// The ways in which an agent gets chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Calls the tool `search`.
    Search,
    /// Calls the tool `fetch`.
    Fetch,
    /// Calls the tool `explain`.
    Explain,
    /// Reads a chunk as a resource.
    Read,
}

impl Action {
    /// Returns the action of a tool.
    pub(super) fn of_tool(name: &str) -> Option<Self> {
        match name {
            "search" => Some(Self::Search),
            "fetch" => Some(Self::Fetch),
            "explain" => Some(Self::Explain),
            _ => None,
        }
    }

    /// Returns the path of its RPC.
    pub(super) const fn rpc(self) -> &'static str {
        match self {
            Self::Search => "/ragward.retrieval.v1.RetrievalService/Retrieve",
            Self::Fetch | Self::Read => "/ragward.retrieval.v1.RetrievalService/Fetch",
            Self::Explain => "/ragward.retrieval.v1.RetrievalService/Explain",
        }
    }

    /// Returns the request of the RPC for a tool's arguments, as JSON. It has no field for a user: the stack takes the bearer of
    /// the token.
    ///
    /// # Errors
    /// When the arguments are no object, or one of them is missing, is none of the tool's, or has a value of another kind.
    pub(super) fn request(self, arguments: Json, collection: Option<&str>) -> Result<Json, Refusal> {
        let Json::Object(arguments) = arguments else { return Err(other_kind("arguments".to_owned())) };
        match self {
            Self::Search => search_request(arguments, collection),
            Self::Fetch | Self::Read => fetch_request(arguments),
            Self::Explain => explain_request(arguments),
        }
    }
}

/// Makes the request of a search compare by meaning, if that is wanted and its collection has a model.
pub(super) fn compared(mut request: Json, search_by: McpSearchBy, with_model: &BTreeSet<String>) -> Json {
    let field = match search_by {
        McpSearchBy::Words => return request,
        McpSearchBy::Meaning => "semantic",
        McpSearchBy::Both => "hybrid",
    };
    let has_model = request.get("collection").and_then(Json::as_str).is_some_and(|name| with_model.contains(name));
    if let (true, Some(fields)) = (has_model, request.as_object_mut())
        && let Some(text) = fields.remove("text")
    {
        fields.insert(field.to_owned(), json!({ "text": text }));
    }
    request
}

/// Returns the request for the chunk of a URI, as JSON.
///
/// # Errors
/// When the URI names no chunk.
pub(super) fn read_request(uri: &str) -> Result<Json, Refusal> {
    let place = uri.strip_prefix(SCHEME).and_then(Place::of_id).ok_or_else(nothing_there)?;
    Ok(json!({ "collection": place.collection, "chunkIds": [place.chunk] }))
}

fn search_request(arguments: Map<String, Json>, collection: Option<&str>) -> Result<Json, Refusal> {
    let mut request = Map::new();
    if let Some(collection) = collection {
        request.insert("collection".to_owned(), collection.into());
    }
    request.insert("topK".to_owned(), TOP_K.into());
    for (name, value) in arguments {
        let (field, fits) = match name.as_str() {
            "query" => ("text", value.is_string()),
            "collection" => ("collection", value.is_string()),
            "top_k" => ("topK", value.is_u64()),
            "filter" => ("filter", value.is_object()),
            "classification_max" => ("classificationMax", value.is_string()),
            "approval" => ("approval", value.is_string()),
            _ => return Err(no_argument(name)),
        };
        set(&mut request, field, name, value, fits)?;
    }
    if !request.contains_key("text") {
        return Err(FieldViolation::new("query", "is missing").into());
    }
    if !request.contains_key("collection") {
        let text = "is missing, and no default is set; a person sets one with `server.mcp.collection`, or with \
                    `--collection` of `ragward mcp`";
        return Err(FieldViolation::new("collection", text).into());
    }
    Ok(Json::Object(request))
}

fn fetch_request(arguments: Map<String, Json>) -> Result<Json, Refusal> {
    let mut request = Map::new();
    let mut id = None;
    for (name, value) in arguments {
        match name.as_str() {
            "id" => id = Some(value),
            "classification_max" => {
                let fits = value.is_string();
                set(&mut request, "classificationMax", name, value, fits)?;
            }
            "approval" => {
                let fits = value.is_string();
                set(&mut request, "approval", name, value, fits)?;
            }
            _ => return Err(no_argument(name)),
        }
    }
    let Place { collection, chunk } = place_of(id)?;
    request.insert("collection".to_owned(), collection.into());
    request.insert("chunkIds".to_owned(), json!([chunk]));
    Ok(Json::Object(request))
}

fn explain_request(arguments: Map<String, Json>) -> Result<Json, Refusal> {
    let mut request = Map::new();
    let mut id = None;
    for (name, value) in arguments {
        match name.as_str() {
            "id" => id = Some(value),
            "relation" => {
                let fits = value.is_string();
                set(&mut request, "relation", name, value, fits)?;
            }
            _ => return Err(no_argument(name)),
        }
    }
    let Place { collection, chunk } = place_of(id)?;
    request.insert("chunk".to_owned(), json!({ "collection": collection, "chunkId": chunk }));
    Ok(Json::Object(request))
}

/// Reads the argument that is the id of a result.
fn place_of(id: Option<Json>) -> Result<Place, Refusal> {
    match id {
        Some(Json::String(id)) => Place::of_id(&id).ok_or_else(nothing_there),
        Some(_) => Err(other_kind("id".to_owned())),
        None => Err(FieldViolation::new("id", "is missing").into()),
    }
}

/// Sets a field from an argument. Clients send `null` for an argument that they leave out.
fn set(request: &mut Map<String, Json>, field: &str, name: String, value: Json, fits: bool) -> Result<(), Refusal> {
    if value.is_null() {
        return Ok(());
    }
    if !fits {
        return Err(other_kind(name));
    }
    request.insert(field.to_owned(), value);
    Ok(())
}

fn nothing_there() -> Refusal {
    Refusal::new(Code::NotFound, NOTHING_THERE)
}

fn no_argument(name: String) -> Refusal {
    FieldViolation::new(name, "is not an argument of this tool").into()
}

fn other_kind(name: String) -> Refusal {
    FieldViolation::new(name, "has a value of another kind than the tool's schema says").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ID_BYTES_MAX;

    fn asked(tool: Action, arguments: Json, collection: Option<&str>) -> Result<Json, String> {
        tool.request(arguments, collection).map_err(|refusal| refusal.text().to_owned())
    }

    #[test]
    fn a_search_names_no_person() {
        let plain = json!({ "collection": "handbook", "text": "leave", "topK": 10 });
        let rows = [
            ("a query", json!({ "query": "leave" }), Some(plain.clone())),
            ("nothing in place of an argument", json!({ "query": "leave", "filter": null }), Some(plain)),
            (
                "all arguments",
                json!({
                    "query": "leave", "top_k": 3, "collection": "other", "filter": {}, "classification_max": "open", "approval": "a",
                }),
                Some(json!({
                    "collection": "other", "text": "leave", "topK": 3, "filter": {}, "classificationMax": "open",
                    "approval": "a",
                })),
            ),
            ("a user", json!({ "query": "leave", "user": "user:bob" }), None),
            ("a subject", json!({ "query": "leave", "subject": "bob" }), None),
            ("a token", json!({ "query": "leave", "token": "abc" }), None),
            ("a context", json!({ "query": "leave", "context": {} }), None),
            ("no query", json!({}), None),
            ("a query that is no text", json!({ "query": ["leave"] }), None),
            ("a filter that is none", json!({ "query": "leave", "filter": "area = people" }), None),
            ("a number of results below zero", json!({ "query": "leave", "top_k": -1 }), None),
            ("a number of results as text", json!({ "query": "leave", "top_k": "3" }), None),
            ("arguments in a list", json!(["leave"]), None),
        ];
        for (row, arguments, expected) in rows {
            let found = asked(Action::Search, arguments, Some("handbook"));
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{row}: {found:?}");
        }
        assert!(asked(Action::Search, json!({ "query": "leave" }), None).is_err(), "no collection is named anywhere");
    }

    #[test]
    fn searches_compare_by_meaning_where_there_is_a_model() {
        let with_model = BTreeSet::from(["handbook".to_owned()]);
        let of =
            |collection: &str, query: &str, text: Json| json!({ "collection": collection, "topK": 3, query: text });
        let leave = || json!({ "text": "leave" });
        let rows = [
            ("words", McpSearchBy::Words, "handbook", of("handbook", "text", "leave".into())),
            ("meaning", McpSearchBy::Meaning, "handbook", of("handbook", "semantic", leave())),
            ("both", McpSearchBy::Both, "handbook", of("handbook", "hybrid", leave())),
            ("meaning without a model", McpSearchBy::Meaning, "notes", of("notes", "text", "leave".into())),
            ("both without a model", McpSearchBy::Both, "notes", of("notes", "text", "leave".into())),
        ];
        for (row, search_by, collection, expected) in rows {
            let asked = json!({ "collection": collection, "query": "leave", "top_k": 3 });
            let request = asked_of_search(asked);
            assert_eq!(compared(request, search_by, &with_model), expected, "{row}");
        }
    }

    fn asked_of_search(arguments: Json) -> Json {
        Action::Search.request(arguments, None).unwrap()
    }

    #[test]
    fn ids_that_are_none_look_like_ids_of_nothing() {
        let longest = format!("a/{}", "c".repeat(ID_BYTES_MAX));
        let (longer, long_collection) = (format!("{longest}c"), format!("{}/c", "a".repeat(129)));
        let rows = [
            ("an id", "handbook/leave%231", Some(json!({ "collection": "handbook", "chunkIds": ["leave#1"] }))),
            ("an encoded slash", "a/b%2Fc", Some(json!({ "collection": "a", "chunkIds": ["b/c"] }))),
            ("the longest chunk", longest.as_str(), Some(json!({ "collection": "a", "chunkIds": ["c".repeat(512)] }))),
            ("a longer chunk", longer.as_str(), None),
            ("a collection with a slash", "a%2Fb/c", None),
            ("a collection with a space", "%20/c", None),
            ("a long collection", long_collection.as_str(), None),
            ("no slash", "handbook", None),
            ("two slashes", "a/b/c", None),
            ("no chunk", "a/", None),
            ("no collection", "/b", None),
            ("nothing", "", None),
            ("another spelling", "h%61ndbook/leave", None),
            ("small letters in an escape", "a/b%2fc", None),
            ("bytes that are no text", "a/%FF", None),
            ("a URI", "ragward://handbook/leave", None),
        ];
        for (row, id, expected) in rows {
            match (asked(Action::Fetch, json!({ "id": id }), None), expected) {
                (Ok(request), Some(expected)) => assert_eq!(request, expected, "{row}"),
                (Err(text), None) => assert_eq!(text, NOTHING_THERE, "{row}"),
                (found, expected) => panic!("{row}: {found:?}, not {expected:?}"),
            }
        }
        for (row, arguments) in [("no id", json!({})), ("a user", json!({ "id": "a/b", "user": "user:bob" }))] {
            assert_ne!(asked(Action::Fetch, arguments, None).unwrap_err(), NOTHING_THERE, "{row}");
        }
    }

    #[test]
    fn an_explanation_is_asked_for_by_id_alone() {
        let chunk = || json!({ "collection": "handbook", "chunkId": "leave#1" });
        let rows = [
            ("an id", json!({ "id": "handbook/leave%231" }), Ok(json!({ "chunk": chunk() }))),
            (
                "a relation",
                json!({ "id": "handbook/leave%231", "relation": "can_edit" }),
                Ok(json!({ "chunk": chunk(), "relation": "can_edit" })),
            ),
            ("no relation", json!({ "id": "handbook/leave%231", "relation": null }), Ok(json!({ "chunk": chunk() }))),
            ("no id of a chunk", json!({ "id": "leave" }), Err(Code::NotFound)),
            ("no id", json!({}), Err(Code::InvalidArgument)),
            ("a user", json!({ "id": "handbook/leave%231", "user": "user:bob" }), Err(Code::InvalidArgument)),
            ("a context", json!({ "id": "handbook/leave%231", "context": {} }), Err(Code::InvalidArgument)),
            ("an object", json!({ "object": "document:leave" }), Err(Code::InvalidArgument)),
        ];
        for (row, arguments, expected) in rows {
            let found = Action::Explain.request(arguments, None).map_err(|refusal| refusal.code());
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn uris_that_are_none_look_like_uris_of_nothing() {
        let of_chunk = json!({ "collection": "handbook", "chunkIds": ["leave#1"] });
        let rows = [
            ("a URI", "ragward://handbook/leave%231", Some(of_chunk)),
            ("an id", "handbook/leave%231", None),
            ("another scheme", "file://handbook/leave%231", None),
            ("a query", "ragward://handbook/leave?user=bob", None),
            ("a collection with a slash", "ragward://a%2Fb/c", None),
            ("nothing", "", None),
        ];
        for (row, uri, expected) in rows {
            let found = read_request(uri).map_err(|refusal| refusal.text().to_owned());
            assert_eq!(found, expected.ok_or_else(|| NOTHING_THERE.to_owned()), "{row}");
        }
    }
}
