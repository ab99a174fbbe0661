//! Users, machines, agents and details, from the token to the chunks.

use ragward::identity::DelegationOn;
use ragward::identity::config::{ClaimTuple, DelegationConfig, DetailsConfig, IdentityConfig, ShortName};
use ragward::language::{Relation, TypeName};
use ragward::proto::ingest::{
    DeleteDocumentsRequest, GetIngestStatusRequest, UpsertDocumentsRequest, UpsertDocumentsResponse,
};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Completion, FetchRequest, Hybrid, RecheckRequest, RetrieveRequest, Semantic, Vector};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::identity::world::{ANNES, RETRIEVE, World, about_leave, identity, retrieve, seen, text_value, with_token};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};

pub(crate) fn delegated(on: DelegationOn, relation: &str) -> impl FnOnce(&mut IdentityConfig) {
    let relation = Some(Relation::parse(relation).unwrap());
    move |identity| identity.delegation = DelegationConfig { relation, on }
}

pub(crate) fn acted(actor: &str) -> (&'static str, Value) {
    ("act", json!({"sub": actor}))
}

#[tokio::test]
async fn a_token_speaks_for_its_subject_alone() {
    let world = World::start(|_| {}).await;
    assert_eq!(world.seen("anne", &[]).await.unwrap(), ANNES);
    assert_eq!(
        world.seen("bob", &[]).await.unwrap(),
        ["document:salaries#0", "document:salaries#1", "document:welcome#0", "document:welcome#1"]
    );
    // A name with a special meaning in OpenFGA is refused. If the issuer encodes names, the encoded name is nobody
    // else's.
    let encoding = World::start(|identity| identity.issuers[0].encode_subjects = true).await;
    for special in ["*", "hr#member", "user:anne", "anne ", "anne\u{0}"] {
        assert_eq!(world.seen(special, &[]).await.unwrap_err().code(), Code::Unauthenticated, "`{special}`");
        let seen = encoding.seen(special, &[]).await.unwrap();
        assert_eq!(seen, ["document:welcome#0", "document:welcome#1"], "`{special}`");
    }
    for hostile in ["%61nne", "../anne", "ANNE"] {
        let seen = world.seen(hostile, &[]).await.unwrap();
        assert_eq!(seen, ["document:welcome#0", "document:welcome#1"], "`{hostile}`");
    }
    let anne = world.token("anne", RETRIEVE, &[]);
    assert_eq!(seen(&world.running, "user:anne", &anne).await.unwrap(), ANNES);
    for other in ["user:bob", "anne", "user:*", "agent:helper", " user:anne"] {
        let status = seen(&world.running, other, &anne).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{other}: {status:?}");
    }
}

