//! Reads the definition of a relation (an encoded `openfga.v1.Userset`).
//!
//! A message may nest a definition thousands deep, so it is read with a list instead of recursion. The evaluator takes
//! at most [`NESTING_MAX`] levels. A deeper definition is flattened: the operands of an `or` within an `or`, of an
//! `and` within an `and`, and of a `but not` of a `but not` mean the same side by side. A definition that is still too
//! deep after that is refused. `OpenFGA` takes some of these, for example 40 levels of `or` within `and` within `or`.

use openfga_client::client as api;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Code;

use super::form::{Checked, broken, require};
use crate::language::limits::{OBJECT_CHARS_MAX, RELATION_CHARS_MAX};
use crate::language::model::Rewrite;
use crate::language::validate::NESTING_MAX;
use crate::server::refusal::Refusal;

// The fields of `openfga.v1.Userset`.
const THIS: u32 = 1;
const COMPUTED: u32 = 2;
const TUPLE_TO_USERSET: u32 = 3;
const UNION: u32 = 4;
const INTERSECTION: u32 = 5;
const DIFFERENCE: u32 = 6;

/// A definition as a list of nodes. The parts of a node come after it in the list.
#[derive(Debug)]
pub(super) struct UsersetTree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    /// A message without a kind.
    Empty,
    Direct,
    Computed(String),
    TupleToUserset {
        tupleset: String,
        computed: String,
    },
    Union(Vec<usize>),
    Intersection(Vec<usize>),
    Difference {
        base: usize,
        subtract: usize,
    },
}

/// The reason why a tree is not a definition that the evaluator accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRewrite {
    Incomplete,
    TooDeep,
}

/// Reads an encoded definition. It refuses bytes that are not a message, and a message that breaks a rule of the API.
pub(super) fn read(bytes: &[u8]) -> Result<UsersetTree, Refusal> {
    let mut nodes = vec![Node::Empty];
    let mut pending = vec![(0, bytes)];
    while let Some((at, bytes)) = pending.pop() {
        let mut found = None;
        each_field(bytes, |field, value| {
            if (THIS..=DIFFERENCE).contains(&field) {
                found = Some((field, value));
            }
        })?;
        let mut part = |value| {
            nodes.push(Node::Empty);
            pending.push((nodes.len() - 1, value));
            nodes.len() - 1
        };
        let node = match found {
            Some((COMPUTED, value)) => Node::Computed(object_relation(value)?),
            Some((TUPLE_TO_USERSET, value)) => {
                let [tupleset, computed] = two_parts(value, "TupleToUserset", ["Tupleset", "ComputedUserset"])?;
                Node::TupleToUserset { tupleset: object_relation(tupleset)?, computed: object_relation(computed)? }
            }
            Some((DIFFERENCE, value)) => {
                let [base, subtract] = two_parts(value, "Difference", ["Base", "Subtract"])?;
                Node::Difference { base: part(base), subtract: part(subtract) }
            }
            Some((operator @ (UNION | INTERSECTION), value)) => {
                let mut operands = Vec::new();
                each_field(value, |field, value| {
                    if field == 1 {
                        operands.push(part(value));
                    }
                })?;
                if operator == UNION { Node::Union(operands) } else { Node::Intersection(operands) }
            }
            Some(_) => Node::Direct,
            None => Node::Empty,
        };
        if let Some(slot) = nodes.get_mut(at) {
            *slot = node;
        }
    }
    Ok(UsersetTree { nodes })
}

/// The operators whose nested operands may stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    Union,
    Intersection,
}

impl UsersetTree {
    pub(super) fn into_rewrite(mut self) -> Result<Rewrite, NoRewrite> {
        if self.depth() > NESTING_MAX {
            self.flatten();
        }
        if self.depth() > NESTING_MAX {
            return Err(NoRewrite::TooDeep);
        }
        self.rewrite(0)
    }

    /// Returns the number of levels of operators.
    fn depth(&self) -> usize {
        let (mut deepest, mut pending) = (0, vec![(0, 0)]);
        while let Some((at, depth)) = pending.pop() {
            deepest = deepest.max(depth);
            match self.nodes.get(at) {
                Some(Node::Union(operands) | Node::Intersection(operands)) => {
                    pending.extend(operands.iter().map(|operand| (*operand, depth + 1)));
                }
                Some(Node::Difference { base, subtract }) => {
                    pending.extend([(*base, depth + 1), (*subtract, depth + 1)]);
                }
                Some(Node::Empty | Node::Direct | Node::Computed(_) | Node::TupleToUserset { .. }) | None => {}
            }
        }
        deepest
    }

