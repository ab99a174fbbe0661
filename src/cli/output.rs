//! The output of commands: tables for people, JSON for programs.

use std::io::{ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::Failure;
use crate::visible::{visible, visible_json};

/// The form in which results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables for people.
    Table,
    /// JSON for programs.
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

    /// Prints a result: its JSON, or the text that `people` makes of it.
    pub(super) fn result(&self, value: &impl Serialize, people: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(|e| Failure::failed(e.to_string()))?;
                write(&visible_json(&json))
            }
            Format::Table => print(&people()),
        }
    }

    /// Like [`Output::result`], for a text that another program may read. Outside a terminal, the text is written as it
    /// is, without escapes for invisible characters.
    pub(super) fn source(&self, value: &impl Serialize, source: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table if !std::io::stdout().is_terminal() => write(&source()),
            Format::Table | Format::Json => self.result(value, source),
        }
    }
}

/// Prints a text for people. Every character in it can be seen, and none moves the cursor.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&visible(text))
}

/// Writes a text as it is, in whole lines, so that the next message on standard error begins on its own line.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let line = format!("{}\n", text.trim_end_matches('\n'));
    let mut stdout = std::io::stdout().lock();
    Ok(unless_closed(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()))?)
}

/// Turns the error of a closed pipe into success, because the reader of the output has seen enough. The exit code is
/// still that of the command's result.
pub(super) fn unless_closed(written: std::io::Result<()>) -> std::io::Result<()> {
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Makes a table that fits the terminal. Without a terminal, no line is wrapped, because another program may read the
/// table.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    let is_tty = table.is_tty();
    table.set_content_arrangement(if is_tty { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
    table.set_header(header.iter().copied());
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| visible(cell)).collect::<Vec<String>>()));
    table.to_string()
}

/// Returns the first characters of a text on one line.
pub(super) fn excerpt(text: &str, characters_max: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
