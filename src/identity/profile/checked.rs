//! Checks that the rows of a profile keep out every token that is no access token, and that other settings close the gaps that
//! a profile leaves.

use super::providers::ACCESS_TOKEN_TYPES;
use super::{
    ClaimMark, Lenience, NAME_BYTES_MAX, PLACEHOLDER_AUDIENCE, ProviderProfile, TokenProfile, TokensConfig, tenant_of,
};
use crate::identity::people::PeopleConfig;

/// Claims that ID tokens have, whatever their values are. None of them marks an access token.
const ID_TOKEN_CLAIMS: [&str; 26] = [
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "auth_time",
    "nonce",
    "acr",
    "amr",
    "at_hash",
    "c_hash",
    "s_hash",
    "sid",
    "name",
    "email",
    "email_verified",
    "preferred_username",
    "upn",
    "oid",
    "tid",
    "uti",
    "ver",
    "groups",
    "roles",
];
/// Claims that ID tokens have with other values than access tokens. Such a claim marks an access token only by its value.
const KIND_CLAIMS: [&str; 4] = ["typ", "token_use", "jti", "idtyp"];
/// The values, or beginnings of values, that ID tokens have in [`KIND_CLAIMS`].
const ID_TOKEN_VALUES: [&str; 4] = ["ID", "id", "id_token", "ID."];

/// The settings of one issuer that belong together.
#[derive(Clone, Copy, Debug)]
pub(in crate::identity) struct ProfileSettings<'s> {
    pub(in crate::identity) profile: ProviderProfile,
    pub(in crate::identity) tokens: &'s TokensConfig,
    pub(in crate::identity) people: &'s PeopleConfig,
    pub(in crate::identity) issuer: &'s str,
    /// The clients whose tokens are accepted. If there are none, those of all clients are.
    pub(in crate::identity) clients: &'s [String],
    pub(in crate::identity) direct_clients: Option<&'s [String]>,
    /// `identity.audience`.
    pub(in crate::identity) audience: &'s str,
}

/// The reason why a profile is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::identity) enum ProfileError {
    /// Nothing keeps ID tokens out.
    #[error(
        "has no mark that keeps ID tokens out: name a claim of access tokens in `tokens.access`, or ask for the `typ` \
         `at+jwt` alone"
    )]
    NoMark,
    /// ID tokens may have the mark, too.
    #[error("names `{0}` in `tokens.access`, and ID tokens have it, too")]
    AmbiguousMark(String),
    /// A row has nothing in it, or an empty name.
    #[error("has no entry, or an empty one, in `tokens.{0}`")]
    Empty(&'static str),
    /// A token without audience could be meant for anybody.
    #[error(
        "accepts tokens without audience, so `clients` must name the clients whose tokens are meant for this server; or \
         set `tokens.missing_audience = \"refuse\"` and let the provider name `identity.audience`"
    )]
    NoClients,
    /// The audience names no server.
    #[error("has the audience `account`, which every token of a Keycloak realm may name")]
    PlaceholderAudience,
    /// It cannot be told who acts.
    #[error(
        "needs `direct_clients`: its provider exchanges tokens without saying who acts. List the front ends that people use \
         themselves (`[]` if there are none). Every other client counts as the actor"
    )]
    NoDirectClients,
    /// A front end is not let in.
    #[error("names `{0}` in `direct_clients`, and `clients` does not")]
    UnknownDirectClient(String),
    /// The URL does not say whose tokens are accepted.
    #[error(
        "names no tenant of Entra: write `https://login.microsoftonline.com/TENANT/v2.0` or \
         `https://sts.windows.net/TENANT/`, with the tenant's id in small letters"
    )]
    NoTenant,
    /// The settings name scopes of machines, and mark no machine.
    #[error("sets `tokens.machine_scopes`, and `tokens.machines` marks no machine")]
    NoMachines,
    /// The settings name values, and no claim that would have them.
    #[error("has `people.values` and no `people.claim`, and the profile has a mark of its own: name the claim")]
    NeedlessValues,
}