    /// Flattens the nodes from the last to the first. The parts of a node come after it in the list, so they are flat
    /// already.
    fn flatten(&mut self) {
        for at in (0..self.nodes.len()).rev() {
            let node = self.take(at);
            let flat = match node {
                Node::Union(operands) => Node::Union(self.joined(operands, Joined::Union)),
                Node::Intersection(operands) => Node::Intersection(self.joined(operands, Joined::Intersection)),
                Node::Difference { base, subtract } => match self.take(base) {
                    // `(a but not b) but not c` is `a but not (b or c)`.
                    Node::Difference { base: inner, subtract: also } => {
                        let both = self.joined(vec![also, subtract], Joined::Union);
                        if let Some(slot) = self.nodes.get_mut(base) {
                            *slot = Node::Union(both);
                        }
                        Node::Difference { base: inner, subtract: base }
                    }
                    other @ (Node::Empty
                    | Node::Direct
                    | Node::Computed(_)
                    | Node::TupleToUserset { .. }
                    | Node::Union(_)
                    | Node::Intersection(_)) => {
                        if let Some(slot) = self.nodes.get_mut(base) {
                            *slot = other;
                        }
                        Node::Difference { base, subtract }
                    }
                },
                other @ (Node::Empty | Node::Direct | Node::Computed(_) | Node::TupleToUserset { .. }) => other,
            };
            if let Some(slot) = self.nodes.get_mut(at) {
                *slot = flat;
            }
        }
    }

    /// Returns the operands. Each operand of the same kind is replaced by its own operands.
    fn joined(&mut self, operands: Vec<usize>, kind: Joined) -> Vec<usize> {
        let mut joined: Vec<usize> = Vec::new();
        for operand in operands {
            match self.nodes.get_mut(operand) {
                Some(Node::Union(inner)) if kind == Joined::Union => append(&mut joined, std::mem::take(inner)),
                Some(Node::Intersection(inner)) if kind == Joined::Intersection => {
                    append(&mut joined, std::mem::take(inner));
                }
                Some(_) | None => joined.push(operand),
            }
        }
        joined
    }

    fn take(&mut self, at: usize) -> Node {
        self.nodes.get_mut(at).map_or(Node::Empty, |node| std::mem::replace(node, Node::Empty))
    }

    /// Recursive: the depth is at most [`NESTING_MAX`] by now.
    fn rewrite(&mut self, at: usize) -> Result<Rewrite, NoRewrite> {
        Ok(match self.take(at) {
            Node::Empty => return Err(NoRewrite::Incomplete),
            Node::Direct => Rewrite::Direct,
            Node::Computed(relation) => Rewrite::Computed(relation),
            Node::TupleToUserset { tupleset, computed } => Rewrite::TupleToUserset { tupleset, computed },
            Node::Union(operands) => Rewrite::Union(self.rewrites(operands)?),
            Node::Intersection(operands) => Rewrite::Intersection(self.rewrites(operands)?),
            Node::Difference { base, subtract } => {
                Rewrite::Difference { base: Box::new(self.rewrite(base)?), subtract: Box::new(self.rewrite(subtract)?) }
            }
        })
    }

    fn rewrites(&mut self, operands: Vec<usize>) -> Result<Vec<Rewrite>, NoRewrite> {
        operands.into_iter().map(|operand| self.rewrite(operand)).collect()
    }
}

/// Appends a list. The usual case, a long list first, copies nothing.
fn append(to: &mut Vec<usize>, mut more: Vec<usize>) {
    if to.is_empty() {
        *to = more;
    } else {
        to.append(&mut more);
    }
}

fn object_relation(value: &[u8]) -> Result<String, Refusal> {
    let reference = api::ObjectRelation::decode(value).map_err(|e| malformed(&e))?;
    check_object_relation(&reference)?;
    Ok(reference.relation)
}

/// `OpenFGA` limits these names in bytes, where it limits the names of tuples in characters.
fn check_object_relation(reference: &api::ObjectRelation) -> Checked {
    const MESSAGE: &str = "ObjectRelation";
    let object_rule = format_args!("value length must be at most {OBJECT_CHARS_MAX} bytes");
    require(reference.object.len() <= OBJECT_CHARS_MAX, MESSAGE, "Object", object_rule)?;
    let relation_rule = format_args!("value length must be at most {RELATION_CHARS_MAX} bytes");
    require(reference.relation.len() <= RELATION_CHARS_MAX, MESSAGE, "Relation", relation_rule)
}

