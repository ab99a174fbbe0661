use super::*;

/// The length of chunks in these tests.
const CHARACTERS: usize = 100;

fn size(overlap: usize) -> ChunkSize {
    ChunkSize::new(CHARACTERS, overlap).expect("a size")
}

/// Cuts Markdown, and returns each chunk as its headings and its text.
fn pieces(text: &str, overlap: usize) -> Vec<(String, String)> {
    let cut = cut(text, TextForm::Markdown, size(overlap));
    cut.pieces.into_iter().map(|piece| (piece.heading_path.join(" > "), piece.text)).collect()
}

#[test]
fn short_texts_are_one_chunk() {
    let rows = [
        ("a heading", "# Leave\n\nAsk early.\n", "Leave", "# Leave\n\nAsk early."),
        ("an underlined heading", "Leave\n=====\n\nAsk early.\n", "Leave", "Leave\n=====\n\nAsk early."),
        ("a closed heading", "# Leave #\n\nAsk early.\n", "Leave", "# Leave #\n\nAsk early."),
        ("a heading with an id", "# Leave {#leave}\n\nAsk.\n", "Leave", "# Leave {#leave}\n\nAsk."),
        ("markup in a heading", "# *Your* `leave`\n\nAsk.\n", "Your leave", "# *Your* `leave`\n\nAsk."),
        ("no heading", "Ask early.", "", "Ask early."),
        ("a code block with a comment", "# A\n\n```\n# b\n```\n", "A", "# A\n\n```\n# b\n```"),
        ("a code block without a fence", "# A\n\n    # b\n", "A", "# A\n\n    # b"),
        ("a heading in a list", "# A\n\n- # b\n", "A", "# A\n\n- # b"),
        ("a heading in HTML", "# A\n\n<div>\n# b\n</div>\n", "A", "# A\n\n<div>\n# b\n</div>"),
        ("sections share what is above both", "# A\n\none\n\n## B\n\ntwo\n", "A", "# A\n\none\n\n## B\n\ntwo"),
        ("sections below one another", "## B\n\none\n\n# A\n\ntwo\n", "", "## B\n\none\n\n# A\n\ntwo"),
        ("headings alone", "# A\n\n## B\n", "A > B", "# A\n\n## B"),
        ("front matter", "---\ntitle: T\n---\n# A\n\none\n", "A", "# A\n\none"),
        ("a byte order mark", "\u{feff}# A\n\none\n", "A", "# A\n\none"),
        ("carriage returns", "# A\r\n\r\none\r\n", "A", "# A\r\n\r\none"),
    ];
    for (row, text, path, told) in rows {
        assert_eq!(pieces(text, 0), [(path.to_owned(), told.to_owned())], "{row}");
    }
    for (row, text) in [("empty", ""), ("white space", " \n\t\n"), ("front matter alone", "---\na: b\n---\n")] {
        assert!(pieces(text, 0).is_empty(), "{row}");
    }
}

#[test]
fn a_title_is_the_first_heading_or_that_of_the_front_matter() {
    let rows = [
        ("a heading", "# Leave\n\ntext", Some("Leave")),
        ("an underlined heading", "Leave\n===\n\ntext", Some("Leave")),
        ("front matter", "---\ntitle: Time off\n---\n# Leave\n", Some("Time off")),
        ("a heading below the first level", "## Leave\n\ntext", None),
        ("a text comes first", "text\n\n# Leave\n", None),
        ("an empty heading", "#\n\ntext", None),
    ];
    for (row, text, title) in rows {
        assert_eq!(cut(text, TextForm::Markdown, size(0)).title.as_deref(), title, "{row}");
    }
    assert_eq!(cut("# Leave\n", TextForm::Plain, size(0)).title, None, "plain text has no headings");
}

