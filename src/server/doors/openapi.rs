//! The description of the server's own HTTP routes (`OpenAPI` 3.1), which everybody may read at `/openapi.json`.
//!
//! It is made from the routes and descriptors by which the doors translate, so it cannot tell of other fields than they take.
//! Its texts are the comments of the contracts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value as Json, json};
use tonic::Code;

use super::connect;
use super::routes::{BodyPart, HttpRoute, field_name};
use crate::server::operations::{Access, LIVEZ, Operation, READYZ};
use crate::server::refusal::{HttpFault, Refusal};

const JSON: &str = "application/json";
/// Lines of JSON.
const NDJSON: &str = "application/x-ndjson";
/// The package whose types have a JSON of their own.
const GOOGLE: &str = "google.protobuf";

const INTRODUCTION: &str = "Returns only what a user may see. Every route is an RPC of the gRPC API, whose contracts are in \
    `proto/`. JSON is that of protocol buffers: 64-bit integers are texts, enums are the names of their values, and a request \
    may spell a field as here or as in its contract. A field that is not listed is refused. The same services speak Connect \
    (`POST /package.Service/Method`). OpenFGA's HTTP API is not listed here: it is OpenFGA's own.";
const BEARER: &str = "An access token. Its scopes allow the call. A server that believes its callers asks for none.";

/// The side of a call on which a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// A field that the message lacks is refused.
    Request,
    /// A later version may add fields.
    Answer,
}

/// Describes routes of services in the pool.
pub(super) fn document(pool: &DescriptorPool, routes: &[HttpRoute]) -> Json {
    let mut schemas = Schemas { texts: Texts::of(pool), written: BTreeMap::new(), pending: Vec::new() };
    let mut called = Vec::new();
    for route in routes {
        if let Some(method) = method(pool, &route.rpc) {
            let path = described(routes, route);
            called.push(Called { route, path, input: method.input(), output: method.output(), method });
        }
    }
    // The messages of requests come first, because they are closed: a message of both sides is one of requests.
    let inputs: Vec<Inputs> = called.iter().map(|called| schemas.inputs(called)).collect();
    schemas.settle(Side::Request);
    let outputs: Vec<Json> = called.iter().map(|called| schemas.output(called)).collect();
    schemas.settle(Side::Answer);
    let mut paths: BTreeMap<String, Map<String, Json>> = probes();
    let mut bindings: BTreeMap<&str, usize> = BTreeMap::new();
    for ((called, inputs), output) in called.iter().zip(inputs).zip(outputs) {
        let binding = bindings.entry(&called.route.rpc).or_default();
        *binding += 1;
        let operation = operation(called, *binding, inputs, &output, &schemas.texts);
        let verb = called.route.verb.as_str().to_ascii_lowercase();
        paths.entry(called.path.clone()).or_default().insert(verb, operation);
    }
    let mut written = schemas.written;
    written.insert("Refusal".to_owned(), refusal_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ragward",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": written,
            "responses": refusals(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": BEARER },
            },
        },
    })
}

/// A route with the RPC that it calls.
struct Called<'a> {
    route: &'a HttpRoute,
    /// The path as it is described.
    path: String,
    method: MethodDescriptor,
    input: MessageDescriptor,
    output: MessageDescriptor,
}

/// The parts of a request.
struct Inputs {
    parameters: Vec<Json>,
    body: Option<Json>,
}

/// Returns the path of a route as it is described. Paths that differ only in the names of their fields are one path there, with
/// the names of the first of them. A field within a field has its own name alone.
fn described(routes: &[HttpRoute], route: &HttpRoute) -> String {
    let same = |other: &&HttpRoute| unnamed(&other.template).eq(unnamed(&route.template));
    let first = routes.iter().find(same).unwrap_or(route);
    let segments = first.template.split('/').map(|segment| match segment.rsplit_once('.') {
        Some((_, name)) if field_name(segment).is_some() => format!("{{{name}"),
        Some(_) | None => segment.to_owned(),
    });
    segments.collect::<Vec<String>>().join("/")
}

/// Returns the segments of a path, without the names of its fields.
fn unnamed(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').map(|segment| if field_name(segment).is_some() { "{}" } else { segment })
}

