//! The graph of the crate's modules: which module names which, read from the source.
//!
//! Paths are found in the tokens of a file, so that those inside macros count too. A name that a module only re-exports
//! is followed to the module that defines it: two siblings that reach each other through their parent are still a
//! circle.

pub(crate) mod circles;
pub(crate) mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::Peekable;
use std::slice::Iter;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The names of a module and of those around it, from the crate's root down. The root itself has none.
pub(crate) type ModulePath = Vec<String>;

/// The most re-exports that are followed from one name. The longest chain in the source has three; the bound ends a
/// chain that leads back to itself.
const REEXPORTS_MAX: usize = 16;

/// A path in the source that leads from one module into another.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) from: ModulePath,
    /// The module that defines what the path names.
    pub(crate) to: ModulePath,
    pub(crate) line: usize,
    /// The path as it is written.
    pub(crate) text: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.from.is_empty() { "lib".to_owned() } else { self.from.join("/") };
        write!(f, "src/{file}.rs:{}: {}", self.line, self.text)
    }
}

/// A path as written: its segments, and the line on which it stands.
#[derive(Debug)]
struct WrittenPath {
    segments: Vec<String>,
    line: usize,
}

#[derive(Default)]
struct Module {
    /// The names of the items that the module defines itself. Child modules are not among them.
    definitions: BTreeSet<String>,
    /// The full path of each name that `use` brings into scope.
    imports: BTreeMap<String, Vec<String>>,
    /// The modules from which `use` brings in everything.
    globs: Vec<Vec<String>>,
    paths: Vec<WrittenPath>,
}

/// All modules of a crate, without the code that only tests compile.
#[derive(Default)]
pub(crate) struct ModuleGraph {
    modules: BTreeMap<ModulePath, Module>,
    /// The modules that only tests compile. Modules below them count as test code, too.
    tests: BTreeSet<ModulePath>,
}

impl ModuleGraph {
    /// Adds the module at `path` with the text of its file.
    ///
    /// # Panics
    /// If the text is not Rust.
    pub(crate) fn add(&mut self, path: ModulePath, text: &str) {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.join("::")));
        self.read_module(path, tokens);
    }

    fn read_module(&mut self, path: ModulePath, tokens: TokenStream) {
        let mut module = Module::default();
        for item in items(tokens) {
            if let Some(name) = item.module_name() {
                let child: ModulePath = path.iter().cloned().chain([name]).collect();
                if item.is_test {
                    self.tests.insert(child);
                } else if let Some(body) = item.body() {
                    self.read_module(child, body);
                }
            } else if !item.is_test {
                module.read_item(&item);
            }
        }
        self.modules.insert(path, module);
    }

    fn is_test(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|length| self.tests.contains(&module[..length]))
    }

    /// Returns every path that leads from one module into another.
    pub(crate) fn references(&self) -> Vec<Reference> {
        let mut references = Vec::new();
        for (from, module) in self.modules.iter().filter(|(path, _)| !self.is_test(path)) {
            for path in &module.paths {
                if let Some(to) = self.resolve(from, &path.segments, REEXPORTS_MAX).filter(|to| to != from) {
                    references.push(Reference {
                        from: from.clone(),
                        to,
                        line: path.line,
                        text: path.segments.join("::"),
                    });
                }
            }
        }
        references
    }

    /// Resolves the path `segments`, as it is written in the module `from`, to the module that defines the item.
    /// Returns `None` for an item of another crate.
    fn resolve(&self, from: &ModulePath, segments: &[String], steps: usize) -> Option<ModulePath> {
        let steps = steps.checked_sub(1)?;
        let (first, mut rest) = segments.split_first()?;
        let mut at = match first.as_str() {
            "crate" | "ragward" => ModulePath::new(),
            "self" => from.clone(),
            "super" => parent(from)?,
            name => {
                let found = self.step(from, name, steps)?;
                match found {
                    Step::Module(module) => module,
                    Step::DefinedIn(module) => return Some(module),
                }
            }
        };
        while let Some((name, further)) = rest.split_first() {
            rest = further;
            if name == "super" {
                at = parent(&at)?;
                continue;
            }
            match self.step(&at, name, steps) {
                Some(Step::Module(module)) => at = module,
                Some(Step::DefinedIn(module)) => return Some(module),
                // A macro makes the item, or it is an enum's variant. Either way it belongs to the module before it.
                None => return Some(at),
            }
        }
        Some(at)
    }

    /// Looks up one name in the module `at`.
    fn step(&self, at: &ModulePath, name: &str, steps: usize) -> Option<Step> {
        let child: ModulePath = at.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains_key(&child) {
            return Some(Step::Module(child));
        }
        let module = self.modules.get(at)?;
        if module.definitions.contains(name) {
            return Some(Step::DefinedIn(at.clone()));
        }
        if let Some(import) = module.imports.get(name).filter(|import| import.first().is_none_or(|first| first != name))
        {
            let found = self.resolve(at, import, steps)?;
            // The import names a module, not an item in one.
            let last = import.last().map(String::as_str).unwrap_or_default();
            let is_module = found.last().is_some_and(|found| found == last) || last == "self" || last == "super";
            return Some(if is_module { Step::Module(found) } else { Step::DefinedIn(found) });
        }
        let steps = steps.checked_sub(1)?;
        module.globs.iter().find_map(|glob| {
            let other = self.resolve(at, glob, steps).filter(|other| other != at)?;
            self.step(&other, name, steps)
        })
    }
}

