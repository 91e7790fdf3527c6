//! Names on a simulated disk. They are texts: the parts of paths take much longer to compare.

use std::collections::BTreeMap;
use std::path::Path;

use super::content::Entry;

/// What is at each path.
pub(super) type Names = BTreeMap<String, Entry>;

/// A change of names that happens as a whole.
pub(super) type Renamed = Vec<(String, Option<Entry>)>;

/// A path as a name.
pub(super) fn name_of(path: &Path) -> &str {
    let name = path.to_str().unwrap();
    name.strip_suffix('/').unwrap_or(name)
}

/// The directory that a name is in; empty for a directory at the top.
pub(super) fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// What is in a directory, and in those in it.
pub(super) fn below<'names>(
    names: &'names Names,
    directory: &str,
) -> impl Iterator<Item = (&'names String, &'names Entry)> {
    let begin = format!("{directory}/");
    let all = names.range(begin.clone()..);
    all.take_while(move |(name, _)| name.starts_with(&begin))
}

pub(super) fn apply(names: &mut Names, change: &Renamed) {
    for (name, entry) in change {
        match entry {
            Some(entry) => names.insert(name.clone(), *entry),
            None => names.remove(name),
        };
    }
}
