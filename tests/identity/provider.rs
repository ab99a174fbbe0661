//! A provider that others wrote, and `ragward serve` beside it. Logins, consent, token exchange and discovery are all real. The
//! handbook tells what the bearer of each token sees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ragward::client::Client;
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RequestApprovalRequest, RetrieveRequest, RetrieveResponse};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::identity::world::{RETRIEVE, with_token};
use crate::support::provider::Provider;

pub(crate) const AUDIENCE: &str = "https://rag.example/api";
/// The server as its clients know it, as if a proxy stood in front.
pub(crate) const PUBLIC: &str = "https://rag.example";
/// A query that matches all pages of the handbook.
pub(crate) const QUERY: &str = "the leave pay release budget";

impl Provider {
    /// Logs a person in and lets the client retrieve, within `details` if there are any.
    async fn login(&mut self, user: &str, details: Option<Value>) -> String {
        let request =
            json!({"flow": "login", "user": user, "scope": RETRIEVE, "resource": AUDIENCE, "details": details});
        self.token(request).await
    }

    /// Exchanges a person's token for the agent's own.
    async fn exchange(&mut self, token: &str, details: Option<Value>) -> String {
        let request =
            json!({"flow": "exchange", "token": token, "scope": RETRIEVE, "resource": AUDIENCE, "details": details});
        self.token(request).await
    }
}

/// `ragward serve` over the handbook, as its operator would start it.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) client: Client,
    _process: Child,
    _data: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn start(issuer: &str) -> Self {
        Self::start_with(issuer, Some("ragward-cli")).await
    }

    /// Like [`Self::start`], with the name of a client for `ragward login`, or without one.
    pub(crate) async fn start_with(issuer: &str, login_client_id: Option<&str>) -> Self {
        Self::configured(|_directory| configuration(issuer, login_client_id)).await
    }

    /// Starts a server with a configuration, whose files may be in the directory.
    pub(crate) async fn configured(configuration: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data").to_str().unwrap().to_owned();
        let run = async |arguments: &[&str]| {
            let output = ragward().args(arguments).args(["--data", &data]).output().await.unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["model", "load", "schema/handbook/store.fga.yaml"]).await;
        run(&["ingest", "schema/handbook", "--collection", "handbook"]).await;
        let config = directory.path().join("ragward.toml");
        std::fs::write(&config, configuration(directory.path())).unwrap();
        let mut process = serve(&config, &data).spawn().unwrap();
        let address = format!("http://{}", address(process.stderr.take().unwrap()).await);
        Self { client: Client::at(&address).unwrap(), address, _process: process, _data: directory }
    }

    /// Returns the guards of the chunks that the bearer of a token sees.
    pub(crate) async fn seen(&self, token: &str) -> Result<BTreeSet<String>, Code> {
        let request = RetrieveRequest {
            collection: "handbook".to_owned(),
            query: Some(Query::Text(QUERY.to_owned())),
            top_k: 100,
            ..RetrieveRequest::default()
        };
        match self.client.retrieval().retrieve(with_token(request, token)).await {
            Ok(answer) => Ok(answer.into_inner().chunks.into_iter().map(|chunk| chunk.guard).collect()),
            Err(status) => Err(status.code()),
        }
    }
}

pub(crate) fn ragward() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn serve(config: &PathBuf, data: &str) -> Command {
    let mut command = ragward();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", data, "--config"]).arg(config).stderr(Stdio::piped());
    command
}

fn configuration(issuer: &str, login_client_id: Option<&str>) -> String {
    let login_client_id = login_client_id.map(|id| format!("login_client_id = '{id}'\n")).unwrap_or_default();
    format!(
        "[server]\n{login_client_id}public_url = '{PUBLIC}'\n[identity]\naudience = '{AUDIENCE}'\n[[identity.issuers]]\nissuer = '{issuer}'\n\
         [identity.delegation]\nrelation = 'can_act_for'\non = 'user'\n"
    )
}

/// Returns the address from the server's log. Reading goes on, so that the server never waits for a full pipe.
async fn address(log: ChildStderr) -> String {
    let mut lines = BufReader::new(log).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the server ended");
        if let Some((_, address)) = line.split_once("serving address=") {
            break address.to_owned();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    address
}

pub(crate) fn pages(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("document:{name}")).collect()
}

/// Settings of a server whose handbook needs approvals, for which it asks the provider itself.
pub(crate) fn asks_for_approvals(issuer: &str, client_id: &str, directory: &Path) -> String {
    let secret = directory.join("approval.secret");
    std::fs::write(&secret, format!("the secret of {client_id}")).unwrap();
    format!(
        "[[identity.approval]]\ncollection = 'handbook'\nchunks_max = 3\n[approval]\nissuer = '{issuer}'\n\
         client_id = '{client_id}'\nclient_secret_file = '{}'\n",
        secret.display()
    )
}

