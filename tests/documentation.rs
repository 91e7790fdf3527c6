//! What operators are told is complete: every line at warn and above stands in docs/operating.md.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on fails"
)]

use std::fs;
use std::path::Path;

/// The words of log lines, with `…` for what is filled in.
fn said(source: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for level in ["log::warn!(", "log::error!("] {
        for (start, _) in source.match_indices(level) {
            let arguments = &source[start..];
            let Some(text) = arguments.split('"').nth(1) else {
                continue;
            };
            let text = text.split_once('\\').map_or(text, |(before, _)| before);
            let plain = text.split('{').flat_map(|part| part.rsplit('}').next());
            lines.push(plain.collect::<Vec<_>>().join(" … "));
        }
    }
    lines
}

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            found.extend(said(&source));
        }
    }
}

#[test]
fn every_warning_is_explained_to_operators() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lines = Vec::new();
    sources(&root.join("src"), &mut lines);
    assert!(lines.len() > 20, "{lines:?}");
    let documentation = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    // A line that is a path or an error alone has no words of its own.
    let missing: Vec<_> = lines
        .iter()
        .filter(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let mut runs = words
                .windows(3)
                .filter(|run| !run.contains(&"…"))
                .peekable();
            let has_words = runs.peek().is_some();
            has_words && !runs.any(|run| documentation.contains(&run.join(" ")))
        })
        .collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:#?}");
}