enum Step {
    /// The name belongs to this module.
    Module(ModulePath),
    /// The name belongs to an item that this module defines.
    DefinedIn(ModulePath),
}

fn parent(module: &ModulePath) -> Option<ModulePath> {
    module.split_last().map(|(_, parent)| parent.to_vec())
}

impl Module {
    fn read_item(&mut self, item: &Item) {
        if item.keyword() == Some("use") {
            for import in imports(&item.tokens) {
                self.paths.push(WrittenPath { segments: import.segments.clone(), line: import.line });
                match import.name {
                    Some(name) => drop(self.imports.insert(name, import.segments)),
                    None => self.globs.push(import.segments),
                }
            }
            return;
        }
        self.definitions.extend(item.name());
        self.read_paths(&item.tokens);
    }

    /// Collects the paths of an item, those in its bodies and macros included.
    fn read_paths(&mut self, tokens: &[TokenTree]) {
        let mut rest = tokens.iter().peekable();
        let mut before_is_colon = false;
        while let Some(token) = rest.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(group)) = rest.peek()
                        && is_cfg_test(group)
                    {
                        skip_item(&mut rest);
                    }
                }
                TokenTree::Group(group) => self.read_paths(&group.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Ident(ident) if ident == "use" => {
                    let tree: Vec<TokenTree> =
                        rest.by_ref().take_while(|token| !is_punct(token, ';')).cloned().collect();
                    let imports = imports_of_tree(&tree);
                    self.paths
                        .extend(imports.map(|import| WrittenPath { segments: import.segments, line: import.line }));
                }
                // After `::` a word goes on with a path (`Vec::<u8>::new`) or begins with another crate (`::std`).
                TokenTree::Ident(ident) if !before_is_colon => {
                    let line = ident.span().start().line;
                    let mut segments = vec![ident.to_string()];
                    while let Some(name) = next_segment(&mut rest) {
                        segments.push(name);
                    }
                    if segments.len() > 1 {
                        self.paths.push(WrittenPath { segments, line });
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            before_is_colon = is_joint_colon(token) || (before_is_colon && is_punct(token, ':'));
        }
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Returns whether a token is the first half of `::`.
fn is_joint_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == proc_macro2::Spacing::Joint)
}

/// Takes `::name` if it comes next.
fn next_segment(rest: &mut Peekable<Iter<'_, TokenTree>>) -> Option<String> {
    let mut ahead = rest.clone();
    let (first, second, third) = (ahead.next()?, ahead.next()?, ahead.next()?);
    let TokenTree::Ident(name) = third else { return None };
    let follows = is_joint_colon(first) && is_punct(second, ':');
    follows.then(|| {
        *rest = ahead;
        name.to_string()
    })
}

