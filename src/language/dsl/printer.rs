//! Writes a model as text, in the layout of `OpenFGA`'s own tools.

use crate::language::model::{
    AuthorizationModel, Condition, ModuleSource, ParameterType, RelationDefinition, Rewrite, TypeDefinition,
    TypeRestriction,
};

/// Writes a model as text for people. Parts that the language cannot express appear in words that [`super::parse`] does
/// not read; [`super::text`] refuses such a model instead.
#[must_use]
pub fn print(model: &AuthorizationModel) -> String {
    Printer { with_sources: false }.model(model)
}

/// Like [`print()`], with the module and file of each definition as a comment, if the model was joined from modules.
#[must_use]
pub fn print_with_sources(model: &AuthorizationModel) -> String {
    Printer { with_sources: true }.model(model)
}

struct Printer {
    with_sources: bool,
}

impl Printer {
    fn model(&self, model: &AuthorizationModel) -> String {
        let mut text = format!("model\n  schema {}\n", model.schema_version);
        let mut types: Vec<&TypeDefinition> = model.types.iter().collect();
        if types.iter().any(|definition| definition.source.is_some()) {
            types.sort_by_key(|definition| (place(definition.source.as_ref()), definition.name.as_str()));
        }
        for definition in types {
            let source = self.source("", definition.source.as_ref());
            line(&mut text, &format!("\ntype {}{source}", definition.name));
            if !definition.relations.is_empty() {
                line(&mut text, "  relations");
            }
            let mut relations: Vec<&RelationDefinition> = definition.relations.iter().collect();
            if definition.source.is_some() {
                // The type's own relations have no source, so they come before those that other modules add.
                relations.sort_by_key(|relation| (place(relation.source.as_ref()), relation.name.as_str()));
            }
            for relation in relations {
                let source = self.source("extended by: ", relation.source.as_ref());
                line(&mut text, &format!("    define {}: {}{source}", relation.name, print_relation(relation)));
            }
        }
        let mut conditions: Vec<(&String, &Condition)> = model.conditions.iter().collect();
        conditions.sort_by_key(|(name, condition)| (place(condition.source.as_ref()), name.as_str()));
        for (name, condition) in conditions {
            let source = self.source("", condition.source.as_ref());
            line(&mut text, &format!("\ncondition {name}{}{source}", print_condition(condition)));
        }
        text
    }

    fn source(&self, what: &str, source: Option<&ModuleSource>) -> String {
        match source {
            Some(ModuleSource { module, file }) if self.with_sources => {
                format!(" # {what}module: {module}, file: {file}")
            }
            Some(_) | None => String::new(),
        }
    }
}

/// Returns the sort key of a definition. Like `OpenFGA`, this orders definitions by module, file and name.
fn place(source: Option<&ModuleSource>) -> Option<(&str, &str)> {
    source.map(|ModuleSource { module, file }| (module.as_str(), file.as_str()))
}

/// Writes a condition's parameters and expression, without its name.
#[must_use]
pub fn print_condition(condition: &Condition) -> String {
    format!("({}) {{\n  {}\n}}", parameters(condition), condition.expression)
}

/// Writes the definition of a relation, without its name.
#[must_use]
pub fn print_relation(relation: &RelationDefinition) -> String {
    operand(&relation.rewrite, &relation.directly_related, Nesting::Outermost)
}

/// Writes one part of a relation's definition.
#[must_use]
pub(crate) fn print_rewrite(rewrite: &Rewrite, directly_related: &[TypeRestriction]) -> String {
    operand(rewrite, directly_related, Nesting::Outermost)
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

/// Says whether a set operation is an operand of another one. Then it needs parentheses.
#[derive(Clone, Copy)]
enum Nesting {
    Outermost,
    Inner,
}

/// Writes an operand, in parentheses if needed. The recursion is bounded because both readers bound the nesting of
/// rewrites.
fn operand(rewrite: &Rewrite, directly_related: &[TypeRestriction], nesting: Nesting) -> String {
    let (operands, operator) = match rewrite {
        Rewrite::Direct => return restrictions(directly_related),
        Rewrite::Computed(name) => return name.clone(),
        Rewrite::TupleToUserset { tupleset, computed } => return format!("{computed} from {tupleset}"),
        Rewrite::Union(operands) => (direct_first(operands), " or "),
        Rewrite::Intersection(operands) => (direct_first(operands), " and "),
        Rewrite::Difference { base, subtract } => (vec![&**base, &**subtract], " but not "),
    };
    let shown: Vec<String> = operands.into_iter().map(|o| operand(o, directly_related, Nesting::Inner)).collect();
    let joined = shown.join(operator);
    match nesting {
        Nesting::Outermost => joined,
        Nesting::Inner => format!("({joined})"),
    }
}

/// Returns the rewrite that results from parsing the printed text.
pub(super) fn as_printed(rewrite: &Rewrite) -> Rewrite {
    let all = |operands: &[Rewrite]| direct_first(operands).into_iter().map(as_printed).collect();
    match rewrite {
        leaf @ (Rewrite::Direct | Rewrite::Computed(_) | Rewrite::TupleToUserset { .. }) => leaf.clone(),
        Rewrite::Union(operands) => Rewrite::Union(all(operands)),
        Rewrite::Intersection(operands) => Rewrite::Intersection(all(operands)),
        Rewrite::Difference { base, subtract } => {
            Rewrite::Difference { base: Box::new(as_printed(base)), subtract: Box::new(as_printed(subtract)) }
        }
    }
}

/// Moves `[…]` to the front, the only place where the language takes it. A model from JSON may have it anywhere.
fn direct_first(operands: &[Rewrite]) -> Vec<&Rewrite> {
    let (mut first, rest): (Vec<&Rewrite>, Vec<&Rewrite>) = operands.iter().partition(|o| o.contains_direct());
    first.extend(rest);
    first
}

fn restrictions(restrictions: &[TypeRestriction]) -> String {
    let shown: Vec<String> = restrictions.iter().map(TypeRestriction::to_string).collect();
    format!("[{}]", shown.join(", "))
}

fn parameters(condition: &Condition) -> String {
    let shown: Vec<String> =
        condition.parameters.iter().map(|(name, kind)| format!("{name}: {}", parameter_type(kind))).collect();
    shown.join(", ")
}

fn parameter_type(kind: &ParameterType) -> String {
    match &kind.element {
        Some(element) => format!("{}<{}>", kind.name, element.name),
        None => kind.name.clone(),
    }
}