#[test]
fn long_blocks_are_cut_where_they_may_be() {
    let lines = |line: &dyn Fn(usize) -> String, numbers: std::ops::Range<usize>| -> String {
        numbers.map(line).collect::<Vec<String>>().concat()
    };
    let row = |number: usize| format!("| a{number:02} | x |\n");
    let header = "| k | v |\n|---|---|\n";
    let code = |number: usize| format!("let a{number:02} = 1;\n");
    let item = |number: usize| format!("- item {number:02} with words\n");
    let nested = |number: usize| format!("  - part {number:02} with words\n");
    let full = |number: usize| format!("{}\n", "c".repeat(45 + number % 2));
    let fence = format!("```\n{}\n{}\n```", "x".repeat(45), "y".repeat(44));
    let told = |path: &str, parts: &[&str]| (path.to_owned(), parts.concat().trim_end().to_owned());
    let rows = [
        (
            "the parts of a table repeat its header",
            format!("{header}{}", lines(&row, 0..12)),
            vec![told("", &[header, &lines(&row, 0..6)]), told("", &[header, &lines(&row, 6..12)])],
        ),
        (
            "the parts of a code block have fences",
            format!("```rust\n{}```\n", lines(&code, 0..12)),
            vec![
                told("", &["```rust\n", &lines(&code, 0..6), "```"]),
                told("", &["```rust\n", &lines(&code, 6..12), "```"]),
            ],
        ),
        (
            "a list is cut between its items",
            format!("# A\n\ntext\n\n## B\n\n{}", lines(&item, 0..8)),
            vec![
                told("A", &["# A\n\ntext"]),
                told("A > B", &["## B\n\n", &lines(&item, 0..4)]),
                told("A > B", &[&lines(&item, 4..8)]),
            ],
        ),
        (
            "a long item is cut between the items in it",
            format!("- item\n{}", lines(&nested, 0..8)),
            vec![told("", &["- item\n", &lines(&nested, 0..4)]), told("", &[&lines(&nested, 4..8)])],
        ),
        (
            "lines that fill a chunk to the last letter stay together",
            format!("```\n{}```\n", lines(&full, 0..4)),
            vec![told("", &["```\n", &lines(&full, 0..2), "```"]); 2],
        ),
        (
            "a heading is left to the path where a whole block needs the room",
            format!("# A\n\n## Code\n\n{fence}\n"),
            vec![told("A > Code", &[&fence])],
        ),
        (
            "a heading at the end is no chunk",
            format!("{}\n\n## Empty\n", "x ".repeat(49)),
            vec![told("", &[&"x ".repeat(49)])],
        ),
    ];
    for (name, text, expected) in rows {
        assert_eq!(pieces(&text, 0), expected, "{name}");
    }
}

#[test]
fn a_chunk_repeats_the_end_of_the_one_before() {
    let words =
        |numbers: std::ops::Range<usize>| numbers.map(|n| format!("word{n:02} ")).collect::<Vec<String>>().concat();
    let expected = [("", words(0..11)), ("", words(9..22)), ("", words(20..30))];
    let expected = expected.map(|(path, text)| (path.to_owned(), text.trim_end().to_owned()));
    assert_eq!(pieces(&words(0..30), 20), expected);

    let unbroken = "a".repeat(250);
    let texts: Vec<usize> = pieces(&unbroken, 20).iter().map(|(_, text)| text.len()).collect();
    assert_eq!(texts.iter().sum::<usize>(), 250, "no word begins in the middle of a run: {texts:?}");
}

/// Every chunk of these texts keeps within the size, tells more than a heading, and has the headings above it.
#[test]
fn all_chunks_of_long_sections_have_their_headings() {
    let sentence = "A sentence of some length that says little. ";
    let rows = [
        ("one paragraph", sentence.repeat(20)),
        ("paragraphs", format!("{sentence}\n\n").repeat(20)),
        ("lines", format!("{sentence}\n").repeat(20)),
        ("a quotation", format!("> {sentence}\n").repeat(20)),
        ("a list", format!("- {sentence}\n").repeat(20)),
        ("a list of long items", format!("- {}\n", sentence.repeat(5)).repeat(4)),
        ("a table", format!("| a | b |\n|---|---|\n{}", "| one | two |\n".repeat(30))),
        (
            "a table of long rows",
            format!("| a | b |\n|---|---|\n{}", format!("| {} | b |\n", sentence.repeat(4)).repeat(4)),
        ),
        ("code", format!("```\n{}```", "let one = two;\n".repeat(30))),
        ("code of one line", format!("```\n{}\n```", "let one = two; ".repeat(30))),
        ("code that does not end", format!("```\n{}", "let one = two;\n".repeat(30))),
        ("HTML", format!("<div>\n{}</div>", "<p>one</p>\n".repeat(30))),
        ("Chinese", "天气很好。".repeat(60)),
        ("a run", "x".repeat(1_000)),
        ("accents", "e\u{301}".repeat(500)),
    ];
    for (row, body) in rows {
        for overlap in [0, 30] {
            let text = format!("# Handbook\n\n## Parental leave\n\n{body}\n");
            let pieces = self::pieces(&text, overlap);
            assert!(pieces.len() > 1, "{row}");
            for (path, told) in &pieces {
                assert_eq!(path, "Handbook > Parental leave", "{row}: {told}");
                assert!(told.chars().count() <= CHARACTERS, "{row}: {} characters: {told}", told.chars().count());
                let is_heading = told.lines().all(|line| line.is_empty() || line.starts_with('#'));
                assert!(!is_heading, "{row}: {told}");
            }
            let kept = pieces.iter().map(|(_, told)| told.as_str()).collect::<Vec<&str>>().concat();
            let count = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
            assert!(count(&kept) >= count(&body), "{row}: words are lost");
        }
    }
}

