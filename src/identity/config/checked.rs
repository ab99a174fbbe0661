//! Checks that the settings of `[identity]` fit together. A single value is checked where it is read.

use std::collections::{HashMap, HashSet};

use super::{IdentityConfig, IdentityConfigError, IssuerConfig};

/// The longest allowance for clocks that differ, in seconds.
const LEEWAY_SECONDS_MAX: u64 = 300;

/// A section `[identity]` whose settings fit together and name an audience. All code that decides about tokens is made
/// from one of these.
#[derive(Clone, Debug)]
pub(in crate::identity) struct CheckedConfig {
    /// The audience that a token must name (`aud`).
    pub(in crate::identity) audience: String,
    /// An audience that a token must not name.
    pub(in crate::identity) barred_audience: Option<String>,
    pub(in crate::identity) settings: IdentityConfig,
}

impl CheckedConfig {
    /// Checks the settings.
    pub(in crate::identity) fn new(settings: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let audience = settings.audience.clone().filter(|audience| !audience.is_empty() && is_quotable(audience));
        let audience = audience.ok_or_else(|| {
            IdentityConfigError::new(
                "`identity.audience` must be set, in the file that `--config` names: a token for somebody else must not \
                 work here",
            )
        })?;
        let details = &settings.details;
        let rules = [
            (
                settings.leeway.as_secs() > LEEWAY_SECONDS_MAX,
                format!("`identity.leeway` must be at most {LEEWAY_SECONDS_MAX}s"),
            ),
            (
                settings.machine_type.as_ref() == Some(&settings.user_type),
                "`identity.machine_type` must differ from `identity.user_type`: a client is no person".to_owned(),
            ),
            (
                settings.actor_type == settings.user_type,
                "`identity.actor_type` must differ from `identity.user_type`: an agent is no person".to_owned(),
            ),
            (
                details.classification_key.is_none() != details.classifications.is_empty(),
                "`identity.details` needs both `classification_key` and `classifications`, or neither".to_owned(),
            ),
        ];
        if let Some((_, rule)) = rules.into_iter().find(|(is_broken, _)| *is_broken) {
            return Err(IdentityConfigError(rule));
        }
        check_issuers(settings, &audience)?;
        Ok(Self { audience, barred_audience: None, settings: settings.clone() })
    }

    /// Returns whether the audience is that of the settings, not that of another door.
    pub(in crate::identity) fn is_of_settings(&self) -> bool {
        self.settings.audience.as_ref() == Some(&self.audience)
    }

    /// Returns the difference between clocks that is tolerated, in seconds.
    pub(in crate::identity) fn leeway_seconds(&self) -> u64 {
        self.settings.leeway.as_secs()
    }
}

fn check_issuers(settings: &IdentityConfig, audience: &str) -> Result<(), IdentityConfigError> {
    let mut urls = HashSet::new();
    for issuer in &settings.issuers {
        let url = &issuer.issuer;
        if !urls.insert(url) {
            return Err(IdentityConfigError(format!("`identity.issuers` names `{url}` twice")));
        }
        if issuer.algorithms.is_empty() {
            return Err(IdentityConfigError(format!("issuer `{url}` has no `algorithms`")));
        }
        issuer.people.check().map_err(|e| IdentityConfigError(format!("issuer `{url}`: `people` {e}")))?;
        let profile = issuer.profile_settings(audience).check();
        profile.map_err(|e| IdentityConfigError(format!("issuer `{url}`: the profile {e}")))?;
    }
    check_namespaces(&settings.issuers)
}

/// Checks that a name is one user's: issuers that name different users have different short names, and issuers that name
/// the same users have the same.
fn check_namespaces(issuers: &[IssuerConfig]) -> Result<(), IdentityConfigError> {
    let mut first_of: HashMap<&str, &IssuerConfig> = HashMap::new();
    for issuer in issuers {
        let first = *first_of.entry(issuer.namespace()).or_insert(issuer);
        if first.names() != issuer.names() || first.tokens.subject != issuer.tokens.subject {
            return Err(IdentityConfigError(format!(
                "issuers `{}` and `{}` are of one tenant and name the same people: `name`, `encode_subjects` and \
                 `tokens.subject` must be the same, or a person would be two users",
                first.issuer, issuer.issuer
            )));
        }
    }
    // A single namespace needs no name.
    if first_of.len() < 2 {
        return Ok(());
    }
    let mut names = HashMap::new();
    for issuer in issuers {
        let url = &issuer.issuer;
        let is_own = issuer.name.as_ref().is_some_and(|name| {
            let owner = *names.entry(name).or_insert_with(|| issuer.namespace());
            owner == issuer.namespace()
        });
        if !is_own {
            return Err(IdentityConfigError(format!(
                "issuer `{url}` needs a `name` of its own, of at most 64 letters, digits and `-_.`: it keeps the users \
                 of several issuers apart"
            )));
        }
    }
    Ok(())
}

