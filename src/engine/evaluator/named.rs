//! Finds out whether a tuple on the way to a relation names the user, and not only everybody of the type.
//!
//! A list of users with a wildcard also contains the users whom `OpenFGA` comes to by name. `OpenFGA` goes along every
//! operand of `or` and `and` and along the base of `but not`, wherever the user holds the expression around it.

use std::collections::HashSet;

use super::expansion::{asked, userset};
use super::{CheckError, Evaluation, LEVELS_UNBOUNDED};
use crate::engine::index::{Node, Subject};
use crate::language::program::Expression;

impl<'a> Evaluation<'a> {
    /// Returns whether the asker, who holds the node, is named on the way to it. Fails if a check on the way fails.
    pub(in crate::engine) fn is_named_below(
        &mut self,
        node: Node,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, CheckError> {
        let (mut seen, mut pending) = (HashSet::from([node]), vec![node]);
        while let Some(node) = pending.pop() {
            if self.is_asker(node) {
                return Ok(true);
            }
            let mut next = Vec::new();
            for leaf in self.held_leaves(node, go_on)? {
                if let Expression::Direct = leaf
                    && self.users_of(node, go_on).iter().any(|subject| self.is_asker_itself(*subject))
                {
                    return Ok(true);
                }
                next.extend(self.behind(leaf, node, go_on));
            }
            for node in next {
                if seen.insert(node) && self.check_node(node, LEVELS_UNBOUNDED, go_on)? {
                    pending.push(node);
                }
            }
        }
        Ok(false)
    }

    /// Returns the leaves of a relation's definition along which somebody can be found by name. Subtracted parts are
    /// left out, and so are the operands of an `and` or `but not` that the asker does not hold.
    fn held_leaves(&mut self, node: Node, go_on: &mut dyn FnMut() -> bool) -> Result<Vec<&'a Expression>, CheckError> {
        let (mut leaves, mut pending) = (Vec::new(), Vec::from_iter(self.program.expression(node.relation)));
        while let Some(part) = pending.pop() {
            match part {
                Expression::Union(operands) => pending.extend(operands),
                Expression::Intersection(operands) if self.holds_part(part, node, go_on)? => pending.extend(operands),
                Expression::Difference(operands) if self.holds_part(part, node, go_on)? => {
                    pending.extend(operands.first());
                }
                Expression::Intersection(_) | Expression::Difference(_) => {}
                leaf @ (Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. }) => {
                    leaves.push(leaf);
                }
            }
        }
        Ok(leaves)
    }

    /// Returns whether the asker holds a part of a relation's definition. The nesting of definitions is bounded, so
    /// this function may call itself.
    fn holds_part(
        &mut self,
        part: &Expression,
        node: Node,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, CheckError> {
        match part {
            Expression::Union(operands) => {
                for operand in operands {
                    if self.holds_part(operand, node, go_on)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Expression::Intersection(operands) => {
                for operand in operands {
                    if !self.holds_part(operand, node, go_on)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Expression::Difference(operands) => {
                let [base, subtract] = &**operands;
                let is_left = self.holds_part(base, node, go_on)? && !self.is_loop(subtract, node, go_on);
                Ok(is_left && !self.holds_part(subtract, node, go_on)?)
            }
            Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. } => {
                if let Expression::Direct = part
                    && self.users_of(node, go_on).iter().any(|subject| self.names_asker(*subject))
                {
                    return Ok(true);
                }
                for behind in self.behind(part, node, go_on) {
                    if self.check_node(behind, LEVELS_UNBOUNDED, go_on)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Returns the nodes that a leaf of a definition asks about.
    fn behind(&mut self, leaf: &Expression, node: Node, go_on: &mut dyn FnMut() -> bool) -> Vec<Node> {
        let object = node.object;
        match leaf {
            Expression::Computed(relation) => vec![Node { relation: *relation, object }],
            Expression::Direct => self.users_of(node, go_on).into_iter().filter_map(userset).collect(),
            Expression::TupleToUserset { tupleset, computed } => {
                let parents = self.users_of(Node { relation: *tupleset, object }, go_on);
                parents.into_iter().filter_map(|parent| asked(parent, computed)).collect()
            }
            Expression::Union(_) | Expression::Intersection(_) | Expression::Difference(_) => Vec::new(),
        }
    }

    /// Returns the users of those tuples about a node that count.
    fn users_of(&mut self, node: Node, go_on: &mut dyn FnMut() -> bool) -> Vec<Subject> {
        let mut users: Vec<Subject> = self.index.subjects(node).iter().collect();
        for (subject, stored) in self.index.conditioned(node) {
            if self.is_met(stored, go_on).is_ok_and(|is_met| is_met) {
                users.push(*subject);
            }
        }
        users
    }
}
