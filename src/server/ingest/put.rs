//! Takes one document in, as a text or in chunks. It becomes an upload of one document, so rights, limits and the record are
//! those of uploads.

use std::collections::BTreeMap;

use futures::stream;
use prost::Message;

use super::{Call, IngestApi, asked, check_request};
use crate::ingest::{ChunkSize, Piece, TextForm, cut};
use crate::language::Object;
use crate::proto::ingest as message;
use crate::proto::metadata::Value;
use crate::retrieval::FieldViolation;
use crate::server::refusal::Refusal;
use crate::server::{DOCUMENT_BYTES_MAX, values};

impl IngestApi {
    pub(super) async fn put(
        &self,
        call: &Call,
        message: message::PutDocumentRequest,
    ) -> Result<message::PutDocumentResponse, Refusal> {
        check_request(&message.collection, &[])?;
        self.authentication.admit_login(&call.caller, &message.collection)?;
        let sent = Some(1);
        call.record.draft().request(asked(&message.collection, sent));
        let collection = message.collection.clone();
        let size = self.cut.size(&collection);
        // The place comes before the cutting, so that one caller's texts do not keep all others waiting to be cut.
        let open = self.turns.open(&call.uploader).await?;
        let document = self.cutting.run(move || document(message, size)).await.map_err(|lost| {
            tracing::error!(%lost, "a text was not cut");
            Refusal::lost()
        })??;
        let chunks = u32::try_from(document.chunks.len()).unwrap_or(u32::MAX);
        let upload = message::UpsertDocumentsRequest { collection, document: Some(document) };
        let written = self.take_in_at(&open, call, stream::iter([Ok(upload)]), sent).await.map_err(of_this_request)?;
        let consistency_token = self.consistency_tokens.issue();
        let (warnings, embedded) = (written.warnings, written.embedded);
        Ok(message::PutDocumentResponse { chunks, consistency_token, warnings, embedded })
    }
}

/// Makes the document of a request, as an upload has it.
fn document(message: message::PutDocumentRequest, size: ChunkSize) -> Result<message::Document, Refusal> {
    let message::PutDocumentRequest { collection: _, document_id, guard, title, metadata, text, chunks } = message;
    let shared = Shared { document_id, guard, metadata };
    match (text.is_empty(), chunks.is_empty()) {
        (true, true) => Err(FieldViolation::new("text", "is missing; send a text, or `chunks`").into()),
        (false, false) => Err(FieldViolation::new("chunks", "come instead of `text`; send one of the two").into()),
        (false, true) => shared.of_text(title, &text, size),
        (true, false) => shared.of_chunks(title, chunks),
    }
}

/// What the chunks of a document have in common.
struct Shared {
    document_id: String,
    guard: String,
    metadata: BTreeMap<String, Value>,
}

impl Shared {
    fn of_text(mut self, title: String, text: &str, size: ChunkSize) -> Result<message::Document, Refusal> {
        // Each chunk would be refused for these.
        Object::parse(&self.guard).map_err(|error| FieldViolation::new("guard", error.to_string()))?;
        values::metadata_value(self.metadata.clone()).map_err(|rule| FieldViolation::new("metadata", rule))?;
        let cut = cut(text, TextForm::Markdown, size);
        if cut.pieces.is_empty() {
            return Err(FieldViolation::new("text", "has nothing but white space").into());
        }
        let title = match (title.is_empty(), cut.title) {
            (false, _) => title,
            (true, Some(own)) => own,
            (true, None) => self.document_id.clone(),
        };
        // The caller's word comes before the text's.
        for (key, value) in values::metadata_message(cut.metadata) {
            self.metadata.entry(key).or_insert(value);
        }
        // A heading stands above many chunks, so a small text must not become large by its headings, either.
        let own: usize = cut.pieces.iter().map(|piece| piece.text.len() + bytes_of(&piece.heading_path)).sum();
        self.check_size(cut.pieces.len(), own)?;
        let chunk = |(position, piece): (usize, Piece)| message::Chunk {
            id: self.chunk_id(position),
            guard: self.guard.clone(),
            text: piece.text,
            vector: Vec::new(),
            metadata: self.metadata.clone(),
            heading_path: piece.heading_path,
        };
        let chunks = cut.pieces.into_iter().enumerate().map(chunk).collect();
        Ok(message::Document { id: self.document_id, title, chunks })
    }

