//! Parses the declarations and imports of one source file.

use std::collections::BTreeMap;

use crate::tokens::{Token, tokens};

/// The names from the root of the crate to a module or to an item of it.
pub type ModulePath = Vec<String>;

/// A path into the crate, from a `use` or from code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub line: usize,
    /// The module that imports.
    pub from: ModulePath,
    /// The imported item, from the root of the crate. Ends with `*` if it is everything in a module.
    pub to: ModulePath,
    /// As written, without the braces.
    pub written: String,
    pub is_test: bool,
}

/// A function and its length.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// The declarations and imports of a file.
#[derive(Debug, Default)]
pub struct File {
    pub imports: Vec<Import>,
    pub functions: Vec<Function>,
    /// Its modules, with those in other files, and whether each is only compiled for tests.
    pub modules: BTreeMap<ModulePath, bool>,
    /// The items for which the names stand that modules import with `use`.
    pub names: BTreeMap<ModulePath, ModulePath>,
}

/// A part of a file in braces.
struct Scope {
    /// Its name, if it is a module.
    module: Option<String>,
    is_test: bool,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// The module that the file is.
    root: ModulePath,
    scopes: Vec<Scope>,
    /// The next item is only compiled for tests, because of an attribute.
    is_next_test: bool,
    uses: Vec<(Import, String)>,
    file: File,
}

impl File {
    /// Reads the file that holds the module `root`.
    pub fn parse(root: ModulePath, source: &str) -> Self {
        let mut parser = Parser {
            tokens: tokens(source),
            at: 0,
            root,
            scopes: Vec::new(),
            is_next_test: false,
            uses: Vec::new(),
            file: Self::default(),
        };
        while parser.at < parser.tokens.len() {
            parser.step();
        }
        parser.resolve_uses();
        parser.file
    }
}

impl Parser {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn module(&self) -> ModulePath {
        let inner = self.scopes.iter().filter_map(|scope| scope.module.clone());
        self.root.iter().cloned().chain(inner).collect()
    }

    fn is_test(&self) -> bool {
        self.is_next_test || self.scopes.iter().any(|scope| scope.is_test)
    }

    /// Reads one construct. The contents of its braces are left for the next steps.
    fn step(&mut self) {
        match (self.text(self.at), self.text(self.at + 1)) {
            ("#", "[") => self.attribute(),
            ("{", _) => self.open(None),
            ("}", _) => {
                self.scopes.pop();
                self.is_next_test = false;
                self.at += 1;
            }
            (";", _) => {
                self.is_next_test = false;
                self.at += 1;
            }
            ("mod", _) => self.declare_module(),
            // `use<'a>` bounds a type.
            ("use", next) if next != "<" => {
                self.at += 1;
                self.use_tree(&[]);
            }
            ("fn", next) if next != "(" => self.function(),
            ("crate" | "super" | "self" | "hakaru", "::") if !self.is_inside_path() => self.path(),
            _ => self.at += 1,
        }
    }

    fn is_inside_path(&self) -> bool {
        self.at > 0 && self.text(self.at - 1) == "::"
    }

    fn open(&mut self, module: Option<String>) {
        let is_test = std::mem::take(&mut self.is_next_test);
        self.scopes.push(Scope { module, is_test });
        self.at += 1;
    }

    /// `#[cfg(test)]` and `#[test]` mark test code; `#[cfg(not(test))]` does not.
    fn attribute(&mut self) {
        let mut depth = 0;
        let mut words = Vec::new();
        loop {
            self.at += 1;
            match self.text(self.at) {
                "[" => depth += 1,
                "]" => depth -= 1,
                "" => panic!("an attribute without an end"),
                word => words.push(word.to_owned()),
            }
            if depth == 0 {
                break;
            }
        }
        self.at += 1;
        let is_test = words == ["test"] || words == ["cfg", "(", "test", ")"];
        self.is_next_test |= is_test;
    }

