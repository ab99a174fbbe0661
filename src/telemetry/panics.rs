//! Tells of panics by their place alone.
//!
//! INVARIANT (nothing leaks): the message of a panic is not told. It may quote what was worked on: a library that cuts a text in the
//! middle of a character panics with the text.

use std::panic::{self, Location};

/// Makes every panic of this program one line of the log. Call it once the log is open.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = place_of(panic.location());
        tracing::error!(%place, "a part of the program panicked");
    }));
}

/// Returns the place of a panic in the source code.
fn place_of(location: Option<&Location<'_>>) -> String {
    location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_place() {
        let here = Location::caller();
        let rows = [
            ("known", Some(here), format!("{}:{}:{}", file!(), here.line(), here.column())),
            ("unknown", None, "an unknown place".to_owned()),
        ];
        for (row, location, expected) in rows {
            assert_eq!(place_of(location), expected, "{row}");
        }
    }
}