    fn of_chunks(self, title: String, mut chunks: Vec<message::Chunk>) -> Result<message::Document, Refusal> {
        let own: usize = chunks.iter().map(Message::encoded_len).sum();
        self.check_size(chunks.len(), own)?;
        for (position, chunk) in chunks.iter_mut().enumerate() {
            if chunk.id.is_empty() {
                chunk.id = self.chunk_id(position);
            }
            if chunk.guard.is_empty() {
                chunk.guard.clone_from(&self.guard);
            }
            for (key, value) in &self.metadata {
                chunk.metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(message::Document { id: self.document_id, title, chunks })
    }

    fn chunk_id(&self, position: usize) -> String {
        format!("{}#{position}", self.document_id)
    }

    /// Refuses a document that would be larger than an upload's. Each chunk gets a copy of what they have in common, and a small
    /// request must not take much memory.
    fn check_size(&self, chunks: usize, own_bytes: usize) -> Result<(), Refusal> {
        let copied = message::Chunk {
            id: self.document_id.clone(),
            guard: self.guard.clone(),
            metadata: self.metadata.clone(),
            ..message::Chunk::default()
        };
        let bytes = copied.encoded_len().saturating_mul(chunks).saturating_add(own_bytes);
        if bytes <= DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        let description = format!(
            "has {bytes} bytes with a copy of id, guard and metadata for each chunk; at most {DOCUMENT_BYTES_MAX} are allowed"
        );
        Err(FieldViolation::new("document", description).into())
    }
}

fn bytes_of(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

/// Names the fields of a refusal as this request has them: it is the document.
fn of_this_request(refusal: Refusal) -> Refusal {
    if refusal.violations().is_empty() {
        return refusal;
    }
    let renamed = refusal.violations().iter().map(|violation| {
        let field = violation.field.strip_prefix("document.").unwrap_or(&violation.field);
        FieldViolation::new(field, violation.description.clone())
    });
    Refusal::invalid(renamed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str, chunks: Vec<message::Chunk>) -> message::PutDocumentRequest {
        message::PutDocumentRequest {
            document_id: "leave".to_owned(),
            guard: "document:leave".to_owned(),
            text: text.to_owned(),
            chunks,
            ..message::PutDocumentRequest::default()
        }
    }

    fn number(number: i64) -> Value {
        Value { kind: Some(crate::proto::metadata::value::Kind::IntValue(number)) }
    }

    #[test]
    fn a_text_gets_a_title_and_chunks() {
        let long = format!("# Leave\n\n{}", "Ask early, and in writing. ".repeat(100));
        let titled = message::PutDocumentRequest { title: "Holidays".to_owned(), ..request("# Leave\n\ntext", vec![]) };
        let rows = [
            ("a heading", request("# Leave\n\ntext", vec![]), "Leave", 1),
            ("no heading", request("text", vec![]), "leave", 1),
            ("a title", titled, "Holidays", 1),
            ("several chunks", request(&long, vec![]), "Leave", 3),
            ("a byte order mark", request("\u{feff}# Leave", vec![]), "Leave", 1),
        ];
        for (row, request, title, at_least) in rows {
            let made = document(request, ChunkSize::default()).unwrap_or_else(|refusal| panic!("{row}: {refusal:?}"));
            assert_eq!((made.id.as_str(), made.title.as_str()), ("leave", title), "{row}");
            assert!(made.chunks.len() >= at_least, "{row}: {}", made.chunks.len());
            for (position, chunk) in made.chunks.iter().enumerate() {
                assert_eq!(chunk.id, format!("leave#{position}"), "{row}");
                assert_eq!(chunk.guard, "document:leave", "{row}");
            }
        }
    }

    #[test]
    fn a_text_brings_headings_and_front_matter() {
        let section = "Ask early, and in writing. ".repeat(20);
        let text = format!("---\ntitle: Time off\na: 1\nb: 2\n---\n# Leave\n\n## Parental leave\n\n{section}");
        let mut asked = request(&text, vec![]);
        asked.metadata = [("a".to_owned(), number(7))].into();
        let made = document(asked, ChunkSize::new(100, 0).unwrap()).unwrap();
        assert_eq!(made.title, "Time off");
        assert!(made.chunks.len() > 1, "{}", made.chunks.len());
        for chunk in made.chunks {
            assert_eq!(chunk.heading_path, ["Leave", "Parental leave"], "{}", chunk.id);
            let values = (chunk.metadata.get("a"), chunk.metadata.get("b"));
            assert_eq!(values, (Some(&number(7)), Some(&number(2))), "the request comes first: {}", chunk.id);
        }
    }

    #[test]
    fn chunks_keep_what_they_have() {
        let own = message::Chunk {
            id: "own".to_owned(),
            guard: "folder:hr".to_owned(),
            metadata: [("a".to_owned(), number(1))].into(),
            ..message::Chunk::default()
        };
        let mut asked = request("", vec![message::Chunk::default(), own]);
        asked.metadata = [("a".to_owned(), number(7)), ("b".to_owned(), number(8))].into();
        let made = document(asked, ChunkSize::default()).unwrap();
        let told: Vec<(&str, &str, Option<&Value>, Option<&Value>)> = made
            .chunks
            .iter()
            .map(|chunk| (chunk.id.as_str(), chunk.guard.as_str(), chunk.metadata.get("a"), chunk.metadata.get("b")))
            .collect();
        let (one, seven, eight) = (number(1), number(7), number(8));
        let expected =
            [("leave#0", "document:leave", Some(&seven), Some(&eight)), ("own", "folder:hr", Some(&one), Some(&eight))];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_wrong_content_is_refused_by_its_field() {
        let mut valueless = request("text", vec![]);
        valueless.metadata = [("a".to_owned(), Value { kind: None })].into();
        let large = Value { kind: Some(crate::proto::metadata::value::Kind::StringValue("x".repeat(1_000_000))) };
        let mut copied = request(&"word ".repeat(10_000), vec![]);
        copied.metadata = [("a".to_owned(), large)].into();
        let unguarded = message::PutDocumentRequest { guard: String::new(), ..request("text", vec![]) };
        let rows = [
            ("nothing", request("", vec![]), "text"),
            ("both", request("text", vec![message::Chunk::default()]), "chunks"),
            ("white space", request(" \n\t", vec![]), "text"),
            ("no guard", unguarded, "guard"),
            ("metadata without a value", valueless, "metadata"),
            ("too large by its copies", copied, "document"),
        ];
        for (row, request, field) in rows {
            let refusal = document(request, ChunkSize::default()).expect_err(row);
            let fields: Vec<&str> = refusal.violations().iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, [field], "{row}");
        }
    }
}