#[tokio::test]
async fn a_machine_is_never_a_user() {
    // This client has the id of a person.
    let machine = ("client_id", json!("anne"));
    let world = World::start(|_| {}).await;
    let status = world.seen("anne", std::slice::from_ref(&machine)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let mapped = World::start(|identity| identity.machine_type = Some(TypeName::parse("client").unwrap())).await;
    assert_eq!(mapped.seen("anne", &[machine]).await.unwrap(), Vec::<String>::new());
    assert_eq!(
        mapped.seen("crawler", &[("client_id", json!("crawler"))]).await.unwrap(),
        ["document:welcome#0", "document:welcome#1"]
    );
}

#[tokio::test]
async fn only_a_scope_lets_a_pipeline_name_a_user() {
    let world = World::start(delegated(DelegationOn::User, "can_act_for")).await;
    let pipeline = ("client_id", json!("pipeline"));
    let scope = "ragward:retrieve ragward:assert_user";
    let token = world.token("pipeline", scope, std::slice::from_ref(&pipeline));
    assert_eq!(seen(&world.running, "user:anne", &token).await.unwrap(), ANNES);
    let rows = [
        ("no scope", "user:anne", world.token("pipeline", RETRIEVE, std::slice::from_ref(&pipeline))),
        ("nobody named", "", token.clone()),
        ("an agent", "agent:helper", token.clone()),
        ("a client", "client:crawler", token.clone()),
        ("delegated", "user:bob", world.token("anne", scope, &[acted("helper")])),
        (
            "narrowed",
            "user:bob",
            world.token("anne", scope, &[("authorization_details", json!([{"type": "ragward_retrieval"}]))]),
        ),
    ];
    for (what, user, token) in rows {
        assert_eq!(seen(&world.running, user, &token).await.unwrap_err().code(), Code::PermissionDenied, "{what}");
    }
    let status = seen(&world.running, "user:*", &token).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    // The pipeline of one issuer names the users of that issuer only.
    let named = World::start(|identity| identity.issuers[0].name = ShortName::parse("corp")).await;
    let token = named.token("pipeline", scope, &[pipeline]);
    assert_eq!(
        seen(&named.running, "user:corp/anne", &token).await.unwrap(),
        ["document:welcome#0", "document:welcome#1"]
    );
    for user in ["user:anne", "user:partner/anne", "user:corp-2/anne", "user:corp/"] {
        assert_eq!(seen(&named.running, user, &token).await.unwrap_err().code(), Code::PermissionDenied, "{user}");
    }
}

#[tokio::test]
async fn groups_of_the_token_count_and_groups_of_the_body_do_not() {
    let mapping = ClaimTuple {
        claim: "groups".to_owned(),
        relation: Relation::parse("member").unwrap(),
        object_type: TypeName::parse("group").unwrap(),
        absent: None,
    };
    let world = World::start(|identity| identity.claim_tuples = vec![mapping]).await;
    let salaries = "document:salaries#0".to_owned();
    assert!(world.seen("carl", &[("groups", json!(["hr", "x/y"]))]).await.unwrap().contains(&salaries));
    for groups in [json!([]), json!(["HR"]), json!(["/hr"]), json!("sales"), json!(["hr%20"])] {
        assert!(!world.seen("carl", &[("groups", groups.clone())]).await.unwrap().contains(&salaries), "{groups}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("g{n}")).collect();
    let special = [json!(["hr", "x y"]), json!(["hr#member"]), json!(["*"]), json!("group:hr")];
    for refused in special.into_iter().chain([json!(many), json!([1]), json!({"hr": true}), json!(null), json!([""])]) {
        assert_eq!(
            world.seen("carl", &[("groups", refused.clone())]).await.unwrap_err().code(),
            Code::Unauthenticated,
            "{refused}"
        );
    }
}

#[tokio::test]
async fn users_of_two_issuers_are_two_users() {
    let partner_key = SigningKey::es256("key");
    let partner = TestIssuer::start(&[&partner_key]).await;
    let (theirs, url) = (identity(&partner).issuers, partner.url.clone());
    let world = World::start(move |identity| {
        identity.issuers[0].name = ShortName::parse("corp");
        identity.issuers.extend(theirs);
        identity.issuers[1].name = ShortName::parse("partner");
    })
    .await;
    let reads = |issuer: &str, document: &str| {
        ragward::language::RelationshipTuple::parse(&format!("user:{issuer}/anne"), "reader", document).unwrap()
    };
    world.running.write(vec![reads("corp", "document:salaries"), reads("partner", "document:roadmap")]);
    assert_eq!(
        world.seen("anne", &[]).await.unwrap(),
        ["document:salaries#0", "document:salaries#1", "document:welcome#0", "document:welcome#1"]
    );
    let foreign = partner_key.sign(&partner.claims("anne", RETRIEVE));
    assert_eq!(
        seen(&world.running, "", &foreign).await.unwrap(),
        ["document:roadmap#0", "document:roadmap#1", "document:welcome#0", "document:welcome#1"]
    );
    // One issuer's key does not sign for the other.
    let forged = world.token("anne", RETRIEVE, &[("iss", json!(url))]);
    assert_eq!(seen(&world.running, "", &forged).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_agent_sees_what_both_may() {
    let on_user = World::start(delegated(DelegationOn::User, "can_act_for")).await;
    assert_eq!(on_user.seen("anne", &[acted("helper")]).await.unwrap(), ANNES);
    for (subject, actor) in [("bob", "helper"), ("anne", "stranger"), ("anne", "anne")] {
        assert_eq!(
            on_user.seen(subject, &[acted(actor)]).await.unwrap(),
            Vec::<String>::new(),
            "{actor} for {subject}"
        );
    }
    for special in ["*", "agent:helper", "eng#member", "hel per", ""] {
        assert_eq!(
            on_user.seen("anne", &[acted(special)]).await.unwrap_err().code(),
            Code::Unauthenticated,
            "{special}"
        );
    }
    let answer = retrieve(&on_user.running, "", &on_user.token("anne", RETRIEVE, &[acted("stranger")])).await.unwrap();
    assert_eq!(answer.completion(), Completion::Exhausted);

    // The agent may read the salaries, which Anne may not, and may not read the roadmap, which she may.
    let on_guard = World::start(delegated(DelegationOn::Guard, "agent_reader")).await;
    let both = ["document:welcome#0", "document:welcome#1", "page:draft#0", "page:draft#1"];
    assert_eq!(on_guard.seen("anne", &[acted("helper")]).await.unwrap(), both);
    assert_eq!(on_guard.seen("anne", &[acted("stranger")]).await.unwrap(), Vec::<String>::new());

    // Only the outermost actor counts; the inner ones are history, and their number is limited.
    let history = |inner: Value| [("act", json!({"sub": "helper", "act": inner}))];
    assert_eq!(on_guard.seen("anne", &history(json!({"sub": "stranger"}))).await.unwrap(), both);
    let stranger = [("act", json!({"sub": "stranger", "act": {"sub": "helper"}}))];
    assert_eq!(on_guard.seen("anne", &stranger).await.unwrap(), Vec::<String>::new());
    let four = json!({"sub": "1", "act": {"sub": "2", "act": {"sub": "3", "act": {"sub": "4"}}}});
    for refused in
        [json!({}), json!({"sub": ""}), json!({"sub": "x", "iss": "https://other.example"}), json!("x"), four]
    {
        assert_eq!(
            on_guard.seen("anne", &history(refused.clone())).await.unwrap_err().code(),
            Code::Unauthenticated,
            "{refused}"
        );
    }
    let recheck = RecheckRequest {
        user: String::new(),
        collection: "handbook".to_owned(),
        chunk_ids: ANNES.map(str::to_owned).to_vec(),
        ..RecheckRequest::default()
    };
    let token = on_guard.token("anne", RETRIEVE, &[acted("helper")]);
    let kept = on_guard.running.client.retrieval().recheck(with_token(recheck, &token)).await.unwrap().into_inner();
    assert_eq!(kept.chunk_ids, both);
    let fetch = FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: ANNES.map(str::to_owned).to_vec(),
        ..FetchRequest::default()
    };
    let fetched = on_guard.running.client.retrieval().fetch(with_token(fetch, &token)).await.unwrap().into_inner();
    assert_eq!(fetched.chunks.into_iter().map(|chunk| chunk.id).collect::<Vec<String>>(), both);
}

#[tokio::test]
async fn details_only_narrow() {
    let world = World::start(|identity| {
        let order = ["public", "internal", "secret"].map(str::to_owned).to_vec();
        identity.details = DetailsConfig {
            classification_key: Some("classification".to_owned()),
            classifications: order,
            ..DetailsConfig::default()
        };
    })
    .await;
    let leave = "a83b6df1b2fb06ebf1a0ee83af81b1e1c7a4be9d6a2c4f3fa63d3c0a7f2f6f0a";
    let digest = {
        let digest = ring::digest::digest(&ring::digest::SHA256, b"leave");
        hex(digest.as_ref())
    };
    let all: Vec<&str> = ANNES.to_vec();
    let internal = vec!["document:roadmap#0", "document:welcome#0", "page:draft#0"];
    let rows: Vec<(Value, Option<Vec<&str>>)> = vec![
        (json!([{}]), Some(all.clone())),
        (
            json!([{"actions": ["retrieve"], "collections": ["handbook"], "privileges": ["can_read"]}]),
            Some(all.clone()),
        ),
        (json!([{"locations": [crate::support::issuer::AUDIENCE]}]), Some(all.clone())),
        (json!([{"query_sha256": digest, "purpose": "a question about leave"}]), Some(all.clone())),
        (
            json!([{"identifiers": ["document:roadmap", "document:salaries"]}]),
            Some(vec!["document:roadmap#0", "document:roadmap#1"]),
        ),
        (json!([{"datatypes": ["page"]}]), Some(vec!["page:draft#0", "page:draft#1"])),
        (json!([{"datatypes": ["page"], "classification_max": "internal"}]), Some(vec!["page:draft#0"])),
        (json!([{"classification_max": "secret"}]), Some(all.clone())),
        (json!([{"classification_max": "internal"}]), Some(internal)),
        (json!([{"classification_max": "public"}]), Some(vec![])),
        (json!([{"identifiers": []}]), Some(vec![])),
        (json!([{"identifiers": ["document:salaries"]}]), Some(vec![])),
        (json!([{"chunks_max": 0}]), Some(vec![])),
        (
            json!([{"datatypes": ["page"]}, {"identifiers": ["document:welcome"], "classification_max": "internal"}]),
            Some(vec!["document:welcome#0", "page:draft#0", "page:draft#1"]),
        ),
        (
            json!([{"collections": ["other"]}, {"identifiers": ["document:welcome"]}]),
            Some(vec!["document:welcome#0", "document:welcome#1"]),
        ),
        (json!([{"actions": ["recheck"]}]), None),
        (json!([{"actions": []}]), None),
        (json!([{"collections": ["other"]}]), None),
        (json!([{"privileges": ["can_edit"]}]), None),
        (json!([{"locations": ["https://other.example"]}]), None),
        (json!([{"query_sha256": leave}]), None),
    ];
    for (mut details, expected) in rows {
        for detail in details.as_array_mut().unwrap() {
            detail["type"] = json!("ragward_retrieval");
        }
        let found = world.seen("anne", &[("authorization_details", details.clone())]).await;
        match expected {
            Some(expected) => assert_eq!(found.unwrap(), expected, "{details}"),
            None => assert_eq!(found.unwrap_err().code(), Code::PermissionDenied, "{details}"),
        }
    }
    // A fetch is an action of its own, and has no query that a token could be bound to.
    let rows: [(Value, Option<&[&str]>); 5] = [
        (json!({}), Some(&ANNES)),
        (json!({"actions": ["fetch"], "datatypes": ["page"]}), Some(&["page:draft#0", "page:draft#1"])),
        (json!({"actions": ["fetch"], "classification_max": "public"}), Some(&[])),
        (json!({"actions": ["retrieve", "recheck"]}), None),
        (json!({"query_sha256": digest}), None),
    ];
    for (mut detail, expected) in rows {
        detail["type"] = json!("ragward_retrieval");
        let token = world.token("anne", RETRIEVE, &[("authorization_details", json!([detail]))]);
        let fetch = FetchRequest {
            collection: "handbook".to_owned(),
            chunk_ids: ANNES.map(str::to_owned).to_vec(),
            ..FetchRequest::default()
        };
        let fetched = world.running.client.retrieval().fetch(with_token(fetch, &token)).await;
        let fetched = fetched.map(|answer| answer.into_inner().chunks.into_iter().map(|chunk| chunk.id));
        match expected {
            Some(expected) => assert_eq!(fetched.unwrap().collect::<Vec<String>>(), expected, "{detail}"),
            None => assert_eq!(fetched.map(drop).unwrap_err().code(), Code::PermissionDenied, "{detail}"),
        }
    }
    // Chunks are counted by object.
    let limited = json!([{"type": "ragward_retrieval", "datatypes": ["page"], "chunks_max": 1}, {"type": "ragward_retrieval", "identifiers": ["document:roadmap"], "chunks_max": 5}]);
    let token = world.token("anne", RETRIEVE, &[("authorization_details", limited)]);
    let found = seen(&world.running, "", &token).await.unwrap();
    assert_eq!(found.iter().filter(|id| id.starts_with("page:")).count(), 1, "{found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    // Details bound what is read. They do not count for a call that reads no chunks.
    let ingest =
        world.token("anne", "ragward:ingest", &[("authorization_details", json!([{"type": "ragward_retrieval"}]))]);
    assert_eq!(
        upsert(&world, &ingest, "document:new", "document:roadmap").await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

/// Chunks that details leave out must not move the scores of the others: the second chunk is secret.
#[tokio::test]
async fn details_hide_chunks_from_the_scores_of_others() {
    let world = World::start(|identity| {
        identity.details = DetailsConfig {
            classification_key: Some("classification".to_owned()),
            classifications: ["internal", "secret"].map(str::to_owned).to_vec(),
            ..DetailsConfig::default()
        };
    })
    .await;
    let detail = |more: Value| {
        let mut object = json!({"type": "ragward_retrieval"});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    // One row has a single maximum for everything, the next a maximum for some of the guards.
    let rows = [
        json!([detail(json!({"classification_max": "internal"}))]),
        json!([
            detail(json!({"datatypes": ["page"]})),
            detail(json!({"identifiers": ["document:roadmap"], "classification_max": "internal"}))
        ]),
    ];
    for details in rows {
        let token = world.token("anne", RETRIEVE, &[("authorization_details", details.clone())]);
        let answer = retrieve(&world.running, "", &token).await.unwrap();
        assert!(answer.chunks.len() >= 3, "{details}: {answer:?}");
        for secret in
            [&["leave leave leave"][..], &["nothing of that"], &["about leave", "leave again", "and more words"]]
        {
            let all = [&["about leave"][..], secret].concat();
            let mut document = document("document:roadmap", &all);
            for (place, chunk) in document.chunks.iter_mut().enumerate() {
                let class = if place == 0 { "internal" } else { "secret" };
                chunk.metadata.insert("classification".to_owned(), text_value(class));
            }
            let message = UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(document) };
            let local = world.running.app.in_process().unwrap();
            local.client().ingest().upsert_documents(tokio_stream::iter([message])).await.unwrap();
            assert_eq!(retrieve(&world.running, "", &token).await.unwrap(), answer, "{details}: {secret:?}");
        }
    }
}

#[tokio::test]
async fn a_token_for_one_request_serves_one() {
    let world = World::start(|_| {}).await;
    let digest = ring::digest::digest(&ring::digest::SHA256, b"leave");
    let digest = hex(digest.as_ref());
    let details = json!([{"type": "ragward_retrieval", "single_use": true, "query_sha256": digest}]);
    let details = ("authorization_details", details);
    let token = world.token("anne", RETRIEVE, &[details.clone(), ("jti", json!("once"))]);
    // A refusal is no answer, so it uses nothing up.
    let ask = async |request: RetrieveRequest| {
        let answered = world.running.client.retrieval().retrieve(with_token(request, &token)).await;
        answered.map_err(|status| status.code())
    };
    let refused = [
        (
            "another query",
            RetrieveRequest { query: Some(Query::Text("leaves".to_owned())), ..about_leave("") },
            Code::PermissionDenied,
        ),
        (
            "a vector",
            RetrieveRequest { query: Some(Query::Vector(Vector { values: vec![1.0] })), ..about_leave("") },
            Code::PermissionDenied,
        ),
        ("a wrong field", RetrieveRequest { top_k: 0, ..about_leave("") }, Code::InvalidArgument),
        ("another user", about_leave("user:bob"), Code::PermissionDenied),
        (
            "no such collection's name",
            RetrieveRequest { collection: "a b".to_owned(), ..about_leave("") },
            Code::InvalidArgument,
        ),
    ];
    for (what, request, expected) in refused {
        assert_eq!(ask(request).await.unwrap_err(), expected, "{what}");
    }
    assert_eq!(seen(&world.running, "", &token).await.unwrap(), ANNES);
    // Another signature on the same id does not help either.
    let signed_anew = world.token("anne", RETRIEVE, &[details.clone(), ("jti", json!("once"))]);
    for (what, again) in [("the same token", &token), ("the same id, signed anew", &signed_anew)] {
        let refused = seen(&world.running, "", again).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{what}");
    }
    // Of many requests at the same time, one gets an answer.
    let shared = world.token("anne", RETRIEVE, &[details, ("jti", json!("shared"))]);
    let asking = (0..50).map(|_| seen(&world.running, "", &shared));
    let answers = futures::future::join_all(asking).await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(answered.len(), 1);
    assert!(refused.into_iter().all(|refused| refused.is_err_and(|status| status.code() == Code::Unauthenticated)));
}

#[tokio::test]
async fn a_token_for_one_query_takes_no_vector_beside_its_text() {
    let world = World::start(|_| {}).await;
    let digest = hex(ring::digest::digest(&ring::digest::SHA256, b"leave").as_ref());
    let details = json!([{"type": "ragward_retrieval", "query_sha256": digest}]);
    let token = world.token("anne", RETRIEVE, &[("authorization_details", details)]);
    assert_eq!(seen(&world.running, "", &token).await.unwrap(), ANNES);
    let vector = Vector { values: vec![1.0] };
    let hybrid = Hybrid { text: "leave".to_owned(), vector: Some(vector.clone()) };
    let unembedded = Hybrid { text: "leave".to_owned(), vector: None };
    let rows = [
        ("text and vector", Query::Hybrid(hybrid)),
        ("a vector", Query::Vector(vector)),
        // The digest does not say that the text may be sent to a model.
        ("the meaning of the text", Query::Semantic(Semantic { text: "leave".to_owned() })),
        ("the text and its meaning", Query::Hybrid(unembedded)),
    ];
    for (what, query) in rows {
        let request = with_token(RetrieveRequest { query: Some(query), ..about_leave("") }, &token);
        let status = world.running.client.retrieval().retrieve(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status:?}");
    }
}

async fn upsert(world: &World, token: &str, id: &str, guard: &str) -> Result<UpsertDocumentsResponse, Status> {
    let mut document = document(id, &["about leave"]);
    document.chunks[0].guard = guard.to_owned();
    let message = UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(document) };
    let request = with_token(tokio_stream::iter([message]), token);
    world.running.client.ingest().upsert_documents(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_writer_needs_the_relation_on_old_and_new_guards() {
    let world = World::start(|identity| identity.machine_type = Some(TypeName::parse("client").unwrap())).await;
    let crawler = world.token("crawler", "ragward:ingest", &[("client_id", json!("crawler"))]);
    let anne = world.token("anne", "ragward:ingest", &[]);
    assert!(upsert(&world, &crawler, "new", "document:welcome").await.is_ok());
    assert!(upsert(&world, &anne, "annes", "document:roadmap").await.is_ok());
    let refused = [
        ("a guard of others", &crawler, "another", "document:roadmap"),
        ("somebody else's document", &crawler, "document:roadmap", "document:welcome"),
        ("no relation at all", &anne, "new", "document:roadmap"),
        ("a type without the relation", &anne, "x", "page:draft"),
    ];
    for (what, token, id, guard) in refused {
        assert_eq!(upsert(&world, token, id, guard).await.unwrap_err().code(), Code::PermissionDenied, "{what}");
    }
    let delete = async |token: &str, id: &str| {
        let request = DeleteDocumentsRequest { collection: "handbook".to_owned(), document_ids: vec![id.to_owned()] };
        world
            .running
            .client
            .ingest()
            .delete_documents(with_token(request, token))
            .await
            .map(|answer| answer.into_inner().documents)
    };
    // A document that the caller may not write looks absent, and only administrators get counts.
    let status = async |token: &str| {
        let document_ids = ["document:welcome", "document:salaries", "never there"].map(str::to_owned).to_vec();
        let request = GetIngestStatusRequest { collection: "handbook".to_owned(), document_ids };
        let answer = world.running.client.ingest().get_ingest_status(with_token(request, token)).await;
        let answer = answer.unwrap().into_inner();
        (answer.found.into_iter().map(|found| found.document_id).collect::<Vec<String>>(), answer.documents)
    };
    let welcome = || vec!["document:welcome".to_owned()];
    assert_eq!(status(&crawler).await, (welcome(), 0));
    assert_eq!(status(&anne).await, (Vec::new(), 0));
    let both = ("scope", json!("ragward:ingest ragward:administer"));
    let administrator = world.token("crawler", "", &[("client_id", json!("crawler")), both]);
    assert_eq!(status(&administrator).await, (welcome(), 6));
    for hidden in ["document:salaries", "annes", "never there"] {
        assert_eq!(delete(&crawler, hidden).await.unwrap(), 0, "{hidden}");
    }
    let local = world.running.app.in_process().unwrap();
    let asked = ["document:salaries", "annes"].map(str::to_owned).to_vec();
    let asked = GetIngestStatusRequest { collection: "handbook".to_owned(), document_ids: asked };
    let kept = local.client().ingest().get_ingest_status(asked).await.unwrap().into_inner().found;
    assert_eq!(kept.len(), 2, "what one may not write stays");
    assert_eq!(delete(&crawler, "new").await.unwrap(), 1);
    let reader = world.token("anne", RETRIEVE, &[]);
    let status = world.running.client.retrieval().retrieve(with_token(about_leave("user:anne"), &reader)).await;
    assert!(status.is_ok(), "{status:?}");
}

#[tokio::test]
async fn who_acts_for_an_administrator_counts_nothing() {
    let world = World::start(delegated(DelegationOn::User, "can_act_for")).await;
    let scopes = ("scope", json!("ragward:ingest ragward:administer"));
    for (what, more, counted) in [("by itself", Vec::new(), 4), ("for another", vec![acted("helper")], 0)] {
        let claims: Vec<(&str, Value)> = [vec![scopes.clone()], more].concat();
        let token = world.token("anne", "", &claims);
        let request = GetIngestStatusRequest { collection: "handbook".to_owned(), document_ids: Vec::new() };
        let answer = world.running.client.ingest().get_ingest_status(with_token(request, &token)).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!((answer.documents, answer.chunks > 0), (counted, counted > 0), "{what}");
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