impl ProfileSettings<'_> {
    /// Returns the rows that hold for the issuer's tokens.
    pub(in crate::identity) fn rows(&self) -> TokenProfile {
        TokenProfile::new(self.profile, self.tokens, self.people, self.issuer)
    }

    /// Checks that the settings fit together.
    pub(in crate::identity) fn check(&self) -> Result<(), ProfileError> {
        let rows = self.rows();
        check_names(&rows, self.tokens)?;
        check_marks(&rows, self.tokens)?;
        if rows.missing_audience == Lenience::Accept && self.clients.is_empty() {
            return Err(ProfileError::NoClients);
        }
        if rows.missing_audience == Lenience::Accept && rows.audience(self.audience) == PLACEHOLDER_AUDIENCE {
            return Err(ProfileError::PlaceholderAudience);
        }
        if !rows.machine_scopes.is_empty() && rows.machines.is_empty() {
            return Err(ProfileError::NoMachines);
        }
        // The default profile takes the values for its own mark, `auth_time`.
        let has_needless_values = !self.people.values.is_empty() && !self.people.has_mark();
        if self.profile != ProviderProfile::Rfc9068 && has_needless_values {
            return Err(ProfileError::NeedlessValues);
        }
        if self.profile == ProviderProfile::Entra && tenant_of(self.issuer).is_none() {
            return Err(ProfileError::NoTenant);
        }
        match self.direct_clients {
            None if self.profile.exchanges_in_silence() => Err(ProfileError::NoDirectClients),
            None => Ok(()),
            Some(direct) => {
                let is_let_in = |client: &String| self.clients.is_empty() || self.clients.contains(client);
                match direct.iter().find(|client| !is_let_in(client)) {
                    Some(client) => Err(ProfileError::UnknownDirectClient(client.clone())),
                    None => Ok(()),
                }
            }
        }
    }
}

impl ProviderProfile {
    /// Returns whether the provider lets a client exchange a person's token for one of its own in which nothing names an
    /// actor: Keycloak's standard exchange, and the grants *on behalf of* of Entra and Okta.
    const fn exchanges_in_silence(self) -> bool {
        match self {
            Self::Keycloak | Self::Entra | Self::Okta => true,
            Self::Auth0 | Self::Cognito | Self::Duende | Self::Rfc9068 => false,
        }
    }
}

/// Refuses rows that no token could meet, or that any token would meet.
fn check_names(rows: &TokenProfile, tokens: &TokensConfig) -> Result<(), ProfileError> {
    let lists = [
        ("types", rows.missing_type == Lenience::Refuse, &rows.types),
        ("client", true, &rows.client),
        ("scopes", true, &rows.scopes),
        ("machine_scopes", false, &rows.machine_scopes),
        ("refused", false, &rows.refused),
    ];
    for (row, is_needed, names) in lists {
        if (is_needed && names.is_empty()) || names.iter().any(String::is_empty) {
            return Err(ProfileError::Empty(row));
        }
    }
    let is_name = |text: &String| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
    if !is_name(&rows.token_id) {
        return Err(ProfileError::Empty("token_id"));
    }
    if tokens.audience.as_ref().is_some_and(|audience| !is_name(audience)) {
        return Err(ProfileError::Empty("audience"));
    }
    if tokens.login_hint.as_ref().is_some_and(|claim| !is_name(claim)) {
        return Err(ProfileError::Empty("login_hint"));
    }
    let marks = [("access", &rows.access), ("machines", &rows.machines)];
    for (row, marks) in marks {
        if marks.iter().any(|mark| mark.claim.is_empty()) {
            return Err(ProfileError::Empty(row));
        }
    }
    Ok(())
}

/// Refuses a profile that would take an ID token.
fn check_marks(rows: &TokenProfile, tokens: &TokensConfig) -> Result<(), ProfileError> {
    let is_access_type = |found: &String| ACCESS_TOKEN_TYPES.iter().any(|known| found.eq_ignore_ascii_case(known));
    let is_marked_by_type = rows.missing_type == Lenience::Refuse && rows.types.iter().all(is_access_type);
    if rows.access.is_empty() && !is_marked_by_type {
        return Err(ProfileError::NoMark);
    }
    // The marks of the profiles themselves rest on what their providers never put into an ID token.
    let named = tokens.access.as_deref().unwrap_or_default();
    match named.iter().find(|mark| may_mark_id_tokens(mark)) {
        Some(mark) => Err(ProfileError::AmbiguousMark(mark.claim.clone())),
        None => Ok(()),
    }
}

fn may_mark_id_tokens(mark: &ClaimMark) -> bool {
    let claim = mark.claim.as_str();
    let fits_id_token = || {
        let fits = |value: &&str| mark.values.iter().any(|pattern| pattern.fits(value));
        mark.values.is_empty() || ID_TOKEN_VALUES.iter().any(fits)
    };
    ID_TOKEN_CLAIMS.contains(&claim) || (KIND_CLAIMS.contains(&claim) && fits_id_token())
}
