//! Builds the tree of a document from the parser's events.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::YamlError;
use super::scalar::{Resolved, Scalar};

/// The deepest nesting of lists and mappings. The tree is read and dropped recursively, so this bounds the stack.
const DEPTH_MAX: usize = 100;
/// The greatest number of nodes that all aliases together may repeat. Without a limit, a few lines can stand for any
/// number of nodes.
const REPEATED_MAX: usize = 1_000_000;

/// A node of the tree, with the line that it begins in.
pub(super) struct Node<'t> {
    pub(super) line: usize,
    pub(super) content: Content<'t>,
    /// The number of nodes in this subtree, counting what aliases stand for.
    size: usize,
}

pub(super) enum Content<'t> {
    Scalar(Scalar<'t>),
    Sequence(Vec<Rc<Node<'t>>>),
    Mapping(Vec<MappingEntry<'t>>),
}

/// A name and its value.
pub(super) type MappingEntry<'t> = (Rc<Node<'t>>, Rc<Node<'t>>);

/// Parses a text that holds one document. An empty document may follow it, as after a `---` at the end.
pub(super) fn document(text: &str) -> Result<Rc<Node<'_>>, YamlError> {
    let mut tree = Tree::default();
    let mut roots: Vec<Rc<Node<'_>>> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| YamlError::at(e.marker().line(), e.info()))?;
        let Some(root) = tree.take(event, &span)? else { continue };
        let is_empty = matches!(&root.content, Content::Scalar(scalar) if scalar.resolve() == Ok(Resolved::Null));
        if roots.is_empty() || !is_empty {
            roots.push(root);
        }
        if let [_, second, ..] = roots.as_slice() {
            let line = second.line;
            return Err(YamlError::at(line, "a second document begins here; it would not be read"));
        }
    }
    roots.pop().ok_or_else(|| YamlError::at(1, "the file is empty"))
}

/// Returns the entries of a mapping, including those that `<<` merges in. The mapping's own entries come first and win;
/// then those of the first merged mapping, and so on.
pub(super) fn merged<'n, 't>(
    entries: &'n [MappingEntry<'t>],
    line: usize,
) -> Result<Vec<(&'n Node<'t>, &'n Node<'t>)>, YamlError> {
    let mut all: Vec<(&Node<'t>, &Node<'t>)> = Vec::new();
    let mut names: HashSet<&str> = HashSet::new();
    let mut sources: Vec<&[MappingEntry<'t>]> = vec![entries];
    let mut index = 0;
    // Merged mappings form a tree, whose size [`REPEATED_MAX`] bounds.
    while let Some(source) = sources.get(index).copied() {
        index += 1;
        for (key, value) in source {
            if !is_merge(key) {
                let is_new = match &key.content {
                    Content::Scalar(scalar) => names.insert(&scalar.text),
                    Content::Sequence(_) | Content::Mapping(_) => true,
                };
                if is_new {
                    all.push((key, value));
                }
                continue;
            }
            let items = match &value.content {
                Content::Sequence(items) => items.as_slice(),
                Content::Scalar(_) | Content::Mapping(_) => std::slice::from_ref(value),
            };
            for item in items {
                let Content::Mapping(merged) = &item.content else {
                    return Err(YamlError::at(line, "`<<` takes mappings only"));
                };
                sources.push(merged);
            }
        }
    }
    Ok(all)
}

fn is_merge(key: &Node<'_>) -> bool {
    matches!(&key.content, Content::Scalar(scalar) if scalar.text == "<<" && !scalar.quoted && scalar.tag.is_none())
}

/// A list or mapping that has begun and not ended.
struct Open<'t> {
    line: usize,
    anchor: usize,
    kind: OpenKind<'t>,
}

enum OpenKind<'t> {
    Sequence(Vec<Rc<Node<'t>>>),
    Mapping { entries: Vec<MappingEntry<'t>>, key: Option<Rc<Node<'t>>>, names: HashSet<String> },
}

/// Builds nodes from the events of a parser.
#[derive(Default)]
struct Tree<'t> {
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Rc<Node<'t>>>,
    repeated: usize,
}

impl<'t> Tree<'t> {
    /// Takes the next event, and returns the root once a document is complete.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other events are about the presentation, and more may come"
    )]
    fn take(&mut self, event: Event<'t>, span: &Span) -> Result<Option<Rc<Node<'t>>>, YamlError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain;
                let scalar = Scalar { text, quoted, tag: tag.as_deref().map(tag_name) };
                self.finished(Node { line, content: Content::Scalar(scalar), size: 1 }, anchor)
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).map(Rc::clone);
                let target = target.ok_or_else(|| YamlError::at(line, "an alias refers to a node that contains it"))?;
                self.repeated = self.repeated.saturating_add(target.size);
                if self.repeated > REPEATED_MAX {
                    return Err(YamlError::at(line, format!("aliases repeat more than {REPEATED_MAX} nodes")));
                }
                self.place(target)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(line, anchor, OpenKind::Sequence(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                let kind = OpenKind::Mapping { entries: Vec::new(), key: None, names: HashSet::new() };
                self.begin(line, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, anchor, kind }) = self.open.pop() else { return Ok(None) };
                let (content, size) = match kind {
                    OpenKind::Sequence(items) => {
                        let size = items.iter().map(|item| item.size).sum();
                        (Content::Sequence(items), size)
                    }
                    OpenKind::Mapping { entries, .. } => {
                        let size = entries.iter().map(|(key, value)| key.size.saturating_add(value.size)).sum();
                        (Content::Mapping(entries), size)
                    }
                };
                self.finished(Node { line, content, size: 1_usize.saturating_add(size) }, anchor)
            }
            _ => Ok(None),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, kind: OpenKind<'t>) -> Result<Option<Rc<Node<'t>>>, YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(YamlError::at(line, format!("lists and mappings are nested more than {DEPTH_MAX} deep")));
        }
        self.open.push(Open { line, anchor, kind });
        Ok(None)
    }

    fn finished(&mut self, node: Node<'t>, anchor: usize) -> Result<Option<Rc<Node<'t>>>, YamlError> {
        let node = Rc::new(node);
        // The parser numbers anchors from 1; 0 means that there is none.
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node)
    }

    /// Inserts a node into the innermost open list or mapping. Returns it if nothing is open, because then it is the
    /// root.
    fn place(&mut self, node: Rc<Node<'t>>) -> Result<Option<Rc<Node<'t>>>, YamlError> {
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut open.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping { entries, key, names } => {
                if let Some(key) = key.take() {
                    entries.push((key, node));
                    return Ok(None);
                }
                if let Content::Scalar(scalar) = &node.content
                    && !names.insert(scalar.text.to_string())
                {
                    return Err(YamlError::at(node.line, format!("`{}` occurs twice in a mapping", scalar.text)));
                }
                *key = Some(node);
            }
        }
        Ok(None)
    }
}

/// Returns `str` for `!!str`, and a tag outside of YAML's own namespace as it is written.
fn tag_name(tag: &Tag) -> String {
    match tag.suffix_in_namespace("tag:yaml.org,2002:") {
        Some(name) => name.into_owned(),
        None => tag.original(),
    }
}