/// The fields 1 and 2 of a message, both of which are required.
fn two_parts<'a>(value: &'a [u8], message: &str, names: [&str; 2]) -> Result<[&'a [u8]; 2], Refusal> {
    let mut parts = [None, None];
    each_field(value, |field, value| match field {
        1 => parts[0] = Some(value),
        2 => parts[1] = Some(value),
        _ => {}
    })?;
    match (parts, names) {
        ([Some(first), Some(second)], _) => Ok([first, second]),
        ([None, _], [missing, _]) | ([_, None], [_, missing]) => Err(broken(message, missing, "value is required")),
    }
}

/// Hands each field that holds a message to `take`.
fn each_field<'a>(mut bytes: &'a [u8], mut take: impl FnMut(u32, &'a [u8])) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|e| malformed(&e))?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(|e| malformed(&e))?;
            continue;
        }
        let length = decode_varint(&mut bytes).map_err(|e| malformed(&e))?;
        let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
        let (value, rest) = split.ok_or_else(|| malformed(&"a field is longer than its message"))?;
        take(field, value);
        bytes = rest;
    }
    Ok(())
}

fn malformed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("failed to decode Protobuf message: Userset: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a field of a message.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(value.len().try_into().expect("a length"), &mut bytes);
        bytes.extend_from_slice(value);
        bytes
    }

    fn computed(name: &str) -> Vec<u8> {
        let reference = api::ObjectRelation { object: String::new(), relation: name.to_owned() };
        field(2, &reference.encode_to_vec())
    }

    fn nested(levels: usize, operator: u8) -> Vec<u8> {
        (0..levels).fold(field(1, &[]), |inner, _| {
            let both = if operator == 6 {
                [field(1, &inner), field(2, &computed("b"))].concat()
            } else {
                [field(1, &inner), field(1, &computed("b"))].concat()
            };
            field(operator, &both)
        })
    }

    fn rewrite(bytes: &[u8]) -> Result<Rewrite, NoRewrite> {
        read(bytes).expect("a message").into_rewrite()
    }

    #[test]
    fn a_definition_is_read_as_it_is() {
        let b = || Rewrite::Computed("b".to_owned());
        assert_eq!(rewrite(&nested(0, 4)), Ok(Rewrite::Direct));
        assert_eq!(rewrite(&nested(1, 4)), Ok(Rewrite::Union(vec![Rewrite::Direct, b()])));
        let inner = Rewrite::Intersection(vec![Rewrite::Direct, b()]);
        assert_eq!(rewrite(&nested(2, 5)), Ok(Rewrite::Intersection(vec![inner, b()])));
        let difference = Rewrite::Difference { base: Box::new(Rewrite::Direct), subtract: Box::new(b()) };
        assert_eq!(rewrite(&nested(1, 6)), Ok(difference));
        assert_eq!(rewrite(&[]), Err(NoRewrite::Incomplete));
        let parts = [field(1, &computed("p")[2..]), field(2, &computed("c")[2..])].concat();
        let expected = Rewrite::TupleToUserset { tupleset: "p".to_owned(), computed: "c".to_owned() };
        assert_eq!(rewrite(&field(3, &parts)), Ok(expected));
    }

    #[test]
    fn what_is_nested_too_deep_is_flattened_or_refused() {
        let b = || Rewrite::Computed("b".to_owned());
        let all = |levels: usize| [vec![Rewrite::Direct], (0..levels).map(|_| b()).collect()].concat();
        assert_eq!(rewrite(&nested(5_000, 4)), Ok(Rewrite::Union(all(5_000))));
        assert_eq!(rewrite(&nested(5_000, 5)), Ok(Rewrite::Intersection(all(5_000))));
        let subtract = Rewrite::Union((0..5_000).map(|_| b()).collect());
        let difference = Rewrite::Difference { base: Box::new(Rewrite::Direct), subtract: Box::new(subtract) };
        assert_eq!(rewrite(&nested(5_000, 6)), Ok(difference));
        let alternating = (0..50).fold(field(1, &[]), |inner, level| {
            field(4 + level % 2, &[field(1, &inner), field(1, &computed("b"))].concat())
        });
        assert_eq!(rewrite(&alternating), Err(NoRewrite::TooDeep));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, words) in [
            (vec![0xff], "decode"),
            (vec![0x22, 5, 0], "longer than its message"),
            (field(6, &field(1, &field(1, &[]))), "Subtract"),
            (field(3, &[]), "Tupleset"),
            (computed(&"r".repeat(51)), "at most 50 bytes"),
        ] {
            let refused = read(&bytes).expect_err(words);
            assert!(refused.text().contains(words), "{refused}");
        }
    }
}
