//! Twin worlds of delegation: an agent that asks for Anne gets, to the last byte, what Anne alone gets from a corpus
//! that holds only what both may see. Anything else may change, including what only Anne or only the agent may see, and
//! changes no byte of it.
//!
//! World A holds all documents, and is asked with the agent's token. World B holds the chunks of the intersection, and
//! is asked with Anne's own token. Both are servers with a port, and one issuer issues the tokens. What MCP has a tool for is
//! asked there, too.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use ragward::identity::DelegationOn;
use ragward::identity::config::DelegationConfig;
use ragward::language::{Relation, RelationshipTuple};
use ragward::proto::ingest::{Chunk, DeleteDocumentsRequest, Document};
use ragward::proto::metadata::{Value as Metadata, value};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    FetchRequest, Filter, Hybrid, OneOf, RecheckRequest, RetrieveRequest, RetrieveResponse, Vector, filter,
};
use ragward::server_config::{McpConfig, McpSearchBy};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::identity::delegation::acted;
use crate::identity::world::{MODEL, RETRIEVE, identity, with_token};
use crate::support::dice::Dice;
use crate::support::http::Call;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;

/// The audience of tokens for MCP.
const MCP: &str = "https://ragward.example/mcp";
const WORLDS: usize = 60;
const CHANGES: usize = 3;
const QUESTIONS: usize = 12;
const SEED: u64 = 0x00a9_e7ac;
const GUARDS: usize = 12;
const DOCUMENTS: usize = 10;
const PAGES: usize = 3;
const WORDS: [&str; 8] = ["leave", "pay", "on", "call", "the", "release", "budget", "desk"];
/// The guard of a chunk that exists in both worlds and that nobody reads, so that both have a collection with a
/// dimension.
const NOBODYS: usize = GUARDS;

/// The guards that the agent may see, compared with those that its user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Agent {
    Less,
    Same,
    More,
    /// Some of the user's guards, and some others.
    Other,
    Nothing,
    /// Like `More`, with a token whose details name some guards.
    Detailed,
    /// The agent may act for the user, whatever the guard.
    MayAct,
    MayNotAct,
}

/// The content of a server, and who may see it.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    documents: BTreeMap<String, Document>,
    /// The guards that the users and the agents may see, by number.
    users: BTreeSet<usize>,
    agents: BTreeSet<usize>,
    may_act: bool,
}

/// A pair of worlds: its names, which no other pair has, and who asks.
struct Pair {
    number: usize,
    agent: Agent,
    /// The guards that the token's details name.
    named: Option<BTreeSet<usize>>,
}

impl Pair {
    fn guard(&self, number: usize) -> String {
        format!("document:{}-{number}", self.number)
    }

    fn collection(&self) -> String {
        format!("pair-{}", self.number)
    }

    fn user(&self) -> String {
        format!("anne-{}", self.number)
    }

    /// Returns the guards that both may see and that the details let through.
    fn seen(&self, world: &World) -> BTreeSet<usize> {
        let by_agent: BTreeSet<usize> = match self.agent {
            Agent::MayAct => (0..GUARDS).collect(),
            Agent::MayNotAct => BTreeSet::new(),
            Agent::Less | Agent::Same | Agent::More | Agent::Other | Agent::Nothing | Agent::Detailed => {
                world.agents.clone()
            }
        };
        let both = world.users.intersection(&by_agent).copied();
        both.filter(|guard| self.named.as_ref().is_none_or(|named| named.contains(guard))).collect()
    }

    /// Returns world B: the chunks that are seen, and nothing else of their documents.
    fn only_seen(&self, world: &World) -> World {
        let seen = self.seen(world);
        let guards: BTreeSet<String> = seen.iter().chain([&NOBODYS]).map(|guard| self.guard(*guard)).collect();
        let documents = world.documents.iter().map(|(id, document)| {
            let chunks = document.chunks.iter().filter(|chunk| guards.contains(&chunk.guard)).cloned().collect();
            (id.clone(), Document { chunks, ..document.clone() })
        });
        let documents = documents.filter(|(_, document)| !document.chunks.is_empty()).collect();
        World { documents, users: seen, ..World::default() }
    }

