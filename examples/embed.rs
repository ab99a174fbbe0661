//! Permitted retrieval in a Rust program: the embedded engines over a directory, without a server.
#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::time::Duration;

use ragward::app::App;
use ragward::chunk::Document;
use ragward::config::Config;
use ragward::language::{Object, RelationshipTuple, dsl};
use ragward::retrieval::RetrievalParts;
use ragward::vector_store::Query;
use tokio::time::Instant;

const MODEL: &str = "model
  schema 1.1
type user
type document
  relations
    define can_read: [user]
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    config.data.directory = directory.path().to_owned();
    config.audit.required = false; // Only a server keeps records.
    let app = App::open(&config).await?;

    let may_read = RelationshipTuple::parse("user:anne", "can_read", "document:roadmap")?;
    let store = app.relationships().ok_or("an OpenFGA server decides")?.default_store_or_new()?;
    store.write_model_with_tuples(dsl::load(MODEL)?, vec![may_read])?;
    let roadmap = Document::of_text("roadmap", Object::parse("document:roadmap")?, "The new search ships in May.");
    let salaries = Document::of_text("salaries", Object::parse("document:salaries")?, "Raises are paid in May.");
    app.documents().upsert("handbook", vec![roadmap, salaries]).await?;

    let question = RetrievalParts::new("user:anne", "handbook", Query::Text("What happens in May?".to_owned()));
    let answer = app.retriever().retrieve_parts(question, Instant::now() + Duration::from_secs(5)).await?;
    for found in &answer.chunks {
        println!("{:.2} {}", found.score, found.chunk.item().text);
    }
    assert_eq!(answer.chunks.len(), 1, "anne may not read about salaries");
    Ok(())
}
