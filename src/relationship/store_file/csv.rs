//! Tuple files in the CSV form of `OpenFGA`'s tools: one column for each part of a tuple, named in the first line.

use serde_json::{Map, Value};

use super::{ConditionYaml, TupleYaml};

const REQUIRED: [&str; 5] = ["user_type", "user_id", "relation", "object_type", "object_id"];
const OPTIONAL: [&str; 3] = ["user_relation", "condition_name", "condition_context"];

/// The tuples, or what is wrong in which line.
pub(super) fn tuples(text: &str) -> Result<Vec<TupleYaml>, String> {
    let mut rows = rows(text)?.into_iter();
    let Some((_, header)) = rows.next() else {
        return Err("line 1: the names of the columns are missing".to_owned());
    };
    for column in &header {
        if !REQUIRED.contains(&column.as_str()) && !OPTIONAL.contains(&column.as_str()) {
            return Err(format!("line 1: there is no column `{column}`"));
        }
    }
    if let Some(missing) = REQUIRED.iter().find(|required| !header.iter().any(|column| column == *required)) {
        return Err(format!("line 1: the column `{missing}` is missing"));
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
        tuples.push(TupleYaml {
            user: format!("{}:{}{userset}", cell("user_type"), cell("user_id")),
            relation: cell("relation").to_owned(),
            object: format!("{}:{}", cell("object_type"), cell("object_id")),
            condition: condition.map_err(|e| format!("line {line}: {e}"))?,
        });
    }
    Ok(tuples)
}

fn condition(name: &str, context: &str) -> Result<Option<ConditionYaml>, String> {
    if name.is_empty() {
        let stray = "it has a condition context, but no condition name";
        return if context.is_empty() { Ok(None) } else { Err(stray.to_owned()) };
    }
    let context: Option<Map<String, Value>> = match context {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|e| format!("the condition context is no JSON object: {e}"))?),
    };
    Ok(Some(ConditionYaml { name: name.to_owned(), context }))
}

/// The rows with their line numbers; empty lines are left out. A cell in quotes may hold commas, line ends and doubled
/// quotes.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut row, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let (mut line, mut row_line) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\n' {
            line += 1;
        }
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(take_cell(&mut cell)),
            '\n' if !quoted => {
                row.push(take_cell(&mut cell));
                end_row(&mut rows, row_line, &mut row);
                row_line = line;
            }
            other => cell.push(other),
        }
    }
    if quoted {
        return Err(format!("line {row_line}: a quote is not closed"));
    }
    row.push(take_cell(&mut cell));
    end_row(&mut rows, row_line, &mut row);
    Ok(rows)
}

fn take_cell(cell: &mut String) -> String {
    std::mem::take(cell).trim().to_owned()
}

fn end_row(rows: &mut Vec<(usize, Vec<String>)>, line: usize, row: &mut Vec<String>) {
    let row = std::mem::take(row);
    if row.iter().any(|cell| !cell.is_empty()) {
        rows.push((line, row));
    }
}
