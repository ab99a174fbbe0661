//! Reads tuple files in the CSV form of `OpenFGA`'s tools. Each part of a tuple has a column, and the first line names
//! the columns.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::forms::{ConditionForm, TupleForm};

const REQUIRED: [&str; 5] = ["user_type", "user_id", "relation", "object_type", "object_id"];
const OPTIONAL: [&str; 3] = ["user_relation", "condition_name", "condition_context"];

/// Parses all tuples of a table. The error names the line and the mistake.
pub(super) fn tuples(text: &str) -> Result<Vec<TupleForm>, String> {
    let mut rows = rows(text)?.into_iter();
    let Some((_, header)) = rows.next() else {
        return Err("line 1: the names of the columns are missing".to_owned());
    };
    let header: Vec<String> = header.iter().map(|column| column.trim().to_owned()).collect();
    let mut seen = HashSet::new();
    if let Some(column) = header.iter().find(|column| !seen.insert(column.as_str())) {
        return Err(format!("line 1: the column `{column}` occurs twice"));
    }
    for column in &header {
        if !REQUIRED.contains(&column.as_str()) && !OPTIONAL.contains(&column.as_str()) {
            return Err(format!("line 1: there is no column `{column}`"));
        }
    }
    if let Some(missing) = REQUIRED.iter().find(|required| !header.iter().any(|column| column == *required)) {
        return Err(format!("line 1: the column `{missing}` is missing"));
    }
    let has = |name: &str| header.iter().any(|column| column == name);
    if has("condition_context") && !has("condition_name") {
        return Err("line 1: the column `condition_name` is missing, which `condition_context` needs".to_owned());
    }
    let mut tuples = Vec::new();
    for (line, row) in rows {
        if row.len() != header.len() {
            return Err(format!("line {line}: it has {} columns, the first line has {}", row.len(), header.len()));
        }
        let cell = |name: &str| {
            let found = header.iter().zip(&row).find(|(column, _)| *column == name);
            found.map(|(_, cell)| cell.as_str()).unwrap_or_default()
        };
        let condition = condition(cell("condition_name"), cell("condition_context"));
        let user_relation = cell("user_relation");
        let userset = if user_relation.is_empty() { String::new() } else { format!("#{user_relation}") };
        tuples.push(TupleForm {
            user: Some(format!("{}:{}{userset}", cell("user_type"), cell("user_id"))),
            relation: Some(cell("relation").to_owned()),
            object: Some(format!("{}:{}", cell("object_type"), cell("object_id"))),
            condition: condition.map_err(|e| format!("line {line}: {e}"))?,
        });
    }
    Ok(tuples)
}

fn condition(name: &str, context: &str) -> Result<Option<ConditionForm>, String> {
    if name.is_empty() {
        let stray = "it has a condition context, but no condition name";
        return if context.is_empty() { Ok(None) } else { Err(stray.to_owned()) };
    }
    let context: Option<Map<String, Value>> = match context {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|e| format!("the condition context is no JSON object: {e}"))?),
    };
    Ok(Some(ConditionForm { name: Some(name.to_owned()), context }))
}

/// Splits the text into rows, each with its line number, and leaves out empty lines. A cell that begins with a quote
/// ends with one; between the two it may hold commas, line ends and doubled quotes. As in Go, a quote in any other cell
/// is refused, and so is text after a closing quote, because nobody could say where such a cell ends. The `csv` crate
/// takes both, unlike `OpenFGA`'s command line, so a cell that lost its quote would become part of a tuple.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let text = text.replace("\r\n", "\n");
    let mut rows = Vec::new();
    let (mut row, mut line, mut row_line) = (Vec::new(), 1, 1);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted).ok_or_else(|| format!("line {line}: a quote is not closed"))?,
            None => plain_cell(rest),
        };
        if !rest.starts_with('"') && cell.contains('"') {
            return Err(format!("line {line}: a quote in a cell without quotes around it"));
        }
        line += cell.matches('\n').count();
        row.push(cell);
        match after.chars().next() {
            Some(',') => {
                rest = after.get(1..).unwrap_or_default();
                // A comma at the end of the text is followed by an empty cell.
                if rest.is_empty() {
                    row.push(String::new());
                }
            }
            Some('\n') | None => {
                rest = after.get(1..).unwrap_or_default();
                line += 1;
                end_row(&mut rows, row_line, &mut row);
                row_line = line;
            }
            Some(_) => return Err(format!("line {line}: text follows the closing quote of a cell")),
        }
    }
    end_row(&mut rows, row_line, &mut row);
    Ok(rows)
}

/// Returns the cell, and the text after its closing quote.
fn quoted_cell(text: &str) -> Option<(String, &str)> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        cell.push_str(before);
        let Some(after_doubled) = after.strip_prefix('"') else { return Some((cell, after)) };
        cell.push('"');
        rest = after_doubled;
    }
}

/// Returns the cell, and the text from the next comma or line end on.
fn plain_cell(text: &str) -> (String, &str) {
    let (cell, after) = text.split_at(text.find([',', '\n']).unwrap_or(text.len()));
    (cell.to_owned(), after)
}

/// Ends a row. A line without any text is not a row.
fn end_row(rows: &mut Vec<(usize, Vec<String>)>, line: usize, row: &mut Vec<String>) {
    let row = std::mem::take(row);
    let is_empty = row.is_empty() || matches!(row.as_slice(), [only] if only.is_empty());
    if !is_empty {
        rows.push((line, row));
    }
}
