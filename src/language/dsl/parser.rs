//! The grammar of a model. After a mistake the parser goes on with the next line, so that one run shows several
//! mistakes.

use std::collections::BTreeMap;

use super::lexer::{Kind, Lexer, Token};
use super::source_map::{SourceMap, Span};
use super::{Document, SourceError};
use crate::language::model::{
    AuthorizationModel, Condition, ParameterType, RelationDefinition, RestrictionKind, Rewrite, TypeDefinition,
    TypeRestriction,
};
use crate::language::validate::{ModelPart, RelationPlace};

/// The deepest nesting of parentheses. The parser calls itself once per level, so this bounds its stack.
const NESTING_MAX: usize = 100;
/// The number of mistakes after which the parser stops. Such a text is probably not a model.
const ERRORS_MAX: usize = 20;

/// Words that begin or end something and therefore cannot be names.
const KEYWORDS: [&str; 7] = ["and", "or", "from", "with", "define", "relations", "condition"];
const SCALARS: [&str; 9] = ["any", "bool", "string", "int", "uint", "double", "duration", "timestamp", "ipaddress"];
const CONTAINERS: [&str; 2] = ["map", "list"];

type Parsed<T> = Result<T, SourceError>;

pub(super) fn parse(text: &str) -> Result<Document, Vec<SourceError>> {
    let mut parser = Parser::new(text);
    parser.document();
    if parser.errors.is_empty() {
        return Ok(Document {
            model: parser.model,
            source_map: parser.source_map,
            module: parser.module,
            extensions: parser.extensions,
        });
    }
    Err(parser.errors)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    model: AuthorizationModel,
    source_map: SourceMap,
    condition_spans: BTreeMap<String, Span>,
    errors: Vec<SourceError>,
    module: Option<String>,
    extensions: Vec<usize>,
}

/// The state of the relation that is being read.
struct Definition {
    place: RelationPlace,
    restrictions: Vec<TypeRestriction>,
    operands: usize,
    /// Whether the next operand may be `[…]`. Only the first one may.
    direct_allowed: bool,
}