pub(crate) fn about(text: &str, approval: &str) -> RetrieveRequest {
    RetrieveRequest {
        collection: "handbook".to_owned(),
        query: Some(Query::Text(text.to_owned())),
        top_k: 10,
        approval: approval.to_owned(),
        ..RetrieveRequest::default()
    }
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_person_approves_at_a_real_provider() {
    let Some(mut provider) = Provider::start().await else { return };
    let issuer = provider.issuer.clone();
    let configuration = |directory: &Path| {
        configuration(&issuer, Some("ragward-cli")) + &asks_for_approvals(&issuer, "ragward", directory)
    };
    let served = Served::configured(configuration).await;
    let anne = provider.login("anne", None).await;
    let ask = async |request: RetrieveRequest, token: &str| -> Result<RetrieveResponse, Status> {
        Ok(served.client.retrieval().retrieve(with_token(request, token)).await?.into_inner())
    };

    // The agent's own program asks, with the details of the refusal.
    let refused = ask(about(QUERY, ""), &anne).await.unwrap_err();
    assert_eq!(reason(&refused), "APPROVAL_REQUIRED", "{refused:?}");
    let details = refused.get_error_details().error_info().unwrap().metadata["authorization_details"].clone();
    let details: Value = serde_json::from_str(&details).unwrap();
    let request = json!({"flow": "ask", "user": "anne", "scope": RETRIEVE, "resource": AUDIENCE, "details": details});
    let approved = provider.token(request).await;
    let other = ask(about("pay", ""), &approved).await.unwrap_err();
    assert_eq!(reason(&other), "APPROVAL_REQUIRED", "another query does not use it up");
    assert_eq!(ask(about(QUERY, ""), &approved).await.unwrap().chunks.len(), 3);
    assert_eq!(ask(about(QUERY, ""), &approved).await.unwrap_err().code(), Code::Unauthenticated);

    // Ragward asks.
    for (text, says, expected) in [(QUERY, "yes", ""), ("pay", "no", "APPROVAL_DENIED")] {
        let purpose = "answer a question".to_owned();
        let request = RequestApprovalRequest { request: Some(Approved::Retrieve(about(text, ""))), purpose };
        let asked = served.client.retrieval().request_approval(with_token(request, &anne)).await.unwrap().into_inner();
        provider.token(json!({"flow": "answer", "user": "anne", "says": says})).await;
        match ask(about(text, &asked.approval), &anne).await {
            Ok(answer) => assert_eq!((expected, answer.chunks.len()), ("", 3), "{says}"),
            Err(status) => assert_eq!(reason(&status), expected, "{says}: {status:?}"),
        }
    }
}

/// The provider waits for the answer to its notification, and fails unless that is 204. Without the notification, the second try
/// after the answer would come too early: the provider names no pause, so that is five seconds.
#[tokio::test]
async fn a_real_provider_notifies_of_answers() {
    let Some(mut provider) = Provider::start().await else { return };
    let issuer = provider.issuer.clone();
    let configuration = |directory: &Path| {
        let approvals = asks_for_approvals(&issuer, "ragward-ping", directory);
        format!("{}{approvals}delivery = 'ping'\nshow_query = true\n", configuration(&issuer, Some("ragward-cli")))
    };
    let served = Served::configured(configuration).await;
    provider.token(json!({"flow": "notify", "url": format!("{}/ciba/notify", served.address)})).await;
    let anne = provider.login("anne", None).await;
    let retrieve = async |text: &str, approval: &str| -> Result<RetrieveResponse, Status> {
        let request = about(text, approval);
        Ok(served.client.retrieval().retrieve(with_token(request, &anne)).await?.into_inner())
    };
    for (text, says, expected) in [(QUERY, "yes", ""), ("pay", "no", "APPROVAL_DENIED")] {
        let purpose = "answer a question".to_owned();
        let request = RequestApprovalRequest { request: Some(Approved::Retrieve(about(text, ""))), purpose };
        let asked = served.client.retrieval().request_approval(with_token(request, &anne)).await.unwrap().into_inner();
        for attempt in ["the first poll", "too early"] {
            let pending = retrieve(text, &asked.approval).await.unwrap_err();
            assert_eq!(reason(&pending), "APPROVAL_PENDING", "{attempt}: {pending:?}");
        }
        provider.token(json!({"flow": "answer", "user": "anne", "says": says})).await;
        match retrieve(text, &asked.approval).await {
            Ok(answer) => assert_eq!((expected, answer.chunks.len()), ("", 3), "{says}"),
            Err(status) => assert_eq!(reason(&status), expected, "{says}: {status:?}"),
        }
    }
}

#[tokio::test]
async fn tokens_of_a_real_provider_count_as_its_users_let_them() {
    let Some(mut provider) = Provider::start().await else { return };
    let served = Served::start(&provider.issuer).await;

    let anne = provider.login("anne", None).await;
    let of_anne = served.seen(&anne).await.unwrap();
    assert!(of_anne.is_superset(&pages(&["on-call", "parental-leave", "release-checklist", "welcome"])), "{of_anne:?}");
    assert!(of_anne.is_disjoint(&pages(&["pay-bands", "leave-casework", "board-minutes"])), "{of_anne:?}");
    let bob = provider.login("bob", None).await;
    let of_bob = served.seen(&bob).await.unwrap();
    assert!(of_bob.contains("document:pay-bands") && !of_bob.contains("document:on-call"), "{of_bob:?}");
    let stranger = provider.login("stranger", None).await;
    assert_eq!(served.seen(&stranger).await.unwrap(), pages(&["welcome", "benefits"]), "what is public");
    let everybody = provider.login("*", None).await;
    assert_eq!(served.seen(&everybody).await, Err(Code::Unauthenticated), "no name of a user");

    // The agent may act for Anne, and not for Bob.
    let for_anne = provider.exchange(&anne, None).await;
    assert_eq!(served.seen(&for_anne).await.unwrap(), of_anne);
    let for_bob = provider.exchange(&bob, None).await;
    assert_eq!(served.seen(&for_bob).await.unwrap(), pages(&[]));
    // A second exchange by the agent gives the agent as the actor again; the first one is history.
    let twice = provider.exchange(&for_anne, None).await;
    assert_eq!(served.seen(&twice).await.unwrap(), of_anne);

    // Details narrow the token: those that Anne consented to, and those that the agent asked for.
    let detail = |more: Value| {
        let mut detail = json!({"type": "ragward_retrieval"});
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(json!([detail]))
    };
    let two = detail(json!({"identifiers": ["document:on-call", "document:pay-bands"], "collections": ["handbook"]}));
    let narrowed = provider.login("anne", two.clone()).await;
    assert_eq!(served.seen(&narrowed).await.unwrap(), pages(&["on-call"]), "none of them gives what Anne has not");
    let inherited = provider.exchange(&narrowed, None).await;
    assert_eq!(served.seen(&inherited).await.unwrap(), pages(&["on-call"]));
    let asked = provider.exchange(&anne, two).await;
    assert_eq!(served.seen(&asked).await.unwrap(), pages(&["on-call"]));
    let elsewhere = provider.exchange(&anne, detail(json!({"collections": ["ledger"]}))).await;
    assert_eq!(served.seen(&elsewhere).await, Err(Code::PermissionDenied));
    let unknown = provider.exchange(&anne, detail(json!({"all_documents": true}))).await;
    assert_eq!(served.seen(&unknown).await, Err(Code::Unauthenticated), "what is not understood refuses the token");

    let refused = [
        ("a client is no user", json!({"flow": "client", "scope": RETRIEVE, "resource": AUDIENCE})),
        (
            "a token without the scope",
            json!({"flow": "login", "user": "anne", "scope": "ragward:ingest", "resource": AUDIENCE}),
        ),
    ];
    for (what, request) in refused {
        let token = provider.token(request).await;
        assert_eq!(served.seen(&token).await, Err(Code::PermissionDenied), "{what}");
    }
    let invalid = [
        (
            "meant for another resource",
            json!({"flow": "login", "user": "anne", "scope": RETRIEVE, "resource": "https://other.example/api"}),
        ),
        (
            "bound to a key that is not shown",
            json!({"flow": "login", "user": "anne", "scope": RETRIEVE, "resource": AUDIENCE, "bound": true}),
        ),
        ("an ID token", json!({"flow": "login", "user": "anne", "scope": "", "want": "id_token"})),
        ("an opaque token", json!({"flow": "login", "user": "anne", "scope": ""})),
    ];
    for (what, request) in invalid {
        let token = provider.token(request).await;
        assert_eq!(served.seen(&token).await, Err(Code::Unauthenticated), "{what}");
    }
}

/// The client signs its proofs with `jose`, and the provider binds the token to the client's key.
#[tokio::test]
async fn a_bound_token_of_a_real_provider_is_taken_with_proofs_of_its_client() {
    let Some(mut provider) = Provider::start().await else { return };
    let served = Served::start(&provider.issuer).await;
    let login = json!({"flow": "login", "user": "anne", "scope": RETRIEVE, "resource": AUDIENCE, "bound": true});
    let bound = provider.token(login).await;
    let path = "/v1/collections/handbook/retrieve";
    let call = |htu: String, token: &str| {
        let url = format!("{}{path}", served.address);
        json!({"flow": "call", "token": token, "url": url, "htu": htu, "body": {"text": QUERY, "topK": 100}})
    };
    let answer = provider.token(call(format!("{PUBLIC}{path}"), &bound)).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["status"], &answer["tries"]), (&json!(200), &json!(2)), "with the server's nonce: {answer}");
    let guards = answer["body"]["chunks"].as_array().unwrap().iter().map(|chunk| chunk["guard"].as_str().unwrap());
    let guards: BTreeSet<String> = guards.map(str::to_owned).collect();
    let anne = provider.login("anne", None).await;
    assert_eq!(guards, served.seen(&anne).await.unwrap());

    let elsewhere = provider.token(call(format!("{}{path}", served.address), &bound)).await;
    let elsewhere: Value = serde_json::from_str(&elsewhere).unwrap();
    assert_eq!((&elsewhere["status"], &elsewhere["tries"]), (&json!(401), &json!(1)), "{elsewhere}");
    assert_eq!(served.seen(&bound).await, Err(Code::Unauthenticated), "as a plain bearer");
}
