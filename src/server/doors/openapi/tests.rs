//! The description has every route, and its schemas are those of the JSON that the doors read and write.

use super::*;
use crate::proto::DESCRIPTORS;
use crate::server::doors::routes;
use crate::server::reflection;

fn own() -> (Vec<HttpRoute>, Json) {
    let routes = routes::read(DESCRIPTORS).unwrap();
    let document = document(&reflection::pool().unwrap(), &routes);
    (routes, document)
}

/// Calls `look` with each object of a document.
fn walk(json: &Json, look: &mut impl FnMut(&Map<String, Json>)) {
    match json {
        Json::Object(object) => {
            look(object);
            object.values().for_each(|value| walk(value, look));
        }
        Json::Array(values) => values.iter().for_each(|value| walk(value, look)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[test]
fn every_route_is_described_with_its_parts() {
    let (routes, document) = own();
    let mut ids = BTreeSet::new();
    for route in &routes {
        let HttpRoute { verb, rpc, body, .. } = route;
        let template = &described(&routes, route);
        let operation = &document["paths"][template][verb.as_str().to_ascii_lowercase()];
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{rpc}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{rpc} has a comment");
        let in_path = |parameter: &&Json| parameter["in"] == "path" && parameter["required"] == true;
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> =
            parameters.iter().filter(in_path).map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names, template.split('/').filter_map(field_name).collect::<Vec<_>>(), "{template}");
        assert_eq!(operation["requestBody"].is_null(), *body == BodyPart::Nothing, "{template}");
        for status in ["200", "400", "401", "403", "404", "405", "409", "413", "415", "429", "500", "503", "504"] {
            assert!(operation["responses"][status].is_object(), "{template}: {status}");
        }
        let scopes = operation["security"][0]["bearer"].as_array().unwrap();
        assert_eq!(scopes.len(), 1, "{rpc} needs a scope");
    }
    let described: usize =
        document["paths"].as_object().unwrap().values().map(|of| of.as_object().unwrap().len()).sum();
    assert_eq!(described, routes.len() + 2, "the routes and the probes, and nothing of OpenFGA's API");
}

#[test]
fn paths_with_other_names_of_fields_are_one_path() {
    let (_, document) = own();
    let paths = document["paths"].as_object().unwrap();
    let told_apart: BTreeSet<Vec<&str>> = paths.keys().map(|template| unnamed(template).collect()).collect();
    assert_eq!(told_apart.len(), paths.len());
    let of_document = &paths["/v1/collections/{collection}/documents/{document_id}"];
    for verb in ["put", "delete"] {
        let parameter = &of_document[verb]["parameters"][1];
        assert_eq!((&parameter["name"], &parameter["in"]), (&json!("document_id"), &json!("path")), "{verb}");
        assert_eq!(parameter["schema"], json!({ "type": "string" }), "{verb}: a segment is one id");
    }
    let of_chunk = &paths["/v1/collections/{collection}/explain"]["post"]["parameters"];
    assert_eq!(of_chunk[0]["name"], "collection", "a field within a field");
}

#[test]
fn every_reference_leads_somewhere() {
    let (_, document) = own();
    let mut followed = 0;
    walk(&document, &mut |object| {
        if let Some(Json::String(reference)) = object.get("$ref") {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
            followed += 1;
        }
    });
    assert!(followed > 100, "{followed}");
}

#[test]
fn messages_are_described_as_their_json_is_written() {
    let (_, document) = own();
    let schemas = &document["components"]["schemas"];
    let of = |message: &str, field: &str| {
        let schema = &schemas[message]["properties"][field];
        assert!(schema.is_object(), "{message} has {field}");
        schema.clone()
    };
    let (chunk, round) = ("ragward.retrieval.v1.Chunk", "ragward.retrieval.v1.PlanRound");
    assert_eq!(of(chunk, "score")["type"], "number");
    let value = json!({ "$ref": "#/components/schemas/ragward.metadata.v1.Value" });
    assert_eq!(of(chunk, "metadata")["additionalProperties"], value, "a map");
    assert_eq!(of(round, "candidates")["type"], "string", "64 bits");
    assert_eq!(of("ragward.retrieval.v1.Vector", "values")["items"]["type"], "number", "a list");
    assert_eq!(of("ragward.retrieval.v1.TupleCondition", "context")["type"], "object", "a struct");
    let choice = of("ragward.metadata.v1.Value", "intValue");
    assert!(choice["description"].as_str().unwrap().starts_with("At most one of `boolValue`"), "{choice}");
    let completion = &schemas["ragward.retrieval.v1.Completion"];
    assert_eq!(completion["enum"][1], "COMPLETION_COMPLETE");
    assert!(
        completion["description"].as_str().unwrap().contains("The answer has `top_k` chunks."),
        "a value's comment"
    );
    assert!(of(chunk, "guard")["description"].as_str().unwrap().starts_with("The guard: "), "a field's comment");
    // Requests are closed, and answers may grow.
    assert_eq!(schemas["ragward.retrieval.v1.Filter"]["additionalProperties"], false);
    assert!(schemas[chunk]["additionalProperties"].is_null());

    let post = |path: &str| document["paths"][path]["post"]["requestBody"]["content"].clone();
    let retrieve = &post("/v1/collections/{collection}/retrieve")[JSON]["schema"];
    assert_eq!(retrieve["properties"]["topK"]["maximum"], u32::MAX);
    assert!(retrieve["properties"]["collection"].is_null(), "the path has it");
    let upload = &post("/v1/collections/{collection}/documents")[NDJSON]["schema"];
    assert_eq!(upload["contentSchema"]["$ref"], "#/components/schemas/ragward.ingest.v1.Document");
    assert_eq!(post("/v1/explain")[JSON]["schema"]["$ref"], "#/components/schemas/ragward.retrieval.v1.ExplainRequest");
}

#[test]
fn comments_are_told_by_paragraphs() {
    let rows = [
        ("one line", " A b.\n", "A b."),
        ("wrapped", " A\n b.\n", "A b."),
        ("two paragraphs", " A\n b.\n\n C.\n", "A b.\n\nC."),
        ("nothing", "", ""),
    ];
    for (row, comment, expected) in rows {
        assert_eq!(unwrapped(comment), expected, "{row}");
    }
}
