//! Machines are not people: `user:*` does not include them, whatever their provider calls them.

use ragward::identity::config::PeopleConfig;
use ragward::language::TypeName;
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::world::{ANNES, World};
use crate::support::issuer::now;

const WELCOME: [&str; 2] = ["document:welcome#0", "document:welcome#1"];

/// Starts a server that tells people from machines by the time of a login, as it does by default.
async fn by_login(machine_type: &str) -> World {
    World::start(|identity| {
        identity.issuers[0].people = PeopleConfig::default();
        identity.machine_type = TypeName::parse(machine_type).ok();
    })
    .await
}

fn machines() -> [(&'static str, &'static str, Value); 5] {
    let keycloak = "3f0c1f1e-7a39-4b6e-9d5c-0f6a1c6b8a77";
    [
        ("RFC 9068", "robot", json!({"client_id": "robot"})),
        ("Auth0", "x1@clients", json!({"client_id": "x1", "azp": "x1", "gty": "client-credentials"})),
        (
            "Keycloak",
            keycloak,
            json!({"client_id": "robot", "azp": "robot", "acr": "1", "preferred_username": "service-account-robot"}),
        ),
        ("Entra", "o1", json!({"client_id": "a1", "appid": "a1", "oid": "o1", "idtyp": "app"})),
        ("no word of a client", "robot", json!({})),
    ]
}

#[tokio::test]
async fn no_machine_is_everybody() {
    let (nobody, client) = (by_login("").await, by_login("client").await);
    for (shape, subject, claims) in machines() {
        let claims: Vec<(&str, Value)> =
            claims.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        // One variant has all claims, some lack a claim, and one has a login besides. If no claim marks the machine,
        // only the lack of a login marks it, so it gets no login.
        let mut variants = vec![claims.clone()];
        for place in 0..claims.len() {
            let mut fewer = claims.clone();
            fewer.remove(place);
            variants.push(fewer);
        }
        if !claims.is_empty() {
            variants.push([claims.clone(), vec![("auth_time", json!(now()))]].concat());
        }
        for claims in variants {
            assert_eq!(
                nobody.seen(subject, &claims).await.unwrap_err().code(),
                Code::PermissionDenied,
                "{shape}: {claims:?}"
            );
            assert_eq!(client.seen(subject, &claims).await.unwrap(), Vec::<String>::new(), "{shape}: {claims:?}");
        }
    }
    let login = ("auth_time", json!(now() - 10));
    assert_eq!(nobody.seen("anne", std::slice::from_ref(&login)).await.unwrap(), ANNES);
    assert_eq!(client.seen("stranger", &[login]).await.unwrap(), WELCOME);
    // A machine that tuples name has the rights that they give.
    assert_eq!(client.seen("crawler", &[("client_id", json!("crawler"))]).await.unwrap(), WELCOME);
}

#[tokio::test]
async fn a_pipeline_that_is_a_machine_names_people() {
    let world = by_login("client").await;
    let scope = ("scope", json!("ragward:retrieve ragward:assert_user"));
    let token = world.token("x1@clients", "", &[("client_id", json!("x1")), scope]);
    assert_eq!(crate::identity::world::seen(&world.running, "user:anne", &token).await.unwrap(), ANNES);
    assert_eq!(crate::identity::world::seen(&world.running, "", &token).await.unwrap(), Vec::<String>::new());
}