/// Finds the RPC of a path, `/package.Service/Method`.
fn method(pool: &DescriptorPool, rpc: &str) -> Option<MethodDescriptor> {
    let (service, name) = rpc.strip_prefix('/')?.split_once('/')?;
    pool.get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

fn operation(called: &Called<'_>, binding: usize, inputs: Inputs, output: &Json, texts: &Texts) -> Json {
    let Called { route, method, .. } = called;
    let service = method.parent_service().name().to_owned();
    let id = format!("{service}_{}", method.name());
    let id = if binding == 1 { id } else { format!("{id}_{binding}") };
    let text = texts.at(method.parent_file().name(), method.path()).unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let summary = first.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut responses = Map::new();
    responses
        .insert("200".to_owned(), json!({ "description": "The answer.", "content": { JSON: { "schema": output } } }));
    for status in statuses().into_keys() {
        responses
            .insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{}", response_name(status)) }));
    }
    let scopes: Vec<&str> = match Operation::at(&route.rpc).map(|operation| operation.access) {
        Some(Access::Needs(scope)) => vec![scope.as_str()],
        Some(Access::Open | Access::AnyToken | Access::AnyScope) | None => Vec::new(),
    };
    let mut operation = Map::new();
    operation.insert("operationId".to_owned(), id.into());
    operation.insert("tags".to_owned(), json!([service]));
    operation.insert("summary".to_owned(), summary.into());
    operation.insert("description".to_owned(), text.into());
    // A server that believes its callers asks for no token.
    operation.insert("security".to_owned(), json!([{ "bearer": scopes }, {}]));
    operation.insert("responses".to_owned(), responses.into());
    if !inputs.parameters.is_empty() {
        operation.insert("parameters".to_owned(), inputs.parameters.into());
    }
    if let Some(body) = inputs.body {
        operation.insert("requestBody".to_owned(), body);
    }
    operation.into()
}

/// Returns the paths of the probes, which no annotation has.
fn probes() -> BTreeMap<String, Map<String, Json>> {
    let probe = |id: &str, summary: &str, responses: Json| {
        let operation = json!({
            "operationId": id,
            "tags": ["Probes"],
            "summary": summary,
            "security": [],
            "responses": responses,
        });
        Map::from_iter([("get".to_owned(), operation)])
    };
    let told = |description: &str, words: &[&str]| {
        let schema = json!({
            "type": "object",
            "properties": {
                "status": { "type": "string", "enum": words },
                "reasons": {
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "The parts that keep a retrieval from being answered.",
                },
            },
            "required": ["status"],
        });
        json!({ "description": description, "content": { JSON: { "schema": schema } } })
    };
    let foreign = json!({ "$ref": format!("#/components/responses/{}", response_name(403)) });
    let live = json!({ "200": told("It runs.", &["live"]), "403": foreign });
    let ready =
        json!({ "200": told("It is ready.", &["ready"]), "403": foreign, "503": told("It is not.", &["not ready"]) });
    BTreeMap::from([
        (LIVEZ.to_owned(), probe("livez", "Tells whether the process runs", live)),
        (READYZ.to_owned(), probe("readyz", "Tells whether a retrieval would be answered", ready)),
    ])
}

/// Returns each status of a refusal, with the codes that it stands for.
fn statuses() -> BTreeMap<u16, BTreeSet<String>> {
    let of_code = (1..=16).map(|number| Refusal::new(Code::from_i32(number), ""));
    let of_http = [
        Refusal::new(Code::Unimplemented, "").with_http_fault(HttpFault::Method { allowed: Cow::Borrowed("") }),
        Refusal::new(Code::InvalidArgument, "").with_http_fault(HttpFault::MediaType),
        Refusal::new(Code::ResourceExhausted, "").with_http_fault(HttpFault::Size),
    ];
    let mut statuses: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for refusal in of_code.chain(of_http) {
        statuses.entry(refusal.http_status().as_u16()).or_default().insert(connect::name(refusal.code()));
    }
    statuses
}

fn response_name(status: u16) -> String {
    format!("Refused{status}")
}

/// Returns the answers of refused calls, by their names.
fn refusals() -> Map<String, Json> {
    let response = |(status, codes): (u16, BTreeSet<String>)| {
        let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
        let mut response = json!({
            "description": format!("The call is refused with the code {}.", codes.join(" or ")),
            "content": { JSON: { "schema": reference("Refusal") } },
        });
        let headers = match status {
            401 => json!({ "WWW-Authenticate": header("The token or login that is needed (RFC 6750, RFC 9470).") }),
            405 => json!({ "Allow": header("The methods of the path.") }),
            429 | 503 => json!({ "Retry-After": header("How many seconds to wait, where that is known.") }),
            _ => Json::Null,
        };
        if let (Json::Object(response), false) = (&mut response, headers.is_null()) {
            response.insert("headers".to_owned(), headers);
        }
        (response_name(status), response)
    };
    statuses().into_iter().map(response).collect()
}

fn header(description: &str) -> Json {
    json!({ "description": description, "schema": { "type": "string" } })
}

fn refusal_schema() -> Json {
    let codes: BTreeSet<String> = statuses().into_values().flatten().collect();
    json!({
        "type": "object",
        "description": "Says why a call was refused, as a Connect error.",
        "properties": {
            "code": { "type": "string", "enum": codes, "description": "The gRPC code, spelled as Connect does." },
            "message": { "type": "string", "description": "A text for people." },
            "details": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "type": { "type": "string", "description": "The message, such as `google.rpc.BadRequest`." },
                        "value": { "type": "string", "contentEncoding": "base64", "description": "The encoded message." },
                        "debug": { "description": "The message, for people." },
                    },
                    "required": ["type", "value"],
                },
            },
        },
        "required": ["code", "message"],
    })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The comments of the contracts, by file and by the path of what they are about.
