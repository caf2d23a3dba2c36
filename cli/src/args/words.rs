//! What to say of a wrong command line where clap's own words would be long, doubled or of no use.

use std::error::Error as _;

use clap::{
    CommandFactory as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use lb_core::model::shorten;
use lb_proto::document::nearest;

use super::{Cli, peers};

/// One sentence about an error, if clap's own words are not better.
pub(crate) fn in_words(error: &clap::Error) -> Option<String> {
    below_zero(error)
        .or_else(|| peers::hint(error))
        .or_else(|| bad_value(error))
        .or_else(|| nothing_to_change(error))
        .or_else(|| unknown_command(error))
        .or_else(|| one_too_many(error))
}

/// What clap says of an error under this heading, if it is one text.
pub(super) fn said(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(said)) => Some(said),
        _ => None,
    }
}

/// A second object where one is taken.
fn one_too_many(error: &clap::Error) -> Option<String> {
    let argument = said(error, ContextKind::InvalidArg)?;
    let is_a_name = error.kind() == ErrorKind::UnknownArgument && !argument.starts_with('-');
    let shown = shorten(argument);
    is_a_name.then(|| {
        format!(
            "'{shown}' is one argument too many: a command is about one object; give it once for \
             each, or declare all in a file for 'lbctl apply -f'; see --help"
        )
    })
}

/// A command that there is not, with the one that was probably meant: clap names several, the
/// likeliest last.
fn unknown_command(error: &clap::Error) -> Option<String> {
    let given = said(error, ContextKind::InvalidSubcommand)?;
    match error.kind() {
        // Whoever types the name alone is shown what there is.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => return None,
        ErrorKind::MissingSubcommand => {
            return Some("a command is missing: 'lbctl --help' lists all".to_owned());
        }
        _ => {}
    }
    let cli = Cli::command();
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let shown = shorten(given);
    Some(match nearest(given, &names) {
        Some(near) => format!(
            "there is no command '{shown}'; did you mean '{near}'? 'lbctl --help' lists all"
        ),
        None => format!("there is no command '{shown}'; 'lbctl --help' lists all"),
    })
}

/// The reason alone: it quotes the value as far as that helps.
fn bad_value(error: &clap::Error) -> Option<String> {
    let reason = error.source().filter(|_| error.kind() == ErrorKind::ValueValidation)?;
    let argument = said(error, ContextKind::InvalidArg)?;
    // `--weight <WEIGHT>`, or `<ADDRESS>` without a flag.
    let name =
        argument.split(' ').next().unwrap_or(argument).trim_matches(['<', '>', '[', ']', '.']);
    Some(format!("{name}: {reason}; see --help"))
}

/// A change without a setting: clap would list all of them in one line.
fn nothing_to_change(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let [settings] = missing.as_slice() else { return None };
    let first = settings.strip_prefix('<')?.split('|').next()?;
    (first.starts_with("--") && settings.matches("|--").count() > 2).then(|| {
        format!("nothing to change: give a setting, for example {first}; --help lists them")
    })
}

/// What to say of a number below zero, which clap takes for an option that it does not know.
pub(super) fn below_zero(error: &clap::Error) -> Option<String> {
    let argument = said(error, ContextKind::InvalidArg)?;
    let is_number = argument.strip_prefix('-')?.starts_with(|first: char| first.is_ascii_digit());
    (error.kind() == ErrorKind::UnknownArgument && is_number).then(|| {
        format!("'{argument}' is no option, and no setting takes a number below zero; see --help")
    })
}
