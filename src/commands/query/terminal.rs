//! Output on a terminal: bars, progress, and names that are safe to show.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthStr;

/// Columns of a terminal whose width is not known.
const COLUMNS: usize = 80;

/// The output, and what it can show.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Its columns; `None` if it is no terminal.
    pub columns: Option<usize>,
    /// Whether it shows more than ASCII.
    pub is_utf8: bool,
}

impl Screen {
    /// Standard output. The variable `COLUMNS` wins over the width of the terminal.
    pub fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self {
                columns: None,
                is_utf8: true,
            };
        }
        let set = std::env::var("COLUMNS").ok();
        let asked = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let columns = set.and_then(|text| text.parse().ok()).or_else(asked);
        Self {
            columns: Some(columns.filter(|&columns| columns > 0).unwrap_or(COLUMNS)),
            is_utf8: is_utf8(["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).ok())),
        }
    }

    /// Escapes characters that would control a terminal or be invisible. Cuts the name to `width` columns on a
    /// terminal.
    pub fn name(self, name: &str, width: usize) -> String {
        let mut shown = String::with_capacity(name.len());
        for character in name.chars() {
            match character {
                // Quotes are not escaped, since names are shown without quotes.
                '"' | '\'' => shown.push(character),
                _ if self.is_utf8 || character.is_ascii() => {
                    shown.extend(character.escape_debug());
                }
                _ => shown.extend(character.escape_unicode()),
            }
        }
        if self.columns.is_none() || shown.width() <= width {
            return shown;
        }
        let more = if self.is_utf8 { "…" } else { "..." };
        while shown.width() + more.width() > width && shown.pop().is_some() {}
        shown + more
    }

    /// A bar of a part of `width` columns.
    pub fn bar(self, part: u64, whole: u64, width: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if whole == 0 {
            return String::new();
        }
        let eighths = u128::from(part) * (width as u128 * 8) / u128::from(whole);
        let eighths = usize::try_from(eighths)
            .unwrap_or(usize::MAX)
            .min(width * 8);
        // A part above 0 is always visible.
        let eighths = if part > 0 { eighths.max(1) } else { 0 };
        if self.is_utf8 {
            "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
        } else {
            "#".repeat(eighths.div_ceil(8))
        }
    }

    /// A column one character high.
    pub fn spark(self, part: u64, whole: u64) -> char {
        let levels = if self.is_utf8 {
            " ▁▂▃▄▅▆▇█"
        } else {
            " .:-=+*%#"
        };
        let level = u128::from(part) * 8 / u128::from(whole.max(1));
        let level = if part > 0 { level.max(1) } else { 0 };
        let level = usize::try_from(level).unwrap_or(8);
        levels.chars().nth(level).unwrap_or(' ')
    }
}

/// Fills up with blanks to `width` columns.
pub fn padded(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(blanks))
}

/// Whether the character set of the locale is UTF-8. The first variable that is set counts.
fn is_utf8(locale: [Option<String>; 3]) -> bool {
    let set = locale.into_iter().flatten().find(|text| !text.is_empty());
    set.is_some_and(|text| {
        let text = text.to_ascii_lowercase();
        text.contains("utf-8") || text.contains("utf8")
    })
}

/// Shows the progress of long work on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    is_shown: bool,
    shown_at: Instant,
    steps: u64,
}

impl Progress {
    /// Least time between two updates.
    const PAUSE: Duration = Duration::from_millis(500);

    /// Steps between two checks of the time.
    const STEPS: u64 = 4096;

    /// At the beginning.
    pub fn new() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
            shown_at: Instant::now(),
            steps: 0,
        }
    }

    /// Counts one step of `what`.
    pub fn step(&mut self, what: &str) {
        self.steps += 1;
        if self.is_shown
            && self.steps.is_multiple_of(Self::STEPS)
            && self.shown_at.elapsed() >= Self::PAUSE
        {
            self.shown_at = Instant::now();
            self.show(&format!("{} {what}", self.steps));
        }
    }

    /// Shows a text at once.
    pub fn show(&self, text: &str) {
        if self.is_shown {
            // The progress is not needed if it cannot be shown.
            drop(write!(io::stderr(), "\r\x1b[K{text} "));
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    /// Clears the line.
    fn drop(&mut self) {
        if self.is_shown {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTF8: Screen = Screen {
        columns: Some(80),
        is_utf8: true,
    };

    const ASCII: Screen = Screen {
        columns: Some(80),
        is_utf8: false,
    };

    #[test]
    fn a_name_cannot_control_a_terminal() {
        for (name, shown) in [
            ("a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n"),
            ("\u{202e}x\u{200b}", "\\u{202e}x\\u{200b}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("it's \"計\" \\", "it's \"計\" \\\\"),
        ] {
            assert_eq!(UTF8.name(name, 80), shown);
        }
        assert_eq!(ASCII.name("計\n", 80), "\\u{8a08}\\n");
    }

    #[test]
    fn names_are_cut_only_on_a_terminal() {
        assert_eq!(UTF8.name("計計計計", 7), "計計計…");
        assert_eq!(ASCII.name("abcdefgh", 7), "abcd...");
        let pipe = Screen {
            columns: None,
            is_utf8: true,
        };
        assert_eq!(pipe.name("abcdefgh", 7), "abcdefgh");
        assert_eq!(padded("計", 4), "計  ");
    }

    #[test]
    fn bars_are_as_long_as_their_part() {
        assert_eq!(UTF8.bar(1, 2, 3), "█▌");
        assert_eq!(ASCII.bar(1, 2, 3), "##");
        assert_eq!(
            (UTF8.bar(1, 1_000_000, 3), UTF8.bar(0, 9, 3)),
            ("▏".to_owned(), String::new())
        );
        assert_eq!(UTF8.bar(u64::MAX, u64::MAX, 3), "███");
        assert_eq!(
            [0, 1, 500, 1000].map(|part| UTF8.spark(part, 1000)),
            [' ', '▁', '▄', '█']
        );
        assert_eq!(ASCII.spark(1000, 1000), '#');
    }

    #[test]
    fn the_first_locale_that_is_set_counts() {
        let set = |text: &str| Some(text.to_owned());
        assert!(is_utf8([None, set(""), set("en_US.UTF-8")]));
        assert!(is_utf8([set("C.utf8"), None, set("C")]));
        assert!(!is_utf8([set("C"), None, set("en_US.UTF-8")]));
        assert!(!is_utf8([None, None, None]));
    }
}
