//! The part of a model that a visible set depends on, as a reversed graph: for each relation it says where that
//! relation counts.

use crate::engine::index::NumberMap;
use crate::language::program::{Expression, Program, RelationId, ResolvedUser, TypeId};

/// The relations that the target depends on and that the user could hold.
pub(super) struct Graph<'a> {
    pub(super) relations: Vec<Relation<'a>>,
    places: NumberMap<RelationId, usize>,
    /// Whether `but not` takes part in the answer.
    pub(super) subtracts: bool,
    /// Whether `but not` takes part in a relation that is not outermost.
    pub(super) inner_subtracts: bool,
}

/// One relation of the graph.
pub(super) struct Relation<'a> {
    pub(super) id: RelationId,
    pub(super) formula: Formula<'a>,
    /// The relation or the tuples that each leaf of the formula depends on.
    pub(super) leaves: Vec<Dependency<'a>>,
    /// Whether any one leaf is enough, so that nobody has to know which one holds.
    pub(super) is_union: bool,
    /// Whether the target depends on this relation in another way than by subtracting it.
    pub(super) adds: bool,
    /// The leaves that this relation makes true for the same object.
    pub(super) computed: Vec<Leaf>,
    /// The leaves that this relation on one object makes true for other objects, whose tupleset names that object. Each
    /// has the tupleset and the type of the named object.
    pub(super) from_parent: Vec<(RelationId, TypeId, Leaf)>,
    /// The relations whose own tuples may name this relation as a userset.
    pub(super) named_by: Vec<usize>,
    /// The leaves that stand for the relation's own tuples.
    pub(super) direct: Vec<usize>,
    /// Whether this relation counts for nothing but the target on the same object. Then each object can be decided by
    /// the tuples about it.
    pub(super) is_outermost: bool,
}

/// A leaf of a formula: the place of its relation in the graph, and its own place in the formula.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) relation: usize,
    pub(super) leaf: usize,
}

/// The side of a `but not` that a relation or a leaf is on. It is the base where there is no `but not`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Base,
    Subtracted,
}

