//! What a page in a visitor's browser can send to a server that believes its callers: every route, by another name, from
//! another origin, or as a form. All of it is refused, and nothing is changed.

use std::path::Path;

use openfga_client::client::FILE_DESCRIPTOR_SET as OPENFGA;
use openfga_client::prost_types::FileDescriptorSet;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value as Field};
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::DESCRIPTORS;
use ragward::proto::ingest::GetIngestStatusRequest;
use serde_json::{Value, json};

use crate::doors::world::{COLLECTION, MODEL, World};
use crate::support::documents::document;
use crate::support::http::Call;
use crate::support::running::{Running, config};

/// A route of the port.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) verb: String,
    /// The path, with fields in braces.
    template: String,
}

/// The routes of `OpenFGA`'s HTTP API, one for each of its RPCs.
const OPENFGA_ROUTES: [(&str, &str); 19] = [
    ("GET", "/stores"),
    ("POST", "/stores"),
    ("GET", "/stores/{store_id}"),
    ("PATCH", "/stores/{store_id}"),
    ("DELETE", "/stores/{store_id}"),
    ("GET", "/stores/{store_id}/authorization-models"),
    ("POST", "/stores/{store_id}/authorization-models"),
    ("GET", "/stores/{store_id}/authorization-models/{id}"),
    ("POST", "/stores/{store_id}/read"),
    ("POST", "/stores/{store_id}/write"),
    ("GET", "/stores/{store_id}/changes"),
    ("POST", "/stores/{store_id}/check"),
    ("POST", "/stores/{store_id}/batch-check"),
    ("POST", "/stores/{store_id}/expand"),
    ("POST", "/stores/{store_id}/list-objects"),
    ("POST", "/stores/{store_id}/streamed-list-objects"),
    ("POST", "/stores/{store_id}/list-users"),
    ("GET", "/stores/{store_id}/assertions/{authorization_model_id}"),
    ("PUT", "/stores/{store_id}/assertions/{authorization_model_id}"),
];

fn route(verb: &str, template: impl Into<String>) -> Route {
    Route { verb: verb.to_owned(), template: template.into() }
}

/// Returns every route: the paths of all RPCs, those of `google.api.http`, and those of `OpenFGA`.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![route("GET", "/healthz")];
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let http = pool.get_extension_by_name("google.api.http").expect("the annotations");
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        routes.push(route("POST", format!("/{}/{}", method.parent_service().full_name(), method.name())));
        let options = method.options();
        let Field::Message(rule) = options.get_extension(&http).into_owned() else { panic!("a rule") };
        let of_annotation = rules(rule);
        assert!(!of_annotation.is_empty(), "{} has a route", method.name());
        routes.extend(of_annotation);
    }
    let mut rpcs = 0;
    for file in FileDescriptorSet::decode(OPENFGA).unwrap().file {
        for service in &file.service {
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            routes.extend(service.method.iter().map(|method| route("POST", path(method.name()))));
            rpcs += service.method.len();
        }
    }
    assert_eq!(rpcs, OPENFGA_ROUTES.len(), "every RPC of OpenFGA has its route above");
    routes.extend(OPENFGA_ROUTES.map(|(verb, template)| route(verb, template)));
    routes
}

fn rules(rule: DynamicMessage) -> Vec<Route> {
    let further = rule.get_field_by_name("additional_bindings").map(std::borrow::Cow::into_owned);
    let further = further.as_ref().and_then(Field::as_list).unwrap_or_default();
    let further: Vec<DynamicMessage> = further.iter().filter_map(|rule| rule.as_message().cloned()).collect();
    let all = std::iter::once(rule).chain(further);
    let routes = all.flat_map(|rule| {
        ["get", "put", "post", "delete", "patch"].into_iter().filter_map(move |verb| {
            let template = rule.get_field_by_name(verb)?.as_str()?.to_owned();
            (!template.is_empty()).then(|| Route { verb: verb.to_uppercase(), template })
        })
    });
    routes.collect()
}

