//! Tests how the token of a call becomes one of the source, and when it does not.

use futures::future::{Either, select};

use super::*;

/// Auth0 is not here. Its stand-in looks at the form that its documentation shows.
#[tokio::test]
async fn a_vault_is_asked_for_the_token_of_a_connection() {
    let world = World::start(
        |_asked| Answer::Status(204),
        |settings| {
            let exchange = settings["exchange"].as_object_mut().unwrap();
            exchange.remove("audience");
            exchange.insert("grant".to_owned(), json!("auth0_federated_connection"));
            exchange.insert("connection".to_owned(), json!("google-oauth2"));
            exchange.insert("secret_in".to_owned(), json!("body"));
        },
    )
    .await;
    world.issuer.set(|_asked| {
        let kind = "http://auth0.com/oauth/token-type/federated-connection-access-token";
        let answer =
            json!({"access_token": "opaque", "token_type": "Bearer", "issued_token_type": kind, "expires_in": 60});
        Answer::Body(200, answer.to_string())
    });
    assert_eq!(released(&world.ask("1", &bearer("anne", 1)).await), Some(true));
    assert_eq!(world.source.asked()[0].authorization, "Bearer opaque");
    let asked = world.issuer.asked();
    let form: HashMap<String, String> = form_urlencoded::parse(asked[0].body.as_bytes()).into_owned().collect();
    let expected = [
        ("grant_type", "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"),
        ("subject_token", bearer("anne", 1).expose()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("requested_token_type", "http://auth0.com/oauth/token-type/federated-connection-access-token"),
        ("connection", "google-oauth2"),
        ("client_id", "ragward"),
        ("client_secret", SECRET),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(form, HashMap::from(expected));
    assert!(asked[0].authorization.is_empty());
}

#[tokio::test]
async fn the_token_of_another_issuer_goes_nowhere() {
    let rows: [(&str, &[&str], bool); 4] = [
        ("the only issuer", &[], true),
        ("its issuer", &["issuer"], true),
        ("its issuer and another one", &["https://other.example", "issuer"], true),
        ("another issuer", &["https://other.example", "issuer/"], false),
    ];
    for (row, issuers, is_asked) in rows {
        let change = |settings: &mut Value| {
            settings["exchange"]["issuers"] = json!(issuers);
            settings["remember"] = json!("30s");
        };
        let world = World::start(|_asked| Answer::Status(200), change).await;
        let reply = world.ask("1", &bearer("anne", 1)).await;
        assert_eq!(reply.is_ok(), is_asked, "{row}: {reply:?}");
        assert!(is_asked || reply == Err(SourceError::NoToken), "{row}: {reply:?}");
        let asked = usize::from(is_asked);
        assert_eq!((world.issuer.asked().len(), world.source.asked().len()), (asked, asked), "{row}");
    }
}

#[tokio::test]
async fn the_secret_of_an_exchange_may_change() {
    let change = |settings: &mut Value| settings["exchange"]["secret_in"] = json!("body");
    let world = World::start(|_asked| Answer::Status(200), change).await;
    let rows = [("the first one", SECRET, SECRET), ("another one", "second", "second"), ("none", "", "second")];
    for (number, (row, written, expected)) in rows.into_iter().enumerate() {
        std::fs::write(world.directory.path().join("secret"), written).unwrap();
        assert_eq!(released(&world.ask("1", &bearer("anne", number)).await), Some(true), "{row}");
        let asked = world.issuer.asked();
        let mut fields = form_urlencoded::parse(asked[number].body.as_bytes());
        let sent = fields.find(|(name, _)| name == "client_secret").map(|(_, secret)| secret.into_owned());
        assert_eq!(sent.as_deref(), Some(expected), "{row}");
    }
}

/// An authorization server may give back what it got. At the source, that would be the key of the user to Ragward.
#[tokio::test]
async fn the_token_of_a_call_is_never_taken_for_that_of_a_source() {
    let rows = [("a vault, which names no audience", json!(null)), ("an audience that it has, too", json!("rag"))];
    for (row, audience) in rows {
        let is_vault = audience.is_null();
        let world = World::start(
            |_asked| Answer::Status(200),
            |settings| {
                let exchange = settings["exchange"].as_object_mut().unwrap();
                exchange.insert("audience".to_owned(), audience);
                if is_vault {
                    exchange.insert("grant".to_owned(), json!("auth0_federated_connection"));
                    exchange.insert("connection".to_owned(), json!("google-oauth2"));
                }
            },
        )
        .await;
        world.issuer.set(|asked| {
            let fields = form_urlencoded::parse(asked.body.as_bytes());
            let subject_token = fields.into_owned().find(|(name, _)| name == "subject_token").map(|(_, value)| value);
            let answer = json!({"access_token": subject_token, "token_type": "Bearer", "expires_in": 60});
            Answer::Body(200, answer.to_string())
        });
        let text = jwt(&json!({"sub": "anne", "aud": "rag"}));
        let anne = BearerToken::new(&text, sample::token("anne", "ragward:retrieve", NOW + 600).facts());
        assert_eq!(world.fault("1", &anne).await, Some(SourceFault::ExchangedToken), "{row}");
        assert!(world.source.asked().is_empty(), "{row}");
    }
}

#[tokio::test]
async fn an_exchange_that_fails_asks_no_source() {
    let good = || json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 60});
    let with = |name: &str, value: Value| {
        let mut answer = good();
        answer[name] = value;
        Answer::Body(200, answer.to_string())
    };
    let of = |claims: &Value| with("access_token", json!(jwt(claims)));
    let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
    let (no_token, status) = (Some(SourceFault::ExchangedToken), |code| Some(SourceFault::ExchangeStatus(code)));
    let rows = [
        ("a good one", Answer::Body(200, good().to_string()), None),
        ("with a refresh token beside it", with("refresh_token", json!("r")), None),
        ("a refresh token alone", with("issued_token_type", json!(refresh)), no_token),
        ("another user's", of(&json!({"sub": "bob", "aud": SOURCE_AUDIENCE})), no_token),
        ("for another source", of(&json!({"sub": "anne", "aud": "https://drive.example"})), no_token),
        ("one that has ended", of(&json!({"sub": "anne", "aud": SOURCE_AUDIENCE, "exp": NOW})), no_token),
        ("one that ends at once", with("expires_in", json!(0)), no_token),
        ("a login page", Answer::Body(200, "<html>Log in</html>".to_owned()), no_token),
        ("10 MB", Answer::Body(200, "x".repeat(10_000_000)), no_token),
        ("an expired client secret", Answer::Body(401, r#"{"error":"invalid_client"}"#.to_owned()), status(401)),
        ("a user without a grant", Answer::Body(400, r#"{"error":"invalid_grant"}"#.to_owned()), status(400)),
        ("a redirect", Answer::Redirect("http://127.0.0.1:1/".to_owned()), status(302)),
        ("a failure", Answer::Status(500), status(500)),
        ("nothing", Answer::Close, Some(SourceFault::ExchangeUnreachable)),
        ("it hangs", Answer::Hang, Some(SourceFault::ExchangeUnreachable)),
        ("no token", with("access_token", json!(null)), no_token),
        ("a token that is bound to a key", with("token_type", json!("DPoP")), no_token),
        ("several audiences without this source", of(&json!({"sub": "anne", "aud": ["a", "b"]})), no_token),
        ("an audience that begins alike", of(&json!({"sub": "anne", "aud": "https://wiki.example/a"})), no_token),
        ("the user in capitals", of(&json!({"sub": "ANNE", "aud": SOURCE_AUDIENCE})), no_token),
    ];
    let world = World::start(|_asked| Answer::Status(200), |_settings| {}).await;
    for (number, (row, answer, expected)) in rows.into_iter().enumerate() {
        let before = world.source.asked().len();
        world.issuer.set(move |_asked| answer.clone());
        assert_eq!(world.fault("1", &bearer("anne", number)).await, expected, "{row}");
        assert_eq!(world.source.asked().len() - before, usize::from(expected.is_none()), "{row}");
    }
    let ended = BearerToken::new("x", sample::token("anne", "ragward:retrieve", NOW + 1).facts());
    let guard = Object::parse("document:1").unwrap();
    let document = world.sources.locate(&guard, None).unwrap();
    let since_1970 = Duration::from_secs(NOW + 1);
    let (asked, recall) = (world.issuer.asked().len(), Recall::All);
    let question = SourceQuestion { document: &document, version: None, bearer: &ended, recall, since_1970 };
    let fault = SourceFault::Ended;
    let expected = Err(SourceError::Unavailable { source_name: "wiki".to_owned(), fault });
    assert_eq!(world.sources.ask(&question).await, expected);
    assert_eq!(world.issuer.asked().len(), asked, "a token that has ended is not sent");
}

#[tokio::test]
async fn a_token_that_the_source_refuses_is_exchanged_once_more() {
    let world = World::start(|_asked| Answer::Status(200), |_settings| {}).await;
    let anne = bearer("anne", 1);
    assert_eq!(released(&world.ask("1", &anne).await), Some(true));
    // The source has withdrawn the first token.
    let withdrawn = world.source.asked()[0].authorization.clone();
    world.source.set(move |asked| Answer::Status(if asked.authorization == withdrawn { 401 } else { 200 }));
    assert_eq!(released(&world.ask("1", &anne).await), Some(true));
    assert_eq!((world.issuer.asked().len(), world.source.asked().len()), (2, 3));
    world.source.set(|_asked| Answer::Status(401));
    assert_eq!(world.fault("1", &anne).await, Some(SourceFault::Status(401)));
    assert_eq!((world.issuer.asked().len(), world.source.asked().len()), (3, 5), "one more exchange, and no third try");
}

#[tokio::test]
async fn one_exchange_serves_all_who_wait_for_it() {
    let world = World::start(|_asked| Answer::Status(200), |_settings| {}).await;
    let anne = bearer("anne", 1);
    let ids: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let replies = join_all(ids.iter().map(|id| world.ask(id, &anne))).await;
    assert!(replies.iter().all(|reply| released(reply) == Some(true)), "{replies:?}");
    assert_eq!((world.issuer.asked().len(), world.source.asked().len()), (1, 50));
    // A narrower token of the same user is another token.
    assert_eq!(released(&world.ask("0", &bearer("anne", 2)).await), Some(true));
    assert_eq!(world.issuer.asked().len(), 2);
}

/// A user who waits for a token keeps the source from nobody who has one.
#[tokio::test]
async fn an_exchange_that_hangs_takes_no_place_at_the_source() {
    let world = World::start(|_asked| Answer::Status(200), |settings| settings["concurrency"] = json!(1)).await;
    let (anne, bob) = (bearer("anne", 1), bearer("bob", 1));
    assert_eq!(released(&world.ask("1", &anne).await), Some(true));
    world.issuer.set(|_asked| Answer::Hang);
    // Bob is first, and his exchange ends only when its time is over.
    match select(Box::pin(world.ask("2", &bob)), Box::pin(world.ask("2", &anne))).await {
        Either::Right((reply, _bob)) => assert_eq!(released(&reply), Some(true)),
        Either::Left((reply, _anne)) => panic!("Anne had to wait for Bob: {reply:?}"),
    }
}
