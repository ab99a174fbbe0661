//! Logins that are not good enough (RFC 9470), for a collection and for chunks of a classification. The required login
//! depends on the request alone, so a challenge does not tell what is there.

use std::time::Duration;

use ragward::identity::config::{DetailsConfig, IdentityConfig, StepUpConfig};
use ragward::proto::retrieval::{Completion, FetchRequest, RecheckRequest, RetrieveRequest, RetrieveResponse};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::identity::delegation::{acted, delegated};
use crate::identity::world::{ANNES, RETRIEVE, World, about_leave, with_token};
use crate::support::issuer::now;
use crate::support::untimed::Untimed;

/// The chunks that Anne may see and that are not secret.
const INTERNAL: [&str; 3] = ["document:roadmap#0", "document:welcome#0", "page:draft#0"];

fn login(acr: &str, age: u64) -> Vec<(&'static str, Value)> {
    vec![("acr", json!(acr)), ("auth_time", json!(now() - age))]
}

fn challenge(status: &Status) -> &str {
    status.metadata().get("www-authenticate").unwrap().to_str().unwrap()
}

#[tokio::test]
async fn a_collection_may_ask_for_a_better_login() {
    let required = StepUpConfig {
        collection: Some("handbook".to_owned()),
        acr_values: vec!["mfa".to_owned(), "phr".to_owned()],
        max_age: Some(Duration::from_mins(1)),
        ..StepUpConfig::default()
    };
    let world = World::start(|identity| identity.step_up = vec![required]).await;
    assert_eq!(world.seen("anne", &login("mfa", 10)).await.unwrap(), ANNES);
    for weak in
        [login("pwd", 10), login("mfa", 100), login("mfa", 10)[..1].to_vec(), vec![], vec![("auth_time", json!(now()))]]
    {
        let status = world.seen("nobody", &weak).await.unwrap_err();
        let challenge = challenge(&status);
        assert_eq!(status.code(), Code::Unauthenticated, "{weak:?}");
        assert!(
            challenge.starts_with(
                "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa phr\", max_age=\"60\""
            ),
            "{weak:?}: {challenge}"
        );
    }
}

/// Requires a second factor, not older than a minute, for secret chunks.
fn secret_asks_for_a_second_factor(identity: &mut IdentityConfig) {
    identity.details = DetailsConfig {
        classification_key: Some("classification".to_owned()),
        classifications: ["public", "internal", "secret", "sealed"].map(str::to_owned).to_vec(),
        ..DetailsConfig::default()
    };
    identity.step_up = vec![StepUpConfig {
        classification: Some("secret".to_owned()),
        acr_values: vec!["mfa".to_owned()],
        max_age: Some(Duration::from_mins(1)),
        ..StepUpConfig::default()
    }];
}

async fn ask(world: &World, token: &str, ceiling: &str) -> Result<RetrieveResponse, Status> {
    let request = RetrieveRequest { classification_max: ceiling.to_owned(), ..about_leave("") };
    let answer = world.running.client.retrieval().retrieve(with_token(request, token)).await?;
    Ok(answer.into_inner().untimed())
}

