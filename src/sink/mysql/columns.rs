//! Reads from the server what the columns of `eventlog` take.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::classify::sink_error;
use crate::event::repertoire::{CharacterSet, Repertoire};
use crate::event::rule::{EventRule, NAME_CHARS_MAX};
use crate::sink::SinkError;

/// Type, length and character set of the `name` column. A user with the right to insert may read them.
const NAME_COLUMN: &str = "SELECT data_type, character_maximum_length, character_octet_length, character_set_name \
    FROM information_schema.columns WHERE table_schema = DATABASE() \
    AND table_name = 'eventlog' AND column_name = 'name'";

/// A row of [`NAME_COLUMN`].
type NameColumn = (String, Option<u64>, Option<u64>, Option<String>);

/// Type of the `value` column, and its digits in all and after the point. Of a text these are its characters.
const VALUE_COLUMN: &str = "SELECT data_type, column_type, \
    COALESCE(numeric_precision, character_maximum_length), numeric_scale \
    FROM information_schema.columns WHERE table_schema = DATABASE() \
    AND table_name = 'eventlog' AND column_name = 'value'";

/// Characters per query: 24 KiB of a statement.
const CHARACTERS_A_QUERY: usize = 4096;

/// What the columns take. `None` if there is no column `name`.
pub(crate) fn event_rule(connection: &mut Conn) -> Result<Option<EventRule>, SinkError> {
    let column: Option<NameColumn> = connection.query_first(NAME_COLUMN).map_err(sink_error)?;
    let Some((data_type, chars, octets, character_set)) = column else {
        return Ok(None);
    };
    // These are bounded by characters alone, and a text by its bytes.
    let is_counted = matches!(
        &data_type.to_ascii_lowercase()[..],
        "char" | "varchar" | "enum" | "set"
    );
    let octets = octets.filter(|_| !is_counted);
    let name = name_bounds(chars, octets, character_set.as_deref());
    let repertoire = match character_set.as_deref() {
        Some("ascii") => Repertoire::Ascii,
        Some("latin1") => Repertoire::Latin1,
        Some("utf8mb3" | "utf8" | "ucs2") => Repertoire::Bmp,
        // A binary column takes any bytes.
        Some("utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" | "binary") | None => {
            Repertoire::Unicode
        }
        Some(other) => listed(connection, other)?,
    };
    let value: Option<(String, String, Option<u32>, Option<u32>)> =
        connection.query_first(VALUE_COLUMN).map_err(sink_error)?;
    let value_max = value
        .and_then(|(data, column, precision, scale)| value_max(&data, &column, precision, scale));
    Ok(Some(EventRule {
        repertoire,
        value_max: value_max.unwrap_or(u32::MAX),
        ..name
    }))
}

/// The bounds of a name's length, by the `octets` of a column that is bounded by bytes.
fn name_bounds(chars: Option<u64>, octets: Option<u64>, character_set: Option<&str>) -> EventRule {
    let octets = octets.unwrap_or(u64::MAX);
    // Characters that fit even if each has the most bytes of the set; and for UTF-8 the bytes themselves.
    let (chars_fit, bytes_max) = match character_set {
        Some("utf8mb4" | "utf8mb3" | "utf8" | "binary") | None => (octets, octets),
        Some("utf16" | "utf16le" | "utf32" | "gb18030") => (octets / 4, u64::MAX),
        Some("ujis" | "eucjpms") => (octets / 3, u64::MAX),
        Some("ucs2" | "big5" | "gbk" | "gb2312" | "sjis" | "cp932" | "euckr") => {
            (octets / 2, u64::MAX)
        }
        Some(_) => (octets, u64::MAX),
    };
    let chars_max = chars.unwrap_or(u64::MAX).min(chars_fit);
    let chars_max = u8::try_from(chars_max.max(1)).unwrap_or(NAME_CHARS_MAX);
    // If the bytes suffice for any characters, only characters count.
    let longest = match character_set {
        Some("utf8mb3" | "utf8") => 3,
        _ => 4,
    };
    let bytes_max = match u16::try_from(bytes_max.max(1)) {
        Ok(bytes) if bytes < u16::from(chars_max) * longest => bytes,
        _ => EventRule::ANY_BYTES,
    };
    EventRule {
        chars_max,
        bytes_max,
        ..EventRule::SQLITE
    }
}

/// The largest value that a column stores unchanged. `None` if that is not known by its type.
pub(crate) fn value_max(
    data_type: &str,
    column_type: &str,
    precision: Option<u32>,
    scale: Option<u32>,
) -> Option<u32> {
    let column_type = column_type.to_ascii_lowercase();
    let is_unsigned = column_type.contains("unsigned") || column_type.contains("zerofill");
    let of_bits = |bits: u32| Some(u32::MAX >> (32 - bits));
    let of_integer = |bits: u32| of_bits(if is_unsigned { bits } else { bits - 1 });
    let digits = |digits: u32| Some(10_u32.checked_pow(digits).map_or(u32::MAX, |next| next - 1));
    match (&data_type.to_ascii_lowercase()[..], precision, scale) {
        ("tinyint", ..) => of_integer(8),
        ("smallint", ..) => of_integer(16),
        ("mediumint", ..) => of_integer(24),
        ("int" | "integer", ..) => of_integer(32),
        ("bigint", ..) => Some(u32::MAX),
        ("bit", Some(bits), _) => of_bits(bits.clamp(1, 32)),
        ("decimal" | "numeric" | "float" | "double", Some(precision), Some(scale)) => {
            let whole = digits(precision.saturating_sub(scale));
            whole.map(|whole| {
                if data_type == "float" {
                    whole.min(1 << 24)
                } else {
                    whole
                }
            })
        }
        ("char" | "varchar" | "binary" | "varbinary", Some(characters), _) => digits(characters),
        // Above it, not every integer is a float.
        ("float", ..) => Some(1 << 24),
        ("double", ..) => Some(u32::MAX),
        _ => None,
    }
}

