//! The imports between the modules of a folder.

use std::collections::BTreeMap;

use crate::file::Import;

/// An import, with the path of its file.
pub type Edge<'a> = (&'a str, &'a Import);

/// The children of one folder. Only the first import from one to another is kept.
#[derive(Default)]
pub struct Graph<'a>(BTreeMap<String, BTreeMap<String, Edge<'a>>>);

impl<'a> Graph<'a> {
    pub fn add(&mut self, from: &str, to: &str, edge: Edge<'a>) {
        let imported = self.0.entry(from.to_owned()).or_default();
        imported.entry(to.to_owned()).or_insert(edge);
    }

    /// The imports of one circle, if there is one, each with the child that it imports.
    pub fn circle(mut self) -> Option<Vec<(String, Edge<'a>)>> {
        // A topological sort: removes children that import none of the others, until only circles are left.
        loop {
            let left: Vec<_> = self.0.keys().cloned().collect();
            for imported in self.0.values_mut() {
                imported.retain(|to, _| left.contains(to));
            }
            self.0.retain(|_, imported| !imported.is_empty());
            if self.0.len() == left.len() {
                break;
            }
        }
        // Each remaining child imports another one, so every walk returns to a child that it has passed.
        let mut node = self.0.keys().next()?;
        let mut walk: Vec<(&String, Edge<'a>)> = Vec::new();
        let circle = loop {
            let (next, edge) = self.0.get(node)?.first_key_value()?;
            let start = walk.iter().position(|(passed, _)| *passed == next);
            walk.push((next, *edge));
            if let Some(start) = start {
                break &walk[start + 1..];
            }
            node = next;
        };
        let owned = circle.iter().map(|(to, edge)| ((*to).clone(), *edge));
        Some(owned.collect())
    }
}
