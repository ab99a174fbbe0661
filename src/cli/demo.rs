//! `ragward demo`: two people ask one question and get two answers. Then Bob loses a tuple and asks again.

mod agent;
mod approval;
mod issuer;
mod mcp;
mod served;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use include_dir::{Dir, include_dir};
use serde::Serialize;
use tokio::time::Instant;

use super::output::{excerpt, table};
use super::{Failure, Output, ingest};
use crate::app::{App, InProcessServer};
use crate::authz::{Check, CheckBatch, Consistency};
use crate::client::Client;
use crate::config::{Config, DataConfig};
use crate::language::{Object, Relation, RelationshipTuple};
use crate::proto::retrieval::retrieve_request::Query;
use crate::proto::retrieval::{RetrieveRequest, RetrieveResponse};
use crate::store_file;
use crate::tuple_store::{OnConflict, RelationshipStore, TupleWrite};

static HANDBOOK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/schema/handbook");

const COLLECTION: &str = "handbook";
const QUESTION: &str = "How much parental leave do I get, and what will change next year?";
const ANNE: &str = "user:anne";
const BOB: &str = "user:bob";
const DECIDING_RELATION: &str = "can_read";
const TOP_K: u32 = 5;
/// The number of characters of a chunk that are shown.
const EXCERPT_CHARACTERS: usize = 110;
/// The tuple that Bob loses when his time with HR ends.
const REVOKED: (&str, &str, &str) = (BOB, "member", "group:hr");
/// The time that the explanation's checks may take.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(5);

const NEXT: &str = "A server over the same handbook, in three lines:

  ragward model load schema/handbook/store.fga.yaml --data ragward-data
  ragward ingest schema/handbook --collection handbook --data ragward-data
  ragward serve --data ragward-data --insecure-identity";

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Show an agent that acts for somebody: one question with four access tokens.
    #[arg(long)]
    agent: bool,
    /// Show MCP: one agent, which calls one tool for two people.
    #[arg(long, conflicts_with = "agent")]
    mcp: bool,
    /// Show approvals: an agent asks for a secret page, and its person says yes, then no.
    #[arg(long, conflicts_with_all = ["agent", "mcp"])]
    approval: bool,
    /// Answer for the person, where nobody is at a terminal: `yes,no`.
    #[arg(long, requires = "approval", value_delimiter = ',', value_name = "ANSWERS")]
    answers: Vec<approval::Says>,
}

#[derive(Serialize)]
struct TwoPeopleDemo<'a> {
    question: &'a str,
    anne: Vec<FoundChunk>,
    bob: Vec<FoundChunk>,
    why: Vec<HeldRelations>,
    revoked: String,
    bob_after: Vec<FoundChunk>,
}

#[derive(Serialize)]
struct FoundChunk {
    guard: String,
    title: String,
    text: String,
}

/// The relations that each of the two people holds on a page.
#[derive(Serialize)]
struct HeldRelations {
    page: String,
    anne: Vec<String>,
    bob: Vec<String>,
}

pub(super) async fn run(args: &DemoArgs, output: &Output) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let handbook = directory.path().join("handbook");
    std::fs::create_dir(&handbook)?;
    HANDBOOK.extract(&handbook)?;
    // The user's configuration is ignored, so that the demo is the same everywhere.
    let data = DataConfig { directory: directory.path().join("data") };
    if args.agent {
        return Box::pin(agent::run(&handbook, data, output)).await;
    }
    if args.mcp {
        return Box::pin(mcp::run(&handbook, data, output)).await;
    }
    if args.approval {
        return Box::pin(approval::run(&handbook, data, &args.answers, output)).await;
    }
    let app = App::open(&Config { data, ..Config::default() }).await?;
    let services = load(&app, &handbook).await?;

    let (anne, bob) = (ask(services.client(), ANNE).await?, ask(services.client(), BOB).await?);
    let why = why_they_differ(&app, &anne, &bob).await?;
    let (user, relation, object) = REVOKED;
    let revoked = RelationshipTuple::parse(user, relation, object).map_err(|e| Failure::failed(e.to_string()))?;
    relationships(&app)?.write(&TupleWrite { deletes: vec![revoked.clone()], ..TupleWrite::default() })?;
    let bob_after = ask(services.client(), BOB).await?;
    services.close().await;

    let demo = TwoPeopleDemo { question: QUESTION, anne, bob, why, revoked: revoked.to_string(), bob_after };
    output.result(&demo, || people(&demo))
}

async fn load(app: &App, handbook: &Path) -> Result<InProcessServer, Failure> {
    let store_file = store_file::read(&handbook.join("store.fga.yaml")).map_err(|e| Failure::failed(e.to_string()))?;
    relationships(app)?.write_model(store_file.model)?;
    relationships(app)?.write_all(store_file.tuples, OnConflict::Refuse)?;
    let services = app.in_process()?;
    ingest::ingest_catalog(services.client(), COLLECTION, handbook).await?;
    Ok(services)
}

fn relationships(app: &App) -> Result<RelationshipStore, Failure> {
    let Some(stores) = app.relationships() else {
        return Err(Failure::usage("the demo uses the embedded engines"));
    };
    Ok(stores.default_store_or_new()?)
}

async fn ask(client: &Client, user: &str) -> Result<Vec<FoundChunk>, Failure> {
    let response = client.retrieval().retrieve(request(user)).await?.into_inner();
    Ok(found_chunks(response))
}

fn request(user: &str) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: COLLECTION.to_owned(),
        query: Some(Query::Text(QUESTION.to_owned())),
        top_k: TOP_K,
        ..RetrieveRequest::default()
    }
}

