//! `Expand`: shows one level of a relation's definition, with the users that its tuples name.

use openfga_client::client as api;
use openfga_client::client::userset_tree::leaf::Value as Leaf;
use openfga_client::client::userset_tree::node::Value as NodeValue;
use openfga_client::client::userset_tree::{self as tree, Node};

use super::error::{ErrorNumber, OpenFgaError};
use super::{Resolved, tuples};
use crate::language::model::Rewrite;
use crate::language::validate::ValidModel;
use crate::language::{Object, Relation, RelationshipTuple, User};
use crate::tuple_store::TupleFilter;

pub(super) fn expand(
    resolved: &Resolved,
    key: &api::ExpandRequestTupleKey,
    contextual_tuples: Option<&api::ContextualTupleKeys>,
) -> Result<api::ExpandResponse, OpenFgaError> {
    if key.object.is_empty() || key.relation.is_empty() {
        let message = "Invalid input. Make sure you provide an object and a relation";
        return Err(OpenFgaError::new(ErrorNumber::InvalidExpandInput, message));
    }
    let model = resolved.snapshot.model();
    let contextual = contextual_tuples.map(|keys| keys.tuple_keys.as_slice()).unwrap_or_default();
    let contextual = tuples::contextual(model, contextual, ErrorNumber::ValidationError)?;
    let object = Object::parse(&key.object)?;
    let relation = Relation::parse(&key.relation)?;
    let definition = model.source().type_definition(object.type_name());
    let Some(definition) = definition.and_then(|definition| definition.relation(relation.as_str())) else {
        let message = format!("relation '{}#{relation}' not found", object.type_name());
        return Err(OpenFgaError::validation(message));
    };
    let expansion = Expansion { resolved, model, contextual, object, relation };
    Ok(api::ExpandResponse { tree: Some(api::UsersetTree { root: Some(expansion.node(&definition.rewrite)?) }) })
}

struct Expansion<'a> {
    resolved: &'a Resolved,
    model: &'a ValidModel,
    contextual: Vec<RelationshipTuple>,
    object: Object,
    relation: Relation,
}

impl Expansion<'_> {
    /// Recursive: a valid model bounds how deep definitions are nested.
    fn node(&self, rewrite: &Rewrite) -> Result<Node, OpenFgaError> {
        let leaf = |value| NodeValue::Leaf(tree::Leaf { value: Some(value) });
        let value = match rewrite {
            Rewrite::Direct => {
                let mut users: Vec<String> =
                    self.users(self.relation.as_str())?.iter().map(ToString::to_string).collect();
                users.sort_unstable();
                users.dedup();
                leaf(Leaf::Users(tree::Users { users }))
            }
            Rewrite::Computed(computed) => leaf(Leaf::Computed(self.computed(computed))),
            Rewrite::TupleToUserset { tupleset, computed } => {
                let mut parents: Vec<tree::Computed> = Vec::new();
                for user in self.users(tupleset)? {
                    let userset = match user {
                        User::Userset(..) => user.to_string(),
                        User::Object(_) | User::Wildcard(_) => format!("{user}#{computed}"),
                    };
                    if parents.iter().all(|parent| parent.userset != userset) {
                        parents.push(tree::Computed { userset });
                    }
                }
                let tupleset = self.computed(tupleset).userset;
                leaf(Leaf::TupleToUserset(tree::TupleToUserset { tupleset, computed: parents }))
            }
            Rewrite::Union(operands) => NodeValue::Union(self.nodes(operands)?),
            Rewrite::Intersection(operands) => NodeValue::Intersection(self.nodes(operands)?),
            Rewrite::Difference { base, subtract } => NodeValue::Difference(Box::new(tree::Difference {
                base: Some(Box::new(self.node(base)?)),
                subtract: Some(Box::new(self.node(subtract)?)),
            })),
        };
        Ok(Node { name: self.computed(self.relation.as_str()).userset, value: Some(value) })
    }

    fn nodes(&self, operands: &[Rewrite]) -> Result<tree::Nodes, OpenFgaError> {
        let nodes: Result<Vec<Node>, OpenFgaError> = operands.iter().map(|operand| self.node(operand)).collect();
        Ok(tree::Nodes { nodes: nodes? })
    }

    fn computed(&self, relation: &str) -> tree::Computed {
        tree::Computed { userset: format!("{}#{relation}", self.object) }
    }

    /// Returns the users of the tuples that the model admits. Those of the request's contextual tuples come first.
    fn users(&self, relation: &str) -> Result<Vec<User>, OpenFgaError> {
        let filter =
            TupleFilter { object: self.object.to_string(), relation: relation.to_owned(), user: String::new() };
        let stored = self.resolved.store.tuples(&filter, 0, usize::MAX)?;
        let of_request =
            self.contextual.iter().filter(|tuple| tuple.object == self.object && tuple.relation.as_str() == relation);
        let counting = of_request.chain(stored.iter().map(|stored| &stored.tuple));
        Ok(counting.filter(|tuple| self.model.admits(tuple).is_ok()).map(|tuple| tuple.user.clone()).collect())
    }
}
