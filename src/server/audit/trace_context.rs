//! The trace that a call belongs to (W3C Trace Context, section 3.2).

use tonic::codegen::http::HeaderMap;
use ulid::Ulid;

const TRACE_HEADER: &str = "traceparent";

/// The trace of the caller, or a new one.
pub(super) fn trace_id(headers: &HeaderMap) -> String {
    let stated = headers.get(TRACE_HEADER).and_then(|value| value.to_str().ok()).and_then(stated_trace_id);
    // The last 80 of the 128 bits of a ULID are random.
    stated.map_or_else(|| format!("{:032x}", u128::from(Ulid::new())), str::to_owned)
}

fn stated_trace_id(header: &str) -> Option<&str> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = header.splitn(4, '-');
    let (version, trace_id, parent_id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = rest.split('-').next()?;
    let known = is_hex(version, 2) && version != "ff" && (version != "00" || rest.len() == 2);
    let not_zero = |id: &str| id.bytes().any(|byte| byte != b'0');
    let whole = is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2);
    (known && whole && not_zero(trace_id) && not_zero(parent_id)).then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_up_only_if_it_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let rows = [
            (format!("00-{id}-00f067aa0ba902b7-01"), true),
            (format!("cc-{id}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{id}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{id}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{id}-0000000000000000-01"), false),
            (format!("00-{id}"), false),
            (String::new(), false),
            ("00-user:anne-00f067aa0ba902b7-01".to_owned(), false),
        ];
        for (header, expected) in rows {
            assert_eq!(stated_trace_id(&header), expected.then_some(id), "{header}");
        }
    }
}
