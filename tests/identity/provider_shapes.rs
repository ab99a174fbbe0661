//! Tokens in the form in which providers issue them: a person's access token, a machine's, and an ID token of the same
//! person. Each provider's settings are those of its page in the book.

use ragward::identity::config::{IssuerConfig, ProviderProfile};
use serde_json::{Map, Value, json};

use crate::support::issuer::{AUDIENCE, HttpAnswer, SigningKey, TestIssuer, now};

/// The tenant of the tokens of Entra.
pub(crate) const TENANT: &str = "5c2f4a4e-9c1a-4b58-8d3f-0a1b2c3d4e5f";
/// A person's id where providers use random ids.
pub(crate) const PERSON: &str = "3f0c1f1e-7a39-4b6e-9d5c-0f6a1c6b8a77";
/// The id of a machine's account.
pub(crate) const MACHINE: &str = "9a8b7c6d-1234-4f00-8a00-0123456789ab";
/// The id of an API's registration in Entra.
const API: &str = "c0ffee00-1111-4222-8333-444455556666";
/// The front end that people use.
pub(crate) const DESK: &str = "desk";
/// The client that acts for itself.
pub(crate) const JOB: &str = "job";

/// The tokens of one provider.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// The settings of the issuer.
    pub(crate) issuer: IssuerConfig,
    /// The header of its tokens, but for the key.
    header: Value,
    /// The header of its ID tokens, but for the key.
    id_header: Value,
    pub(crate) person: Value,
    pub(crate) machine: Value,
    pub(crate) id_token: Value,
    /// The user that the person's token stands for.
    pub(crate) user: String,
    /// The claims without which the token of a person is refused.
    pub(crate) required: &'static [&'static str],
}

impl Shape {
    /// Returns the header of a token that a key signs.
    pub(crate) fn header(&self, key: &SigningKey) -> Value {
        with_key(&self.header, key)
    }

    pub(crate) fn sign(&self, key: &SigningKey, claims: &Value) -> String {
        key.sign_text(&self.header(key).to_string(), &claims.to_string())
    }

    pub(crate) fn sign_id_token(&self, key: &SigningKey, claims: &Value) -> String {
        key.sign_text(&with_key(&self.id_header, key).to_string(), &claims.to_string())
    }

    /// Returns the scope claim of the provider.
    pub(crate) fn scope_claim(&self) -> &'static str {
        if self.person.get("scp").is_some() { "scp" } else { "scope" }
    }
}

fn with_key(header: &Value, key: &SigningKey) -> Value {
    let mut header = header.clone();
    header["alg"] = json!(key.algorithm());
    header["kid"] = json!(key.id);
    header
}