/// The words that a type's definition begins with.
#[derive(Clone, Copy, PartialEq)]
enum TypeKeyword {
    Type,
    /// `extend type`, which adds relations to a type of another module.
    ExtendType,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Or,
    And,
    ButNot,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut lexer = Lexer::new(text);
        let token = lexer.next();
        Self {
            lexer,
            token,
            model: AuthorizationModel::default(),
            source_map: SourceMap::default(),
            condition_spans: BTreeMap::new(),
            errors: Vec::new(),
            module: None,
            extensions: Vec::new(),
        }
    }

    fn document(&mut self) {
        if let Err(error) = self.header() {
            // Without a header, the text may not be a model at all.
            self.errors.push(error);
            return;
        }
        while self.token.kind != Kind::End && self.errors.len() < ERRORS_MAX {
            if let Err(error) = self.definition() {
                self.errors.push(error);
                self.skip_line();
            }
        }
        for (index, name) in self.model.conditions.keys().enumerate() {
            if let Some(span) = self.condition_spans.get(name) {
                self.source_map.insert(ModelPart::Condition(index), *span);
            }
        }
    }

    fn header(&mut self) -> Parsed<()> {
        if self.is_word("module") {
            self.advance();
            let name = self.name("a module name")?;
            self.module = Some(name.text.to_owned());
            "1.2".clone_into(&mut self.model.schema_version);
            return self.end_of_line();
        }
        self.keyword("model")?;
        self.newline()?;
        self.keyword("schema")?;
        let version = self.token;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let has_form = version.text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor));
        if version.kind != Kind::Word || !has_form {
            return Err(self.error("expected a schema version such as `1.1`"));
        }
        match version.text {
            "1.1" | "1.2" => {}
            other => return Err(self.error(format!("invalid schema version `{other}`; use `schema 1.1`"))),
        }
        version.text.clone_into(&mut self.model.schema_version);
        self.source_map.insert(ModelPart::Schema, version.span);
        self.advance();
        self.end_of_line()
    }

    /// Reads a definition: a type's name, one `define`, or a whole condition.
    fn definition(&mut self) -> Parsed<()> {
        match self.token.text {
            "type" => self.type_definition(TypeKeyword::Type),
            "define" => Err(self.error("`define` must follow a line `relations` of a type")),
            "relations" => Err(self.error("`relations` must follow the line of a type")),
            "condition" => self.condition(),
            "extend" if self.module.is_some() => {
                self.advance();
                if !self.is_word("type") {
                    return Err(self.expected("`type`"));
                }
                self.type_definition(TypeKeyword::ExtendType)
            }
            "extend" => Err(self.error("`extend` may only be written in a module")),
            _ => Err(self.expected("`type` or `condition`")),
        }
    }

    fn type_definition(&mut self, keyword: TypeKeyword) -> Parsed<()> {
        if !self.model.conditions.is_empty() {
            return Err(self.error("types must come before the conditions"));
        }
        self.advance();
        let name = self.name("a type name")?;
        let type_index = self.model.types.len();
        if keyword == TypeKeyword::ExtendType {
            let extended_here = |index: &usize| self.model.types.get(*index).is_some_and(|t| t.name == name.text);
            if self.extensions.iter().any(extended_here) {
                let message = format!("type `{}` is already extended in this module", name.text);
                self.errors.push(SourceError::new(name.span, message));
            }
            self.extensions.push(type_index);
        }
        self.source_map.insert(ModelPart::Type(type_index), name.span);
        self.model.types.push(TypeDefinition { name: name.text.to_owned(), ..TypeDefinition::default() });
        self.end_of_line()?;
        if !self.is_word("relations") {
            return Ok(());
        }
        self.advance();
        self.end_of_line()?;
        if !self.is_word("define") {
            return Err(self.expected("`define`"));
        }
        while self.is_word("define") && self.errors.len() < ERRORS_MAX {
            if let Err(error) = self.relation(type_index) {
                self.errors.push(error);
                self.skip_line();
            }
        }
        Ok(())
    }

    fn relation(&mut self, type_index: usize) -> Parsed<()> {
        self.advance();
        let name = self.name("a relation name")?;
        let relation_index = self.model.types.last().map_or(0, |t| t.relations.len());
        let place = RelationPlace { type_index, relation_index };
        self.source_map.insert(ModelPart::Relation(place), name.span);
        self.mark(':')?;
        let mut definition = Definition { place, restrictions: Vec::new(), operands: 0, direct_allowed: true };
        let rewrite = self.expression(&mut definition, 0)?;
        if self.operator().is_some() {
            return Err(self.error("operators are mixed here; put parentheses around the part that belongs together"));
        }
        self.end_of_line()?;
        let relation = RelationDefinition {
            name: name.text.to_owned(),
            rewrite,
            directly_related: definition.restrictions,
            source: None,
        };
        if let Some(type_definition) = self.model.types.last_mut() {
            type_definition.relations.push(relation);
        }
        Ok(())
    }

    /// Reads operands that are joined by one kind of operator. `but not` joins exactly two.
    fn expression(&mut self, definition: &mut Definition, depth: usize) -> Parsed<Rewrite> {
        let first = self.operand(definition, depth)?;
        let Some(operator) = self.operator() else {
            return Ok(first);
        };
        let mut operands = vec![first];
        while self.operator() == Some(operator) && !(operator == Operator::ButNot && operands.len() == 2) {
            self.advance();
            if operator == Operator::ButNot {
                self.keyword("not")?;
            }
            operands.push(self.operand(definition, depth)?);
        }
        Ok(match operator {
            Operator::Or => Rewrite::Union(operands),
            Operator::And => Rewrite::Intersection(operands),
            Operator::ButNot => {
                let mut operands = operands.into_iter();
                match (operands.next(), operands.next()) {
                    (Some(base), Some(subtract)) => {
                        Rewrite::Difference { base: Box::new(base), subtract: Box::new(subtract) }
                    }
                    _ => return Err(self.expected("an operand after `but not`")),
                }
            }
        })
    }

    fn operand(&mut self, definition: &mut Definition, depth: usize) -> Parsed<Rewrite> {
        if self.is_mark('(') {
            if depth >= NESTING_MAX {
                return Err(self.error(format!("parentheses are nested more than {NESTING_MAX} deep")));
            }
            self.advance();
            let inner = self.expression(definition, depth + 1)?;
            if self.operator().is_some() {
                let message = "operators are mixed here; put parentheses around the part that belongs together";
                return Err(self.error(message));
            }
            self.mark(')')?;
            return Ok(inner);
        }
        let direct_allowed = std::mem::take(&mut definition.direct_allowed);
        let operand_place = ModelPart::Operand { relation: definition.place, index: definition.operands };
        let tupleset_place = ModelPart::Tupleset { relation: definition.place, index: definition.operands };
        definition.operands += 1;
        if self.is_mark('[') {
            if !direct_allowed {
                return Err(self.error("`[…]` may be written once, as the first operand of the relation"));
            }
            self.source_map.insert(operand_place, self.token.span);
            self.restrictions(definition)?;
            return Ok(Rewrite::Direct);
        }
        let computed = self.name("a relation name, `[` or `(`")?;
        self.source_map.insert(operand_place, computed.span);
        if !self.is_word("from") {
            return Ok(Rewrite::Computed(computed.text.to_owned()));
        }
        self.advance();
        let tupleset = self.name("a relation name after `from`")?;
        self.source_map.insert(operand_place, computed.span.to(tupleset.span));
        self.source_map.insert(tupleset_place, tupleset.span);
        Ok(Rewrite::TupleToUserset { tupleset: tupleset.text.to_owned(), computed: computed.text.to_owned() })
    }

    /// Reads `[user, user:*, group#member, user with condition]`, which may span several lines.
    fn restrictions(&mut self, definition: &mut Definition) -> Parsed<()> {
        loop {
            // This skips the opening bracket, or the comma before the next entry.
            self.advance();
            self.skip_newlines();
            let index = definition.restrictions.len();
            let restriction = self.restriction(definition.place, index)?;
            definition.restrictions.push(restriction);
            self.skip_newlines();
            if self.is_mark(']') {
                self.advance();
                return Ok(());
            }
            if !self.is_mark(',') {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    fn restriction(&mut self, relation: RelationPlace, index: usize) -> Parsed<TypeRestriction> {
        let type_name = self.name("a type name")?;
        let mut span = type_name.span;
        let mut kind = RestrictionKind::Object;
        if self.is_mark(':') {
            self.advance();
            span = span.to(self.token.span);
            self.mark('*')?;
            kind = RestrictionKind::Wildcard;
        } else if self.is_mark('#') {
            self.advance();
            let userset = self.name("a relation name after `#`")?;
            span = span.to(userset.span);
            kind = RestrictionKind::Userset(userset.text.to_owned());
        }
        self.source_map.insert(ModelPart::Restriction { relation, index }, span);
        let mut condition = None;
        if self.is_word("with") {
            self.advance();
            let name = self.name("a condition name")?;
            self.source_map.insert(ModelPart::RestrictionCondition { relation, index }, name.span);
            condition = Some(name.text.to_owned());
        }
        Ok(TypeRestriction { type_name: type_name.text.to_owned(), kind, condition })
    }

    /// Reads `condition name(parameter: type, …) { expression }`.
    fn condition(&mut self) -> Parsed<()> {
        self.advance();
        let name = self.name("a condition name")?;
        if self.model.conditions.contains_key(name.text) {
            let message = format!("condition `{}` is already defined", name.text);
            return Err(SourceError::new(name.span, message));
        }
        let parameters = self.parameters(name.text)?;
        self.skip_newlines();
        if !self.is_mark('{') {
            return Err(self.expected("`{`"));
        }
        let opening = self.token.span;
        let Some(expression) = self.lexer.condition_body() else {
            // No brace closes the condition, so the rest of the text may all be inside it.
            self.token = Token { kind: Kind::End, ..self.token };
            return Err(SourceError::new(opening, "this `{` is not closed"));
        };
        self.advance();
        self.mark('}')?;
        self.condition_spans.insert(name.text.to_owned(), name.span);
        self.model.conditions.insert(name.text.to_owned(), Condition { expression, parameters, source: None });
        self.end_of_line()
    }

    fn parameters(&mut self, condition: &str) -> Parsed<BTreeMap<String, ParameterType>> {
        let mut parameters = BTreeMap::new();
        self.mark('(')?;
        loop {
            self.skip_newlines();
            let name = self.name("a parameter name")?;
            self.mark(':')?;
            let parameter_type = self.parameter_type()?;
            if parameters.insert(name.text.to_owned(), parameter_type).is_some() {
                let message = format!("parameter `{}` is already defined in condition `{condition}`", name.text);
                return Err(SourceError::new(name.span, message));
            }
            self.skip_newlines();
            if self.is_mark(')') {
                self.advance();
                return Ok(parameters);
            }
            self.mark(',')?;
        }
    }

    /// Reads a scalar type, or a container of one scalar type.
    fn parameter_type(&mut self) -> Parsed<ParameterType> {
        let name = self.token;
        if SCALARS.contains(&name.text) {
            self.advance();
            return Ok(ParameterType { name: name.text.to_owned(), element: None });
        }
        if !CONTAINERS.contains(&name.text) {
            return Err(self.expected("a parameter type such as `string` or `list<string>`"));
        }
        self.advance();
        self.mark('<')?;
        let element = self.token;
        if !SCALARS.contains(&element.text) {
            return Err(self.expected("a scalar type such as `string`"));
        }
        self.advance();
        self.mark('>')?;
        let element = ParameterType { name: element.text.to_owned(), element: None };
        Ok(ParameterType { name: name.text.to_owned(), element: Some(Box::new(element)) })
    }

    fn operator(&self) -> Option<Operator> {
        match (self.token.kind, self.token.text) {
            (Kind::Word, "or") => Some(Operator::Or),
            (Kind::Word, "and") => Some(Operator::And),
            (Kind::Word, "but") => Some(Operator::ButNot),
            _ => None,
        }
    }

    fn name(&mut self, what: &str) -> Parsed<Token<'a>> {
        let token = self.token;
        let starts_well = token.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if token.kind != Kind::Word || !starts_well {
            return Err(self.expected(what));
        }
        if KEYWORDS.contains(&token.text) {
            return Err(self.error(format!("expected {what}, found the keyword `{}`", token.text)));
        }
        self.advance();
        Ok(token)
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if !self.is_word(word) {
            return Err(self.expected(&format!("`{word}`")));
        }
        self.advance();
        Ok(())
    }

    fn mark(&mut self, mark: char) -> Parsed<()> {
        if !self.is_mark(mark) {
            return Err(self.expected(&format!("`{mark}`")));
        }
        self.advance();
        Ok(())
    }

    fn newline(&mut self) -> Parsed<()> {
        if self.token.kind != Kind::Newline {
            return Err(self.expected("the end of the line"));
        }
        self.advance();
        Ok(())
    }

    fn end_of_line(&mut self) -> Parsed<()> {
        if self.token.kind == Kind::End {
            return Ok(());
        }
        self.newline()
    }

    fn skip_newlines(&mut self) {
        while self.token.kind == Kind::Newline {
            self.advance();
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.token.kind, Kind::Newline | Kind::End) {
            self.advance();
        }
        self.skip_newlines();
    }

    fn advance(&mut self) {
        self.token = self.lexer.next();
    }

    fn is_word(&self, word: &str) -> bool {
        self.token.kind == Kind::Word && self.token.text == word
    }

    fn is_mark(&self, mark: char) -> bool {
        self.token.kind == Kind::Mark(mark)
    }

    fn expected(&self, what: &str) -> SourceError {
        let found = match self.token.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::Newline => "the end of the line".to_owned(),
            Kind::Word | Kind::Mark(_) | Kind::Stray => {
                let shown: String = self.token.text.chars().take(60).flat_map(char::escape_debug).collect();
                format!("`{shown}`")
            }
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn error(&self, message: impl Into<String>) -> SourceError {
        SourceError::new(self.token.span, message)
    }
}