#[test]
fn contents_of_data_uris_are_left_out() {
    let content = "iVBORw0KGgo".repeat(1_000);
    let rows = [
        ("a picture", format!("![a](data:image/png;base64,{content}) b"), "![a](data:image/png;base64,…) b".to_owned()),
        ("capital letters", format!("DATA:image/png;base64,{content}"), "DATA:image/png;base64,…".to_owned()),
        ("a short one", "data:a/b;base64,QUJD c".to_owned(), "data:a/b;base64,QUJD c".to_owned()),
        ("something else", "the mark ;base64, is a word".to_owned(), "the mark ;base64, is a word".to_owned()),
    ];
    for (row, text, expected) in rows {
        assert_eq!(pieces(&text, 0), [(String::new(), expected)], "{row}");
    }
}

/// A text that is nested deeper than the parser is given keeps every word.
#[test]
fn a_text_that_nests_too_deep_is_cut_like_plain_text() {
    let deep = format!("---\ntitle: T\n---\n# A\n\n{}one\ntwo\n", "- ".repeat(400));
    let cut = cut(&deep, TextForm::Markdown, size(0));
    assert_eq!(cut.title.as_deref(), Some("T"));
    let kept = cut.pieces.iter().map(|piece| piece.text.as_str()).collect::<Vec<&str>>().join(" ");
    assert!(kept.contains("# A") && kept.contains("one") && kept.contains("two"), "{kept}");
    assert!(cut.pieces.iter().all(|piece| piece.heading_path.is_empty() && piece.text.len() <= CHARACTERS));
}

/// The work is counted in bytes that the cutting looked at.
#[test]
fn hostile_texts_cost_linear_work() {
    const FACTOR: usize = 16;
    let large = 1 << 20;
    let rows = [
        ("one line of 16 MB", "a".repeat(16 << 20)),
        ("one line of words", "word ".repeat(large / 5)),
        ("a million headings", "# h\n".repeat(1_000_000)),
        ("a million headings with texts", "# h\n\nt\n\n".repeat(1_000_000)),
        ("ever deeper headings", "# a\n## b\n### c\n#### d\n##### e\n###### f\n".repeat(large / 42)),
        ("nested lists in one line", "- ".repeat(large / 2)),
        ("nested quotations", ">".repeat(large)),
        ("lines below nested lists", format!("{}a\n{}", "- ".repeat(large / 4), "b\n".repeat(large / 4))),
        ("lines below nested quotations", format!("{}a\n{}", ">".repeat(large / 2), "b\n".repeat(large / 4))),
        ("lines below the deepest lists", format!("{}a\n{}", "- ".repeat(130), "b\n".repeat(large / 2))),
        ("a list of many items", "- a\n".repeat(large / 4)),
        ("a table of many rows", format!("|a|\n|-|\n{}", "|b|\n".repeat(large / 4))),
        ("a table of one row", format!("|a|\n|-|\n{}", "|b".repeat(large / 2))),
        ("code without an end", format!("```\n{}", "\n".repeat(large))),
        ("brackets", "[".repeat(large)),
        ("marks", "*a_ ".repeat(large / 4)),
        ("broken HTML", "<a <b <!-- ".repeat(large / 11)),
        ("marks of data URIs", ";base64,".repeat(large / 8)),
        ("accents", "\u{301}".repeat(large / 2)),
        ("front matter without an end", format!("---\n{}", "a: b\n".repeat(large / 5))),
    ];
    for (row, text) in rows {
        for overlap in [0, 50] {
            let (cut, bytes_seen) = cut_counting(&text, TextForm::Markdown, size(overlap));
            assert!(bytes_seen <= FACTOR * text.len(), "{row}: {bytes_seen} bytes of {}", text.len());
            assert!(cut.pieces.iter().all(|piece| piece.text.chars().count() <= CHARACTERS), "{row}");
        }
    }
}
