//! Folders that are damaged, one thing each. `tests/static_embeddings.rs` reads a model that others made.

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Returns a tokenizer of four words.
fn tokenizer() -> Vec<u8> {
    let vocabulary = json!({ "[UNK]": 0, "leave": 1, "baby": 2, "pay": 3 });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    tokenizer.to_string().into_bytes()
}

/// Returns a file with one tensor.
fn tensors(kind: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let header =
        json!({ "embeddings": { "dtype": kind, "shape": shape, "data_offsets": [0, data.len()] } }).to_string();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

fn table() -> Vec<u8> {
    let numbers: [f32; 8] = [0.5, 0.5, 2.0, 0.0, 1.0, 0.0, 0.0, 3.0];
    tensors("F32", &[4, 2], &numbers.map(f32::to_le_bytes).concat())
}

/// Returns a file with the table, and with a weight for each token.
fn with_weights() -> Vec<u8> {
    let header = json!({
        "embeddings": { "dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32] },
        "weights": { "dtype": "F32", "shape": [4], "data_offsets": [32, 48] },
    });
    let header = header.to_string();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    [&length, header.as_bytes(), &[0_u8; 48][..]].concat()
}

fn folder(tokenizer: Option<&[u8]>, table: Option<&[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("tokenizer.json", tokenizer), ("model.safetensors", table)] {
        if let Some(content) = content {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
    }
    folder
}

#[tokio::test]
async fn the_vector_of_a_text_is_the_mean_of_its_tokens() {
    let halves: [u16; 8] = [0x3800, 0x3800, 0x4000, 0x0000, 0x3c00, 0x0000, 0x0000, 0x4200];
    let in_16_bits = tensors("F16", &[4, 2], &halves.map(u16::to_le_bytes).concat());
    for (kind, table) in [("32 bits", table()), ("16 bits", in_16_bits)] {
        let folder = folder(Some(&tokenizer()), Some(&table));
        let embedder = StaticEmbedder::open(folder.path()).unwrap();
        let half = 0.5_f32.sqrt();
        let rows = [
            ("a word", "leave", vec![1.0, 0.0]),
            ("two of like meaning", "leave baby", vec![1.0, 0.0]),
            ("two apart", "leave baby pay", vec![half, half]),
            ("an unknown one", "fox", vec![half, half]),
        ];
        for (row, text, expected) in rows {
            let found = embedder.embed(&[text]).await.unwrap();
            let [vector] = found.as_slice() else { panic!("{row}: {found:?}") };
            let is_near = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-6;
            assert!(vector.iter().zip(&expected).all(is_near), "{kind}, {row}: {vector:?}");
        }
        assert_eq!(embedder.embed(&[""]).await, Ok(vec![Vec::new()]), "{kind}: no token has no direction");
    }
}

#[test]
fn damaged_folders_are_refused_at_the_start() {
    let (tokenizer, table) = (tokenizer(), table());
    let cut = |bytes: &[u8], by: usize| bytes[..bytes.len() - by].to_vec();
    let huge = [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat();
    let not_finite = tensors("F32", &[4, 2], &[f32::NAN; 8].map(f32::to_le_bytes).concat());
    let rows = [
        ("no tokenizer", None, Some(table.clone()), "`tokenizer.json`"),
        ("no table", Some(tokenizer.clone()), None, "`model.safetensors`"),
        ("an empty tokenizer", Some(Vec::new()), Some(table.clone()), "is no tokenizer"),
        ("a tokenizer that was cut", Some(cut(&tokenizer, 9)), Some(table.clone()), "is no tokenizer"),
        ("bytes for a tokenizer", Some(vec![0xff; 64]), Some(table.clone()), "is no tokenizer"),
        ("an empty table", Some(tokenizer.clone()), Some(Vec::new()), "is damaged"),
        ("a table that was cut", Some(tokenizer.clone()), Some(cut(&table, 3)), "is damaged"),
        ("a header beyond the file", Some(tokenizer.clone()), Some(huge), "is damaged"),
        ("bytes for a table", Some(tokenizer.clone()), Some(vec![0xff; 64]), "is damaged"),
        ("one dimension", Some(tokenizer.clone()), Some(tensors("F32", &[8], &[0; 32])), "one table"),
        ("weights beside the table", Some(tokenizer.clone()), Some(with_weights()), "nothing else"),
        ("whole numbers", Some(tokenizer.clone()), Some(tensors("I32", &[4, 2], &[0; 32])), "another type"),
        ("no numbers", Some(tokenizer.clone()), Some(tensors("F32", &[4, 0], &[])), "vectors of 0 numbers"),
        ("a number that is none", Some(tokenizer.clone()), Some(not_finite), "not finite"),
        ("fewer vectors than tokens", Some(tokenizer.clone()), Some(tensors("F32", &[3, 2], &[0; 24])), "4 tokens"),
    ];
    for (row, tokenizer, table, expected) in rows {
        let folder = folder(tokenizer.as_deref(), table.as_deref());
        let refused = StaticEmbedder::open(folder.path()).map(drop).expect_err(row).to_string();
        assert!(refused.contains(expected) && refused.contains("`embedding.folder`"), "{row}: {refused}");
    }
}

#[cfg(unix)]
#[test]
fn links_lead_to_files_alone() {
    use std::os::unix::fs::symlink;

    let whole = folder(Some(&tokenizer()), Some(&table()));
    let rows = [
        ("a file", whole.path().join("model.safetensors"), None),
        ("a device that never ends", "/dev/zero".into(), Some("`model.safetensors` is no file")),
        ("a folder", whole.path().to_owned(), Some("`model.safetensors` is no file")),
        ("nothing", whole.path().join("absent"), Some("cannot read `model.safetensors`")),
    ];
    for (row, target, expected) in rows {
        let linked = folder(Some(&tokenizer()), None);
        symlink(&target, linked.path().join("model.safetensors")).unwrap();
        let refused = StaticEmbedder::open(linked.path()).map(drop).err().map(|error| error.to_string());
        assert_eq!(refused.is_some(), expected.is_some(), "{row}: {refused:?}");
        assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{row}");
    }
}

#[test]
fn files_are_read_to_their_bound() {
    let folder = folder(Some(b"12345678"), None);
    let rows = [("the bound", 8, true), ("one byte more", 7, false), ("nothing", 0, false)];
    for (row, bytes_max, is_read) in rows {
        assert_eq!(read(folder.path(), "tokenizer.json", bytes_max).is_ok(), is_read, "{row}");
    }
}

#[test]
fn halves_are_read_exactly() {
    let rows = [
        ("zero", 0x0000, 0.0),
        ("one", 0x3c00, 1.0),
        ("minus two", 0xc000, -2.0),
        ("the largest", 0x7bff, 65_504.0),
        ("the smallest", 0x0001, 5.960_464_5e-8),
        ("a third, nearly", 0x3555, 0.333_251_95),
        ("infinite", 0x7c00, f32::INFINITY),
    ];
    for (row, bits, expected) in rows {
        assert_eq!(of_half(bits).to_bits(), f32::to_bits(expected), "{row}");
    }
    assert!(of_half(0x7e00).is_nan());
}
