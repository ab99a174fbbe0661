//! The lines of standard input, none of which takes more memory than a message may.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines with a bound on their length.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    /// The part of the next line that was read.
    begun: Vec<u8>,
    /// Whether the next line is too long already. Then nothing of it is kept.
    is_too_long: bool,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// A line that is longer than the bound. It was passed over.
    TooLong,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::new(reader), bytes_max, begun: Vec::new(), is_too_long: false }
    }

    /// Returns the next line that is not empty; `None` after the last one, which need not have an end. If the caller gives up
    /// the wait, nothing is lost.
    ///
    /// # Errors
    /// When the reader fails.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            // INVARIANT (nothing is lost): this is the only wait, and what it returns is kept before the next one.
            let read = self.reader.fill_buf().await?;
            let is_last = read.is_empty();
            let piece = read.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let is_ended = piece.len() < read.len();
            let consumed = piece.len() + usize::from(is_ended);
            if self.is_too_long || self.begun.len() + piece.len() > self.bytes_max {
                self.is_too_long = true;
                self.begun.clear();
            } else {
                self.begun.extend_from_slice(piece);
            }
            self.reader.consume(consumed);
            if !is_ended && !is_last {
                continue;
            }
            let line = std::mem::take(&mut self.begun);
            if std::mem::take(&mut self.is_too_long) {
                return Ok(Some(Line::TooLong));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(line)));
            }
            if is_last {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_or_too_long() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        let rows = [
            ("nothing", "", vec![]),
            ("two lines", "ab\ncd\n", vec![whole("ab"), whole("cd")]),
            ("no end of the last one", "ab\ncd", vec![whole("ab"), whole("cd")]),
            ("ends of Windows", "ab\r\n", vec![whole("ab\r")]),
            ("empty lines", "\n \r\n\nab\n\n", vec![whole("ab")]),
            ("as long as may be", "abcd\n", vec![whole("abcd")]),
            ("too long", "abcde\nab\n", vec![Line::TooLong, whole("ab")]),
            ("too long without an end", "abcdefghij", vec![Line::TooLong]),
        ];
        for (row, text, expected) in rows {
            let mut lines = Lines::new(text.as_bytes(), 4);
            let mut found = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                found.push(line);
            }
            assert_eq!(found, expected, "{row}");
        }
    }

    #[tokio::test]
    async fn a_line_may_come_in_pieces() {
        let (mut writer, reader) = tokio::io::duplex(2);
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"abcdef\nghi").await.unwrap();
            drop(writer);
        };
        let read = async {
            let mut lines = Lines::new(reader, 6);
            [lines.next().await.unwrap(), lines.next().await.unwrap(), lines.next().await.unwrap()]
        };
        let ((), found) = tokio::join!(write, read);
        assert_eq!(found, [Some(Line::Whole(b"abcdef".to_vec())), Some(Line::Whole(b"ghi".to_vec())), None]);
    }
}
