//! The trace that a caller's request belongs to: the header `traceparent` (W3C Trace Context, section 3.2).

/// A well-formed `traceparent`: the caller's trace, its span, and whether it is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) sampled: bool,
}

impl TraceParent {
    /// Parses the header's value. Returns `None` if it is malformed, in which case a new trace begins (section 4.3).
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.splitn(4, '-');
        let (version, trace_id, span_id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let flags = rest.split('-').next()?;
        let version = hex(version, 2)?;
        // In version 00 nothing may follow the flags. In later versions something may.
        if version == 0xff || (version == 0 && rest.len() != 2) {
            return None;
        }
        let (trace_id, span_id, flags) = (hex(trace_id, 32)?, hex(span_id, 16)?, hex(flags, 2)?);
        let span_id = u64::try_from(span_id).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// Parses exactly this many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && text.len() == digits { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_up_only_if_it_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent =
            TraceParent { trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span_id: 0xf0_67aa, sampled: true };
        let rows = [
            (format!("00-{id}-0000000000f067aa-01"), Some(parent)),
            (format!("00-{id}-0000000000f067aa-00"), Some(TraceParent { sampled: false, ..parent })),
            (format!("cc-{id}-0000000000f067aa-01-more"), Some(parent)),
            (format!("00-{id}-0000000000f067aa-01-more"), None),
            (format!("ff-{id}-0000000000f067aa-01"), None),
            (format!("00-{}-0000000000f067aa-01", id.to_uppercase()), None),
            (format!("00-{}-0000000000f067aa-01", "0".repeat(32)), None),
            (format!("00-{id}-0000000000000000-01"), None),
            (format!("00-+{}-0000000000f067aa-01", "1".repeat(31)), None),
            (format!("00-{id}"), None),
            (String::new(), None),
            ("00-user:anne-0000000000f067aa-01".to_owned(), None),
        ];
        for (header, expected) in rows {
            assert_eq!(TraceParent::parse(&header), expected, "{header}");
        }
    }
}
