use serde_json::json;

use super::checked::ProfileError;
use super::*;
use crate::identity::claims;
use crate::identity::config::{CheckedConfig, IdentityConfig, IssuerConfig};
use crate::identity::sample::NOW;

const TENANT_A: &str = "5c2f4a4e-9c1a-4b58-8d3f-0a1b2c3d4e5f";
const PROFILES: [ProviderProfile; 7] = [
    ProviderProfile::Auth0,
    ProviderProfile::Keycloak,
    ProviderProfile::Entra,
    ProviderProfile::Okta,
    ProviderProfile::Cognito,
    ProviderProfile::Duende,
    ProviderProfile::Rfc9068,
];

/// Returns an address that every profile takes for an issuer.
fn issuer() -> String {
    format!("https://login.example/{TENANT_A}/v2.0")
}

fn profile(profile: ProviderProfile, tokens: Value) -> TokenProfile {
    let tokens = serde_json::from_value(tokens).unwrap();
    TokenProfile::new(profile, &tokens, &PeopleConfig::default(), &issuer())
}

fn claims(claims: Value) -> Map<String, Value> {
    let Value::Object(claims) = claims else { panic!("{claims} is no object") };
    claims
}

#[test]
fn a_tenant_is_a_tenant_id() {
    let rows = [
        ("version 2", issuer(), Some(TENANT_A)),
        ("version 1", format!("https://sts.example/{TENANT_A}/"), Some(TENANT_A)),
        ("no slash", format!("https://sts.example/{TENANT_A}"), None),
        ("all tenants", "https://login.example/common/v2.0".to_owned(), None),
        ("all organizations", "https://login.example/organizations/v2.0".to_owned(), None),
        ("a place for the tenant", "https://login.example/{tenantid}/v2.0".to_owned(), None),
        ("a domain", "https://login.example/contoso.onmicrosoft.com/v2.0".to_owned(), None),
        ("capitals", format!("https://login.example/{}/v2.0", TENANT_A.to_uppercase()), None),
        ("a path before it", format!("https://login.example/x/{TENANT_A}/v2.0"), None),
        ("a path behind it", format!("https://login.example/{TENANT_A}/x/v2.0"), None),
        ("no path", "https://login.example".to_owned(), None),
        ("no URL", TENANT_A.to_owned(), None),
    ];
    for (row, url, expected) in rows {
        assert_eq!(tenant_of(&url), expected, "{row}");
    }
}

#[test]
fn a_fraction_never_prolongs_a_life() {
    let (strict, lenient) =
        (profile(ProviderProfile::Rfc9068, json!({})), profile(ProviderProfile::Keycloak, json!({})));
    let rows = [
        ("whole", json!(7), [Some(7); 3]),
        ("a fraction", json!(7.5), [None, Some(7), Some(8)]),
        ("a whole number with a point", json!(7.0), [None, Some(7), Some(7)]),
        ("nothing", json!(0), [Some(0); 3]),
        ("before 1970", json!(-1), [None; 3]),
        ("just before 1970", json!(-0.5), [None; 3]),
        ("after the end", json!(1e300), [None; 3]),
        ("a text", json!("7"), [None; 3]),
        ("nothing at all", json!(null), [None; 3]),
    ];
    for (row, value, expected) in rows {
        let found = [
            strict.seconds(&value, Rounding::Down),
            lenient.seconds(&value, Rounding::Down),
            lenient.seconds(&value, Rounding::Up),
        ];
        assert_eq!(found, expected, "{row}");
    }
}

#[test]
fn clients_must_agree() {
    let entra = profile(ProviderProfile::Entra, json!({}));
    let rows = [
        ("version 2", json!({"azp": "desk"}), Ok("desk")),
        ("version 1", json!({"appid": "desk"}), Ok("desk")),
        ("both", json!({"azp": "desk", "appid": "desk"}), Ok("desk")),
        ("two clients", json!({"azp": "desk", "appid": "job"}), Err(Refusal::Claim)),
        ("one of them is malformed", json!({"azp": "desk", "appid": null}), Err(Refusal::Claim)),
        ("another claim", json!({"client_id": "desk"}), Err(Refusal::Claim)),
    ];
    for (row, value, expected) in rows {
        assert_eq!(entra.client(&claims(value)), expected, "{row}");
    }
}