fn is_cfg_test(attribute: &proc_macro2::Group) -> bool {
    attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Passes over the item, field or statement that an attribute belongs to.
fn skip_item(rest: &mut Peekable<Iter<'_, TokenTree>>) {
    for token in rest.by_ref() {
        let is_body = matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        if is_body || is_punct(token, ';') || is_punct(token, ',') {
            return;
        }
    }
}

/// An item of a module.
struct Item {
    /// The item without its attributes and its visibility.
    tokens: Vec<TokenTree>,
    /// Whether only tests compile the item.
    is_test: bool,
}

impl Item {
    /// Returns the word that says what the item is, such as `fn` in `async fn`.
    fn keyword(&self) -> Option<&'static str> {
        const KEYWORDS: [&str; 13] = [
            "use",
            "mod",
            "fn",
            "struct",
            "enum",
            "union",
            "trait",
            "impl",
            "type",
            "static",
            "const",
            "macro_rules",
            "extern",
        ];
        let mut words = self.tokens.iter().map_while(|token| match token {
            TokenTree::Ident(word) => Some(word.to_string()),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        });
        let first = words.find_map(|word| KEYWORDS.into_iter().find(|keyword| *keyword == word))?;
        // `const fn` and `extern "C" fn` are functions.
        if matches!(first, "const" | "extern") && words.any(|word| word == "fn") { Some("fn") } else { Some(first) }
    }

    fn name(&self) -> Option<String> {
        let keyword = self.keyword()?;
        let mut words = self.tokens.iter().filter_map(|token| match token {
            TokenTree::Ident(word) => Some(word.to_string()),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        });
        words.find(|word| word == keyword)?;
        words.next().filter(|_| keyword != "impl")
    }

    fn module_name(&self) -> Option<String> {
        if self.keyword() == Some("mod") { self.name() } else { None }
    }

    /// Returns the content of the braces that end the item. `None` for an item without braces.
    fn body(&self) -> Option<TokenStream> {
        match self.tokens.last()? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        }
    }
}

/// Returns the items in a module's file, or in the braces of an inline module.
fn items(tokens: TokenStream) -> Vec<Item> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut rest = tokens.iter().peekable();
    let mut items = Vec::new();
    while rest.peek().is_some() {
        let item = next_item(&mut rest);
        if !item.tokens.is_empty() {
            items.push(item);
        }
    }
    items
}

fn next_item(rest: &mut Peekable<Iter<'_, TokenTree>>) -> Item {
    let mut item = Item { tokens: Vec::new(), is_test: false };
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' && item.tokens.is_empty() => {
                let inner = rest.next_if(|token| is_punct(token, '!')).is_some();
                if let Some(TokenTree::Group(attribute)) = rest.next() {
                    item.is_test |= !inner && is_cfg_test(attribute);
                }
            }
            TokenTree::Ident(word) if word == "pub" && item.tokens.is_empty() => {
                rest.next_if(
                    |token| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis),
                );
            }
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {
                item.tokens.push(token.clone());
                let is_body = matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                // Braces end an item, but these go on to a semicolon.
                let goes_on = matches!(item.keyword(), Some("use" | "const" | "static" | "type"));
                if is_punct(token, ';') || (is_body && !goes_on) {
                    return item;
                }
            }
        }
    }
    item
}

/// One name that `use` brings in. A `*` has no name.
struct Import {
    name: Option<String>,
    segments: Vec<String>,
    line: usize,
}

/// Returns the imports of a whole `use …;`.
fn imports(tokens: &[TokenTree]) -> Vec<Import> {
    let tree: Vec<TokenTree> = tokens
        .iter()
        .skip_while(|token| !matches!(token, TokenTree::Ident(word) if word == "use"))
        .skip(1)
        .take_while(|token| !is_punct(token, ';'))
        .cloned()
        .collect();
    imports_of_tree(&tree).collect()
}

fn imports_of_tree(tree: &[TokenTree]) -> impl Iterator<Item = Import> {
    let mut imports = Vec::new();
    read_tree(tree, &[], &mut imports);
    imports.into_iter()
}

fn read_tree(tree: &[TokenTree], prefix: &[String], imports: &mut Vec<Import>) {
    for branch in tree.split(|token| is_punct(token, ',')).filter(|branch| !branch.is_empty()) {
        let mut segments = prefix.to_vec();
        let mut name = None;
        let mut tokens = branch.iter();
        let line = branch[0].span().start().line;
        let mut is_leaf = true;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = tokens.next().map(ToString::to_string);
                }
                // `self` in braces is the module before them.
                TokenTree::Ident(word) if word == "self" && !prefix.is_empty() => {}
                TokenTree::Ident(word) => segments.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    read_tree(&inner, &segments, imports);
                    is_leaf = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    imports.push(Import { name: None, segments: segments.clone(), line });
                    is_leaf = false;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if is_leaf {
            let name = name.or_else(|| segments.last().cloned());
            imports.push(Import { name, segments, line });
        }
    }
}
