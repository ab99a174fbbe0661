//! What commands print: tables for people, JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::Failure;

/// Characters of a table that does not go to a terminal.
const PIPE_WIDTH: u16 = 120;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Standard output in one format.
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a result: its JSON, or what `people` makes of it.
    pub(super) fn result(&self, value: &impl Serialize, people: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(|e| Failure::failed(e.to_string()))?;
                print(&json)
            }
            Format::Table => print(&people()),
        }
    }
}

/// Prints a text as it is.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
    Ok(())
}

/// A table that fits the terminal.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(PIPE_WIDTH);
    }
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    table.to_string()
}

/// The first characters of a text in one line, without anything that could move a terminal's cursor.
pub(super) fn excerpt(text: &str, characters_max: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