/// Returns whether a text can stand between quotes in a challenge.
pub(in crate::identity) fn is_quotable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::config::{ProviderProfile, ShortName, SubjectClaim, TokensConfig};

    const ACME: &str = "5c2f4a4e-9c1a-4b58-8d3f-0a1b2c3d4e5f";
    const GLOBEX: &str = "9a8b7c6d-1234-4f00-8a00-0123456789ab";

    fn version_1(tenant: &str, name: Option<&str>) -> IssuerConfig {
        of_entra(&format!("https://sts.example/{tenant}/"), name)
    }

    fn version_2(tenant: &str, name: Option<&str>) -> IssuerConfig {
        of_entra(&format!("https://login.example/{tenant}/v2.0"), name)
    }

    fn of_entra(url: &str, name: Option<&str>) -> IssuerConfig {
        IssuerConfig {
            profile: ProviderProfile::Entra,
            direct_clients: Some(Vec::new()),
            name: name.and_then(ShortName::parse),
            ..IssuerConfig::new(url)
        }
    }

    #[test]
    fn a_tenant_has_one_name_and_keeps_it_to_itself() {
        let by_sub = TokensConfig { subject: Some(SubjectClaim::Sub), ..TokensConfig::default() };
        let other_subject = IssuerConfig { tokens: by_sub, ..version_2(ACME, Some("acme")) };
        let encoding = IssuerConfig { encode_subjects: true, ..version_2(ACME, Some("acme")) };
        let plain = |url: &str, name: Option<&str>| IssuerConfig {
            name: name.and_then(ShortName::parse),
            ..IssuerConfig::new(url)
        };
        let (one_tenant, own_name) = ("are of one tenant", "needs a `name` of its own");
        let rows = [
            ("one version", vec![version_2(ACME, None)], ""),
            ("both versions", vec![version_1(ACME, None), version_2(ACME, None)], ""),
            ("both versions, named", vec![version_1(ACME, Some("acme")), version_2(ACME, Some("acme"))], ""),
            ("both versions, two names", vec![version_1(ACME, Some("a")), version_2(ACME, Some("b"))], one_tenant),
            ("both versions, one named", vec![version_1(ACME, Some("a")), version_2(ACME, None)], one_tenant),
            ("both versions, two subjects", vec![version_1(ACME, Some("acme")), other_subject], one_tenant),
            ("both versions, one that encodes", vec![version_1(ACME, Some("acme")), encoding], one_tenant),
            ("two tenants", vec![version_2(ACME, Some("acme")), version_2(GLOBEX, Some("globex"))], ""),
            ("two tenants, one name", vec![version_2(ACME, Some("acme")), version_2(GLOBEX, Some("acme"))], own_name),
            ("two tenants, no name", vec![version_2(ACME, None), version_1(GLOBEX, None)], own_name),
            (
                "two tenants, one of them with both versions",
                vec![version_1(ACME, Some("acme")), version_2(ACME, Some("acme")), version_2(GLOBEX, Some("globex"))],
                "",
            ),
            ("two issuers", vec![plain("https://a.example", Some("a")), plain("https://b.example", Some("b"))], ""),
            (
                "two issuers, one name",
                vec![plain("https://a.example", Some("a")), plain("https://b.example", Some("a"))],
                own_name,
            ),
            (
                "a tenant and an issuer",
                vec![version_2(ACME, Some("a")), plain("https://b.example", Some("a"))],
                own_name,
            ),
            ("one issuer twice", vec![version_2(ACME, None), version_2(ACME, None)], "twice"),
        ];
        for (row, issuers, expected) in rows {
            let settings =
                IdentityConfig { audience: Some("ragward".to_owned()), issuers, ..IdentityConfig::default() };
            let told = CheckedConfig::new(&settings).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), expected.is_empty(), "{row}: {told}");
            assert!(told.contains(expected), "{row}: {told}");
        }
    }
}