impl Route {
    /// Returns the path with values for its fields, so that a request that got through would find what it names.
    pub(super) fn path(&self, store: &str, model: &str) -> String {
        let segments = self.template.split('/').map(|segment| match segment {
            "{store_id}" => store,
            "{id}" | "{authorization_model_id}" => model,
            "{collection}" | "{chunk.collection}" => COLLECTION,
            _ if segment.starts_with('{') => "welcome",
            _ => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }
}

/// Returns a body that would change something if a route took it.
pub(super) fn body() -> Value {
    let tuple = json!({ "user": "user:mallory", "relation": "reader", "object": "document:welcome" });
    json!({
        "collection": COLLECTION,
        "name": "attacker",
        "documentIds": ["document:welcome"],
        "writes": { "tuple_keys": [tuple] },
        "schema_version": "1.1",
        "type_definitions": [{ "type": "user" }],
    })
}

/// Everything that a request could change.
pub(super) async fn state(running: &Running, store: &str) -> String {
    let address = running.address.to_string();
    let mut state = String::new();
    for path in ["stores".to_owned(), format!("stores/{store}/changes"), format!("stores/{store}/authorization-models")]
    {
        let reply = Call::new("GET", &format!("/{path}")).send(&address).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let mut listed = reply.json();
        listed["continuation_token"].take();
        state += &listed.to_string();
    }
    let request = GetIngestStatusRequest { collection: COLLECTION.to_owned(), ..GetIngestStatusRequest::default() };
    let status = running.client.ingest().get_ingest_status(request).await.unwrap().into_inner();
    format!("{state}{:?}", status.encode_to_vec())
}

/// A server with a model, a tuple and a document.
pub(super) struct Filled {
    pub(super) running: Running,
    pub(super) address: String,
    pub(super) store: String,
    pub(super) model: String,
    /// The state that no page may change.
    pub(super) before: String,
}

pub(super) async fn filled(data: &Path) -> Filled {
    let running = Running::start(&config(data)).await;
    let tuple = RelationshipTuple::parse("user:anne", "reader", "document:welcome").unwrap();
    running.load(dsl::load(MODEL).unwrap(), vec![tuple]);
    running.upsert(COLLECTION, vec![document("document:welcome", &["about leave"])]).await.unwrap();
    let address = running.address.to_string();
    let stores = Call::new("GET", "/stores").send(&address).await.json();
    let store = stores["stores"][0]["id"].as_str().unwrap().to_owned();
    let models = Call::new("GET", &format!("/stores/{store}/authorization-models")).send(&address).await.json();
    let model = models["authorization_models"][0]["id"].as_str().unwrap().to_owned();
    let before = state(&running, &store).await;
    Filled { running, address, store, model, before }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_reaches_a_service() {
    let data = tempfile::tempdir().unwrap();
    let Filled { running, address, store, model, before } = filled(data.path()).await;

    let routes = routes();
    assert!(routes.len() > 45, "{routes:?}");
    let from = |origin: &str| [("origin", origin.to_owned())];
    let by = |host: &str| [("host", host.to_owned())];
    let of = |site: &str| [("sec-fetch-site", site.to_owned())];
    let port = running.address.port();
    let foreign = [
        ("another origin", from("https://attacker.example")),
        ("an opaque origin", from("null")),
        ("the server's own name on another port", from("http://127.0.0.1:1")),
        ("the server's own address as a beginning", from(&format!("http://{address}.attacker.example"))),
        ("the server's own address as an ending", from(&format!("http://attacker-{address}"))),
        ("a rebinding name", by("attacker.example")),
        ("a rebinding name with the port", by(&format!("attacker.example:{port}"))),
        ("a name that resolves to loopback", by(&format!("localhost.attacker.example:{port}"))),
        ("another address", by(&format!("10.0.0.7:{port}"))),
        ("an address of all interfaces", by(&format!("0.0.0.0:{port}"))),
        ("an empty name", by("")),
        ("a page of another site, without an origin", of("cross-site")),
        ("a page on another port, without an origin", of("same-site")),
    ];
    for route in &routes {
        let path = route.path(&store, &model);
        let json = Call::json(&path, &body()).verb(&route.verb);
        for (row, headers) in &foreign {
            let call = headers.iter().fold(json.clone(), |call, (name, value)| call.with(name, value.clone()));
            let reply = call.send(&address).await;
            let what = format!("{} {path}, {row}: {reply:?}", route.verb);
            assert_eq!(reply.status, 403, "{what}");
            assert!(["permission_denied", "forbidden"].map(Value::from).contains(&reply.json()["code"]), "{what}");
            assert_eq!(reply.header("access-control-allow-origin"), None, "{what}");
            let preflight = call.verb("OPTIONS").with("access-control-request-method", route.verb.as_str());
            let reply = preflight.send(&address).await;
            assert_eq!(reply.status, 403, "preflight of {what}");
            assert_eq!(reply.header("access-control-allow-origin"), None, "preflight of {what}");
        }
        // A form needs no preflight, and some browsers send it without an origin.
        if !["POST", "PUT", "PATCH"].contains(&route.verb.as_str()) {
            continue;
        }
        let types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"];
        for form in types.into_iter().map(Some).chain([None]) {
            let call = json.clone().without("content-type");
            let call = form.into_iter().fold(call, |call, form| call.with("content-type", form));
            let reply = call.send(&address).await;
            assert_eq!(reply.status, 415, "{} {path} as {form:?}: {reply:?}", route.verb);
        }
    }
    assert_eq!(state(&running, &store).await, before, "nothing was changed");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_listed_page_may_call() {
    const LISTED: &str = "https://app.example";
    let world = World::start_with(|settings| settings.server.cors_origins = vec![LISTED.to_owned()]).await;
    let path = format!("/v1/collections/{COLLECTION}/retrieve");
    let plain = Call::json(&path, &json!({ "text": "leave", "topK": 3 }));
    let good = plain.clone().bearer(&world.token("anne", "ragward:retrieve"));
    let preflight = Call::new("OPTIONS", &path).with("access-control-request-method", "POST");

    let rows = [
        ("a preflight", preflight.clone(), 204),
        ("an answer", good.clone(), 200),
        ("a refusal", plain.clone(), 401),
        ("a fault of the form", good.clone().without("content-type"), 415),
        ("an answer, as browsers ask for it", good.clone().with("sec-fetch-site", "cross-site"), 200),
    ];
    for (row, call, status) in rows {
        let reply = call.with("origin", LISTED).send(&world.address).await;
        assert_eq!(reply.status, status, "{row}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(LISTED), "{row}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-credentials"), None, "{row}: {reply:?}");
        assert_eq!(reply.header("vary"), Some("origin"), "{row}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-methods"), (status == 204).then_some("POST"), "{row}: {reply:?}");
    }
    let strangers = [
        "https://app.example.attacker.example",
        "https://attacker-app.example",
        "https://sub.app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://APP.example",
        "https://app.example/",
        "null",
        "*",
        "",
    ];
    for origin in strangers {
        for call in [&preflight, &good] {
            let reply = call.clone().with("origin", origin).send(&world.address).await;
            assert_eq!(reply.status, 403, "`{origin}`: {reply:?}");
            assert_eq!(reply.header("access-control-allow-origin"), None, "`{origin}`: {reply:?}");
        }
    }
    for (site, status) in [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)] {
        let reply = Call::new("GET", "/livez").with("sec-fetch-site", site).send(&world.address).await;
        assert_eq!(reply.status, status, "a page that is {site}: {reply:?}");
    }
    let twice = good.with("origin", LISTED).with("origin", LISTED).send(&world.address).await;
    assert_eq!(twice.status, 403, "two origins: {twice:?}");
}
