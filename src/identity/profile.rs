//! The form of an issuer's tokens: what their provider calls the client, the scopes and the subject, and what shows that
//! a token is an access token.
//!
//! A profile is a set of rows. `[identity.issuers.tokens]` replaces single rows. All other code reads the resulting rows
//! ([`TokenProfile`]) and knows no provider.
//!
//! INVARIANT (a positive mark): a token is an access token by the `typ` of its header or by a claim that ID tokens
//! lack. A profile that asks for neither is refused when a server starts.

mod checked;
mod providers;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(super) use self::checked::ProfileSettings;
use super::Refusal;
use super::people::{PeopleConfig, TextPattern, says_something};
use super::scope::Scopes;

/// The longest name in a claim (a client, a token's id, a subject), in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1_024;
/// The claim of the subject in all standards.
const SUBJECT: &str = "sub";
/// The claim that names the tenant of Entra that issued a token.
const TENANT: &str = "tid";
/// The audience that Keycloak puts into each token of a person. It names no server.
const PLACEHOLDER_AUDIENCE: &str = "account";
/// The value of the claim `typ` of a token that is bound to a key.
const BOUND_TOKEN_TYPE: &str = "DPoP";
/// The number of bytes of a tenant's id: 32 hexadecimal digits and four hyphens.
const TENANT_BYTES: usize = 36;

/// The provider whose form an issuer's tokens have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderProfile {
    /// Auth0's own form of access tokens. For its form of RFC 9068, use that profile.
    Auth0,
    /// Keycloak 26 and later.
    Keycloak,
    /// Microsoft Entra, tokens of version 1 and 2.
    Entra,
    /// Custom authorization servers of Okta.
    Okta,
    /// Amazon Cognito user pools.
    Cognito,
    /// Duende `IdentityServer` in its default form.
    Duende,
    /// The form of RFC 9068.
    #[default]
    Rfc9068,
}

/// Rows of the profile that are replaced. A row that is unset is the profile's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokensConfig {
    /// The values of the header's `typ`, compared without regard to case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// The treatment of a token whose header has no `typ`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_type: Option<Lenience>,
    /// The treatment of a token whose header has no `kid`. If it is accepted, the issuer's key set must have exactly one
    /// key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_key_id: Option<Lenience>,
    /// The marks of an access token. A token needs one of them. No ID token may have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Vec<ClaimMark>>,
    /// Claims that only ID tokens have. A token with one of them is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<String>>,
    /// The audience (`aud`) by which this issuer names this server, if it is not `identity.audience`. It does not count for
    /// MCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The treatment of a token without `aud`. If it is accepted, `clients` must be set, and the token needs a scope of
    /// Ragward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_audience: Option<Lenience>,
    /// The claims that name the client. A token needs one of them, and all that it has must agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Vec<String>>,
    /// The claim that holds the token's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The treatment of a token without an id. If it is accepted, the digest of its claims is its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_token_id: Option<Lenience>,
    /// The claims that hold scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The treatment of scopes in a list of texts, instead of one text with spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope_lists: Option<Lenience>,
    /// The text that stands before each scope of Ragward, such as `https://rag.example/`. When unset, it is empty; for Cognito
    /// it is the audience and a slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope_prefix: Option<String>,
    /// The claims, with lists of texts, that hold scopes only if a token has one of the `machines` marks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_scopes: Option<Vec<String>>,
    /// The marks of a machine's token. A token with one of them is never a person's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<Vec<ClaimMark>>,
    /// The claim that names the user. Claims that a user or an administrator can change, such as `email`, are not possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectClaim>,
    /// The name of a machine whose token lacks the claim of the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_subject: Option<MachineSubject>,
    /// The claim by which the issuer knows a person who is asked for an approval (`login_hint`). When unset, it is the claim of the
    /// subject; for Keycloak it is `preferred_username`. Decisions do not use it, but it says whose device rings: it must be a claim
    /// that users cannot set to the name of somebody else, unlike an `email` that nobody has verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_hint: Option<String>,
    /// The form of `login_hint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_hint_form: Option<LoginHintForm>,
    /// The treatment of times with fractions of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fractional_times: Option<Lenience>,
    /// The treatment of `null` in `scope`, `nbf`, `auth_time` and `acr`. If it is accepted, it means that there is no such claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nulls: Option<Lenience>,
}

/// The treatment of tokens that differ from RFC 9068 in one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lenience {
    /// Such a token is refused.
    Refuse,
    /// Such a token is accepted.
    Accept,
}