    fn tuples(&self, world: &World) -> BTreeSet<(String, String, String)> {
        let tuple = |user: String, relation: &str, object: String| (user, relation.to_owned(), object);
        let user = format!("user:{}", self.user());
        let users = world.users.iter().map(|guard| tuple(user.clone(), "reader", self.guard(*guard)));
        let agents =
            world.agents.iter().map(|guard| tuple("agent:helper".to_owned(), "agent_reader", self.guard(*guard)));
        let acts = tuple("agent:helper".to_owned(), "can_act_for", user.clone());
        users.chain(agents).chain(world.may_act.then_some(acts)).collect()
    }

    /// Returns the claims that the agent's token has beside those of Anne's.
    fn claims(&self) -> Vec<(&'static str, Value)> {
        let named = self.named.as_ref().map(|named| named.iter().map(|guard| self.guard(*guard)).collect::<Vec<_>>());
        let details = |named| ("authorization_details", json!([{"type": "ragward_retrieval", "identifiers": named}]));
        [acted("helper")].into_iter().chain(named.map(details)).collect()
    }
}

fn chunk_text(dice: &mut Dice) -> String {
    let words: Vec<&str> = (0..=dice.below(8)).map(|_| WORDS[dice.below(WORDS.len())]).collect();
    words.join(" ")
}

/// Returns one of few directions, so that scores tie.
fn vector(dice: &mut Dice) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..3).map(|_| [-1.0, 0.0, 0.5, 1.0][dice.below(4)]).collect();
    if vector.iter().all(|x| *x == 0.0) {
        vector[0] = 1.0;
    }
    vector
}

fn document(pair: &Pair, dice: &mut Dice, id: &str, guards: &[usize]) -> Document {
    let chunk = |(place, guard): (usize, &usize)| Chunk {
        id: format!("{id}#{place}"),
        guard: pair.guard(*guard),
        heading_path: vec![chunk_text(dice)],
        text: chunk_text(dice),
        vector: vector(dice),
        metadata: [("n".to_owned(), Metadata { kind: Some(value::Kind::IntValue([0, 1, 2][dice.below(3)])) })].into(),
    };
    let chunks = guards.iter().enumerate().map(chunk).collect();
    Document { id: id.to_owned(), title: format!("Title of {id}"), chunks }
}

fn some(dice: &mut Dice, of: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
    of.into_iter().filter(|_| dice.below(2) == 0).collect()
}

fn world(pair: &Pair, dice: &mut Dice) -> World {
    let mut documents = BTreeMap::new();
    for number in 0..DOCUMENTS {
        let guards: Vec<usize> = (0..=dice.below(3)).map(|_| dice.below(GUARDS)).collect();
        let id = format!("d{number}");
        documents.insert(id.clone(), document(pair, dice, &id, &guards));
    }
    documents.insert("d4-nobody's".to_owned(), document(pair, dice, "d4-nobody's", &[NOBODYS]));
    // The user always has guards 0 and 1. An agent with less lacks guard 0, and an agent with more has the last guard,
    // which the user lacks.
    let users: BTreeSet<usize> = some(dice, 1..GUARDS - 1).into_iter().chain([0, 1]).collect();
    let beyond: BTreeSet<usize> = (0..GUARDS).filter(|guard| !users.contains(guard)).collect();
    let agents = match pair.agent {
        Agent::Less => some(dice, users.iter().copied().filter(|guard| *guard > 0)).into_iter().chain([1]).collect(),
        Agent::Same => users.clone(),
        Agent::More | Agent::Detailed => users.iter().copied().chain(some(dice, beyond)).chain([GUARDS - 1]).collect(),
        Agent::Other => some(dice, 1..GUARDS),
        Agent::Nothing => BTreeSet::new(),
        // Where relations on users decide, relations on guards count for nothing.
        Agent::MayAct | Agent::MayNotAct => some(dice, 0..GUARDS),
    };
    World { documents, users, agents, may_act: pair.agent == Agent::MayAct }
}

