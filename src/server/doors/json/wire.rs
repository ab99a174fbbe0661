//! Reads an encoded message where it lies: nothing of it is copied.
//!
//! The format is that of protocol buffers. Only answers of our own services are read, so what their encoder never writes, such
//! as a group, counts as damage.

use std::fmt::{self, Display};

/// A field of a message, or one item of a field with several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'m> {
    pub(super) number: u32,
    pub(super) value: Raw<'m>,
}

/// A value as it stands in the message. The kind of its field says how to read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw<'m> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'m [u8]),
}

/// The reason why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// A field goes on behind the end.
    Cut,
    /// A number of a field or of a kind of value is none.
    Key,
    /// A varint has more than 64 bits.
    Varint,
}

/// The form in which several values stand in one field without keys between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    Varints,
    Fixed64,
    Fixed32,
}

/// Reads the fields of a message, in the order of their numbers. Items of one field stay in their order.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Damage> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = u32::try_from(key >> 3).map_err(|_too_large| Damage::Key)?;
        let value = match key & 7 {
            0 => Raw::Varint(varint(&mut rest)?),
            1 => Raw::Fixed64(array(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_too_large| Damage::Cut)?;
                let (bytes, behind) = rest.split_at_checked(length).ok_or(Damage::Cut)?;
                rest = behind;
                Raw::Bytes(bytes)
            }
            5 => Raw::Fixed32(array(&mut rest)?),
            _ => return Err(Damage::Key),
        };
        fields.push(Field { number, value });
    }
    fields.sort_by_key(|field| field.number);
    Ok(fields)
}

/// Reads values that stand in one field.
pub(super) fn unpacked(mut packed: &[u8], form: Packed) -> Result<Vec<Raw<'static>>, Damage> {
    let mut values = Vec::new();
    while !packed.is_empty() {
        values.push(match form {
            Packed::Varints => Raw::Varint(varint(&mut packed)?),
            Packed::Fixed64 => Raw::Fixed64(array(&mut packed)?),
            Packed::Fixed32 => Raw::Fixed32(array(&mut packed)?),
        });
    }
    Ok(values)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Damage> {
    let mut value = 0;
    for place in 0..10 {
        let (first, behind) = rest.split_first().ok_or(Damage::Cut)?;
        *rest = behind;
        let bits = u64::from(first & 0x7f);
        // The tenth byte has room for one bit.
        if place == 9 && bits > 1 {
            return Err(Damage::Varint);
        }
        value |= bits << (7 * place);
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damage::Varint)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(Damage::Cut)?;
    *rest = behind;
    Ok(*bytes)
}

impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "the message is cut off",
            Self::Key => "the message has the key of no field",
            Self::Varint => "the message has a number of more than 64 bits",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type FieldsRow<'m> = (&'m str, &'m [u8], Result<Vec<Field<'m>>, Damage>);
    type PackedRow<'m> = (&'m str, &'m [u8], Packed, Result<Vec<Raw<'m>>, Damage>);

    #[test]
    fn fields_are_read_where_they_lie() {
        let field = |number, value| Field { number, value };
        let rows: [FieldsRow<'_>; 16] = [
            ("nothing", b"", Ok(vec![])),
            ("a varint", b"\x08\x96\x01", Ok(vec![field(1, Raw::Varint(150))])),
            ("eight bytes", b"\x09\x01\0\0\0\0\0\0\0", Ok(vec![field(1, Raw::Fixed64([1, 0, 0, 0, 0, 0, 0, 0]))])),
            ("four bytes", b"\x0d\x01\0\0\0", Ok(vec![field(1, Raw::Fixed32([1, 0, 0, 0]))])),
            ("a text", b"\x12\x02hi", Ok(vec![field(2, Raw::Bytes(b"hi"))])),
            ("an empty text", b"\x12\0", Ok(vec![field(2, Raw::Bytes(b""))])),
            (
                "items of a field around another",
                b"\x12\x01a\x08\x01\x12\x01b",
                Ok(vec![field(1, Raw::Varint(1)), field(2, Raw::Bytes(b"a")), field(2, Raw::Bytes(b"b"))]),
            ),
            ("all bits", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok(vec![field(1, Raw::Varint(u64::MAX))])),
            ("a bit too many", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Err(Damage::Varint)),
            ("a varint without end", &[0xff; 12], Err(Damage::Varint)),
            ("half a varint", b"\x08\x96", Err(Damage::Cut)),
            ("a key alone", b"\x08", Err(Damage::Cut)),
            ("a text that is cut", b"\x12\x03hi", Err(Damage::Cut)),
            ("a length beyond everything", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err(Damage::Cut)),
            ("seven of eight bytes", b"\x09\x01\0\0\0\0\0\0", Err(Damage::Cut)),
            ("a group", b"\x0b\x0c", Err(Damage::Key)),
        ];
        for (row, message, expected) in rows {
            assert_eq!(fields(message), expected, "{row}");
        }
    }

    #[test]
    fn packed_values_are_told_apart() {
        let rows: [PackedRow<'_>; 4] = [
            ("varints", b"\x01\x96\x01", Packed::Varints, Ok(vec![Raw::Varint(1), Raw::Varint(150)])),
            ("eight bytes", &[7; 8], Packed::Fixed64, Ok(vec![Raw::Fixed64([7; 8])])),
            ("four bytes", &[7; 8], Packed::Fixed32, Ok(vec![Raw::Fixed32([7; 4]); 2])),
            ("three of four bytes", &[7; 3], Packed::Fixed32, Err(Damage::Cut)),
        ];
        for (row, packed, form, expected) in rows {
            assert_eq!(unpacked(packed, form), expected, "{row}");
        }
    }
}