/// A claim by which a kind of token is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimMark {
    /// The name of the claim.
    pub claim: String,
    /// The claim is one of these texts, or a list with one of them. `*` at the beginning or the end stands for anything. When
    /// there are none, it is anything but null, false, 0 and an empty value.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub values: Vec<TextPattern>,
}

/// A claim that names a user for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubjectClaim {
    /// The subject of the standards.
    Sub,
    /// The object id of Entra, which all applications of a tenant see alike.
    Oid,
    /// The user id of Okta. There, `sub` is a login name, which can change.
    Uid,
}

/// The name of a machine whose token lacks the claim of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineSubject {
    /// There is none: the token is refused.
    Claim,
    /// The client's name. The `sub`, if there is one, must be the client, too.
    Client,
}

/// The form in which a `login_hint` names a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginHintForm {
    /// The text of the claim.
    Text,
    /// A JSON object with the issuer and the text of the claim, as Auth0 asks for it.
    IssSub,
}

/// The text before each scope of Ragward.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ScopePrefix {
    Text(String),
    /// The audience and a slash. Such scopes say for which server they are meant.
    Audience,
}

/// The rows that hold for the tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenProfile {
    types: Vec<String>,
    missing_type: Lenience,
    missing_key_id: Lenience,
    access: Vec<ClaimMark>,
    refused: Vec<String>,
    audience: Option<String>,
    missing_audience: Lenience,
    client: Vec<String>,
    token_id: String,
    missing_token_id: Lenience,
    scopes: Vec<String>,
    scope_lists: Lenience,
    scope_prefix: ScopePrefix,
    machine_scopes: Vec<String>,
    machines: Vec<ClaimMark>,
    subject: SubjectClaim,
    machine_subject: MachineSubject,
    /// The claim of the name by which the issuer asks a person. `None` is the subject.
    login_hint: Option<String>,
    login_hint_form: LoginHintForm,
    fractional_times: Lenience,
    nulls: Lenience,
    /// The tenant that the claim `tid` must name.
    tenant: Option<String>,
    /// The marks of people's tokens.
    pub(super) people: PeopleConfig,
}

/// The subject of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject<'c> {
    pub(super) name: &'c str,
    /// Whether the token lacks a subject and its client, which acts for itself, stands in for it.
    pub(super) is_client: bool,
}

/// The direction in which a time is rounded to whole seconds. It never prolongs a token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    Down,
    Up,
}

impl ClaimMark {
    /// Returns whether a token with these claims has the mark.
    fn is_on(&self, claims: &Map<String, Value>) -> bool {
        let Some(value) = claims.get(&self.claim) else { return false };
        if self.values.is_empty() {
            return says_something(value);
        }
        let fits = |text: &str| self.values.iter().any(|pattern| pattern.fits(text));
        match value {
            Value::String(text) => fits(text),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(fits),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        }
    }
}

impl SubjectClaim {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sub => SUBJECT,
            Self::Oid => "oid",
            Self::Uid => "uid",
        }
    }
}

impl TokenProfile {
    /// Returns the rows of a profile, as far as the settings do not replace them.
    pub(super) fn new(profile: ProviderProfile, tokens: &TokensConfig, people: &PeopleConfig, issuer: &str) -> Self {
        let base = providers::rows(profile);
        let tokens = tokens.clone();
        Self {
            types: tokens.types.unwrap_or(base.types),
            missing_type: tokens.missing_type.unwrap_or(base.missing_type),
            missing_key_id: tokens.missing_key_id.unwrap_or(base.missing_key_id),
            access: tokens.access.unwrap_or(base.access),
            refused: tokens.refused.unwrap_or(base.refused),
            audience: tokens.audience,
            missing_audience: tokens.missing_audience.unwrap_or(base.missing_audience),
            client: tokens.client.unwrap_or(base.client),
            token_id: tokens.token_id.unwrap_or(base.token_id),
            missing_token_id: tokens.missing_token_id.unwrap_or(base.missing_token_id),
            scopes: tokens.scopes.unwrap_or(base.scopes),
            scope_lists: tokens.scope_lists.unwrap_or(base.scope_lists),
            scope_prefix: tokens.scope_prefix.map_or(base.scope_prefix, ScopePrefix::Text),
            machine_scopes: tokens.machine_scopes.unwrap_or(base.machine_scopes),
            machines: tokens.machines.unwrap_or(base.machines),
            subject: tokens.subject.unwrap_or(base.subject),
            machine_subject: tokens.machine_subject.unwrap_or(base.machine_subject),
            login_hint: tokens.login_hint.or(base.login_hint),
            login_hint_form: tokens.login_hint_form.unwrap_or(base.login_hint_form),
            fractional_times: tokens.fractional_times.unwrap_or(base.fractional_times),
            nulls: tokens.nulls.unwrap_or(base.nulls),
            tenant: (profile == ProviderProfile::Entra).then(|| tenant_of(issuer).unwrap_or_default().to_owned()),
            people: if people.has_mark() { people.clone() } else { people.marked_like(&base.people) },
        }
    }

