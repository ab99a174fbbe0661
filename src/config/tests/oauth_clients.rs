//! Tests the tables in which Ragward is a client of an authorization server.

use super::*;

/// Each table of a client of an authorization server has the same settings and the same rules.
#[test]
fn a_client_of_an_authorization_server_has_one_credential() {
    let tables = [
        (
            "authorizer.openfga.client_credentials",
            "[authorizer]\nkind = 'openfga'\n[authorizer.openfga.client_credentials]\ntoken_url = 'https://login.example/token'",
        ),
        ("approval", "[approval]\nissuer = 'https://login.example'"),
        (
            "exchange",
            "[[sources]]\nname = 'wiki'\nguard_type = 'document'\nurl = 'https://wiki.example/{id}'\n\
             [sources.exchange]\ntoken_url = 'https://login.example/token'\naudience = 'wiki'",
        ),
    ];
    let rows = [
        ("a secret", "client_secret_file = '/s'", None),
        ("a secret in the header", "client_secret_file = '/s'\nsecret_in = 'header'", None),
        ("a key", "private_key_file = '/k'", None),
        ("a key with an id", "private_key_file = '/k'\nkey_id = 'mine'", None),
        ("neither", "", Some("client_secret_file` or `private_key_file` has to be set, and not both")),
        (
            "both",
            "client_secret_file = '/s'\nprivate_key_file = '/k'",
            Some("client_secret_file` or `private_key_file`"),
        ),
        ("the id of no key", "client_secret_file = '/s'\nkey_id = 'mine'", Some("key_id` has no effect")),
        ("a key in the header", "private_key_file = '/k'\nsecret_in = 'header'", Some("secret_in` has no effect")),
    ];
    for (table, settings) in tables {
        for (row, credential, expected) in rows {
            let loaded = load(&format!("{settings}\nclient_id = 'ragward'\n{credential}"), &[], &Overrides::default());
            match (loaded, expected) {
                (Ok(config), None) => {
                    let printed = toml::to_string(&config).expect("printed");
                    assert_eq!(load(&printed, &[], &Overrides::default()).expect(row), config, "{table}, {row}");
                }
                (Err(error), Some(rule)) => {
                    assert!(error.to_string().contains(&format!("`{table}.{rule}")), "{table}, {row}: {error}");
                }
                (loaded, _) => panic!("{table}, {row}: {loaded:?}"),
            }
        }
        let nameless = format!("{settings}\nclient_id = ''\nclient_secret_file = '/s'");
        let error = load(&nameless, &[], &Overrides::default()).expect_err(table).to_string();
        assert!(error.contains(&format!("`{table}.client_id` is empty")), "{error}");
    }
}