/// Changes everything that is not seen through the agent, and nothing else.
fn changed(pair: &Pair, dice: &mut Dice, before: &World) -> World {
    let mut after = before.clone();
    let seen = pair.seen(before);
    let hidden: Vec<usize> = (0..GUARDS).filter(|guard| !seen.contains(guard)).collect();
    let names: BTreeSet<String> = hidden.iter().map(|guard| pair.guard(*guard)).collect();
    for chunk in after.documents.values_mut().flat_map(|document| &mut document.chunks) {
        if names.contains(&chunk.guard) {
            (chunk.text, chunk.vector) = (chunk_text(dice), vector(dice));
        }
    }
    let is_hidden = |document: &Document| document.chunks.iter().all(|chunk| names.contains(&chunk.guard));
    after.documents.retain(|_, document| !is_hidden(document) || dice.below(2) == 0);
    if let Some(guard) = hidden.get(dice.below(hidden.len())) {
        // The new name comes before, between or after the existing ones.
        let id = format!("{}{}", ["A", "d0a", "d5", "d9z", "z"][dice.below(5)], dice.below(3));
        if after.documents.get(&id).is_none_or(is_hidden) {
            after.documents.insert(id.clone(), document(pair, dice, &id, &[*guard]));
        }
    }
    for guard in hidden {
        // At most one of the two may see it, unless the details leave it out.
        let (mut user, mut agent) = (dice.below(2) == 0, dice.below(2) == 0);
        let is_seen_by_both = match pair.agent {
            Agent::MayAct => user,
            Agent::MayNotAct => false,
            Agent::Less | Agent::Same | Agent::More | Agent::Other | Agent::Nothing | Agent::Detailed => user && agent,
        };
        let is_named = pair.named.as_ref().is_none_or(|named| named.contains(&guard));
        if is_seen_by_both && is_named {
            (user, agent) = if pair.agent == Agent::MayAct { (false, agent) } else { (user, false) };
        }
        for (set, sees) in [(&mut after.users, user), (&mut after.agents, agent)] {
            if sees {
                set.insert(guard)
            } else {
                set.remove(&guard)
            };
        }
    }
    assert_eq!(pair.only_seen(before), pair.only_seen(&after), "the change is hidden");
    after
}

/// Changes a server's content from `before` to `after`.
async fn apply(running: &Running, pair: &Pair, before: &World, after: &World) {
    let parsed = |(user, relation, object): &(String, String, String)| {
        RelationshipTuple::parse(user, relation, object).expect("a tuple")
    };
    let (held, holds) = (pair.tuples(before), pair.tuples(after));
    let added: Vec<RelationshipTuple> = holds.difference(&held).map(parsed).collect();
    if !added.is_empty() {
        running.write(added);
    }
    for gone in held.difference(&holds) {
        running.delete(parsed(gone));
    }
    let services = running.app.in_process().unwrap();
    let mut local = services.client().ingest();
    let gone: Vec<String> = before.documents.keys().filter(|id| !after.documents.contains_key(*id)).cloned().collect();
    if !gone.is_empty() {
        let request = DeleteDocumentsRequest { collection: pair.collection(), document_ids: gone };
        local.delete_documents(request).await.expect("deleted");
    }
    let new = after.documents.iter().filter(|(id, document)| before.documents.get(*id) != Some(*document));
    let message = |document: &Document| ragward::proto::ingest::UpsertDocumentsRequest {
        collection: pair.collection(),
        document: Some(document.clone()),
    };
    let messages: Vec<_> = new.map(|(_, document)| message(document)).collect();
    local.upsert_documents(tokio_stream::iter(messages)).await.expect("taken in");
}

#[derive(Clone, Debug)]
enum Question {
    /// A search, with all of its pages if it asks for pages.
    Retrieve(RetrieveRequest),
    Recheck(RecheckRequest),
    Fetch(FetchRequest),
}