    /// Returns whether the header's `typ` is that of an access token.
    pub(super) fn has_type(&self, media_type: Option<&str>) -> bool {
        match media_type {
            None => self.missing_type == Lenience::Accept,
            Some(found) => self.types.iter().any(|expected| found.eq_ignore_ascii_case(expected)),
        }
    }

    /// Returns whether a token may leave out the id of its key.
    pub(super) fn takes_no_key_id(&self) -> bool {
        self.missing_key_id == Lenience::Accept
    }

    /// Returns whether a token has a mark of access tokens, and no claim that only ID tokens have.
    pub(super) fn is_access_token(&self, claims: &Map<String, Value>) -> bool {
        let is_marked = self.access.is_empty() || self.access.iter().any(|mark| mark.is_on(claims));
        is_marked && !self.refused.iter().any(|claim| claims.contains_key(claim))
    }

    /// Returns whether a token says of itself that it is bound to a key.
    pub(super) fn says_bound(claims: &Map<String, Value>) -> bool {
        claims.get("typ").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case(BOUND_TOKEN_TYPE))
    }

    /// Returns whether a token comes from the tenant that its issuer's URL names.
    pub(super) fn has_tenant(&self, claims: &Map<String, Value>) -> bool {
        let found = claims.get(TENANT).and_then(Value::as_str);
        self.tenant.as_deref().is_none_or(|tenant| !tenant.is_empty() && found == Some(tenant))
    }

    /// Returns the audience that a token must name at the doors that `identity.audience` names.
    pub(super) fn audience<'p>(&'p self, configured: &'p str) -> &'p str {
        self.audience.as_deref().unwrap_or(configured)
    }

    /// Returns whether a token without audience may be accepted, and this claim names none.
    pub(super) fn takes_no_audience(&self, claim: Option<&Value>) -> bool {
        let names_none = match claim {
            None => true,
            Some(Value::String(audience)) => audience == PLACEHOLDER_AUDIENCE,
            Some(Value::Array(list)) => matches!(list.as_slice(), [audience] if audience == PLACEHOLDER_AUDIENCE),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => false,
        };
        names_none && self.missing_audience == Lenience::Accept
    }

    /// Returns whether the scopes themselves say for which server they are meant.
    pub(super) fn has_audience_in_scopes(&self) -> bool {
        self.scope_prefix == ScopePrefix::Audience
    }

    /// Reads the client that a token was issued to.
    pub(super) fn client<'c>(&self, claims: &'c Map<String, Value>) -> Result<&'c str, Refusal> {
        let mut found: Option<&str> = None;
        for claim in self.client.iter().filter(|claim| claims.contains_key(*claim)) {
            let client = name(claims, claim)?;
            if found.is_some_and(|other| other != client) {
                return Err(Refusal::Claim);
            }
            found = Some(client);
        }
        found.ok_or(Refusal::Claim)
    }

    /// Reads the subject of a token.
    pub(super) fn subject<'c>(&self, claims: &'c Map<String, Value>, client: &'c str) -> Result<Subject<'c>, Refusal> {
        let claim = self.subject.as_str();
        if claims.contains_key(claim) || self.machine_subject == MachineSubject::Claim {
            return Ok(Subject { name: name(claims, claim)?, is_client: false });
        }
        // Such a token is a machine's. If it had another subject, it would not be clear whose it is.
        if claims.get(SUBJECT).is_some_and(|subject| subject.as_str() != Some(client)) {
            return Err(Refusal::Claim);
        }
        Ok(Subject { name: client, is_client: true })
    }

    /// Reads the name by which the issuer asks a person. Returns `None` if the token does not tell it.
    pub(super) fn login_hint(
        &self,
        claims: &Map<String, Value>,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<String>, Refusal> {
        let known = match &self.login_hint {
            None => Some(subject),
            Some(claim) => self.optional(claims, claim).map(|_given| name(claims, claim)).transpose()?,
        };
        let formed = |known: &str| match self.login_hint_form {
            LoginHintForm::Text => known.to_owned(),
            LoginHintForm::IssSub => json!({ "format": "iss_sub", "iss": issuer, "sub": known }).to_string(),
        };
        Ok(known.map(formed))
    }

    /// Returns whether a token has a mark of machines' tokens.
    pub(super) fn is_machine(&self, claims: &Map<String, Value>) -> bool {
        // In Entra, a person has another `sub` in each application, and a machine has its object id there, too.
        let is_own_object = self.subject == SubjectClaim::Oid && claims.get(SUBJECT) == claims.get("oid");
        is_own_object || self.has_machine_mark(claims)
    }

    fn has_machine_mark(&self, claims: &Map<String, Value>) -> bool {
        self.machines.iter().any(|mark| mark.is_on(claims))
    }

    /// Reads the token's id. A token without one is known by the digest of its claims. The digest of its text would not do: some
    /// signatures can be changed without breaking them, and the token could be used again.
    pub(super) fn token_id(&self, claims: &Map<String, Value>) -> Result<String, Refusal> {
        if claims.contains_key(&self.token_id) || self.missing_token_id == Lenience::Refuse {
            return name(claims, &self.token_id).map(str::to_owned);
        }
        let text = serde_json::to_vec(claims).map_err(|_unwritable| Refusal::Claim)?;
        Ok(format!("sha256:{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, &text).as_ref())))
    }

    /// Reads Ragward's scopes as far as they are meant for `audience`.
    pub(super) fn scopes(&self, claims: &Map<String, Value>, audience: &str) -> Result<Scopes, Refusal> {
        let mut names: Vec<&str> = Vec::new();
        for claim in &self.scopes {
            match self.optional(claims, claim) {
                None => {}
                Some(Value::String(text)) => names.extend(text.split(' ')),
                Some(Value::Array(list)) if self.scope_lists == Lenience::Accept => extend(&mut names, list)?,
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                    return Err(Refusal::Claim);
                }
            }
        }
        if self.has_machine_mark(claims) {
            for claim in &self.machine_scopes {
                match self.optional(claims, claim) {
                    None => {}
                    Some(Value::Array(list)) => extend(&mut names, list)?,
                    Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                        return Err(Refusal::Claim);
                    }
                }
            }
        }
        Ok(match &self.scope_prefix {
            ScopePrefix::Text(prefix) => Scopes::named(&names, prefix),
            ScopePrefix::Audience => Scopes::named(&names, &format!("{audience}/")),
        })
    }

    /// Returns the value of a claim that a token may leave out.
    pub(super) fn optional<'c>(&self, claims: &'c Map<String, Value>, claim: &str) -> Option<&'c Value> {
        let is_absent = |value: &&Value| value.is_null() && self.nulls == Lenience::Accept;
        claims.get(claim).filter(|value| !is_absent(value))
    }

    /// Reads a time in seconds since 1970. Returns `None` if it is none.
    pub(super) fn seconds(&self, value: &Value, rounding: Rounding) -> Option<u64> {
        if let Some(seconds) = value.as_u64() {
            return Some(seconds);
        }
        if self.fractional_times == Lenience::Refuse {
            return None;
        }
        let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
        let whole = match rounding {
            Rounding::Down => seconds.floor(),
            Rounding::Up => seconds.ceil(),
        };
        // A number that does not fit is refused, which a conversion would not do.
        format!("{whole:.0}").parse().ok()
    }
}

/// Reads a claim that must be a text.
pub(super) fn name<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<&'c str, Refusal> {
    let text = claims.get(claim).and_then(Value::as_str);
    text.filter(|text| !text.is_empty() && text.len() <= NAME_BYTES_MAX).ok_or(Refusal::Claim)
}

fn extend<'c>(names: &mut Vec<&'c str>, list: &'c [Value]) -> Result<(), Refusal> {
    for item in list {
        names.push(item.as_str().ok_or(Refusal::Claim)?);
    }
    Ok(())
}

/// Returns the tenant of Entra that an issuer's URL names: `https://HOST/TENANT/` or `https://HOST/TENANT/v2.0`. The words
/// for many tenants, such as `common`, are none.
pub(super) fn tenant_of(issuer: &str) -> Option<&str> {
    let (_scheme, rest) = issuer.split_once("://")?;
    let (_host, path) = rest.split_once('/')?;
    let tenant = path.strip_suffix("/v2.0").or_else(|| path.strip_suffix('/'))?;
    let is_part = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        // Tokens spell it in small letters.
        _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
    };
    (tenant.len() == TENANT_BYTES && tenant.bytes().enumerate().all(is_part)).then_some(tenant)
}

#[cfg(test)]
mod tests;
