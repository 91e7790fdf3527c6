//! Every log line at info and above has an event name, and docs/operating.md explains exactly these names.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The macros that log lines, and the levels of the lines. `log::log!` chooses between this level and a lower one.
const MACROS: [(&str, &str); 4] = [
    ("log::error!(", "error"),
    ("log::warn!(", "warn"),
    ("log::info!(", "info"),
    ("log::log!(", "info"),
];

/// The name of an event, and the level of its lines.
type Event = (String, String);

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// The events of a source file, and the log lines without a name.
fn events(source: &str) -> (Vec<Event>, Vec<String>) {
    let (mut named, mut nameless) = (Vec::new(), Vec::new());
    for (line, level) in MACROS {
        for (start, _) in source.match_indices(line) {
            let mut arguments = source[start + line.len()..].trim_start();
            if line == "log::log!(" {
                arguments = arguments.split_once(',').unwrap().1.trim_start();
            }
            let name = arguments.strip_prefix("event = \"");
            match name.and_then(|name| name.split_once('"')) {
                Some((name, _)) => named.push((name.to_owned(), level.to_owned())),
                None => nameless.extend(source[start..].lines().take(3).map(str::to_owned)),
            }
        }
    }
    (named, nameless)
}

/// The rows of the table of events, in order.
fn documented(text: &str) -> Vec<Event> {
    let (_, table) = text.split_once("\n| Event | Level |").unwrap();
    let rows = table.lines().skip(2);
    let rows = rows.take_while(|line| !line.is_empty());
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].to_owned()))
        .collect()
}

/// The events that the saved queries select.
fn queried(queries: &str) -> Vec<&str> {
    let filters = queries.lines().filter(|line| line.contains("filter event"));
    filters
        .flat_map(|line| line.split("\\\"").skip(1).step_by(2))
        .collect()
}

#[test]
fn saved_queries_select_documented_events() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let documented = documented(&text);
    let queries = fs::read_to_string(root.join("tools/cloudwatch/queries.json")).unwrap();
    let queried = queried(&queries);
    assert!(queried.len() > 10, "{queried:?}");
    for name in queried {
        assert!(documented.iter().any(|(known, _)| known == name), "{name}");
    }
}

/// What hakaru cannot vouch for is found by one query. A lane of another database is whole, and waits.
#[test]
fn errors_about_lanes_are_in_the_query_for_anything_lost() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let queries = fs::read_to_string(root.join("tools/cloudwatch/queries.json")).unwrap();
    let (_, query) = queries.split_once("anything lost or damaged").unwrap();
    let line = query.lines().find(|line| line.contains("filter event"));
    let selected = queried(line.unwrap());
    let is_about_a_lane = |(name, level): &Event| {
        level == "error" && name.starts_with("lane_") && name != "lane_of_other_database"
    };
    let lanes: Vec<Event> = documented(&text)
        .into_iter()
        .filter(is_about_a_lane)
        .collect();
    assert!(lanes.len() > 5, "{lanes:?}");
    for (name, _) in lanes {
        assert!(selected.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn every_event_of_the_log_is_named_and_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    files(&root.join("src"), &mut sources);
    let mut named = BTreeSet::new();
    for path in sources {
        let (found, nameless) = events(&fs::read_to_string(&path).unwrap());
        assert!(nameless.is_empty(), "{path:?}: no name: {nameless:#?}");
        named.extend(found);
    }
    assert!(named.len() > 20, "{named:?}");
    let is_snake = |name: &str| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
    assert!(named.iter().all(|(name, _)| is_snake(name)), "{named:?}");

    let text = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let documented = documented(&text);
    assert!(documented.is_sorted(), "docs/operating.md is not sorted");
    let documented: BTreeSet<_> = documented.into_iter().collect();
    let missing: Vec<_> = named.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:#?}");
    let gone: Vec<_> = documented.difference(&named).collect();
    assert!(gone.is_empty(), "only in docs/operating.md: {gone:#?}");
}

/// The files that the numbered steps of each walk begin with.
fn walked(text: &str) -> Vec<Vec<&str>> {
    let (_, section) = text.split_once("\n## The walk of one event\n").unwrap();
    let (section, _) = section.split_once("**The way back:**").unwrap();
    let mut walks = Vec::new();
    for line in section.lines() {
        let Some((number, step)) = line.split_once(". `") else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        if number == 1 {
            walks.push(Vec::new());
        }
        let walk = walks.last_mut().unwrap();
        walk.push(step.split('`').next().unwrap());
        assert_eq!(walk.len(), number, "{line}");
    }
    walks
}

#[test]
fn the_walks_of_event_group_and_batch_enter_no_file_twice() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let walks = walked(&text);
    assert_eq!(walks.len(), 3);
    let mut seen = BTreeSet::new();
    for file in walks.into_iter().flatten() {
        assert!(root.join("src").join(file).is_file(), "{file} is missing");
        assert!(seen.insert(file), "{file} is entered twice");
    }
}