fn ids(answer: &RetrieveResponse) -> Vec<&str> {
    let mut ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_classification_may_ask_for_a_better_login() {
    let world = World::start(secret_asks_for_a_second_factor).await;
    let strong = world.token("anne", RETRIEVE, &login("mfa", 10));
    let weak = [("one factor", login("pwd", 10)), ("an old login", login("mfa", 100)), ("no login", vec![])]
        .map(|(what, login)| (what, world.token("anne", RETRIEVE, &login)));
    let asked = async |token: &str, ceiling: &str| ids(&ask(&world, token, ceiling).await.unwrap()).join(" ");

    assert_eq!(asked(&strong, "").await, ANNES.join(" "));
    assert_eq!(asked(&strong, "sealed").await, ANNES.join(" "));
    assert_eq!(asked(&strong, "internal").await, INTERNAL.join(" "));
    assert_eq!(asked(&strong, "public").await, "");
    for (what, weak) in &weak {
        // A request without a maximum gets what the login is good enough for, as if there were nothing else.
        let answer = ask(&world, weak, "").await.unwrap();
        assert_eq!((ids(&answer), answer.completion()), (INTERNAL.to_vec(), Completion::Exhausted), "{what}");
        assert_eq!(answer, ask(&world, &strong, "internal").await.unwrap(), "{what}: scores and all");
        assert_eq!(asked(weak, "internal").await, INTERNAL.join(" "), "{what}");
        // A request for a higher maximum is told what is missing, whatever there is to see.
        for ceiling in ["secret", "sealed"] {
            let status = ask(&world, weak, ceiling).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{what}, {ceiling}: {status:?}");
            let expected = "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\", max_age=\"60\"";
            assert!(challenge(&status).starts_with(expected), "{what}, {ceiling}: {status:?}");
        }
        let recheck = RecheckRequest {
            user: String::new(),
            collection: "handbook".to_owned(),
            chunk_ids: ANNES.map(str::to_owned).to_vec(),
            ..RecheckRequest::default()
        };
        let kept = world.running.client.retrieval().recheck(with_token(recheck, weak)).await.unwrap();
        assert_eq!(kept.into_inner().chunk_ids, INTERNAL, "{what}");
        // A fetch keeps to the same ceiling, and asks for the same login.
        let fetch = |ceiling: &str| FetchRequest {
            collection: "handbook".to_owned(),
            chunk_ids: ANNES.map(str::to_owned).to_vec(),
            classification_max: ceiling.to_owned(),
            ..FetchRequest::default()
        };
        let fetched = world.running.client.retrieval().fetch(with_token(fetch(""), weak)).await.unwrap().into_inner();
        let ids: Vec<&str> = fetched.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
        assert_eq!(ids, INTERNAL, "{what}");
        let refused = world.running.client.retrieval().fetch(with_token(fetch("secret"), weak)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{what}: {refused:?}");
    }
    let refused = |ceiling: &'static str| ask(&world, &strong, ceiling);
    assert_eq!(refused("top secret").await.unwrap_err().code(), Code::InvalidArgument);
    // A user who may see nothing secret gets the same challenge.
    let nobody = world.token("nobody", RETRIEVE, &[]);
    let of_nobody = ask(&world, &nobody, "secret").await.unwrap_err();
    let of_anne = ask(&world, &weak[0].1, "secret").await.unwrap_err();
    assert_eq!((of_nobody.message(), of_nobody.details()), (of_anne.message(), of_anne.details()));
    assert_eq!(challenge(&of_nobody), challenge(&of_anne));
}

#[tokio::test]
async fn a_login_and_details_and_an_agent_take_away_together() {
    let world = World::start(|identity| {
        secret_asks_for_a_second_factor(identity);
        delegated(ragward::identity::DelegationOn::Guard, "agent_reader")(identity);
    })
    .await;
    let details = json!([{"type": "ragward_retrieval", "datatypes": ["page"]}]);
    let details = ("authorization_details", details);
    let rows = [
        ("the agent alone", vec![acted("helper")], "document:welcome#0 page:draft#0"),
        ("details alone", vec![details.clone()], "page:draft#0"),
        ("both", vec![acted("helper"), details.clone()], "page:draft#0"),
        ("an agent without rights", vec![acted("stranger"), details.clone()], ""),
    ];
    for (what, claims, expected) in rows {
        let answer = ask(&world, &world.token("anne", RETRIEVE, &claims), "").await.unwrap();
        assert_eq!(ids(&answer).join(" "), expected, "{what}");
        let strong = [claims, login("mfa", 10)].concat();
        let more = ask(&world, &world.token("anne", RETRIEVE, &strong), "").await.unwrap();
        assert_eq!(ids(&more).len(), 2 * ids(&answer).len(), "{what}");
    }
}

#[tokio::test]
async fn a_server_without_classifications_takes_no_ceiling() {
    let world = World::start(|_| {}).await;
    let anne = world.token("anne", RETRIEVE, &[]);
    assert_eq!(ask(&world, &anne, "internal").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ids(&ask(&world, &anne, "").await.unwrap()), ANNES);
}