fn question(pair: &Pair, dice: &mut Dice, world: &World) -> Question {
    let chunk_ids: Vec<String> =
        world.documents.values().flat_map(|document| &document.chunks).map(|chunk| chunk.id.clone()).collect();
    if dice.below(6) == 0 {
        let chunk_ids = (0..=dice.below(9)).map(|_| chunk_ids[dice.below(chunk_ids.len())].clone()).collect();
        return Question::Recheck(RecheckRequest {
            collection: pair.collection(),
            chunk_ids,
            ..RecheckRequest::default()
        });
    }
    if dice.below(6) == 0 {
        let chunk_ids = (0..dice.below(4)).map(|_| chunk_ids[dice.below(chunk_ids.len())].clone()).collect();
        let document_ids: Vec<&String> = world.documents.keys().collect();
        let document_ids = (0..dice.below(4)).map(|_| document_ids[dice.below(document_ids.len())].clone()).collect();
        let collection = pair.collection();
        return Question::Fetch(FetchRequest { collection, chunk_ids, document_ids, ..FetchRequest::default() });
    }
    // One in twelve is refused, for its dimension.
    let values = vector(dice).into_iter().take(if dice.below(12) == 0 { 2 } else { 3 }).collect();
    let query = match dice.below(3) {
        0 => Query::Text(chunk_text(dice)),
        1 => Query::Vector(Vector { values }),
        _ => Query::Hybrid(Hybrid { text: chunk_text(dice), vector: Some(Vector { values }) }),
    };
    let one = Metadata { kind: Some(value::Kind::IntValue(1)) };
    let filter = Filter { kind: Some(filter::Kind::OneOf(OneOf { key: "n".to_owned(), values: vec![one] })) };
    // A caller whom details narrow gets no pages.
    let in_pages = pair.agent != Agent::Detailed && dice.below(3) == 0;
    Question::Retrieve(RetrieveRequest {
        collection: pair.collection(),
        query: Some(query),
        top_k: [1, 2, 3, 10, 50][dice.below(5)],
        filter: (dice.below(4) == 0).then_some(filter),
        min_score: (!in_pages && dice.below(4) == 0).then(|| [0.0, 0.3, 1.0][dice.below(3)]),
        per_document_max: if in_pages { 0 } else { [0, 0, 1, 2][dice.below(4)] },
        page_token: in_pages.then(String::new),
        ..RetrieveRequest::default()
    })
}

/// An answer to the last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Message(Vec<u8>),
    Refusal(Code, String, Vec<u8>),
    /// The HTTP status and the body of an answer of MCP.
    Tool(u16, Vec<u8>),
}

/// The tokens of one bearer.
struct Tokens {
    own: String,
    mcp: String,
}

