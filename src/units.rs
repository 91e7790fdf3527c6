//! Sizes and durations as text, such as in settings.

use std::time::Duration;

/// Reads `500ms`, `1s`, `1.5s`, `1m30s`: numbers with units, no sign. `None` for anything else.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    if !text.bytes().all(plain) || !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let signed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(signed).ok()
}

/// Reads `64MiB`, `4GiB`, `512KiB`: a whole number with a binary unit. `None` for anything else.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("4GiB", 4 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "4",
            "4G",
            "4GB",
            "GiB",
            "-4GiB",
            "4.5GiB",
            "99999999999TiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "5", "s", "-1s", "1 s", "P1D", "1x", "PT1S", "1s ago"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