/// Keycloak names the kind of a token in its claims. An access token that is bound to a key has another kind than one that is not.
#[test]
fn the_kinds_of_keycloaks_tokens_are_told_apart() {
    let issuer = IssuerConfig {
        profile: ProviderProfile::Keycloak,
        clients: vec!["desk".to_owned()],
        direct_clients: Some(vec!["desk".to_owned()]),
        ..IssuerConfig::new("https://login.example/realms/acme")
    };
    let settings = IdentityConfig { audience: Some("https://rag.example".to_owned()), ..IdentityConfig::default() };
    let config = CheckedConfig::new(&settings).unwrap();
    let good = json!({
        "iss": issuer.issuer, "sub": "anne", "azp": "desk", "sid": "s1", "jti": "onrtac:1", "scope": "ragward:retrieve",
        "iat": NOW, "exp": NOW + 60,
    });
    let key = json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"});
    let rows = [
        ("an access token", json!({"typ": "Bearer"}), Ok(false)),
        ("one that is bound to a key", json!({"typ": "DPoP", "cnf": key}), Ok(true)),
        ("one that is bound to a key and does not say so", json!({"typ": "Bearer", "cnf": key}), Ok(true)),
        ("one that says so and is not", json!({"typ": "DPoP"}), Err(Refusal::Confirmation)),
        ("an ID token", json!({"typ": "ID"}), Err(Refusal::Type)),
        ("an ID token with a key", json!({"typ": "ID", "cnf": key}), Err(Refusal::Type)),
        ("a refresh token", json!({"typ": "Refresh", "cnf": key}), Err(Refusal::Type)),
        ("a token of a session that goes on", json!({"typ": "Offline"}), Err(Refusal::Type)),
        ("a logout token", json!({"typ": "Logout"}), Err(Refusal::Type)),
        ("user info", json!({}), Err(Refusal::Type)),
    ];
    for (row, change, expected) in rows {
        let mut claims = good.as_object().unwrap().clone();
        claims.extend(change.as_object().unwrap().clone());
        let checked = claims::check(&claims, &issuer, &config, NOW);
        assert_eq!(checked.map(|token| token.bound_key().is_some()), expected, "{row}");
    }
}

fn person(name: &str) -> Subject<'_> {
    Subject { name, is_client: false }
}

fn machine(name: &str) -> Subject<'_> {
    Subject { name, is_client: true }
}

#[test]
fn a_missing_subject_is_the_client_or_nobody() {
    let (okta, strict) = (profile(ProviderProfile::Okta, json!({})), profile(ProviderProfile::Rfc9068, json!({})));
    let rows = [
        ("a person", json!({"uid": "00u1", "sub": "anne@example.com"}), Ok(person("00u1"))),
        ("a machine", json!({"sub": "job"}), Ok(machine("job"))),
        ("no name at all", json!({}), Ok(machine("job"))),
        ("a login name alone", json!({"sub": "anne@example.com"}), Err(Refusal::Claim)),
        ("a null", json!({"uid": null, "sub": "job"}), Err(Refusal::Claim)),
        ("an empty name", json!({"uid": "", "sub": "job"}), Err(Refusal::Claim)),
        ("a number", json!({"sub": 7}), Err(Refusal::Claim)),
    ];
    for (row, value, expected) in rows {
        let value = claims(value);
        assert_eq!(okta.subject(&value, "job"), expected, "{row}");
        let strictly = strict.subject(&value, "job");
        let expected = match value.get("sub").and_then(Value::as_str) {
            Some(name) => Ok(person(name)),
            None => Err(Refusal::Claim),
        };
        assert_eq!(strictly, expected, "{row}, by RFC 9068");
    }
}

#[test]
fn keycloak_says_what_a_token_is() {
    let keycloak = profile(ProviderProfile::Keycloak, json!({}));
    let kinds =
        [("Bearer", true), ("DPoP", true), ("ID", false), ("Refresh", false), ("Offline", false), ("dpop", false)];
    for (kind, expected) in kinds {
        assert_eq!(keycloak.is_access_token(&claims(json!({ "typ": kind }))), expected, "{kind}");
    }
}

