//! `ragward demo --approval`: an agent asks for a secret page, and its person says yes or no in the terminal.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::Status;
use tonic_types::StatusExt;

use super::agent::{DIGEST_CHARACTERS, records};
use super::issuer::{Device, Issuer};
use super::served::{AUDIENCE, identity, while_serving};
use super::{EXCERPT_CHARACTERS, FoundChunk, TOP_K, found_chunks, load};
use crate::app::App;
use crate::audit::Record;
use crate::cli::output::{excerpt, table};
use crate::cli::{Failure, Output};
use crate::client::Client;
use crate::config::{Config, DataConfig};
use crate::identity::config::{
    ApprovalConfig, BackchannelConfig, BindingMessage, Delivery, IdentityConfig, IssuerDetails,
};
use crate::proto::ingest::PutDocumentRequest;
use crate::proto::retrieval::request_approval_request::Request as ToApprove;
use crate::proto::retrieval::retrieve_request::Query;
use crate::proto::retrieval::{RequestApprovalRequest, RetrieveRequest};
use crate::settings::{OAuthClientConfig, Secret, SecretFile};

/// The collection whose chunks need an approval.
const COLLECTION: &str = "vault";
const TITLE: &str = "The second mill";
const TEXT: &str = "The board buys a second mill in March. The price is agreed, and the seller wants silence until then. \
                    Until the contract is signed, nobody outside the board and the people who prepare it may know.";
/// The guard of the secret page. Anne may read it.
const GUARD: &str = "document:parental-leave";
/// The questions of the agent, one for each answer of its person.
const QUESTIONS: [&str; 2] = ["When does the board buy the mill?", "What is the price of the mill?"];
const PURPOSE: &str = "prepare the letter to the bank";
const EXPIRY_SECONDS: u64 = 300;
const EXPLANATION: &str = "\
The agent acts for Anne, who may read the page. She still has to say yes to each request for it. The agent never got the
token by which the issuer proves her yes: it asked Ragward, Ragward asked the issuer, and the issuer asked Anne.

Her device shows who asks, what for, and for how many chunks of which collection. It does not show the question, unless
`approval.show_query` is set. In the log, a refusal has a digest of its own, because each refusal offers a new nonce.

docs/src/approvals.md says how a server asks for approvals.";

/// The answer of the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Says {
    Yes,
    No,
}

#[derive(Serialize)]
struct ApprovalDemo {
    rounds: Vec<Round>,
    /// The records of the requests in the audit log.
    records: Vec<Record>,
}

/// One question of the agent, and what each party saw of it.
#[derive(Serialize)]
struct Round {
    question: &'static str,
    /// The refusal of the agent's first try.
    required: String,
    /// The question on the person's device.
    device: Value,
    /// The person's answer; `None` if nobody asked them.
    says: Option<Says>,
    /// The refusal of the agent's last try; empty if it got an answer.
    refused: String,
    chunks: Vec<FoundChunk>,
}

pub(super) async fn run(handbook: &Path, data: DataConfig, answers: &[Says], output: &Output) -> Result<(), Failure> {
    if answers.is_empty() && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is at a terminal who could say yes: give `--answers yes,no`"));
    }
    let issuer = Issuer::new().await?;
    let config = config(handbook, data, &issuer)?;
    let app = App::open(&config).await?;
    let services = load(&app, handbook).await?;
    let page = PutDocumentRequest {
        collection: COLLECTION.to_owned(),
        document_id: "second-mill".to_owned(),
        guard: GUARD.to_owned(),
        title: TITLE.to_owned(),
        text: TEXT.to_owned(),
        ..PutDocumentRequest::default()
    };
    services.client().ingest().put_document(page).await?;
    services.close().await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    let claims = json!({
        "sub": "anne", "aud": AUDIENCE, "client_id": "desk", "scope": "ragward:retrieve", "act": { "sub": "desk-helper" },
    });
    let token = Secret::new(issuer.token("of the agent", &claims)?);
    let device = Arc::new(Device::default());
    let issuing = issuer.serve_asking(Arc::clone(&device));
    let rounds = Box::pin(while_serving(&app, listener, issuing, ask_each(&server, &token, &device, answers))).await?;
    let demo = ApprovalDemo { rounds, records: records(&config)? };
    output.result(&demo, || people(&demo))
}

fn config(handbook: &Path, data: DataConfig, issuer: &Issuer) -> Result<Config, Failure> {
    let secret = handbook.with_file_name("approval.secret");
    std::fs::write(&secret, "the secret of the demo's client")?;
    let approval = BackchannelConfig {
        issuer: issuer.url().to_owned(),
        client: OAuthClientConfig::with_secret("ragward", SecretFile::new(secret)),
        key_file: None,
        delivery: Delivery::Poll,
        scope: "openid ragward:retrieve".to_owned(),
        binding_message: BindingMessage::Code,
        show_query: false,
        expiry: std::time::Duration::from_secs(EXPIRY_SECONDS),
        details: IssuerDetails::Required,
        page_url: None,
    };
    let identity = IdentityConfig {
        approval: vec![ApprovalConfig { collection: Some(COLLECTION.to_owned()), ..ApprovalConfig::default() }],
        ..identity(issuer)
    };
    Ok(Config { data, identity, approval: Some(approval), ..Config::default() })
}

