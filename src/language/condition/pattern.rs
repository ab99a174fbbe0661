//! Regular expressions as Go has them (RE2). This module reads their text itself, since no crate reads exactly this
//! language: each takes something that Go refuses, or refuses something that Go takes. `regex-automata` does the
//! matching.

mod class;
mod reader;

use regex_automata::nfa::thompson::NFA;
use regex_automata::nfa::thompson::pikevm::PikeVM;

/// The size of one pattern's automaton, in bytes. Go has no such limit below 128 MB.
const AUTOMATON_BYTES_MAX: usize = 10 * 1024 * 1024;

/// A compiled regular expression.
#[derive(Debug)]
pub(super) struct Pattern {
    automaton: PikeVM,
}

impl Pattern {
    /// Compiles a pattern, or says what is wrong with it.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        let meaning = reader::read(text)?;
        let config = NFA::config().nfa_size_limit(Some(AUTOMATON_BYTES_MAX));
        let automaton = NFA::compiler().configure(config).build_from_hir(&meaning);
        let automaton = automaton.map_err(|e| format!("the regular expression is too large: {e}"))?;
        let automaton = PikeVM::new_from_nfa(automaton).map_err(|e| e.to_string())?;
        Ok(Self { automaton })
    }

    /// Returns whether some part of the text matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.automaton.is_match(&mut self.automaton.create_cache(), text)
    }
}