#[test]
fn a_person_is_asked_by_the_name_that_the_issuer_knows() {
    use ProviderProfile::{Auth0, Keycloak, Okta, Rfc9068};
    let by_email = json!({"login_hint": "email"});
    let named = json!({"preferred_username": "anne.berg", "email": "anne@example.com"});
    let rows = [
        ("by the subject", Rfc9068, json!({}), named.clone(), Ok(Some("7f3c"))),
        ("by the subject of the profile", Okta, json!({}), named.clone(), Ok(Some("7f3c"))),
        ("by the name of the login", Keycloak, json!({}), named.clone(), Ok(Some("anne.berg"))),
        ("by another claim", Keycloak, by_email.clone(), named.clone(), Ok(Some("anne@example.com"))),
        ("by a claim that the settings name", Rfc9068, by_email, named.clone(), Ok(Some("anne@example.com"))),
        (
            "by issuer and subject",
            Auth0,
            json!({}),
            named.clone(),
            Ok(Some(r#"{"format":"iss_sub","iss":"https://a.example/","sub":"7f3c"}"#)),
        ),
        ("by the text alone", Auth0, json!({"login_hint_form": "text"}), named.clone(), Ok(Some("7f3c"))),
        ("without the name", Keycloak, json!({}), json!({"sub": "7f3c"}), Ok(None)),
        ("an empty name", Keycloak, json!({}), json!({"preferred_username": ""}), Err(Refusal::Claim)),
        ("two names", Keycloak, json!({}), json!({"preferred_username": ["a", "b"]}), Err(Refusal::Claim)),
    ];
    for (row, provider, tokens, value, expected) in rows {
        let value = claims(value);
        let found = profile(provider, tokens).login_hint(&value, "https://a.example/", "7f3c");
        assert_eq!(found, expected.map(|hint| hint.map(str::to_owned)), "{row}");
    }
}

#[test]
fn equal_claims_are_one_token() {
    let auth0 = profile(ProviderProfile::Auth0, json!({}));
    let id = |value: Value| auth0.token_id(&claims(value));
    let (first, again) = (id(json!({"sub": "a", "iat": 1})), id(json!({"iat": 1, "sub": "a"})));
    assert!(first.is_ok() && first == again, "{first:?} {again:?}");
    assert_ne!(first, id(json!({"sub": "a", "iat": 2})));
    assert_eq!(id(json!({"jti": "1"})), Ok("1".to_owned()));
    assert_eq!(id(json!({"jti": null})), Err(Refusal::Claim));
    let strict = profile(ProviderProfile::Rfc9068, json!({}));
    assert_eq!(strict.token_id(&claims(json!({"sub": "a"}))), Err(Refusal::Claim));
}

#[test]
fn scopes_count_in_the_form_of_the_profile() {
    use ProviderProfile::{Auth0, Cognito, Duende, Entra, Okta, Rfc9068};
    let retrieve = "ragward:retrieve";
    let app = json!({"idtyp": "app", "roles": [retrieve]});
    let rows = [
        ("a text", Rfc9068, json!({"scope": "openid ragward:retrieve"}), Ok(true)),
        ("a list, by RFC 9068", Rfc9068, json!({"scope": [retrieve]}), Err(Refusal::Claim)),
        ("null, by RFC 9068", Rfc9068, json!({"scope": null}), Err(Refusal::Claim)),
        ("null", Auth0, json!({"scope": null}), Ok(false)),
        ("a list for Auth0", Auth0, json!({"scope": [retrieve]}), Err(Refusal::Claim)),
        ("a list", Duende, json!({"scope": ["openid", retrieve]}), Ok(true)),
        ("a list with two scopes in one text", Duende, json!({"scope": ["openid ragward:retrieve"]}), Ok(false)),
        ("a list with a number", Duende, json!({"scope": [retrieve, 7]}), Err(Refusal::Claim)),
        ("a list of Okta", Okta, json!({"scp": [retrieve]}), Ok(true)),
        ("another claim", Okta, json!({"scope": retrieve}), Ok(false)),
        ("a person's scopes", Entra, json!({"scp": "ragward:retrieve x"}), Ok(true)),
        ("a person's roles", Entra, json!({"scp": "x", "roles": [retrieve]}), Ok(false)),
        ("malformed roles of a person", Entra, json!({"scp": "x", "roles": 7}), Ok(false)),
        ("a machine's roles", Entra, app, Ok(true)),
        ("roles in one text", Entra, json!({"idtyp": "app", "roles": retrieve}), Err(Refusal::Claim)),
        ("roles of a user", Entra, json!({"idtyp": "user", "roles": [retrieve]}), Ok(false)),
        ("our resource server", Cognito, json!({"scope": "https://rag.example/ragward:retrieve"}), Ok(true)),
        ("another resource server", Cognito, json!({"scope": "https://other.example/ragward:retrieve"}), Ok(false)),
        ("another door", Cognito, json!({"scope": "https://rag.example/mcp/ragward:retrieve"}), Ok(false)),
        ("no resource server", Cognito, json!({"scope": retrieve}), Ok(false)),
    ];
    for (row, provider, value, expected) in rows {
        let found = profile(provider, json!({})).scopes(&claims(value), "https://rag.example");
        assert_eq!(found.map(|scopes| !scopes.is_empty()), expected, "{row}");
    }
}

/// Checks the settings of an issuer.
fn check(
    provider: ProviderProfile,
    tokens: Value,
    clients: &[String],
    direct_clients: Option<&[String]>,
) -> Result<(), ProfileError> {
    let (tokens, people) = (serde_json::from_value(tokens).unwrap(), PeopleConfig::default());
    let issuer = issuer();
    let settings = ProfileSettings {
        profile: provider,
        tokens: &tokens,
        people: &people,
        issuer: &issuer,
        clients,
        direct_clients,
        audience: "https://rag.example",
    };
    settings.check()
}

/// Each profile starts with what its own page says, and no row can be replaced so that an ID token would pass.
#[test]
fn a_profile_without_a_mark_does_not_start() {
    use ProviderProfile::{Auth0, Cognito, Duende, Entra, Keycloak, Okta, Rfc9068};
    let desk = ["desk".to_owned()];
    for provider in PROFILES {
        assert_eq!(check(provider, json!({}), &desk, Some(&desk)), Ok(()), "{provider:?}");
        let unmarked = json!({"access": [], "types": ["JWT"]});
        assert_eq!(check(provider, unmarked, &desk, Some(&desk)), Err(ProfileError::NoMark), "{provider:?}");
    }
    let with_mark =
        |claim: &str, values: &[&str]| json!({"types": ["JWT"], "access": [{"claim": claim, "values": values}]});
    let ambiguous = |claim: &str| Err(ProfileError::AmbiguousMark(claim.to_owned()));
    let rows = [
        ("RFC 9068 without a type", Rfc9068, json!({"missing_type": "accept"}), Err(ProfileError::NoMark)),
        ("RFC 9068 with two types", Rfc9068, json!({"types": ["at+jwt", "JWT"]}), Err(ProfileError::NoMark)),
        ("RFC 9068 with the long type", Rfc9068, json!({"types": ["application/at+jwt"]}), Ok(())),
        ("no type", Rfc9068, json!({"types": []}), Err(ProfileError::Empty("types"))),
        ("an empty type", Okta, json!({"types": [""]}), Err(ProfileError::Empty("types"))),
        ("Duende without a type", Duende, json!({"missing_type": "accept"}), Err(ProfileError::NoMark)),
        ("a mark of their own", Rfc9068, with_mark("token_kind", &["access"]), Ok(())),
        ("the kind of token", Rfc9068, with_mark("typ", &["Bearer"]), Ok(())),
        ("any kind of token", Rfc9068, with_mark("typ", &[]), ambiguous("typ")),
        ("the kind of ID tokens", Keycloak, with_mark("typ", &["Bearer", "ID"]), ambiguous("typ")),
        ("the use of ID tokens", Cognito, with_mark("token_use", &["i*"]), ambiguous("token_use")),
        ("any use", Cognito, with_mark("token_use", &[]), ambiguous("token_use")),
        ("any id", Okta, with_mark("jti", &["I*"]), ambiguous("jti")),
        ("an audience", Rfc9068, with_mark("aud", &["x"]), ambiguous("aud")),
        ("a name", Rfc9068, with_mark("email", &[]), ambiguous("email")),
        ("roles", Entra, with_mark("roles", &[]), ambiguous("roles")),
        ("the party", Auth0, with_mark("azp", &[]), ambiguous("azp")),
        ("a mark without a claim", Auth0, with_mark("", &[]), Err(ProfileError::Empty("access"))),
        ("no claim of the client", Auth0, json!({"client": []}), Err(ProfileError::Empty("client"))),
        ("no scopes", Auth0, json!({"scopes": []}), Err(ProfileError::Empty("scopes"))),
        ("no id", Auth0, json!({"token_id": ""}), Err(ProfileError::Empty("token_id"))),
        ("no claim to ask a person by", Keycloak, json!({"login_hint": ""}), Err(ProfileError::Empty("login_hint"))),
        ("no machines", Entra, json!({"machines": []}), Err(ProfileError::NoMachines)),
        ("the audience of all", Keycloak, json!({"audience": "account"}), Err(ProfileError::PlaceholderAudience)),
        ("another audience", Keycloak, json!({"audience": "ragward"}), Ok(())),
    ];
    for (row, provider, tokens, expected) in rows {
        assert_eq!(check(provider, tokens, &desk, Some(&desk)), expected, "{row}");
    }
}

/// Other settings have to close the gaps that a profile leaves.
#[test]
fn an_open_profile_needs_its_clients() {
    use ProviderProfile::{Auth0, Cognito, Entra, Keycloak, Okta, Rfc9068};
    type Row<'r> = (&'r str, ProviderProfile, Value, &'r [String], Option<&'r [String]>, Result<(), ProfileError>);
    let (desk, job) = (["desk".to_owned()], ["job".to_owned()]);
    let strict = json!({"missing_audience": "refuse"});
    let open = json!({"missing_audience": "accept"});
    let unknown = Err(ProfileError::UnknownDirectClient("job".to_owned()));
    let rows: [Row<'_>; 11] = [
        ("Keycloak without clients", Keycloak, json!({}), &[], Some(&[]), Err(ProfileError::NoClients)),
        ("Keycloak with an audience", Keycloak, strict, &[], Some(&[]), Ok(())),
        ("Cognito without clients", Cognito, json!({}), &[], None, Err(ProfileError::NoClients)),
        ("RFC 9068 without audience or clients", Rfc9068, open, &[], None, Err(ProfileError::NoClients)),
        ("Keycloak without front ends", Keycloak, json!({}), &desk, None, Err(ProfileError::NoDirectClients)),
        ("Entra without front ends", Entra, json!({}), &[], None, Err(ProfileError::NoDirectClients)),
        ("Okta without front ends", Okta, json!({}), &[], None, Err(ProfileError::NoDirectClients)),
        ("no front end at all", Okta, json!({}), &[], Some(&[]), Ok(())),
        ("Auth0 without front ends", Auth0, json!({}), &[], None, Ok(())),
        ("a front end that is not let in", Auth0, json!({}), &desk, Some(&job), unknown),
        ("a front end, and every client", Auth0, json!({}), &[], Some(&job), Ok(())),
    ];
    for (row, provider, tokens, clients, direct, expected) in rows {
        assert_eq!(check(provider, tokens, clients, direct), expected, "{row}");
    }
}

#[test]
fn values_belong_to_a_claim() {
    let people = |people: Value| serde_json::from_value::<PeopleConfig>(people).unwrap();
    let rows = [
        ("values of no claim", people(json!({"values": ["x"]})), Err(ProfileError::NeedlessValues)),
        ("values of a claim", people(json!({"claim": "kind", "values": ["x"]})), Ok(())),
    ];
    for (row, people, expected) in rows {
        let settings = ProfileSettings {
            profile: ProviderProfile::Auth0,
            tokens: &TokensConfig::default(),
            people: &people,
            issuer: "https://login.example/",
            clients: &[],
            direct_clients: None,
            audience: "https://rag.example",
        };
        assert_eq!(settings.check(), expected, "{row}");
    }
}

/// A claim that its owner can change is no subject: whoever takes another's address would take over that person's rights.
#[test]
fn a_changeable_claim_is_no_subject() {
    for claim in ["email", "upn", "preferred_username", "unique_name", "username", "name", "Sub", ""] {
        let read = serde_json::from_value::<TokensConfig>(json!({"subject": claim}));
        assert!(read.is_err(), "`{claim}`: {read:?}");
    }
    for claim in ["sub", "oid", "uid"] {
        let read = serde_json::from_value::<TokensConfig>(json!({"subject": claim}));
        assert!(read.is_ok(), "`{claim}`: {read:?}");
    }
}
