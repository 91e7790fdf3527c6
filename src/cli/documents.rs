//! Completions and manual pages, made from the definitions that the command line is read with.

use clap_mangen::Man;

use super::ConfigError;
use super::arguments::Arguments;
use crate::VERSION;

/// A script that completes commands and flags, for `shell` to read.
pub(super) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::table(), "hakaru", &mut script);
    script
}

/// The manual page, in roff, of the command that `names` lead to; without any, of hakaru itself.
pub(super) fn manual(names: &[String]) -> Result<Vec<u8>, ConfigError> {
    let mut table = Arguments::table().disable_help_subcommand(true);
    table.build();
    let mut command = &table;
    for name in names {
        command = command.find_subcommand(name).ok_or_else(|| {
            ConfigError::Arguments(format!("man: hakaru has no command {}", names.join(" ")))
        })?;
    }
    let mut page = Vec::new();
    let manual = Man::new(command.clone()).manual("hakaru");
    let version = format!("hakaru {VERSION}");
    // Writing to a vector cannot fail.
    drop(manual.source(version).render(&mut page));
    Ok(page)
}