/// The characters of a set that is not Unicode: those that the server converts to it and back.
fn listed(connection: &mut Conn, character_set: &str) -> Result<Repertoire, SinkError> {
    let is_name = character_set
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Ok(Repertoire::Ascii);
    }
    let all: Vec<char> = ('\0'..='\u{FFFF}').collect();
    let mut held = Vec::with_capacity(all.len());
    for asked in all.chunks(CHARACTERS_A_QUERY) {
        let text: String = asked.iter().collect();
        let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        let query = format!(
            "SELECT CONVERT(CONVERT(_utf8mb4 X'{hex}' USING {character_set}) USING utf8mb4)"
        );
        let answer: Option<String> = match connection.query_first(query) {
            Ok(answer) => answer,
            // The server has no such conversion. An error that passes is no answer.
            Err(fault) => match sink_error(fault) {
                SinkError::Stop(fault) => {
                    log::debug!("the characters of {character_set} cannot be read: {fault}");
                    return Ok(Repertoire::Ascii);
                }
                passing => return Err(passing),
            },
        };
        let answer = answer.unwrap_or_default();
        // The server answers `?` for each character that the set lacks.
        if answer.chars().count() == asked.len() {
            let pairs = asked.iter().copied().zip(answer.chars());
            held.extend(
                pairs
                    .filter(|(asked, got)| asked == got)
                    .map(|(asked, _)| asked),
            );
        } else {
            held.extend(asked.iter().copied().filter(char::is_ascii));
        }
    }
    let set = CharacterSet::known(character_set, held.into_iter());
    Ok(set.map_or(Repertoire::Ascii, Repertoire::Listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bounded_by_its_type() {
        for (data, column, precision, scale, max) in [
            ("tinyint", "tinyint(4)", Some(3), Some(0), Some(127)),
            (
                "tinyint",
                "tinyint(3) unsigned",
                Some(3),
                Some(0),
                Some(255),
            ),
            ("smallint", "smallint(6)", Some(5), Some(0), Some(32_767)),
            (
                "smallint",
                "smallint(5) unsigned zerofill",
                Some(5),
                Some(0),
                Some(65_535),
            ),
            ("mediumint", "mediumint", Some(7), Some(0), Some(8_388_607)),
            ("int", "int", Some(10), Some(0), Some(2_147_483_647)),
            ("int", "int unsigned", Some(10), Some(0), Some(u32::MAX)),
            ("bigint", "bigint", Some(19), Some(0), Some(u32::MAX)),
            ("decimal", "decimal(5,2)", Some(5), Some(2), Some(999)),
            (
                "decimal",
                "decimal(10,0)",
                Some(10),
                Some(0),
                Some(u32::MAX),
            ),
            ("decimal", "decimal(2,2)", Some(2), Some(2), Some(0)),
            ("bit", "bit(5)", Some(5), None, Some(31)),
            ("float", "float", Some(12), None, Some(16_777_216)),
            ("double", "double", Some(22), None, Some(u32::MAX)),
            ("varchar", "varchar(3)", Some(3), None, Some(999)),
            ("varchar", "varchar(255)", Some(255), None, Some(u32::MAX)),
            ("text", "text", Some(65_535), None, None),
            ("year", "year(4)", None, None, None),
        ] {
            assert_eq!(value_max(data, column, precision, scale), max, "{column}");
        }
    }

    #[test]
    fn a_name_is_bounded_by_characters_or_bytes() {
        for (chars, octets, set, chars_max, bytes_max) in [
            (Some(255), None, Some("utf8mb3"), 255, 1020),
            (Some(10), None, Some("utf8mb4"), 10, 1020),
            (Some(255), Some(255), Some("utf8mb3"), 255, 255),
            (Some(255), Some(255), Some("utf8mb4"), 255, 255),
            (Some(255), Some(255), None, 255, 255),
            (Some(65_535), Some(65_535), None, 255, 1020),
            (
                Some(4_294_967_295),
                Some(4_294_967_295),
                Some("utf8mb4"),
                255,
                1020,
            ),
            (Some(255), Some(255), Some("utf16"), 63, 1020),
            (Some(255), None, Some("big5"), 255, 1020),
            (Some(255), Some(255), Some("big5"), 127, 1020),
            (Some(255), Some(255), Some("koi8r"), 255, 1020),
            (None, None, None, 255, 1020),
        ] {
            let bounds = name_bounds(chars, octets, set);
            let found = (bounds.chars_max, bounds.bytes_max);
            assert_eq!(
                found,
                (chars_max, bytes_max),
                "{chars:?} {octets:?} {set:?}"
            );
        }
    }
}
