//! An `OpenFGA` evaluator for Rust: a model, its tuples, a check and a list. It does no I/O and needs no server, so
//! `ragward` without any of its features has all of it.
#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::sync::Arc;

use ragward::engine::snapshot::Snapshot;
use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User, dsl};

const MODEL: &str = "
model
  schema 1.1
type user
type team
  relations
    define member: [user]
type document
  relations
    define viewer: [user, team#member]
";

fn main() -> Result<(), Box<dyn Error>> {
    let model = Arc::new(dsl::load(MODEL)?);
    let tuples = [
        RelationshipTuple::parse("user:anne", "member", "team:search")?,
        RelationshipTuple::parse("team:search#member", "viewer", "document:roadmap")?,
    ];
    let relationships = Snapshot::new("example", model).with_tuples(&tuples)?;
    let (anne, viewer) = (User::parse("user:anne")?, Relation::parse("viewer")?);

    let may_view = relationships.check(&anne, &viewer, &Object::parse("document:roadmap")?)?;
    println!("{anne} {} view document:roadmap", if may_view { "may" } else { "may not" });
    for document in relationships.list_objects(&anne, &viewer, &TypeName::parse("document")?)? {
        println!("{anne} sees {document}");
    }
    Ok(())
}
