//! The HTTP routes of the services: which method and path call which RPC.
//!
//! The routes stand in the descriptors, as `google.api.http` annotations. `prost-types` drops the options that it does not
//! know, so they are read here with messages that hold nothing else.

use percent_encoding::percent_decode_str;
use prost::{DecodeError, Message};
use tonic::codegen::http::Method;

#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Rpc>,
}

#[derive(Clone, PartialEq, Message)]
struct Rpc {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    /// The extension `google.api.http`.
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
}

/// The message `google.api.HttpRule`, without what no service here uses.
#[derive(Clone, PartialEq, Message)]
struct HttpRule {
    #[prost(string, optional, tag = "2")]
    get: Option<String>,
    #[prost(string, optional, tag = "3")]
    put: Option<String>,
    #[prost(string, optional, tag = "4")]
    post: Option<String>,
    #[prost(string, optional, tag = "5")]
    delete: Option<String>,
    #[prost(string, optional, tag = "6")]
    patch: Option<String>,
    #[prost(string, tag = "7")]
    body: String,
    #[prost(message, repeated, tag = "11")]
    additional_bindings: Vec<HttpRule>,
}

/// The path at which `OpenFGA`'s gateway tells its health.
pub(super) const HEALTH: &str = "/healthz";

/// The part of a request's message that its body holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyPart {
    /// None: path and query hold all fields.
    Nothing,
    /// The whole message.
    Whole,
    /// One field of the message.
    Field(String),
}

/// One route: a method and a path with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpRoute {
    pub(super) verb: Method,
    /// The path with its fields, as the annotation has it: `/v1/collections/{collection}/retrieve`.
    pub(super) template: String,
    /// The RPC that it calls: `/package.Service/Method`.
    pub(super) rpc: String,
    pub(super) body: BodyPart,
}

/// A field of the message with its value, from the path or the query of a request.
pub(super) type Fields = Vec<(String, String)>;

/// The result of a search for the route of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<'r> {
    /// The route, and the fields in the path.
    Route(&'r HttpRoute, Fields),
    /// The path has routes, for other methods only.
    OtherVerbs(Vec<&'r Method>),
    Nothing,
}

/// Reads the routes of the services in encoded descriptors, in their order.
///
/// # Errors
/// When the descriptors cannot be read.
pub(super) fn read(descriptors: &[u8]) -> Result<Vec<HttpRoute>, DecodeError> {
    let mut routes = Vec::new();
    for file in FileSet::decode(descriptors)?.files {
        for service in file.services {
            for rpc in service.methods {
                let path = format!("/{}.{}/{}", file.package, service.name, rpc.name);
                let Some(mut rule) = rpc.options.and_then(|options| options.http) else { continue };
                let further = std::mem::take(&mut rule.additional_bindings);
                let rules = std::iter::once(rule).chain(further);
                routes.extend(rules.filter_map(|rule| rule.route(path.clone())));
            }
        }
    }
    Ok(routes)
}

/// Returns the route of the health check, which no annotation has.
pub(super) fn health() -> HttpRoute {
    let rpc = "/grpc.health.v1.Health/Check".to_owned();
    HttpRoute { verb: Method::GET, template: HEALTH.to_owned(), rpc, body: BodyPart::Nothing }
}

/// Writes methods as the value of the header `allow`.
pub(super) fn listed(verbs: &[&Method]) -> String {
    verbs.iter().map(|verb| verb.as_str()).collect::<Vec<&str>>().join(", ")
}

impl HttpRule {
    fn route(self, rpc: String) -> Option<HttpRoute> {
        let verbs = [
            (Method::GET, self.get),
            (Method::PUT, self.put),
            (Method::POST, self.post),
            (Method::DELETE, self.delete),
            (Method::PATCH, self.patch),
        ];
        let (verb, template) = verbs.into_iter().find_map(|(verb, template)| Some((verb, template?)))?;
        let body = match self.body.as_str() {
            "" => BodyPart::Nothing,
            "*" => BodyPart::Whole,
            field => BodyPart::Field(field.to_owned()),
        };
        Some(HttpRoute { verb, template, rpc, body })
    }
}

impl HttpRoute {
    /// Returns the names of the fields in its path.
    pub(super) fn path_fields(&self) -> impl Iterator<Item = &str> {
        self.template.split('/').filter_map(field_name)
    }

    /// Returns the fields in a path, or `None` if the path is not of this route.
    ///
    /// A field is one segment of the path. It is decoded after the path was cut into segments, so an encoded slash belongs to
    /// the field.
    fn fields(&self, path: &str) -> Option<Fields> {
        if !self.has_form_of(path) {
            return None;
        }
        let mut fields = Fields::new();
        for (wanted, given) in self.template.split('/').zip(path.split('/')) {
            if let Some(name) = field_name(wanted) {
                let value = percent_decode_str(given).decode_utf8().ok()?;
                fields.push((name.to_owned(), value.into_owned()));
            }
        }
        Some(fields)
    }

    /// Returns whether a path has the segments of this route, with anything in place of its fields. Nothing is decoded for the
    /// many routes that another path has.
    fn has_form_of(&self, path: &str) -> bool {
        let (wanted, given) = (self.template.split('/'), path.split('/'));
        wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| wanted == given || field_name(wanted).is_some())
    }
}

