//! The structure of `src`: imports run down the layers of docs/ARCHITECTURE.md and form no circle; folders, files and
//! functions are short.
//!
//! Test code must keep to the layers and to the length of files. Circles and long functions are allowed in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]

mod file;
mod graph;
mod table;
mod tokens;
mod tree;

use std::collections::BTreeMap;
use std::fs;

use crate::file::{File, Import};
use crate::graph::Graph;
use crate::table::Table;
use crate::tree::{Tree, root};

/// Most files and folders directly in `src`.
const ROOT_ENTRIES_MAX: usize = 16;

/// The items of lib.rs, which every module may import.
const FOR_EVERYONE: [&str; 2] = ["VERSION", "REVISION"];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Fails with one line for each place that breaks a rule.
fn expect_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n{}", broken.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let table = Table::read();
    let mut folders: Vec<_> = table.folders().collect();
    folders.push("lib.rs");
    folders.sort_unstable();
    let entries = tree::entries();
    assert_eq!(
        folders, entries,
        "src, and the table of layers in docs/ARCHITECTURE.md"
    );
    assert!(
        entries.len() <= ROOT_ENTRIES_MAX,
        "src has {} entries, {ROOT_ENTRIES_MAX} at most: put what belongs together into a folder",
        entries.len()
    );
}

#[test]
fn imports_run_down_the_layers() {
    let (tree, table) = (Tree::read(), Table::read());
    let mut broken = Vec::new();
    for (path, import) in tree.imports() {
        if import.to.len() == 1 && FOR_EVERYONE.contains(&import.to[0].as_str()) {
            continue;
        }
        let Some((from, to)) = import.from.first().zip(import.to.first()) else {
            broken.push(described(path, import, "lib.rs only declares modules"));
            continue;
        };
        if let Err(rule) = table.allows(from, to) {
            broken.push(described(path, import, &rule));
        }
    }
    expect_none(
        "a module imports only its own folder and lower layers (docs/ARCHITECTURE.md, Layers)",
        &broken,
    );
}

#[test]
fn modules_import_in_no_circle() {
    let tree = Tree::read();
    let mut broken = Vec::new();
    for (folder, graph) in siblings(&tree) {
        let Some(circle) = graph.circle() else {
            continue;
        };
        broken.push(format!("in src/{}:", folder.join("/")));
        broken.extend(circle.iter().map(|(to, (path, import))| {
            let from = &import.from[folder.len()];
            described(path, import, &format!("{from} imports {to}"))
        }));
    }
    expect_none(
        "modules of one folder must not import each other in a circle",
        &broken,
    );
}

/// For every folder, the imports between its children. Its `mod.rs` is no child: its items are for the whole folder.
fn siblings(tree: &Tree) -> Vec<(Vec<String>, Graph<'_>)> {
    let mut folders = BTreeMap::<Vec<String>, Graph<'_>>::new();
    let imports = tree.imports().filter(|(_, import)| !tree.is_test(import));
    for (path, import) in imports {
        for target in tree.targets(import) {
            let same = import.from.iter().zip(&target);
            let common = same.take_while(|(from, to)| from == to).count();
            if let (Some(from), Some(to)) = (import.from.get(common), target.get(common)) {
                let graph = folders.entry(target[..common].to_vec()).or_default();
                graph.add(from, to, (path, import));
            }
        }
    }
    folders.into_iter().collect()
}

fn described(path: &str, import: &Import, rule: &str) -> String {
    format!("{path}:{}: `{}`: {rule}", import.line, import.written)
}

#[test]
fn files_and_functions_are_short() {
    let tree = Tree::read();
    let mut broken = Vec::new();
    for source in tree.sources() {
        let (path, lines) = (&source.path, source.lines);
        if lines > FILE_LINES_MAX {
            broken.push(format!(
                "{path}:{lines}: {lines} lines, {FILE_LINES_MAX} at most"
            ));
        }
        for function in tree.functions(source) {
            if function.lines > FUNCTION_LINES_MAX {
                broken.push(format!(
                    "{path}:{}: `fn {}`: {} lines, {FUNCTION_LINES_MAX} at most",
                    function.line, function.name, function.lines
                ));
            }
        }
    }
    expect_none("files and functions must be short", &broken);
}

/// The comment at the top of lib.rs names the modules in the order in which they are declared.
#[test]
fn the_introduction_follows_the_modules() {
    let source = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let introduction: String = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .collect();
    let modules: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let link = |module: &str| introduction.find(&format!("[`{module}`]"));
    let mut named = modules.clone();
    named.retain(|module| link(module).is_some());
    named.sort_by_key(|module| link(module));
    assert_eq!(
        named, modules,
        "the first link to each module, and the modules, in src/lib.rs"
    );
}

/// The parser finds imports in every form that Rust allows.
#[test]
fn every_form_of_import_is_found() {
    let source = r##"
        // use crate::comment;
        /* use crate::comment; /* nested */ use crate::comment; */
        pub mod child;
        mod lines { pub(in crate::a) use super::sibling; }
        use crate::x::{
            self,
            y::{Z as W, *},
        };
        pub use child::Thing;
        use std::fs::{self, File};
        #[cfg(not(test))]
        fn first<'a>(text: &'a [u8; 2]) -> impl Fn(char) + use<'a> {
            let _ = ("use crate::string;", r#"use crate::"raw""#, b"\"", '"', '\'', b'{');
            crate::inline::call::<u8>(self.crate_name, super::up::NAME)
        }
        #[cfg(test)]
        mod tests { use super::super::tested; fn unit() {} }
        trait Last { fn asked(&self); }
    "##;
    let file = File::parse(vec!["a".to_owned(), "b".to_owned()], source);
    let seen = file.imports.iter().map(|import| {
        let (from, to) = (import.from.join("/"), import.to.join("/"));
        format!("{} {from} -> {to} {}", import.line, import.is_test)
    });
    let mut seen: Vec<_> = seen.collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "10 a/b -> a/b/child/Thing false",
            "15 a/b -> a/up/NAME false",
            "15 a/b -> inline/call false",
            "18 a/b/tests -> a/tested true",
            "5 a/b/lines -> a false",
            "5 a/b/lines -> a/b/sibling false",
            "7 a/b -> x false",
            "8 a/b -> x/y/* false",
            "8 a/b -> x/y/Z false",
        ]
    );
    let functions = file
        .functions
        .iter()
        .map(|function| (function.name.as_str(), function.lines));
    assert_eq!(functions.collect::<Vec<_>>(), [("first", 4), ("asked", 1)]);
}
