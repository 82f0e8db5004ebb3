//! The tables of the settings reference, `docs/reference/settings.md`.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// The commands whose settings are listed. Together they accept all settings.
const COMMANDS: [&str; 2] = ["serve", "check"];

/// The headings that come last, because few readers need them.
const LAST: [&str; 2] = ["Demo", "Check"];

/// Returns a table of settings for each help heading, as Markdown.
pub(super) fn tables(command: &Command) -> String {
    let mut listed = BTreeSet::new();
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    let commands = COMMANDS.iter().filter_map(|name| command.find_subcommand(name));
    for argument in commands.flat_map(Command::get_arguments) {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        if !listed.insert(variable) {
            continue;
        }
        let heading = argument.get_help_heading().unwrap_or("Other");
        let row = row(variable, argument);
        match groups.iter_mut().find(|(name, _)| *name == heading) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((heading, vec![row])),
        }
    }
    // The sort is stable, so all other headings keep their order.
    groups.sort_by_key(|(heading, _)| LAST.iter().position(|last| last == heading).map_or(0, |position| position + 1));
    groups.into_iter().fold(String::new(), |mut text, (heading, rows)| {
        let rows = rows.concat();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "## {heading}\n\n| setting | default | meaning |\n|---|---|---|\n{rows}");
        text
    })
}

/// Returns the row of a setting. A default that is computed is part of the help text, as `[default: …]`.
fn row(variable: &str, argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let (help, computed) = match help.split_once("[default: ") {
        Some((before, after)) => {
            let (default, behind) = after.split_once(']').unwrap_or((after, ""));
            (format!("{}{behind}", before.trim_end()), Some(default.to_owned()))
        }
        None => (help, None),
    };
    let values: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match computed {
        Some(default) => default,
        None if matches!(argument.get_action(), ArgAction::SetTrue) => "`false`".to_owned(),
        None if values.is_empty() => String::new(),
        None => format!("`{}`", values.join(",")),
    };
    let help = help.trim().trim_end_matches('.');
    format!("| `{variable}` | {default} | {help} |\n").replace("|  |", "| |")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_page_has_these_tables() {
        let page = include_str!("../../docs/reference/settings.md");
        let (_, behind) = page.split_once("lists them -->\n\n").unwrap();
        let (tables, _) = behind.split_once("<!-- end of settings -->").unwrap();
        assert_eq!(tables, super::tables(&crate::cli::Cli::command()), "run `make settings`");
    }
}
