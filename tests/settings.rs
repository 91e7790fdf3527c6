//! README's table of settings and the messages agree with the settings in code.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on fails"
)]

use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "| Flag | Variable | Default | Meaning |\n| --- | --- | --- | --- |\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The row of a setting in README's table.
fn row(setting: &clap::Arg) -> String {
    let help = setting.get_help().unwrap().to_string();
    // A default that is not a value is described at the end of the help.
    let described = help.strip_suffix(']');
    let (meaning, default) = match described.and_then(|help| help.split_once(" [default: ")) {
        Some((meaning, default)) => (meaning, default.to_owned()),
        None => {
            let default = setting.get_default_values()[0].to_str().unwrap();
            (help.as_str(), format!("`{default}`"))
        }
    };
    let flag = setting
        .get_long()
        .map_or(String::new(), |flag| format!(" `--{flag}`"));
    let variable = setting.get_env().unwrap().to_str().unwrap();
    format!("|{flag} | `{variable}` | {default} | {meaning} |\n")
}

#[test]
fn readme_lists_every_setting_as_in_the_code() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, documented) = readme.split_once(HEAD).unwrap();
    let rows = documented
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'));
    let documented: String = rows.collect();
    let expected: String = hakaru::cli::settings().iter().map(row).collect();
    assert!(
        documented == expected,
        "the table of settings in README.md differs from the code:\n\n{HEAD}{expected}"
    );
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .flat_map(|entry| match entry.unwrap().path() {
            path if path.is_dir() => sources(&path),
            path => vec![path],
        })
        .collect()
}

#[test]
fn messages_name_flags_and_variables_that_belong_together() {
    let settings = hakaru::cli::settings();
    let mut found = 0;
    for path in sources(&root().join("src")) {
        let source = fs::read_to_string(&path).unwrap();
        for (at, _) in source.match_indices(" (HAKARU_") {
            let Some(flag) = source[..at]
                .rsplit([' ', '"'])
                .next()
                .unwrap()
                .strip_prefix("--")
            else {
                continue;
            };
            let variable = source[at + 2..].split(')').next().unwrap();
            let known = settings.iter().any(|setting| {
                setting.get_long() == Some(flag)
                    && setting.get_env().is_some_and(|known| known == variable)
            });
            assert!(known, "{}: --{flag} ({variable})", path.display());
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
}
