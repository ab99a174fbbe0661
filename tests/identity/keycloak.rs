//! Keycloak itself, and a server beside it: a person's default token, a service account, and the standard token exchange,
//! whose tokens name no actor.

use ragward::identity::DelegationOn;
use ragward::identity::config::{DelegationConfig, IdentityConfig, IssuerConfig, ProviderProfile};
use ragward::language::Relation;
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::world::{ANNES, RETRIEVE, seen, start};
use crate::support::issuer::AUDIENCE;
use crate::support::keycloak::{Keycloak, REALM, client};

const SECRET: &str = "only-for-this-test";
/// The scope that lets the agents exchange a token: its tokens name them as audience.
const FOR_AGENTS: &str = "for-agents";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Makes the realm: Anne, two front ends, two agents that may exchange tokens, and a job.
async fn make_realm(keycloak: &Keycloak) {
    let anne = json!({
        "id": "anne", "username": "anne", "enabled": true, "email": "anne@example.com", "emailVerified": true,
        "firstName": "Anne", "lastName": "Berg", "credentials": [{"type": "password", "value": SECRET}],
    });
    keycloak.make("", &json!({"realm": REALM, "enabled": true, "users": [anne]})).await;
    let in_token = json!({"include.in.token.scope": "true"});
    let scopes = format!("/{REALM}/client-scopes");
    let retrieve = json!({"name": RETRIEVE, "protocol": "openid-connect", "attributes": in_token});
    keycloak.make(&scopes, &retrieve).await;
    let audience = |agent: &str| {
        json!({
            "name": agent, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": {"included.client.audience": agent, "access.token.claim": "true"},
        })
    };
    let for_agents = json!({
        "name": FOR_AGENTS, "protocol": "openid-connect", "protocolMappers": [audience("helper"), audience("stranger")],
    });
    keycloak.make(&scopes, &for_agents).await;
    let front_end = json!({"publicClient": true, "directAccessGrantsEnabled": true});
    let job = json!({"publicClient": false, "secret": SECRET, "serviceAccountsEnabled": true});
    let attributes = json!({"standard.token.exchange.enabled": "true"});
    let agent = json!({"publicClient": false, "secret": SECRET, "attributes": attributes});
    let clients = [
        client("desk", &[RETRIEVE, FOR_AGENTS], &front_end),
        client("wiki", &[RETRIEVE], &front_end),
        client("job", &[RETRIEVE], &job),
        client("helper", &[RETRIEVE], &agent),
        client("stranger", &[RETRIEVE], &agent),
    ];
    for client in clients {
        keycloak.make(&format!("/{REALM}/clients"), &client).await;
    }
}

/// Logs Anne in at a front end.
async fn login(keycloak: &Keycloak, front_end: &str, scope: &str) -> Value {
    let form = [
        ("grant_type", "password"),
        ("client_id", front_end),
        ("username", "anne"),
        ("password", SECRET),
        ("scope", scope),
    ];
    keycloak.tokens(&form).await
}

async fn exchange(keycloak: &Keycloak, agent: &str, token: &str) -> Value {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("client_id", agent),
        ("client_secret", SECRET),
        ("subject_token", token),
        ("subject_token_type", ACCESS_TOKEN),
        ("requested_token_type", ACCESS_TOKEN),
        ("scope", RETRIEVE),
    ];
    keycloak.tokens(&form).await
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {answer}")).to_owned()
}

fn identity(issuer: &str) -> IdentityConfig {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let issuer = IssuerConfig {
        profile: ProviderProfile::Keycloak,
        clients: names(&["desk", "job", "helper", "stranger"]),
        direct_clients: Some(names(&["desk"])),
        ..IssuerConfig::new(issuer)
    };
    let relation = Some(Relation::parse("can_act_for").unwrap());
    IdentityConfig {
        audience: Some(AUDIENCE.to_owned()),
        issuers: vec![issuer],
        delegation: DelegationConfig { relation, on: DelegationOn::User },
        ..IdentityConfig::default()
    }
}

/// A token, its name, and the texts that it opens.
type TokenRow = (&'static str, String, Result<Vec<String>, Code>);

#[tokio::test]
async fn keycloak_issues_what_its_profile_accepts() {
    let Some(keycloak) = Keycloak::start().await else { return };
    make_realm(&keycloak).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&keycloak.issuer())).await;

    let scope = format!("openid {RETRIEVE}");
    let hers = login(&keycloak, "desk", &scope).await;
    let for_agents = text(&login(&keycloak, "desk", &format!("{scope} {FOR_AGENTS}")).await, "access_token");
    let job =
        [("grant_type", "client_credentials"), ("client_id", "job"), ("client_secret", SECRET), ("scope", RETRIEVE)];
    let annes = || Ok(ANNES.map(str::to_owned).to_vec());
    let rows: [TokenRow; 9] = [
        ("her default token", text(&hers, "access_token"), annes()),
        ("her ID token", text(&hers, "id_token"), Err(Code::Unauthenticated)),
        ("her refresh token", text(&hers, "refresh_token"), Err(Code::Unauthenticated)),
        (
            "no scope of ours",
            text(&login(&keycloak, "desk", "openid").await, "access_token"),
            Err(Code::Unauthenticated),
        ),
        (
            "a client that is not listed",
            text(&login(&keycloak, "wiki", &scope).await, "access_token"),
            Err(Code::Unauthenticated),
        ),
        ("a token for the agents", for_agents.clone(), Err(Code::Unauthenticated)),
        (
            "an agent that may act for her",
            text(&exchange(&keycloak, "helper", &for_agents).await, "access_token"),
            annes(),
        ),
        (
            "an agent that may not",
            text(&exchange(&keycloak, "stranger", &for_agents).await, "access_token"),
            Ok(Vec::new()),
        ),
        ("a service account", text(&keycloak.tokens(&job).await, "access_token"), Err(Code::PermissionDenied)),
    ];
    for (row, token, expected) in rows {
        let found = seen(&running, "", &token).await.map_err(|status| status.code());
        // The realm ends with the test, so its tokens may be shown.
        assert_eq!(found, expected, "{row}: {token}");
    }
}