/// Returns the tool's call that asks a question; `None` if no tool does.
fn tool(question: &Question) -> Option<Value> {
    let (name, arguments) = match question {
        Question::Retrieve(request) => {
            let Some(Query::Text(text)) = &request.query else { return None };
            let mut arguments = json!({ "collection": request.collection, "query": text, "top_k": request.top_k });
            if request.filter.is_some() {
                arguments["filter"] = json!({ "oneOf": { "key": "n", "values": [{ "intValue": "1" }] } });
            }
            ("search", arguments)
        }
        Question::Fetch(request) => {
            let chunk = request.chunk_ids.first()?.replace('#', "%23").replace('\'', "%27");
            ("fetch", json!({ "id": format!("{}/{chunk}", request.collection) }))
        }
        Question::Recheck(_) => return None,
    };
    let params = json!({ "name": name, "arguments": arguments });
    Some(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
}

impl Answer {
    fn of<T: Message>(answer: Result<T, Status>) -> Self {
        match answer {
            Ok(message) => Self::Message(message.encode_to_vec()),
            Err(status) => Self::Refusal(status.code(), status.message().to_owned(), status.details().to_vec()),
        }
    }
}

/// Returns all answers to a question, at each door that it is asked at.
async fn answers(running: &Running, tokens: &Tokens, question: &Question) -> Vec<Answer> {
    let mut answers = answers_of_rpc(running, &tokens.own, question).await;
    if let Some(message) = tool(question) {
        let reply = Call::json("/mcp", &message).bearer(&tokens.mcp).send(&running.address.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        answers.push(Answer::Tool(reply.status, reply.body));
    }
    answers
}

/// Returns all answers of the RPC. Page tokens and consistency tokens hold the time, so only their lengths are
/// compared.
async fn answers_of_rpc(running: &Running, token: &str, question: &Question) -> Vec<Answer> {
    let mut client = running.client.retrieval();
    let mut request = match question.clone() {
        Question::Retrieve(request) => request,
        Question::Recheck(request) => {
            let answer = client.recheck(with_token(request, token)).await;
            return vec![Answer::of(answer.map(|answer| answer.into_inner().untimed()))];
        }
        Question::Fetch(request) => {
            let answer = client.fetch(with_token(request, token)).await;
            return vec![Answer::of(answer.map(|answer| answer.into_inner().untimed()))];
        }
    };
    let mut answers = Vec::new();
    loop {
        let answer =
            client.retrieve(with_token(request.clone(), token)).await.map(|answer| answer.into_inner().untimed());
        let page_token = answer.as_ref().map(|page| page.next_page_token.clone()).unwrap_or_default();
        let masked = |page| RetrieveResponse { next_page_token: "x".repeat(page_token.len()), ..page };
        answers.push(Answer::of(answer.map(masked)));
        if page_token.is_empty() || answers.len() > PAGES {
            return answers;
        }
        request.page_token = Some(page_token);
    }
}

async fn start(data: &std::path::Path, issuer: &TestIssuer, on: DelegationOn) -> Running {
    let mut config = config(data);
    config.server.insecure_identity = false;
    config.identity = identity(issuer);
    config.server.mcp = Some(McpConfig {
        url: MCP.to_owned(),
        collection: None,
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    });
    let relation = if on == DelegationOn::Guard { "agent_reader" } else { "can_act_for" };
    config.identity.delegation = DelegationConfig { relation: Some(Relation::parse(relation).unwrap()), on };
    let running = Running::start(&config).await;
    running.load(ragward::language::dsl::load(MODEL).unwrap(), Vec::new());
    running
}

/// The number of answers and of their bytes, for each kind of agent.
type Tally = BTreeMap<Agent, (usize, usize)>;

async fn compare(on: DelegationOn, agents: &[Agent]) -> Tally {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = start(directories[0].path(), &issuer, on).await;
    let b = start(directories[1].path(), &issuer, on).await;
    let token = |pair: &Pair, more: &[(&str, Value)]| {
        let mut claims = issuer.claims(&pair.user(), RETRIEVE);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        let own = key.sign(&claims);
        claims["aud"] = json!(MCP);
        Tokens { own, mcp: key.sign(&claims) }
    };
    let mut tally = Tally::new();
    for (number, agent) in (0..WORLDS).zip(agents.iter().copied().cycle()) {
        let mut dice = Dice::new(SEED ^ number as u64);
        let named = (agent == Agent::Detailed).then(|| some(&mut dice, 1..GUARDS));
        let pair = Pair { number, agent, named };
        let mut in_a = world(&pair, &mut dice);
        let in_b = pair.only_seen(&in_a);
        apply(&a, &pair, &World::default(), &in_a).await;
        apply(&b, &pair, &World::default(), &in_b).await;
        let (of_agent, of_anne) = (token(&pair, &pair.claims()), token(&pair, &[]));
        let questions: Vec<Question> = (0..QUESTIONS).map(|_| question(&pair, &mut dice, &in_a)).collect();
        let mut alone = Vec::new();
        for question in &questions {
            alone.push(answers(&b, &of_anne, question).await);
        }
        for change in 0..=CHANGES {
            for (question, alone) in questions.iter().zip(&alone) {
                let through_agent = answers(&a, &of_agent, question).await;
                let say =
                    || format!("seed {SEED}, pair {number}, {agent:?}, change {change}: {question:#?}\n{in_a:#?}");
                assert_eq!(&through_agent, alone, "{}", say());
                if change == 0 && [Agent::Same, Agent::More, Agent::MayAct].contains(&agent) {
                    assert_eq!(&through_agent, &answers(&a, &of_anne, question).await, "{}", say());
                }
                let (asked, bytes) = tally.entry(agent).or_default();
                let length = |answer: &Answer| if let Answer::Message(bytes) = answer { bytes.len() } else { 0 };
                (*asked, *bytes) = (*asked + 1, *bytes + through_agent.iter().map(length).sum::<usize>());
            }
            let next = changed(&pair, &mut dice, &in_a);
            apply(&a, &pair, &in_a, &next).await;
            in_a = next;
        }
    }
    println!("{tally:?}");
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_what_both_may_see_to_the_last_byte() {
    let agents = [Agent::Less, Agent::Same, Agent::More, Agent::Other, Agent::Nothing, Agent::Detailed];
    let tally = compare(DelegationOn::Guard, &agents).await;
    for agent in agents {
        let (asked, bytes) = tally[&agent];
        assert_eq!(asked, WORLDS / agents.len() * (CHANGES + 1) * QUESTIONS, "{agent:?}");
        // Answers hold chunks unless there is nothing to see, so that the test does not compare nothing with nothing.
        let has_chunks = bytes > asked * 50;
        assert_eq!(has_chunks, agent != Agent::Nothing, "{agent:?}: {bytes} bytes in {asked} answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_act_for_its_user_is_its_user_and_another_is_nobody() {
    let tally = compare(DelegationOn::User, &[Agent::MayAct, Agent::MayNotAct]).await;
    let (allowed, denied) = (tally[&Agent::MayAct], tally[&Agent::MayNotAct]);
    assert!(allowed.1 > allowed.0 * 50 && denied.1 < denied.0 * 50, "{tally:?}");
}
