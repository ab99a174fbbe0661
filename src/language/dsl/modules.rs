//! Models of several files (schema 1.2). `fga.mod` names the files, each file is a module, and a module may extend the
//! types of another. Together they are one model, in which every part knows its module and file.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::source_map::{Position, Span};
use super::{Document, SourceError, SourceErrors, parse};
use crate::language::model::{AuthorizationModel, ModuleSource, TypeDefinition};
use crate::language::validate::{ModelPart, RelationPlace, ValidModel};

/// The number of files that a model may have.
pub const MODULES_MAX: usize = 100;
/// The schema version of models that have modules.
const SCHEMA_VERSION: &str = "1.2";

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleText {
    /// The file's name, as `fga.mod` gives it.
    pub file: String,
    /// The file's content, in the language of models.
    pub text: String,
}

/// The mistakes in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleErrors {
    /// The file, with the text that the positions refer to.
    pub module: ModuleText,
    /// The mistakes in this file.
    pub errors: SourceErrors,
}

/// The mistakes in a model, by file. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelErrors(pub Vec<ModuleErrors>);

impl std::error::Error for ModelErrors {}

impl fmt::Display for ModelErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ModuleErrors { module, errors }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {errors}", module.file)?;
        }
        Ok(())
    }
}

impl ModelErrors {
    /// Shows all mistakes, each with its line and a mark under it.
    #[must_use]
    pub fn picture(&self) -> String {
        let pictures = self.0.iter().map(|m| format!("{}: {}", m.module.file, m.errors.picture(&m.module.text)));
        pictures.collect::<Vec<String>>().join("\n\n")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    schema: Spanned<String>,
    contents: Spanned<Vec<Spanned<String>>>,
}

/// Reads an `fga.mod` and returns the names of the module files, which lie beside it or below.
///
/// # Errors
/// The mistakes in the manifest.
pub fn parse_manifest(text: &str) -> Result<Vec<String>, SourceErrors> {
    let options = serde_saphyr::options! { with_snippet: false };
    let manifest: Manifest = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let span = e.location().map_or(Span::START, |location| span(location, 1));
        SourceErrors(vec![SourceError::new(span, e.to_string())])
    })?;
    let mut errors = Vec::new();
    let mut refuse = |item: &Spanned<String>, message: String| {
        errors.push(SourceError::new(span(item.referenced, item.value.chars().count()), message));
    };
    if manifest.schema.value != SCHEMA_VERSION {
        refuse(&manifest.schema, format!("expected `{SCHEMA_VERSION}`, found `{}`", manifest.schema.value));
    }
    for item in &manifest.contents.value {
        let file = item.value.as_str();
        if !is_below(file) {
            refuse(item, format!("`{file}` is not a file beside `fga.mod` or below"));
        } else if !is_fga(file) {
            refuse(item, format!("`{file}` does not end in `.fga`"));
        }
    }
    let count = manifest.contents.value.len();
    if count == 0 || count > MODULES_MAX {
        let message = format!("it names {count} files, at least one and at most {MODULES_MAX} are allowed");
        errors.push(SourceError::new(span(manifest.contents.referenced, 1), message));
    }
    if !errors.is_empty() {
        return Err(SourceErrors(errors));
    }
    Ok(manifest.contents.value.into_iter().map(|item| item.value).collect())
}

fn is_fga(file: &str) -> bool {
    std::path::Path::new(file).extension().is_some_and(|extension| extension == "fga")
}

/// Returns whether a path stays below the manifest. It refuses every way of writing "above" or "elsewhere", including
/// encodings that another program would decode.
fn is_below(file: &str) -> bool {
    let decoded = file.to_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    let elsewhere = decoded.starts_with(['/', '\\']) || decoded.contains(':') || decoded.contains('%');
    !elsewhere && decoded.split(['/', '\\']).all(|part| part != "..")
}

fn span(location: Location, characters: usize) -> Span {
    let at = |number: u64| usize::try_from(number).unwrap_or(1);
    Span { start: Position { line: at(location.line()), column: at(location.column()) }, characters }
}

/// Joins modules into one model and validates it.
///
/// # Errors
/// The mistakes of syntax. If there are none, the mistakes of the model, each in its file.
pub fn load(modules: &[ModuleText]) -> Result<ValidModel, ModelErrors> {
    let (model, spans) = combine(modules)?;
    ValidModel::new(model).map_err(|errors| {
        let located = errors.into_iter().map(|error| (spans.find(error.place), error.message));
        by_file(modules, located.map(|((module, span), message)| (module, SourceError::new(span, message))).collect())
    })
}

