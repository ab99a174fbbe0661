//! The folder for what a command keeps between two runs, such as a login (XDG Base Directory Specification).

use std::ffi::OsString;
use std::path::PathBuf;

/// The name of our folder in the person's folder of states.
const NAME: &str = "ragward";

/// Returns the folder of this person's state; `None` if the environment names no home.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    of(variable)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn of(read: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The specification says to pass over relative paths: they would mean another folder in each working directory.
    let absolute = |name: &str| read(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let in_home = || absolute("HOME").map(|home| home.join(".local/state"));
    absolute("XDG_STATE_HOME").or_else(in_home).map(|states| states.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a row, the variables, and the folder.
    type Row = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

    #[test]
    fn the_folder_is_the_persons_own() {
        let rows: [Row; 5] = [
            ("the variable", &[("XDG_STATE_HOME", "/states"), ("HOME", "/home/a")], Some("/states/ragward")),
            ("the home", &[("HOME", "/home/a")], Some("/home/a/.local/state/ragward")),
            (
                "a relative path",
                &[("XDG_STATE_HOME", "states"), ("HOME", "/home/a")],
                Some("/home/a/.local/state/ragward"),
            ),
            ("an empty variable", &[("XDG_STATE_HOME", ""), ("HOME", "/home/a")], Some("/home/a/.local/state/ragward")),
            ("no home", &[], None),
        ];
        for (row, variables, expected) in rows {
            let read = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(of(read), expected.map(PathBuf::from), "{row}");
        }
    }
}