    /// `mod name;` or `mod name {`.
    fn declare_module(&mut self) {
        let name = self.text(self.at + 1).to_owned();
        let path = [self.module(), vec![name.clone()]].concat();
        self.file.modules.insert(path, self.is_test());
        self.at += 2;
        if self.text(self.at) == "{" {
            self.open(Some(name));
        }
    }

    /// Notes the length of a function. Its body is read by the next steps.
    fn function(&mut self) {
        let start = self.at;
        let first = &self.tokens[start];
        let mut depth = 0;
        let mut end = start;
        loop {
            end += 1;
            match self.text(end) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                // A function of a trait, without a body.
                ";" if depth == 0 => break,
                "" => panic!("a function without an end, line {}", first.line),
                _ => {}
            }
        }
        if !self.is_test() {
            self.file.functions.push(Function {
                name: self.text(start + 1).to_owned(),
                line: first.line,
                lines: self.tokens[end].line - first.line + 1,
            });
        }
        self.at += 2;
    }

    /// A path in code.
    fn path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut written = vec![self.text(self.at).to_owned()];
        self.at += 1;
        while self.text(self.at) == "::" && self.tokens.get(self.at + 1).is_some_and(Token::is_name)
        {
            written.push(self.text(self.at + 1).to_owned());
            self.at += 2;
        }
        let import = self.import(&written, line);
        self.file.imports.extend(import);
    }

    /// One branch of a `use`, after `prefix`, up to `,`, `}` or `;`.
    fn use_tree(&mut self, prefix: &[String]) {
        let line = self.tokens[self.at].line;
        let mut written = prefix.to_vec();
        let mut name = None;
        loop {
            match self.text(self.at) {
                "::" => {}
                "{" => return self.use_list(&written),
                "as" => {
                    self.at += 1;
                    name = Some(self.text(self.at).to_owned());
                }
                "," | "}" | ";" => break,
                "" => panic!("an import without an end, line {line}"),
                // `a::{self}` imports `a`.
                "self" if !written.is_empty() => {}
                part => written.push(part.to_owned()),
            }
            self.at += 1;
        }
        let name = name.or_else(|| written.last().cloned());
        self.uses.extend(name.map(|name| {
            let import = Import {
                line,
                from: self.module(),
                to: Vec::new(),
                written: written.join("::"),
                is_test: self.is_test(),
            };
            (import, name)
        }));
    }

    fn use_list(&mut self, prefix: &[String]) {
        while self.text(self.at) != "}" {
            // After the opening brace or a comma.
            self.at += 1;
            if self.text(self.at) != "}" {
                self.use_tree(prefix);
            }
        }
        self.at += 1;
    }

    /// Resolves the imports, now that all modules of the file are known.
    fn resolve_uses(&mut self) {
        for (import, name) in std::mem::take(&mut self.uses) {
            let written: Vec<_> = import.written.split("::").map(str::to_owned).collect();
            let Some(to) = self.absolute(&import.from, &written) else {
                continue;
            };
            let place = [import.from.clone(), vec![name]].concat();
            self.file.names.insert(place, to.clone());
            self.file.imports.push(Import { to, ..import });
        }
    }

    fn import(&self, written: &[String], line: usize) -> Option<Import> {
        let from = self.module();
        Some(Import {
            line,
            to: self.absolute(&from, written)?,
            from,
            written: written.join("::"),
            is_test: self.is_test(),
        })
    }

    /// The path from the root of the crate; `None` for another crate, or an item of the module itself.
    fn absolute(&self, from: &[String], written: &[String]) -> Option<ModulePath> {
        let (first, rest) = written.split_first()?;
        let base = match first.as_str() {
            "crate" | "hakaru" => &[],
            "self" => from,
            "super" => {
                let ups = written.iter().take_while(|part| *part == "super").count();
                let parent = &from[..from.len().checked_sub(ups)?];
                return Some([parent, &written[ups..]].concat());
            }
            child => {
                let path = [from, &[child.to_owned()]].concat();
                return self
                    .file
                    .modules
                    .contains_key(&path)
                    .then(|| [from, written].concat());
            }
        };
        Some([base, rest].concat())
    }
}
