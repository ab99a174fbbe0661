//! The layers, and what is refused.

use std::collections::HashMap;

use super::*;

fn load(toml: &str, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, toml).expect("written");
    let variables: HashMap<String, String> =
        environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load_from(Some(&file), Environment::default().source(Some(variables)), overrides)
}

#[test]
fn later_layers_win() {
    let toml = "[server]\nlisten = '127.0.0.1:1'\nrequest_timeout_ms = 1\n[retrieval]\ntop_k_max = 7";
    let environment = [("RAGWARD__SERVER__LISTEN", "127.0.0.1:2"), ("RAGWARD__SERVER__REQUEST_TIMEOUT_MS", "2")];
    let flags = Overrides { listen: Some(SocketAddr::from(([127, 0, 0, 1], 3))), ..Overrides::default() };
    let config = load(toml, &environment, &flags).expect("valid");
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.request_timeout_ms, 2);
    assert_eq!(config.retrieval.top_k_max, 7);
    assert_eq!(config.retrieval.relation, "can_read");
}

#[test]
fn what_is_wrong_is_told() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row; 7] = [
        ("[sever]\nlisten = '127.0.0.1:1'", &[], "unknown configuration key `sever`; did you mean `server`?"),
        ("[server]\nlisten_adress = 1", &[], "did you mean `server.listen`?"),
        ("", &[("RAGWARD__RETRIEVAL__TOPK_MAX", "3")], "did you mean `retrieval.top_k_max`?"),
        ("[server]\nlisten = 'here'", &[], "listen"),
        ("[retrieval]\ntop_k_max = 'ten'", &[], "top_k_max"),
        ("[retrieval]\ntop_k_max = 0", &[], "`retrieval.top_k_max` must be at least 1"),
        ("[server\n", &[], "TOML"),
    ];
    for (toml, environment, expected) in rows {
        let error = load(toml, environment, &Overrides::default()).expect_err(toml).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn contradictions_name_both_keys() {
    let rows = [
        ("cache_bytes_max = 0", ["checks.cache_bytes_max", "checks.cache_ttl_ms"]),
        ("changelog_poll_ms = 2000", ["checks.changelog_age_max_ms", "checks.changelog_poll_ms"]),
        ("changelog_age_max_ms = 0", ["checks.changelog_age_max_ms", "checks.changelog_poll_ms"]),
        ("cache_ttl_ms = 499", ["checks.cache_ttl_ms", "checks.changelog_poll_ms"]),
        ("checks_waiting_max = 199", ["checks.checks_waiting_max", "openfga.checks_per_call"]),
    ];
    for (line, keys) in rows {
        let toml = format!("[authorizer.checks]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
    }
    for (line, keys) in [
        ("poll_interval_ms = 2000", ["replica.poll_interval_ms", "checks.changelog_age_max_ms"]),
        ("staleness_max_ms = 500", ["replica.poll_interval_ms", "replica.staleness_max_ms"]),
    ] {
        let toml = format!("[authorizer.replica]\n{line}");
        let error = load(&toml, &[], &Overrides::default()).expect_err(&toml).to_string();
        assert!(keys.iter().all(|key| error.contains(&format!("`authorizer.{key}`"))), "{error}");
        let without = format!("{toml}\nmode = 'off'");
        assert!(load(&without, &[], &Overrides::default()).is_ok(), "{line}");
    }
    for line in ["cache_ttl_ms = 0\ncache_bytes_max = 0", "changelog_poll_ms = 0\nchangelog_age_max_ms = 0"] {
        let toml = format!("[authorizer.checks]\n{line}");
        assert!(load(&toml, &[], &Overrides::default()).is_ok(), "{line}");
    }
}

#[test]
fn variables_that_mean_nothing_are_found() {
    let names = [
        "PATH",
        "RAGWARD_CONFIG",
        "RAGWARD_TOKEN",
        "RAGWARD__SERVER__LISTEN",
        "RAGWARD_SERVER_LISTEN",
        "RAGWARD_DATA",
        "RAGWARDX",
    ];
    let found = unknown_variables(names.iter().map(|name| (*name).to_owned()));
    let found: Vec<(&str, &str)> = found.iter().map(|(name, instead)| (name.as_str(), instead.as_str())).collect();
    let expected = [("RAGWARD_DATA", "RAGWARD__SECTION__KEY"), ("RAGWARD_SERVER_LISTEN", "RAGWARD__SERVER__LISTEN")];
    assert_eq!(found, expected);
}

#[test]
fn what_is_printed_can_be_read_back() {
    let printed = toml::to_string(&Config::default()).expect("printed");
    assert_eq!(load(&printed, &[], &Overrides::default()).expect("read"), Config::default());
}