struct Texts(HashMap<String, HashMap<Vec<i32>, String>>);

impl Texts {
    fn of(pool: &DescriptorPool) -> Self {
        let files = pool.file_descriptor_protos().map(|file| {
            let places = file.source_code_info.iter().flat_map(|info| &info.location);
            let texts =
                places.filter_map(|place| Some((place.path.clone(), unwrapped(place.leading_comments.as_ref()?))));
            (file.name().to_owned(), texts.collect())
        });
        Self(files.collect())
    }

    fn at(&self, file: &str, path: &[i32]) -> Option<&str> {
        self.0.get(file)?.get(path).map(String::as_str)
    }
}

/// Joins the lines of each paragraph of a comment.
fn unwrapped(comment: &str) -> String {
    let lines: Vec<&str> = comment.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()).map(|lines| lines.join(" "));
    paragraphs.collect::<Vec<String>>().join("\n\n")
}

/// The schemas of messages and enums.
struct Schemas {
    texts: Texts,
    written: BTreeMap<String, Json>,
    /// Messages that a schema refers to, and that may not be written yet.
    pending: Vec<MessageDescriptor>,
}

impl Schemas {
    fn inputs(&mut self, called: &Called<'_>) -> Inputs {
        let Called { route, path, input, method, .. } = called;
        let in_path: Vec<&str> = route.path_fields().collect();
        let mut parameters: Vec<Json> = Vec::new();
        for (name, shown) in in_path.iter().zip(path.split('/').filter_map(field_name)) {
            if let Some(field) = field_at(input, name) {
                // A segment of a path is one value, also of a list.
                let schema = self.value(&field.kind());
                parameters.push(self.parameter(shown, "path", &schema, &field));
            }
        }
        let body = match &route.body {
            BodyPart::Nothing => {
                // A message in the query would need a form of its own; no route has one.
                let in_query = |field: &FieldDescriptor| {
                    !in_path.contains(&field.name()) && !matches!(field.kind(), Kind::Message(_))
                };
                for field in input.fields().filter(in_query) {
                    let schema = self.field_value(&field);
                    parameters.push(self.parameter(field.json_name(), "query", &schema, &field));
                }
                None
            }
            BodyPart::Whole if in_path.is_empty() => Some(self.referred(input)),
            BodyPart::Whole => Some(self.message(input, Side::Request, &in_path)),
            BodyPart::Field(name) => input.get_field_by_name(name).map(|field| self.value(&field.kind())),
        };
        let body = body.map(|schema| {
            let content = if method.is_client_streaming() {
                json!({ NDJSON: { "schema": lines(&schema, NDJSON) } })
            } else {
                json!({ JSON: { "schema": schema } })
            };
            json!({ "required": true, "content": content })
        });
        Inputs { parameters, body }
    }

    fn output(&mut self, called: &Called<'_>) -> Json {
        let schema = self.referred(&called.output);
        if called.method.is_server_streaming() {
            lines(&json!({ "properties": { "result": schema } }), JSON)
        } else {
            schema
        }
    }

    fn parameter(&self, name: &str, place: &str, schema: &Json, field: &FieldDescriptor) -> Json {
        let mut parameter = json!({ "name": name, "in": place, "schema": schema });
        if let Json::Object(parameter) = &mut parameter {
            parameter.insert("required".to_owned(), (place == "path").into());
            self.describe(parameter, field);
        }
        parameter
    }