/// Returns the name of the field that a segment of a template stands for.
pub(super) fn field_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// Finds the route of a request.
pub(super) fn find<'r>(routes: impl Iterator<Item = &'r HttpRoute>, verb: &Method, path: &str) -> Lookup<'r> {
    let mut others = Vec::new();
    for route in routes {
        let Some(fields) = route.fields(path) else { continue };
        if route.verb == *verb {
            return Lookup::Route(route, fields);
        }
        others.push(&route.verb);
    }
    if others.is_empty() { Lookup::Nothing } else { Lookup::OtherVerbs(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(verb: Method, template: &str) -> HttpRoute {
        HttpRoute { verb, template: template.to_owned(), rpc: "/a.B/C".to_owned(), body: BodyPart::Whole }
    }

    #[test]
    fn a_path_is_matched_segment_by_segment() {
        let routes = [
            route(Method::POST, "/stores/{store_id}/check"),
            route(Method::GET, "/stores/{store_id}"),
            route(Method::DELETE, "/stores/{store_id}"),
            route(Method::PUT, "/stores/{store_id}/assertions/{model}"),
        ];
        let [check, get, _, assertions] = &routes;
        let found = |route, fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            Lookup::Route(route, fields)
        };
        let rows = [
            ("a field", Method::POST, "/stores/a/check", found(check, &[("store_id", "a")])),
            ("an encoded slash", Method::GET, "/stores/a%2Fb", found(get, &[("store_id", "a/b")])),
            ("an encoded percent sign", Method::GET, "/stores/a%252F", found(get, &[("store_id", "a%2F")])),
            (
                "two fields",
                Method::PUT,
                "/stores/a/assertions/b",
                found(assertions, &[("store_id", "a"), ("model", "b")]),
            ),
            ("an encoded literal", Method::POST, "/stores/a/chec%6B", Lookup::Nothing),
            ("bytes that are no text", Method::GET, "/stores/%FF", Lookup::Nothing),
            ("a trailing slash", Method::POST, "/stores/a/check/", Lookup::Nothing),
            ("a doubled slash", Method::POST, "/stores//a/check", Lookup::Nothing),
            ("another method", Method::PUT, "/stores/a", Lookup::OtherVerbs(vec![&Method::GET, &Method::DELETE])),
            ("another path", Method::GET, "/store/a", Lookup::Nothing),
        ];
        for (row, verb, path, expected) in rows {
            assert_eq!(find(routes.iter(), &verb, path), expected, "{row}");
        }
    }
}
