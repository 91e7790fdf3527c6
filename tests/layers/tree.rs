//! All source files of `src`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::file::{File, Function, Import, ModulePath};

/// A file of `src`.
pub struct Source {
    /// From the root of the repository.
    pub path: String,
    pub lines: usize,
    module: ModulePath,
    file: File,
}

/// All files of `src`.
pub struct Tree {
    sources: Vec<Source>,
    modules: BTreeMap<ModulePath, bool>,
    names: BTreeMap<ModulePath, ModulePath>,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The entries directly in `src`, sorted. Folders end with a slash.
pub fn entries() -> Vec<String> {
    let directory = fs::read_dir(root().join("src")).unwrap();
    let name = |path: PathBuf| {
        let slash = if path.is_dir() { "/" } else { "" };
        format!("{}{slash}", path.file_name().unwrap().display())
    };
    let mut entries: Vec<_> = directory.map(|entry| name(entry.unwrap().path())).collect();
    entries.sort();
    entries
}

impl Tree {
    pub fn read() -> Self {
        let mut tree = Self {
            sources: Vec::new(),
            modules: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        tree.read_directory(&root().join("src"), &Vec::new());
        for source in &tree.sources {
            tree.modules.extend(source.file.modules.clone());
            tree.names.extend(source.file.names.clone());
        }
        assert!(tree.sources.len() > 100 && tree.imports().count() > 500);
        tree
    }

    fn read_directory(&mut self, directory: &Path, parent: &ModulePath) {
        let mut paths: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let child = [parent.as_slice(), &[name.to_owned()]].concat();
            if path.is_dir() {
                self.read_directory(&path, &child);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let module = match name {
                    "mod" | "lib" => parent.clone(),
                    _ => child,
                };
                self.read_file(&path, module);
            }
        }
    }

    fn read_file(&mut self, path: &Path, module: ModulePath) {
        let text = fs::read_to_string(path).unwrap();
        self.sources.push(Source {
            path: path.strip_prefix(root()).unwrap().display().to_string(),
            lines: text.lines().count(),
            file: File::parse(module.clone(), &text),
            module,
        });
    }

    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Every import, with the path of its file.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &Import)> {
        self.sources.iter().flat_map(|source| {
            let imports = source.file.imports.iter();
            imports.map(|import| (source.path.as_str(), import))
        })
    }

    /// The functions of a file, without those of tests.
    pub fn functions<'a>(&self, source: &'a Source) -> &'a [Function] {
        if self.is_test_module(&source.module) {
            &[]
        } else {
            &source.file.functions
        }
    }

    pub fn is_test(&self, import: &Import) -> bool {
        import.is_test || self.is_test_module(&import.from)
    }

    /// Whether the module, or one around it, is only compiled for tests.
    fn is_test_module(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|depth| self.modules.get(&module[..depth]) == Some(&true))
    }

    /// The modules that an import reaches: the module that it names and, if that module only re-exports the name
    /// (`pub use`), the module that the name comes from.
    pub fn targets(&self, import: &Import) -> Vec<ModulePath> {
        let mut targets = self.reached(&import.to);
        // Everything in a module includes everything that it imports.
        if let Some(("*", module)) = import
            .to
            .split_last()
            .map(|(last, all)| (last.as_str(), all))
        {
            let inside = self.names.iter();
            let inside = inside.filter(|(name, _)| name[..name.len() - 1] == *module);
            targets.extend(inside.flat_map(|(_, to)| self.reached(to)));
        }
        targets
    }

    fn reached(&self, path: &[String]) -> Vec<ModulePath> {
        let depth = self.modules_in(path);
        let mut reached = vec![path[..depth].to_vec()];
        let item = path.get(..=depth);
        if let Some(origin) = item.and_then(|item| self.names.get(item)) {
            reached.extend(self.reached(&[origin, &path[depth + 1..]].concat()));
        }
        reached
    }

    /// How many parts of the path are modules.
    fn modules_in(&self, path: &[String]) -> usize {
        let is_module = |depth: &usize| self.modules.contains_key(&path[..*depth]);
        (1..=path.len()).take_while(is_module).count()
    }
}
