//! Hides a password that was given as a flag from the process list.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Replaces each byte of a password.
const MASK: u8 = b'*';

/// Overwrites the password of every argument that holds one, in the memory that `/proc/PID/cmdline` shows. The parsed
/// arguments are copies and stay as they are.
pub fn hide_passwords() -> io::Result<()> {
    let command_line = fs::read("/proc/self/cmdline")?;
    let passwords = passwords(&command_line);
    if passwords.is_empty() {
        return Ok(());
    }
    let start = start_of_arguments(&fs::read_to_string("/proc/self/stat")?)?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    for password in passwords {
        memory.write_all_at(&vec![MASK; password.len()], start + password.start as u64)?;
    }
    Ok(())
}

/// Field 48 of `/proc/PID/stat`, `arg_start`. The name in field 2 may hold blanks, so fields are counted after it.
fn start_of_arguments(stat: &str) -> io::Result<u64> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_ascii_whitespace().nth(48 - 3);
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat: no field 48");
    field
        .and_then(|field| field.parse().ok())
        .filter(|&start| start > 0)
        .ok_or_else(missing)
}

/// The ranges of passwords in NUL-separated arguments. They are in each argument that follows `--datasource` or begins
/// with it, from the first colon to the last `@`. A range may be too long, so that it is never too short.
fn passwords(command_line: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut is_datasource) = (0, false);
    for argument in command_line.split(|&byte| byte == 0) {
        let value = match argument.strip_prefix(b"--datasource=") {
            Some(value) => Some(value),
            None => is_datasource.then_some(argument),
        };
        if let Some(value) = value {
            let login = value.strip_prefix(b"mysql://").unwrap_or(value);
            let login_start = start + argument.len() - login.len();
            let colon = login.iter().position(|&byte| byte == b':');
            let at = login.iter().rposition(|&byte| byte == b'@');
            if let (Some(colon), Some(at)) = (colon, at)
                && colon + 1 < at
            {
                found.push(login_start + colon + 1..login_start + at);
            }
        }
        is_datasource = argument == b"--datasource";
        start += argument.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_found_in_every_form() {
        for (arguments, expected) in [
            (
                &["hakaru", "--datasource", "u:p@ss:w@tcp(h:1)/d"][..],
                &["p@ss:w"][..],
            ),
            (
                &["hakaru", "--datasource=mysql://u:pw@h/d", "--cores", "1"],
                &["pw"],
            ),
            (&["hakaru", "--datasource", "u@tcp(h:1)/d"], &[]),
            (&["hakaru", "--datasource=sqlite:a:b"], &[]),
            (&["hakaru", "--listen", "a:b@c"], &[]),
        ] {
            let command_line = arguments.join("\0");
            let found: Vec<_> = passwords(command_line.as_bytes())
                .into_iter()
                .map(|at| &command_line[at])
                .collect();
            assert_eq!(found, expected, "{arguments:?}");
        }
    }

    #[test]
    fn fields_are_counted_after_the_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b) {}", fields.join(" "));
        assert_eq!(start_of_arguments(&stat).unwrap(), 48);
        assert!(start_of_arguments("1 (a) 2 3").is_err());
    }
}
