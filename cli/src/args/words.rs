//! What to say of a wrong command line where clap's own words would be long, doubled or of no use.

use std::error::Error as _;

use clap::{
    CommandFactory as _, ValueEnum as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use lb_core::model::shorten;
use lb_proto::document::nearest;

use super::{Cli, GetKind, peers};

/// One sentence about an error, if clap's own words are not better.
pub(crate) fn in_words(error: &clap::Error) -> Option<String> {
    below_zero(error)
        .or_else(|| peers::hint(error))
        .or_else(|| bad_value(error))
        .or_else(|| nothing_to_change(error))
        .or_else(|| unknown_command(error))
        .or_else(|| name_for_a_kind(error))
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
    is_a_name.then(|| match takes_a_name(error) {
        true => format!(
            "'{shown}' is one argument too many: a command is about one object; give it once for \
             each, or declare all in a file for 'lbctl apply -f'; see --help"
        ),
        false => format!(
            "'{shown}' is one argument too many: this command takes options alone; see --help"
        ),
    })
}

/// Whether the command is about an object, by its usage: `lbctl wait [OPTIONS] <TARGET>...`.
fn takes_a_name(error: &clap::Error) -> bool {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return true };
    let usage = usage.to_string();
    let words: Vec<&str> = usage.split_whitespace().collect();
    words.windows(2).any(|pair| {
        let is_value = pair[1].starts_with(['<', '[']) && pair[1] != "[OPTIONS]";
        is_value && !pair[0].starts_with('-')
    })
}

/// A name where the kind is to stand.
fn name_for_a_kind(error: &clap::Error) -> Option<String> {
    let is_kind = said(error, ContextKind::InvalidArg)? == "<KIND>";
    let given = said(error, ContextKind::InvalidValue).filter(|_| is_kind)?;
    let kinds = GetKind::value_variants().iter().map(|kind| kind.name());
    let kinds: Vec<&str> = kinds.collect();
    // As names are that nobody chose: backend1, proxy-2.
    let of_kind = kinds.iter().find(|kind| {
        let rest = given.strip_prefix(**kind);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
    });
    let kind = match of_kind {
        Some(kind) => kind,
        None if given.is_empty() || nearest(given, &kinds).is_some() => return None,
        None => "backend",
    };
    let shown = shorten(given);
    Some(format!(
        "'{shown}' is no kind of object: the kind stands before the name; write for example 'lbctl \
         describe {kind} {shown}'; kinds are {}; see --help",
        kinds.join(", ")
    ))
}

/// What other tools call a command.
const COMMANDS: [(&[&str], &str); 5] = [
    (&["list", "ls", "show"], "write 'lbctl get KIND', for example 'lbctl get backends'"),
    (
        &["delete", "rm", "remove"],
        "write 'lbctl remove-KIND NAME', for example 'lbctl remove-pool web'",
    ),
    (&["add", "create"], "write 'lbctl add-KIND', for example 'lbctl add-backend localhost:8004'"),
    (&["set", "edit"], "write 'lbctl set-KIND NAME', for example 'lbctl set-pool web --retries 2'"),
    (&["reload"], "nothing is reloaded; 'lbctl apply -f FILE' makes true what a file declares"),
];

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
    if let Some((_, meant)) = COMMANDS.iter().find(|(names, _)| names.contains(&given)) {
        return Some(format!("there is no command '{shown}': {meant}; 'lbctl --help' lists all"));
    }
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
