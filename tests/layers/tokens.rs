//! Splits Rust source into tokens with line numbers, without comments, literals and lifetimes.

/// A name, `::`, or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    /// Whether it is a name or a keyword.
    pub fn is_name(&self) -> bool {
        self.text.starts_with(is_in_name)
    }
}

/// The tokens of `source`, in order.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut reader = Reader {
        rest: source,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(next) = reader.rest.chars().next() {
        let line = reader.line;
        if let Some(text) = reader.token(next) {
            tokens.push(Token { text, line });
        }
    }
    tokens
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Reads what begins with `next`. Returns its text if it is a token.
    fn token(&mut self, next: char) -> Option<String> {
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip_block_comment();
        } else if next == '"' {
            self.skip_string();
        } else if next == '\'' {
            self.skip_character_or_lifetime();
        } else if is_in_name(next) {
            return self.name();
        } else if self.rest.starts_with("::") {
            return Some(self.take(2).to_owned());
        } else {
            let text = self.take(next.len_utf8());
            return (!next.is_whitespace()).then(|| text.to_owned());
        }
        None
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Reads a name, unless it is the prefix of a string.
    fn name(&mut self) -> Option<String> {
        let end = self.rest.find(|next| !is_in_name(next));
        let name = self.take(end.unwrap_or(self.rest.len()));
        let after_hashes = self.rest.trim_start_matches('#');
        let hashes = self.rest.len() - after_hashes.len();
        match name {
            "b" | "c" if self.rest.starts_with('"') => self.skip_string(),
            "r" | "br" | "cr" if after_hashes.starts_with('"') => {
                self.take(hashes + 1);
                let end = format!("\"{}", "#".repeat(hashes));
                let length = self.rest.find(&end).expect("the end of a raw string");
                self.take(length + end.len());
            }
            // `r#name` is a name; its hash is no token.
            "r" if hashes == 1 => {
                self.take(1);
            }
            _ => return Some(name.to_owned()),
        }
        None
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else {
                let next = self.rest.chars().next().expect("the end of a comment");
                self.take(next.len_utf8());
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.take(1);
        self.skip_to_quote('"');
    }

    fn skip_character_or_lifetime(&mut self) {
        self.take(1);
        let mut following = self.rest.chars();
        let (first, second) = (following.next(), following.next());
        if first == Some('\\') || second == Some('\'') {
            self.skip_to_quote('\'');
        } else {
            let end = self.rest.find(|next| !is_in_name(next));
            self.take(end.unwrap_or(self.rest.len()));
        }
    }

    /// Skips a literal after its opening quote. A backslash escapes the next character.
    fn skip_to_quote(&mut self, quote: char) {
        let mut is_escaped = false;
        let end = self.rest.find(|next| {
            let is_end = next == quote && !is_escaped;
            is_escaped = next == '\\' && !is_escaped;
            is_end
        });
        self.take(end.expect("the end of a literal") + 1);
    }
}

fn is_in_name(next: char) -> bool {
    next.is_alphanumeric() || next == '_'
}