/// Returns claims with more of them. `null` takes a claim away.
pub(crate) fn changed(claims: &Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    let mut members: Map<String, Value> = claims.as_object().unwrap().clone();
    for (name, value) in changes {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    Value::Object(members)
}

/// Returns the settings of an issuer below the address of the tests' own, and serves its metadata as `OpenID` does.
fn issuer(server: &TestIssuer, path: &str, profile: ProviderProfile) -> IssuerConfig {
    let url = format!("{}{path}", server.url);
    let metadata = json!({"issuer": url, "jwks_uri": format!("{}/keys", server.url)});
    let at = format!("{}/.well-known/openid-configuration", path.trim_end_matches('/'));
    server.set(&at, HttpAnswer::Json(metadata));
    IssuerConfig { profile, ..IssuerConfig::new(url) }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns the shapes of all providers, whose issuers one server plays.
pub(crate) fn shapes(server: &TestIssuer) -> Vec<Shape> {
    vec![
        auth0(server),
        keycloak(server),
        entra_v1(server),
        entra_v2(server),
        okta(server),
        cognito(server),
        duende(server),
    ]
}

fn auth0(server: &TestIssuer) -> Shape {
    let issuer = issuer(server, "/", ProviderProfile::Auth0);
    let (iss, now) = (&issuer.issuer, now());
    let userinfo = format!("{iss}userinfo");
    Shape {
        name: "Auth0",
        header: json!({"typ": "JWT"}),
        id_header: json!({"typ": "JWT"}),
        person: json!({
            "iss": iss, "sub": "auth0|65a1f0c2", "aud": [AUDIENCE, userinfo], "iat": now - 10, "exp": now + 600,
            "scope": "openid profile email ragward:retrieve", "azp": DESK,
        }),
        machine: json!({
            "iss": iss, "sub": format!("{JOB}@clients"), "aud": AUDIENCE, "iat": now - 10, "exp": now + 600,
            "scope": "ragward:retrieve", "gty": "client-credentials", "azp": JOB,
        }),
        id_token: json!({
            "iss": iss, "sub": "auth0|65a1f0c2", "aud": DESK, "iat": now - 10, "exp": now + 600, "nickname": "anne",
            "name": "Anne", "picture": "https://pictures.example/a.png", "updated_at": "2026-11-30T10:00:00.000Z",
            "email": "anne@example.com", "email_verified": true, "sid": "Qm9va2luZw",
        }),
        user: "user:auth0|65a1f0c2".to_owned(),
        required: &["iss", "sub", "aud", "iat", "exp", "azp"],
        issuer,
    }
}

/// Keycloak's default: no audience of ours, and nothing but `clients` and a scope that says for whom the token is.
fn keycloak(server: &TestIssuer) -> Shape {
    let mut issuer = issuer(server, "/realms/acme", ProviderProfile::Keycloak);
    issuer.clients = names(&[DESK, JOB]);
    issuer.direct_clients = Some(names(&[DESK]));
    let (iss, now) = (&issuer.issuer, now());
    Shape {
        name: "Keycloak",
        header: json!({"typ": "JWT"}),
        id_header: json!({"typ": "JWT"}),
        person: json!({
            "exp": now + 300, "iat": now - 10, "auth_time": now - 10, "jti": "onrtac:b9d0a6c2-6f0c-4d1c-8a5e-0d9a6f3c1b2e",
            "iss": iss, "sub": PERSON, "typ": "Bearer", "azp": DESK, "sid": "1f6d1f0a-0f57-4f0e-9c0c-4d0c4d4f1a11", "acr": "1",
            "allowed-origins": ["http://localhost:3000"],
            "realm_access": {"roles": ["offline_access", "uma_authorization", "default-roles-acme"]},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": "openid profile email ragward:retrieve", "email_verified": true, "name": "Anne",
            "preferred_username": "anne", "given_name": "Anne", "email": "anne@example.com",
        }),
        machine: json!({
            "exp": now + 300, "iat": now - 10, "jti": "trrtcc:0c7f1a0e-5d5e-4c8a-9b1f-3f1a2b3c4d5e", "iss": iss,
            "aud": "account", "sub": MACHINE, "typ": "Bearer", "azp": JOB, "acr": "1",
            "realm_access": {"roles": ["offline_access", "uma_authorization", "default-roles-acme"]},
            "scope": "profile email ragward:retrieve", "clientHost": "127.0.0.1", "email_verified": false,
            "preferred_username": "service-account-job", "clientAddress": "127.0.0.1", "client_id": JOB,
        }),
        id_token: json!({
            "exp": now + 300, "iat": now - 10, "auth_time": now - 10, "jti": "1c2d3e4f-6f0c-4d1c-8a5e-0d9a6f3c1b2e",
            "iss": iss, "aud": DESK, "sub": PERSON, "typ": "ID", "azp": DESK, "nonce": "n-0S6_WzA2Mj",
            "sid": "1f6d1f0a-0f57-4f0e-9c0c-4d0c4d4f1a11", "at_hash": "jHkWEdUXMU1BwAsC4vtUsQ", "acr": "1",
            "email_verified": true, "name": "Anne", "preferred_username": "anne", "email": "anne@example.com",
        }),
        user: format!("user:{PERSON}"),
        required: &["iss", "sub", "iat", "exp", "jti", "azp", "typ"],
        issuer,
    }
}

fn entra_id_token(iss: &str, version: &str) -> Value {
    let now = now();
    json!({
        "aud": DESK, "iss": iss, "iat": now - 10, "nbf": now - 10, "exp": now + 600, "aio": "AXQAi/8TAAAA",
        "name": "Anne", "nonce": "678910", "oid": PERSON, "preferred_username": "anne@example.com", "rh": "0.AXQA",
        "roles": ["ragward:retrieve", "ragward:administer"], "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "tid": TENANT, "uti": "kM2Q5v8i0UqGFsEXAMPLEA", "ver": version,
    })
}

fn entra_v1(server: &TestIssuer) -> Shape {
    let mut issuer = issuer(server, &format!("/{TENANT}/"), ProviderProfile::Entra);
    issuer.direct_clients = Some(names(&[DESK]));
    let (iss, now) = (&issuer.issuer, now());
    Shape {
        name: "Entra v1",
        header: json!({"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"}),
        id_header: json!({"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"}),
        person: json!({
            "aud": AUDIENCE, "iss": iss, "iat": now - 10, "nbf": now - 10, "exp": now + 600, "acr": "1",
            "aio": "AXQAi/8IAAAA", "amr": ["pwd", "mfa"], "appid": DESK, "appidacr": "1", "family_name": "Berg",
            "given_name": "Anne", "ipaddr": "203.0.113.7", "name": "Anne Berg", "oid": PERSON, "rh": "I",
            "scp": "ragward:retrieve user_impersonation", "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA",
            "tid": TENANT, "unique_name": "anne@example.com", "upn": "anne@example.com", "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "ver": "1.0",
        }),
        machine: json!({
            "aud": AUDIENCE, "iss": iss, "iat": now - 10, "nbf": now - 10, "exp": now + 600, "aio": "E2ZgYLh0AAAA",
            "appid": JOB, "appidacr": "1", "idp": iss, "idtyp": "app", "oid": MACHINE, "rh": "0.AXQA",
            "roles": ["ragward:retrieve"], "sub": MACHINE, "tid": TENANT, "uti": "5uYJ1qK2hUCyEXAMPLEBAA", "ver": "1.0",
        }),
        id_token: entra_id_token(iss, "1.0"),
        user: format!("user:{PERSON}"),
        required: &["iss", "oid", "aud", "iat", "exp", "uti", "appid", "scp", "tid"],
        issuer,
    }
}

/// In tokens of version 2, the audience is the id of the API's registration.
fn entra_v2(server: &TestIssuer) -> Shape {
    let mut issuer = issuer(server, &format!("/{TENANT}/v2.0"), ProviderProfile::Entra);
    issuer.direct_clients = Some(names(&[DESK]));
    issuer.tokens.audience = Some(API.to_owned());
    let (iss, now) = (&issuer.issuer, now());
    Shape {
        name: "Entra v2",
        header: json!({"typ": "JWT"}),
        id_header: json!({"typ": "JWT"}),
        person: json!({
            "aud": API, "iss": iss, "iat": now - 10, "nbf": now - 10, "exp": now + 600, "aio": "AXQAi/8TAAAA",
            "azp": DESK, "azpacr": "0", "name": "Anne Berg", "oid": PERSON, "preferred_username": "anne@example.com",
            "rh": "I", "scp": "ragward:retrieve", "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": TENANT,
            "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0",
        }),
        machine: json!({
            "aud": API, "iss": iss, "iat": now - 10, "nbf": now - 10, "exp": now + 600, "aio": "E2ZgYLh0AAAA",
            "azp": JOB, "azpacr": "1", "idtyp": "app", "oid": MACHINE, "rh": "0.AXQA",
            "roles": ["ragward:retrieve"], "sub": MACHINE, "tid": TENANT, "uti": "5uYJ1qK2hUCyEXAMPLEBAA",
            "ver": "2.0",
        }),
        id_token: entra_id_token(iss, "2.0"),
        user: format!("user:{PERSON}"),
        required: &["iss", "oid", "aud", "iat", "exp", "uti", "azp", "scp", "tid"],
        issuer,
    }
}

fn okta(server: &TestIssuer) -> Shape {
    let mut issuer = issuer(server, "/oauth2/default", ProviderProfile::Okta);
    issuer.direct_clients = Some(names(&[DESK]));
    let (iss, now) = (&issuer.issuer, now());
    Shape {
        name: "Okta",
        header: json!({}),
        id_header: json!({}),
        person: json!({
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": iss, "aud": AUDIENCE,
            "iat": now - 10, "exp": now + 600, "cid": DESK, "uid": "00uid4BxXw6I6TV4m0g3",
            "scp": ["openid", "profile", "ragward:retrieve"], "auth_time": now - 10, "sub": "anne@example.com",
        }),
        machine: json!({
            "ver": 1, "jti": "AT.Kx1zPpOqbJYVvIoPjp9eq5nrm3cfJOfEz1k2l3m4n5o", "iss": iss, "aud": AUDIENCE,
            "iat": now - 10, "exp": now + 600, "cid": JOB, "scp": ["ragward:retrieve"], "sub": JOB,
        }),
        id_token: json!({
            "ver": 1, "sub": "00uid4BxXw6I6TV4m0g3", "iss": iss, "aud": DESK, "iat": now - 10, "exp": now + 600,
            "jti": "ID.4eAWJOCMB3SX8XewDfVR", "auth_time": now - 10, "at_hash": "cpqKfdQA5eH891Ff5oJr_Q", "name": "Anne",
            "email": "anne@example.com", "nonce": "9c34", "amr": ["pwd"], "idp": "00ok1u7AsAkrwdZL3z0f",
            "preferred_username": "anne@example.com",
        }),
        user: "user:00uid4BxXw6I6TV4m0g3".to_owned(),
        required: &["iss", "uid", "aud", "iat", "exp", "jti", "cid"],
        issuer,
    }
}

/// Cognito's access tokens name no audience, but their scopes name the resource server.
fn cognito(server: &TestIssuer) -> Shape {
    let mut issuer = issuer(server, "/eu-west-1_Example12", ProviderProfile::Cognito);
    issuer.clients = names(&[DESK, JOB]);
    let (iss, now) = (&issuer.issuer, now());
    let scope = format!("{AUDIENCE}/ragward:retrieve");
    Shape {
        name: "Cognito",
        header: json!({}),
        id_header: json!({}),
        person: json!({
            "sub": PERSON, "cognito:groups": ["staff"], "iss": iss, "version": 2, "client_id": DESK,
            "origin_jti": "2b1d4c2e-6a8e-4f0e-8d34-6a1d5b7a3c10", "event_id": "0f0e0d0c-6a8e-4f0e-8d34-6a1d5b7a3c11",
            "token_use": "access", "scope": format!("openid {scope}"), "auth_time": now - 10, "exp": now + 600,
            "iat": now - 10, "jti": "7d5a1f60-6a8e-4f0e-8d34-6a1d5b7a3c12", "username": "anne",
        }),
        machine: json!({
            "sub": JOB, "token_use": "access", "scope": scope, "auth_time": now - 10, "iss": iss, "exp": now + 600,
            "iat": now - 10, "version": 2, "jti": "7d5a1f60-6a8e-4f0e-8d34-6a1d5b7a3c13", "client_id": JOB,
        }),
        id_token: json!({
            "sub": PERSON, "cognito:groups": ["staff"], "email_verified": true, "iss": iss, "cognito:username": "anne",
            "origin_jti": "2b1d4c2e-6a8e-4f0e-8d34-6a1d5b7a3c10", "aud": DESK, "event_id": "0f0e0d0c-6a8e-4f0e-8d34-6a1d5b7a3c11",
            "token_use": "id", "auth_time": now - 10, "exp": now + 600, "iat": now - 10, "email": "anne@example.com",
            "jti": "7d5a1f60-6a8e-4f0e-8d34-6a1d5b7a3c14", "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
        }),
        user: format!("user:{PERSON}"),
        required: &["iss", "sub", "iat", "exp", "jti", "client_id", "token_use"],
        issuer,
    }
}

fn duende(server: &TestIssuer) -> Shape {
    let issuer = issuer(server, "/identity", ProviderProfile::Duende);
    let (iss, now) = (&issuer.issuer, now());
    Shape {
        name: "Duende",
        header: json!({"typ": "at+jwt"}),
        id_header: json!({"typ": "JWT"}),
        person: json!({
            "iss": iss, "nbf": now - 10, "iat": now - 10, "exp": now + 600, "aud": AUDIENCE,
            "scope": ["openid", "ragward:retrieve"], "amr": ["pwd"], "client_id": DESK, "sub": "88421113",
            "auth_time": now - 10, "idp": "local", "sid": "9F2A7C1E", "jti": "3E7A7C0B5F1D4A5C8B1E2F3A4B5C6D7E",
        }),
        machine: json!({
            "iss": iss, "nbf": now - 10, "iat": now - 10, "exp": now + 600, "aud": AUDIENCE, "scope": ["ragward:retrieve"],
            "client_id": JOB, "jti": "4F7A7C0B5F1D4A5C8B1E2F3A4B5C6D7E",
        }),
        id_token: json!({
            "iss": iss, "nbf": now - 10, "iat": now - 10, "exp": now + 600, "aud": DESK, "amr": ["pwd"], "nonce": "63",
            "at_hash": "cpqKfdQA5eH891Ff5oJr_Q", "sid": "9F2A7C1E", "sub": "88421113", "auth_time": now - 10, "idp": "local",
        }),
        user: "user:88421113".to_owned(),
        required: &["iss", "aud", "iat", "exp", "jti", "client_id"],
        issuer,
    }
}