/// Joins modules into one model, without validating it. Fails with the mistakes of syntax, and of modules that do not
/// fit together.
fn combine(modules: &[ModuleText]) -> Result<(AuthorizationModel, ModuleSpans), ModelErrors> {
    let mut errors = Vec::new();
    let mut documents = Vec::new();
    for (number, module) in modules.iter().enumerate() {
        match parse(&module.text) {
            Ok(Document { module: Some(name), model, extensions, source_map }) => {
                let source = ModuleSource { module: name, file: module.file.clone() };
                documents.push(ParsedModule { number, source, model, extensions, source_map });
            }
            Ok(Document { module: None, .. }) => {
                errors.push((number, SourceError::new(Span::START, "this file is not a module")));
            }
            Err(SourceErrors(found)) => errors.extend(found.into_iter().map(|error| (number, error))),
        }
    }
    let mut combined = Combined::default();
    for module in &documents {
        combined.define(module, &mut errors);
    }
    for module in &documents {
        combined.extend(module, &mut errors);
    }
    if !errors.is_empty() {
        return Err(by_file(modules, errors));
    }
    let Combined { mut model, mut spans, condition_spans } = combined;
    SCHEMA_VERSION.clone_into(&mut model.schema_version);
    for (index, name) in model.conditions.keys().enumerate() {
        if let Some(found) = condition_spans.get(name) {
            spans.0.insert(ModelPart::Condition(index), *found);
        }
    }
    Ok((model, spans))
}

/// The module and the span of each part of a model.
#[derive(Default)]
struct ModuleSpans(HashMap<ModelPart, (usize, Span)>);

impl ModuleSpans {
    fn find(&self, place: ModelPart) -> (usize, Span) {
        let found = std::iter::successors(Some(place), |place| place.around()).find_map(|place| self.0.get(&place));
        found.copied().unwrap_or((0, Span::START))
    }
}

/// A module after reading.
struct ParsedModule {
    number: usize,
    source: ModuleSource,
    model: AuthorizationModel,
    /// The positions of those types that extend a type of another module.
    extensions: Vec<usize>,
    source_map: super::SourceMap,
}

#[derive(Default)]
struct Combined {
    model: AuthorizationModel,
    spans: ModuleSpans,
    condition_spans: HashMap<String, (usize, Span)>,
}

impl Combined {
    fn define(&mut self, module: &ParsedModule, errors: &mut Vec<(usize, SourceError)>) {
        for (index, definition) in module.model.types.iter().enumerate() {
            if module.extensions.contains(&index) {
                continue;
            }
            let mut definition = definition.clone();
            definition.source = Some(module.source.clone());
            let added = TypeDefinition { relations: Vec::new(), ..definition.clone() };
            let new_index = self.model.types.len();
            self.model.types.push(added);
            self.spans
                .0
                .insert(ModelPart::Type(new_index), (module.number, module.source_map.span(ModelPart::Type(index))));
            let own = definition.relations.into_iter().map(|relation| (relation, None));
            self.add_relations(module, index, new_index, own.collect(), errors);
        }
        for (index, (name, condition)) in module.model.conditions.iter().enumerate() {
            let span = module.source_map.span(ModelPart::Condition(index));
            let mut condition = condition.clone();
            condition.source = Some(module.source.clone());
            if self.model.conditions.insert(name.clone(), condition).is_some() {
                let message = format!("condition `{name}` is already defined in another module");
                errors.push((module.number, SourceError::new(span, message)));
            }
            self.condition_spans.insert(name.clone(), (module.number, span));
        }
    }

    fn extend(&mut self, module: &ParsedModule, errors: &mut Vec<(usize, SourceError)>) {
        for index in &module.extensions {
            let Some(extension) = module.model.types.get(*index) else { continue };
            let Some(extended) = self.model.types.iter().position(|t| t.name == extension.name) else {
                let message = format!("type `{}` is extended, but no module defines it", extension.name);
                errors
                    .push((module.number, SourceError::new(module.source_map.span(ModelPart::Type(*index)), message)));
                continue;
            };
            let added = extension.relations.iter().cloned().map(|relation| (relation, Some(module.source.clone())));
            self.add_relations(module, *index, extended, added.collect(), errors);
        }
    }

    fn add_relations(
        &mut self,
        module: &ParsedModule,
        from: usize,
        to: usize,
        relations: Vec<(crate::language::model::RelationDefinition, Option<ModuleSource>)>,
        errors: &mut Vec<(usize, SourceError)>,
    ) {
        let Some(definition) = self.model.types.get_mut(to) else { return };
        for (index, (mut relation, source)) in relations.into_iter().enumerate() {
            let old = RelationPlace { type_index: from, relation_index: index };
            let new = RelationPlace { type_index: to, relation_index: definition.relations.len() };
            if source.is_some() && definition.relation(&relation.name).is_some() {
                let message = format!("type `{}` already has a relation `{}`", definition.name, relation.name);
                errors
                    .push((module.number, SourceError::new(module.source_map.span(ModelPart::Relation(old)), message)));
                continue;
            }
            let moved = module.source_map.of_relation(old).map(|(place, span)| (place.of(new), (module.number, span)));
            self.spans.0.extend(moved);
            relation.source = source;
            definition.relations.push(relation);
        }
    }
}

fn by_file(modules: &[ModuleText], mut errors: Vec<(usize, SourceError)>) -> ModelErrors {
    errors.sort_by_key(|(module, error)| (*module, error.span.start));
    let mut files: Vec<ModuleErrors> = Vec::new();
    for (number, error) in errors {
        let Some(module) = modules.get(number) else { continue };
        match files.last_mut() {
            Some(last) if last.module == *module => last.errors.0.push(error),
            _ => files.push(ModuleErrors { module: module.clone(), errors: SourceErrors(vec![error]) }),
        }
    }
    ModelErrors(files)
}
