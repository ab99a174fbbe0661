//! Continuation tokens: where a page ended, opaque to clients, and checked when it comes back.

use super::refusal::{Number, Refusal};

/// Which list a token continues: one of another list is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Stores,
    Models,
    Tuples,
    Changes,
}

impl List {
    fn letter(self) -> char {
        match self {
            Self::Stores => 's',
            Self::Models => 'm',
            Self::Tuples => 't',
            Self::Changes => 'c',
        }
    }
}

/// The token for what was read last.
pub(super) fn write(of: List, last: &str) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    let text = format!("{}{last}", of.letter());
    text.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// What was read last; `None` at the beginning of a list.
pub(super) fn read(of: List, token: &str) -> Result<Option<String>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let last = decode(token).and_then(|text| text.strip_prefix(of.letter()).map(str::to_owned));
    last.map(Some).ok_or_else(invalid)
}

pub(super) fn invalid() -> Refusal {
    Refusal::new(Number::InvalidContinuationToken, "the continuation token is not one of this list")
}

fn decode(token: &str) -> Option<String> {
    let (pairs, rest) = token.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? * 16 + low?).ok()
    };
    String::from_utf8(pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_only_its_own_list() {
        let token = write(List::Changes, "17|document");
        assert_eq!(read(List::Changes, &token), Ok(Some("17|document".to_owned())));
        assert_eq!(read(List::Changes, ""), Ok(None));
        assert_eq!(read(List::Tuples, &token), Err(invalid()));
        for foreign in ["Zm9v", "0", "63zz", "63ff", &token.to_uppercase().replace('6', "g"), "é"] {
            assert_eq!(read(List::Changes, foreign), Err(invalid()), "`{foreign}`");
        }
    }
}