    /// Writes the messages that schemas refer to. Each is written once.
    fn settle(&mut self, side: Side) {
        while let Some(message) = self.pending.pop() {
            if !self.written.contains_key(message.full_name()) {
                let schema = self.message(&message, side, &[]);
                self.written.insert(message.full_name().to_owned(), schema);
            }
        }
    }

    fn message(&mut self, message: &MessageDescriptor, side: Side, left_out: &[&str]) -> Json {
        let mut properties = Map::new();
        for field in message.fields().filter(|field| !left_out.contains(&field.name())) {
            let mut schema = self.field_value(&field);
            if let Json::Object(schema) = &mut schema {
                self.describe(schema, &field);
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), properties.into());
        if let Some(text) = self.texts.at(message.parent_file().name(), message.path()) {
            schema.insert("description".to_owned(), text.into());
        }
        if side == Side::Request {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        schema.into()
    }

    /// Adds the comment of a field, and which others it excludes.
    fn describe(&self, schema: &mut Map<String, Json>, field: &FieldDescriptor) {
        let text = self.texts.at(field.parent_file().name(), field.path());
        let choice = field.containing_oneof().filter(|choice| !choice.is_synthetic()).map(|choice| {
            let names: Vec<String> = choice.fields().map(|field| format!("`{}`", field.json_name())).collect();
            format!("At most one of {} is set.", names.join(", "))
        });
        let parts: Vec<&str> = text.into_iter().chain(choice.as_deref()).collect();
        if !parts.is_empty() {
            schema.insert("description".to_owned(), parts.join("\n\n").into());
        }
    }

    fn field_value(&mut self, field: &FieldDescriptor) -> Json {
        let kind = field.kind();
        if field.is_list() {
            return json!({ "type": "array", "items": self.value(&kind) });
        }
        match kind.as_message() {
            Some(entry) if field.is_map() => {
                let values = self.value(&entry.map_entry_value_field().kind());
                json!({ "type": "object", "additionalProperties": values })
            }
            Some(_) | None => self.value(&kind),
        }
    }

    fn value(&mut self, kind: &Kind) -> Json {
        match kind {
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            // A number of JSON may lose digits.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "pattern": "^-?[0-9]+$" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "pattern": "^[0-9]+$" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Enum(of) => self.enumeration(of),
            Kind::Message(of) => of_google(of).unwrap_or_else(|| self.referred(of)),
        }
    }

    fn referred(&mut self, message: &MessageDescriptor) -> Json {
        self.pending.push(message.clone());
        reference(message.full_name())
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> Json {
        let values: Vec<String> = of.values().map(|value| value.name().to_owned()).collect();
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.texts.at(of.parent_file().name(), of.path()).map(str::to_owned));
        for value in of.values() {
            if let Some(text) = self.texts.at(value.parent_file().name(), value.path()) {
                parts.push(format!("`{}`: {text}", value.name()));
            }
        }
        let schema = json!({ "type": "string", "enum": values, "description": parts.join("\n\n") });
        self.written.insert(of.full_name().to_owned(), schema);
        reference(of.full_name())
    }
}

/// Returns the schema of a text with a JSON value in each line.
fn lines(line: &Json, media_type: &str) -> Json {
    let description = "One JSON value in each line.";
    json!({ "type": "string", "description": description, "contentMediaType": media_type, "contentSchema": line })
}

/// Finds a field of a message. A name with dots is that of a field within fields.
fn field_at(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let mut within = message.clone();
    let mut rest = name;
    while let Some((outer, inner)) = rest.split_once('.') {
        within = within.get_field_by_name(outer)?.kind().as_message()?.clone();
        rest = inner;
    }
    within.get_field_by_name(rest)
}

/// Returns the schema of a message of Google's that has a JSON of its own.
fn of_google(message: &MessageDescriptor) -> Option<Json> {
    if message.package_name() != GOOGLE {
        return None;
    }
    Some(match message.name() {
        "Struct" | "Any" | "Empty" => json!({ "type": "object" }),
        "ListValue" => json!({ "type": "array" }),
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$" }),
        "FieldMask" | "StringValue" | "BytesValue" => json!({ "type": "string" }),
        "BoolValue" => json!({ "type": "boolean" }),
        "DoubleValue" | "FloatValue" => json!({ "type": "number" }),
        "Int32Value" | "UInt32Value" => json!({ "type": "integer" }),
        "Int64Value" | "UInt64Value" => json!({ "type": "string", "pattern": "^-?[0-9]+$" }),
        // A value of any kind.
        _ => json!({}),
    })
}

#[cfg(test)]
mod tests;
