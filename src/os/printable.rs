//! Makes text from outside, such as names and database errors, safe for a terminal and for a log: it can neither
//! begin a new line nor control the terminal.

use std::fmt::{self, Display, Write};

/// Displays a value with every control character escaped as in Rust: `\n`, `\u{1b}`. All other characters,
/// backslashes included, stay as they are.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(out), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((start, control)) = rest.char_indices().find(|(_, c)| is_control(*c)) {
            self.0.write_str(&rest[..start])?;
            write!(self.0, "{}", control.escape_default())?;
            rest = &rest[start + control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// C0, DEL and C1; the line and paragraph separators, at which some programs break lines; and the characters that
/// change the direction of the text around them.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_escaped_and_nothing_else_is() {
        for (text, shown) in [
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\0\u{7}\u{1b}[2J\u{7f}", "\\u{0}\\u{7}\\u{1b}[2J\\u{7f}"),
            ("\u{85}\u{9b}31m\u{9f}", "\\u{85}\\u{9b}31m\\u{9f}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("\u{202a}\u{202e}", "\\u{202a}\\u{202e}"),
            ("\u{2066}\u{2069}", "\\u{2066}\\u{2069}"),
            (
                "計る é 😀 \\n \"'\u{a0}\u{200d}",
                "計る é 😀 \\n \"'\u{a0}\u{200d}",
            ),
            ("", ""),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
        let many_writes = format!("{}", Printable(format_args!("{}\n{}", 1, "\u{1b}")));
        assert_eq!(many_writes, "1\\n\\u{1b}");
    }
}