async fn ask_each(server: &str, token: &Secret, device: &Device, answers: &[Says]) -> Result<Vec<Round>, Failure> {
    let client = Client::with_token(server, token).map_err(|e| Failure::failed(e.to_string()))?;
    let mut rounds = Vec::new();
    for (number, question) in QUESTIONS.into_iter().enumerate() {
        rounds.push(ask(&client, device, question, answers.get(number).copied()).await?);
    }
    Ok(rounds)
}

/// Asks one question, lets the person answer, and asks again.
async fn ask(client: &Client, device: &Device, question: &'static str, says: Option<Says>) -> Result<Round, Failure> {
    let request = RetrieveRequest {
        collection: COLLECTION.to_owned(),
        query: Some(Query::Text(question.to_owned())),
        top_k: TOP_K,
        ..RetrieveRequest::default()
    };
    let required = match client.retrieval().retrieve(request.clone()).await {
        Ok(_answer) => return Err(Failure::failed("the secret page was given without an approval")),
        Err(status) => reason(&status),
    };
    let to_approve =
        RequestApprovalRequest { request: Some(ToApprove::Retrieve(request.clone())), purpose: PURPOSE.to_owned() };
    let approval = match client.retrieval().request_approval(to_approve).await {
        Ok(approval) => approval.into_inner(),
        // Nobody asks a person within a minute of their no.
        Err(status) => {
            let (device, refused) = (Value::Null, status.message().to_owned());
            return Ok(Round { question, required, device, says: None, refused, chunks: Vec::new() });
        }
    };
    let shown = device.question();
    let says = match says {
        Some(says) => says,
        None => prompt(question, &approval.code, &shown).await?,
    };
    device.answer(says == Says::Yes);
    let request = RetrieveRequest { approval: approval.approval, ..request };
    let (refused, chunks) = match client.retrieval().retrieve(request).await {
        Ok(answer) => (String::new(), found_chunks(answer.into_inner())),
        Err(status) => (reason(&status), Vec::new()),
    };
    Ok(Round { question, required, device: shown, says: Some(says), refused, chunks })
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(|| status.message().to_owned(), |info| info.reason.clone())
}

/// Shows the person what their device would show, and reads what they say.
async fn prompt(question: &str, code: &str, shown: &Value) -> Result<Says, Failure> {
    let text = format!(
        "The agent asks: {question}\nIt is refused (APPROVAL_REQUIRED), asks for an approval, and shows the code {code}.\n\
         Anne's device shows:\n{}\nDoes Anne approve? [y/N]",
        indented(shown)
    );
    writeln!(std::io::stderr(), "{text}")?;
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_bytes| answer)
    });
    let answer = reading.await.map_err(|e| Failure::failed(e.to_string()))??;
    let is_yes = ["y", "yes"].contains(&answer.trim().to_lowercase().as_str());
    Ok(if is_yes { Says::Yes } else { Says::No })
}

fn people(demo: &ApprovalDemo) -> String {
    let rounds = demo.rounds.iter().map(|round| {
        let says = match round.says {
            Some(Says::Yes) => "yes",
            Some(Says::No) => "no",
            None => "(not asked)",
        };
        let found = round.chunks.iter().map(|chunk| excerpt(&chunk.text, EXCERPT_CHARACTERS));
        let got =
            if round.refused.is_empty() { found.collect::<Vec<String>>().join("\n") } else { round.refused.clone() };
        vec![round.question.to_owned(), round.required.clone(), says.to_owned(), got]
    });
    let device = demo.rounds.first().map(|round| indented(&round.device)).unwrap_or_default();
    let recorded = demo.records.iter().filter_map(|record| {
        let approval = record.approval.as_ref()?;
        let digest = approval.request_sha256.clone().unwrap_or_default();
        Some(vec![
            record.call.split_once('/').map(|(_, rpc)| rpc.to_owned()).unwrap_or_default(),
            record.code.clone(),
            approval.state.clone(),
            approval.approved_by.clone().unwrap_or_default(),
            excerpt(&digest, DIGEST_CHARACTERS),
        ])
    });
    [
        "An agent asks for a secret page, and Anne has to approve each request\n".to_owned(),
        table(&["the agent asks", "and is told", "Anne says", "and the agent gets"], rounds),
        format!("\nWhat Anne's device showed at first:\n\n{device}"),
        "\nWhat the audit log keeps:\n".to_owned(),
        table(&["call", "code", "approval", "approved by", "request"], recorded),
        format!("\n{EXPLANATION}"),
    ]
    .join("\n")
}

fn indented(json: &Value) -> String {
    let text = format!("{json:#}");
    let lines = text.lines().map(|line| format!("  {line}"));
    lines.collect::<Vec<String>>().join("\n")
}