/// A relation's definition, whose leaves are numbers.
pub(super) enum Formula<'a> {
    Leaf(usize),
    Any(Vec<Formula<'a>>),
    All(Vec<Formula<'a>>),
    /// The base and the subtracted part, and the definition of the subtracted part.
    Minus(Box<(Formula<'a>, Formula<'a>)>, &'a Expression),
}

impl Formula<'_> {
    /// Returns whether the formula holds. `leaf` tells whether a leaf holds. `is_left` gets the subtracted part of a
    /// `but not` and its definition, and tells whether something is left of a base that holds.
    pub(super) fn holds(
        &self,
        leaf: &dyn Fn(usize) -> bool,
        is_left: &dyn Fn(&Formula<'_>, &Expression) -> bool,
    ) -> bool {
        match self {
            Self::Leaf(number) => leaf(*number),
            Self::Any(operands) => operands.iter().any(|operand| operand.holds(leaf, is_left)),
            Self::All(operands) => operands.iter().all(|operand| operand.holds(leaf, is_left)),
            Self::Minus(operands, definition) => {
                let (base, taken_away) = &**operands;
                base.holds(leaf, is_left) && is_left(taken_away, definition)
            }
        }
    }

    fn is_union(&self) -> bool {
        match self {
            Self::Leaf(_) => true,
            Self::Any(operands) => operands.iter().all(Self::is_union),
            Self::All(_) | Self::Minus(..) => false,
        }
    }

    fn subtracts(&self) -> bool {
        match self {
            Self::Leaf(_) => false,
            Self::Any(operands) | Self::All(operands) => operands.iter().any(Self::subtracts),
            Self::Minus(..) => true,
        }
    }
}

/// The relation or the tuples that a leaf of a definition depends on.
#[derive(Clone, Copy)]
pub(super) enum Dependency<'a> {
    OwnTuples,
    Computed(RelationId),
    FromParent(RelationId, &'a [(TypeId, RelationId)]),
}

impl<'a> Graph<'a> {
    /// The place of the relation that is asked about.
    pub(super) const TARGET: usize = 0;

    /// Builds the graph. Returns `None` if no tuple could make the user hold the target.
    pub(super) fn new(program: &'a Program, target: RelationId, reachable: &[bool]) -> Option<Self> {
        let is_reachable = |relation: RelationId| reachable.get(relation.index()).copied().unwrap_or(false);
        if !is_reachable(target) {
            return None;
        }
        let mut graph =
            Self { relations: Vec::new(), places: NumberMap::default(), subtracts: false, inner_subtracts: false };
        graph.find(program, target, &is_reachable);
        graph.link(program);
        graph.find_inner();
        let subtracts = |relation: &&Relation<'_>| relation.adds && relation.formula.subtracts();
        graph.subtracts = graph.relations.iter().any(|relation| subtracts(&relation));
        graph.inner_subtracts = graph.relations.iter().filter(subtracts).any(|relation| !relation.is_outermost);
        Some(graph)
    }

    pub(super) fn place(&self, relation: RelationId) -> Option<usize> {
        self.places.get(&relation).copied()
    }

    /// Returns the relations whose own tuples may name the user.
    pub(super) fn named_for(&self, program: &Program, user: &ResolvedUser<'_>) -> Vec<usize> {
        let takes = |relation: &Relation<'_>| match user {
            ResolvedUser::Object(type_id, _) | ResolvedUser::Wildcard(type_id) => program.takes(relation.id, *type_id),
            ResolvedUser::Userset(userset, _) => program.usersets_of(relation.id).any(|taken| taken == *userset),
        };
        let places = self.relations.iter().enumerate();
        places.filter(|(_, relation)| !relation.direct.is_empty() && takes(relation)).map(|(place, _)| place).collect()
    }

    /// Finds and compiles the relations.
    fn find(&mut self, program: &'a Program, target: RelationId, is_reachable: &dyn Fn(RelationId) -> bool) {
        let mut pending = vec![(target, Side::Base)];
        while let Some((id, side)) = pending.pop() {
            let adds = side == Side::Base;
            let Some(expression) = program.expression(id).filter(|_| is_reachable(id)) else { continue };
            let known = self.places.get(&id).and_then(|place| self.relations.get_mut(*place));
            match known {
                Some(known) if known.adds || !adds => continue,
                Some(known) => known.adds = true,
                None => {
                    let formula = compile(expression, &mut (0..));
                    let mut leaves = Vec::new();
                    for_leaves(expression, side, &mut |leaf, _| leaves.push(leaf));
                    self.places.insert(id, self.relations.len());
                    self.relations.push(Relation {
                        id,
                        is_union: formula.is_union(),
                        formula,
                        leaves,
                        adds,
                        computed: Vec::new(),
                        from_parent: Vec::new(),
                        named_by: Vec::new(),
                        direct: Vec::new(),
                        is_outermost: true,
                    });
                }
            }
            for_leaves(expression, side, &mut |leaf, side| match leaf {
                Dependency::OwnTuples => pending.extend(program.usersets_of(id).map(|userset| (userset, side))),
                Dependency::Computed(relation) => pending.push((relation, side)),
                Dependency::FromParent(_, computed) => {
                    pending.extend(computed.iter().map(|(_, relation)| (*relation, side)));
                }
            });
        }
    }

    /// Notes, at each relation, where it counts.
    fn link(&mut self, program: &'a Program) {
        let all: Vec<(RelationId, Vec<Dependency<'a>>)> =
            self.relations.iter().map(|relation| (relation.id, relation.leaves.clone())).collect();
        for (place, (id, leaves)) in all.into_iter().enumerate() {
            for (leaf, dependency) in leaves.into_iter().enumerate() {
                let at = Leaf { relation: place, leaf };
                match dependency {
                    Dependency::OwnTuples => {
                        for userset in program.usersets_of(id) {
                            self.with(userset, |relation| relation.named_by.push(place));
                        }
                        self.with(id, |relation| relation.direct.push(leaf));
                    }
                    Dependency::Computed(used) => self.with(used, |relation| relation.computed.push(at)),
                    Dependency::FromParent(tupleset, computed) => {
                        for (type_id, used) in computed {
                            self.with(*used, |relation| relation.from_parent.push((tupleset, *type_id, at)));
                        }
                    }
                }
            }
        }
        for relation in &mut self.relations {
            relation.named_by.sort_unstable();
            relation.named_by.dedup();
        }
    }

    /// Finds the relations that are not outermost: those that count for other objects, and those that these are
    /// computed from.
    fn find_inner(&mut self) {
        let counts_elsewhere =
            |relation: &Relation<'_>| !relation.named_by.is_empty() || !relation.from_parent.is_empty();
        let places = self.relations.iter().enumerate();
        let mut pending: Vec<usize> = places.filter(|(_, r)| counts_elsewhere(r)).map(|(place, _)| place).collect();
        while let Some(place) = pending.pop() {
            let Some(relation) = self.relations.get_mut(place).filter(|relation| relation.is_outermost) else {
                continue;
            };
            relation.is_outermost = false;
            let computed = relation.leaves.iter().filter_map(|leaf| match leaf {
                Dependency::Computed(used) => self.places.get(used).copied(),
                Dependency::OwnTuples | Dependency::FromParent(..) => None,
            });
            pending.extend(computed);
        }
    }

    fn with(&mut self, relation: RelationId, change: impl FnOnce(&mut Relation<'a>)) {
        if let Some(relation) = self.places.get(&relation).and_then(|place| self.relations.get_mut(*place)) {
            change(relation);
        }
    }
}

/// Compiles a definition. Leaves are numbered in the order of [`for_leaves`].
fn compile<'a>(expression: &'a Expression, leaves: &mut std::ops::RangeFrom<usize>) -> Formula<'a> {
    match expression {
        Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. } => {
            Formula::Leaf(leaves.next().unwrap_or(usize::MAX))
        }
        Expression::Union(operands) => Formula::Any(operands.iter().map(|operand| compile(operand, leaves)).collect()),
        Expression::Intersection(operands) => {
            Formula::All(operands.iter().map(|operand| compile(operand, leaves)).collect())
        }
        Expression::Difference(operands) => {
            let [base, subtract] = &**operands;
            Formula::Minus(Box::new((compile(base, leaves), compile(subtract, leaves))), subtract)
        }
    }
}

/// Calls `take` with each leaf of a definition from left to right, and with the leaf's side. `side` is the side of the
/// whole definition; whatever is inside a subtracted part is subtracted. The nesting of definitions is bounded, so this
/// function may call itself.
fn for_leaves<'a>(expression: &'a Expression, side: Side, take: &mut dyn FnMut(Dependency<'a>, Side)) {
    match expression {
        Expression::Direct => take(Dependency::OwnTuples, side),
        Expression::Computed(relation) => take(Dependency::Computed(*relation), side),
        Expression::TupleToUserset { tupleset, computed } => take(Dependency::FromParent(*tupleset, computed), side),
        Expression::Union(operands) | Expression::Intersection(operands) => {
            for operand in operands {
                for_leaves(operand, side, take);
            }
        }
        Expression::Difference(operands) => {
            let [base, subtract] = &**operands;
            for_leaves(base, side, take);
            for_leaves(subtract, Side::Subtracted, take);
        }
    }
}
