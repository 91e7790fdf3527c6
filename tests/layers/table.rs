//! The table of layers in docs/ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::tree::root;

const HEADING: &str = "| Layer | Folder | What it is |";

/// A row of the table.
#[derive(Debug)]
struct Row {
    layer: u32,
    /// The folders of its own layer that it may import: those named after "may import".
    sideways: BTreeSet<String>,
}

/// The layers, by folder, as in `journal/` or `handoff.rs`.
#[derive(Debug)]
pub struct Table(BTreeMap<String, Row>);

impl Table {
    pub fn read() -> Self {
        let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
        let lines = text.lines().skip_while(|line| *line != HEADING).skip(2);
        let rows = lines.map_while(|line| {
            let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            let exceptions = cells[2].split_once("may import");
            let sideways = exceptions.map_or("", |(_, folders)| folders);
            let row = Row {
                layer: cells[0].parse().expect(line),
                sideways: quoted(sideways).collect(),
            };
            Some((quoted(cells[1]).next().expect(line), row))
        });
        Self(rows.collect())
    }

    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether one module directly in `src` may import another; the error is the reason why not.
    pub fn allows(&self, from: &str, to: &str) -> Result<(), String> {
        let (from_folder, from_row) = self.row(from)?;
        let (to_folder, to_row) = self.row(to)?;
        let is_sideways = to_row.layer == from_row.layer;
        let is_exception = is_sideways && from_row.sideways.contains(to_folder);
        if from == to || to_row.layer < from_row.layer || is_exception {
            return Ok(());
        }
        let way = if is_sideways { "sideways" } else { "up" };
        Err(format!(
            "{from_folder} (layer {}) must not import {way} from {to_folder} (layer {})",
            from_row.layer, to_row.layer
        ))
    }

    fn row(&self, module: &str) -> Result<(&str, &Row), String> {
        [format!("{module}/"), format!("{module}.rs")]
            .iter()
            .find_map(|folder| self.0.get_key_value(folder))
            .map(|(folder, row)| (folder.as_str(), row))
            .ok_or_else(|| format!("{module} is in no layer"))
    }
}

/// What is between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}
