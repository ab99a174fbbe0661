use std::collections::HashMap;

use futures::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::settings::{OAuthClientConfig, SecretFile};
use crate::token_endpoint::TIMEOUT;
use crate::token_endpoint::sample::{Answer, Endpoint};

const SETTING: &str = "the.setting";

/// A client of an endpoint, with its secret in a file.
struct World {
    endpoint: Endpoint,
    source: TokenSource,
    _directory: TempDir,
}

impl World {
    async fn start(answer: Answer) -> Self {
        let endpoint = Endpoint::start(answer).await;
        let directory = tempfile::tempdir().unwrap();
        let source = TokenSource::new(SETTING, &settings(&endpoint.url, &directory)).unwrap();
        Self { endpoint, source, _directory: directory }
    }

    async fn token(&self) -> Result<String, NoToken> {
        Ok(self.source.authorization().await?.to_str().unwrap().to_owned())
    }

    /// Waits until no request for a token runs.
    async fn settled(&self) {
        drop(self.source.0.fetching.lock().await);
    }
}

fn settings(url: &str, directory: &TempDir) -> ClientCredentials {
    let path = directory.path().join("secret");
    std::fs::write(&path, "canary-93").unwrap();
    ClientCredentials {
        token_url: url.to_owned(),
        client: OAuthClientConfig::with_secret("ragward", SecretFile::new(path)),
        audience: None,
        scopes: Vec::new(),
        ca_file: None,
    }
}

/// Lets this much time pass at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what a source of tokens returns")]
fn bearer(number: usize) -> Result<String, NoToken> {
    Ok(format!("Bearer token-{number}"))
}

#[tokio::test]
async fn a_token_is_good_for_long_enough_or_no_call_leaves() {
    for (row, seconds, is_taken) in [("the shortest lifetime", 2, true), ("a second", 1, false), ("no time", 0, false)]
    {
        let world = World::start(Answer::Token(seconds)).await;
        assert_eq!(world.token().await, if is_taken { bearer(1) } else { Err(NoToken) }, "{row}");
        assert_eq!(world.endpoint.asked().len(), 1, "{row}");
    }
}

#[tokio::test]
async fn a_request_says_what_the_settings_say() {
    let endpoint = Endpoint::start(Answer::Token(300)).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = ClientCredentials {
        audience: Some("https://api.example/".to_owned()),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        ..settings(&endpoint.url, &directory)
    };
    let source = TokenSource::new(SETTING, &settings).unwrap();
    source.authorization().await.unwrap();
    let asked = endpoint.asked().remove(0);
    let expected = [
        ("grant_type", "client_credentials"),
        ("audience", "https://api.example/"),
        ("scope", "read write"),
        ("client_id", "ragward"),
        ("client_secret", "canary-93"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked.form, HashMap::from(expected));
    assert!(!format!("{source:?}").contains("canary-93"));
}

#[tokio::test]
async fn settings_that_get_no_token_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings("http://login.example/token", &directory);
    let error = TokenSource::new(SETTING, &settings).map(drop).expect_err("no TLS");
    assert!(error.to_string().starts_with("`the.setting.token_url`: it must be an `https` URL"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_keeps_no_call_for_long() {
    let world = World::start(Answer::Hang).await;
    let began = Instant::now();
    let found = join_all((0..100).map(|_| world.token())).await;
    assert!(found.iter().all(|found| *found == Err(NoToken)));
    assert!(began.elapsed() <= TIMEOUT + PAUSE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn many_calls_wait_for_one_request() {
    let world = World::start(Answer::Token(300)).await;
    for found in join_all((0..100).map(|_| world.token())).await {
        assert_eq!(found, bearer(1));
    }
    assert_eq!(world.endpoint.asked().len(), 1);
    // A call whose caller goes away does not end the request.
    let world = World::start(Answer::Token(300)).await;
    assert!(futures::FutureExt::now_or_never(world.token()).is_none());
    world.settled().await;
    assert_eq!(world.token().await, bearer(1));
    assert_eq!(world.endpoint.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_asked_for_again_before_it_ends() {
    let world = World::start(Answer::Token(300)).await;
    assert_eq!(world.token().await, bearer(1));
    pass(Duration::from_secs(230)).await;
    assert_eq!(world.token().await, bearer(1), "long before its end");
    world.settled().await;
    assert_eq!(world.endpoint.asked().len(), 1);

    pass(Duration::from_secs(15)).await;
    assert_eq!(world.token().await, bearer(1), "the old token is still good, and nobody waits");
    world.settled().await;
    assert_eq!(world.token().await, bearer(2));

    // The endpoint is down for the whole last minute of the token.
    world.endpoint.set(Answer::Text(500, String::new()));
    pass(Duration::from_secs(250)).await;
    assert_eq!(world.token().await, bearer(2), "the old token stays while it is good");
    world.settled().await;
    assert_eq!(world.token().await, bearer(2));
    pass(Duration::from_mins(1)).await;
    assert_eq!(world.token().await, Err(NoToken), "after its end, no call leaves");
    let asked = world.endpoint.asked().len();
    assert_eq!(world.token().await, Err(NoToken));
    assert_eq!(world.endpoint.asked().len(), asked, "not again at once");

    world.endpoint.set(Answer::Token(2));
    pass(PAUSE).await;
    let number = asked + 1;
    assert_eq!(world.token().await, bearer(number), "the endpoint answers again");
    pass(Duration::from_millis(1_600)).await;
    assert_eq!(world.token().await, bearer(number + 1), "a short life is over soon");
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_replaced() {
    let world = World::start(Answer::Token(300)).await;
    let value = world.source.authorization().await.unwrap();
    world.source.refused(&value);
    assert_eq!(world.token().await, bearer(1), "another one would be refused as well");
    pass(PAUSE).await;
    world.source.refused(&HeaderValue::from_static("Bearer other"));
    assert_eq!(world.token().await, bearer(1), "the refusal of an older token says nothing of this one");
    world.source.refused(&value);
    assert_eq!(world.token().await, bearer(2));
}