fn found_chunks(response: RetrieveResponse) -> Vec<FoundChunk> {
    let found = response.chunks.into_iter().map(|chunk| FoundChunk {
        guard: chunk.guard,
        title: chunk.title,
        text: chunk.text,
    });
    found.collect()
}

/// Finds the pages that only one of the two may see, and asks the authorizer which relations each holds on them.
async fn why_they_differ(app: &App, anne: &[FoundChunk], bob: &[FoundChunk]) -> Result<Vec<HeldRelations>, Failure> {
    let guards = |found: &[FoundChunk]| found.iter().map(|chunk| chunk.guard.clone()).collect::<BTreeSet<String>>();
    let (anne, bob) = (guards(anne), guards(bob));
    let mut why = Vec::new();
    for page in anne.symmetric_difference(&bob) {
        let (anne, bob) = (relations_held(app, ANNE, page).await?, relations_held(app, BOB, page).await?);
        // A page that both may see can be among the best pages of only one of them.
        if may_read(&anne) != may_read(&bob) {
            why.push(HeldRelations { page: page.clone(), anne, bob });
        }
    }
    Ok(why)
}

fn may_read(relations: &[String]) -> bool {
    relations.iter().any(|relation| relation == DECIDING_RELATION)
}

async fn relations_held(app: &App, user: &str, object: &str) -> Result<Vec<String>, Failure> {
    let malformed = |e: crate::language::ParseError| Failure::failed(e.to_string());
    let (user, object) = (Object::parse(user).map_err(malformed)?, Object::parse(object).map_err(malformed)?);
    let snapshot = relationships(app)?.snapshot()?.ok_or_else(|| Failure::failed("the demo's model is not loaded"))?;
    let definition = snapshot.model().source().type_definition(object.type_name());
    let relations = definition.map(|t| t.relations.as_slice()).unwrap_or_default();
    let mut checks = Vec::with_capacity(relations.len());
    for relation in relations {
        let relation = Relation::parse(&relation.name).map_err(malformed)?;
        checks.push(Check { user: user.clone(), relation, object: object.clone() });
    }
    let deadline = Instant::now() + EXPLAIN_TIMEOUT;
    let batch =
        CheckBatch { checks, contextual: std::sync::Arc::default(), consistency: Consistency::default(), deadline };
    let decisions = app.authorizer().check(&batch).await?;
    let held = decisions.list.iter().filter(|decision| decision.allowed);
    let held = held.filter_map(|decision| batch.checks.get(decision.position));
    Ok(held.map(|check| check.relation.to_string()).collect())
}

/// Returns the sentence that shares the most words with the question, without the marks of Markdown.
fn telling_sentence(text: &str) -> String {
    let asked: BTreeSet<String> = QUESTION.split_whitespace().map(word).collect();
    let shared = |sentence: &str| sentence.split_whitespace().map(word).collect::<BTreeSet<String>>();
    let sentences = text.split_inclusive(['.', '?', '|']).flat_map(|part| part.split("\n\n"));
    let is_sentence = |sentence: &&str| !sentence.is_empty() && !sentence.starts_with('#');
    let sentences: Vec<&str> = sentences.map(str::trim).filter(is_sentence).collect();
    // `max_by_key` returns the last of several equal sentences. The first one is wanted, so the order is reversed.
    let telling = sentences.iter().rev().max_by_key(|sentence| shared(sentence).intersection(&asked).count());
    telling.map_or(text, |sentence| *sentence).replace(['*', '|', '#'], "")
}

fn word(text: &str) -> String {
    text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

fn people(demo: &TwoPeopleDemo<'_>) -> String {
    let cell = |found: Option<&FoundChunk>| match found {
        Some(found) => {
            let only = demo.why.iter().find(|why| why.page == found.guard);
            let mark = match only.map(|why| may_read(&why.anne)) {
                Some(true) => "  ◄ only Anne may see this",
                Some(false) => "  ◄ only Bob may see this",
                None => "",
            };
            format!("{}{mark}\n{}", found.title, excerpt(&telling_sentence(&found.text), EXCERPT_CHARACTERS))
        }
        None => String::new(),
    };
    let rows = demo.anne.len().max(demo.bob.len());
    let side_by_side = (0..rows).map(|rank| vec![cell(demo.anne.get(rank)), cell(demo.bob.get(rank))]);
    let list = |relations: &[String]| if relations.is_empty() { "nothing".to_owned() } else { relations.join(", ") };
    let why = demo.why.iter().map(|why| vec![why.page.clone(), list(&why.anne), list(&why.bob)]);
    let after = demo.bob_after.iter().map(|found| vec![cell(Some(found))]);
    let titles = |found: &[FoundChunk]| found.iter().map(|chunk| chunk.title.clone()).collect::<BTreeSet<String>>();
    let (before, now) = (titles(&demo.bob), titles(&demo.bob_after));
    let list_titles = |titles: Vec<&String>| titles.into_iter().cloned().collect::<Vec<String>>().join(", ");
    let gone = list_titles(before.difference(&now).collect());
    let instead = list_titles(now.difference(&before).collect());
    [
        format!("Two people ask: {QUESTION}\n"),
        table(&["Anne, an engineer, gets", "Bob, who helps HR, gets"], side_by_side),
        "\nWhy they differ: the relations that each holds on the pages that only one of them may see\n".to_owned(),
        table(&["page", "Anne holds", "Bob holds"], why),
        format!("\nOne tuple is deleted: {}\n", demo.revoked),
        table(&["Bob asks again and gets"], after),
        format!("\nGone: {gone}. In their place: {instead}."),
        format!("\n{NEXT}"),
    ]
    .join("\n")
}
