//! Completions of the shell, down to the names of what there is.
//!
//! The script that `lbctl completions SHELL` prints asks `lbctl` itself what may come next,
//! with the line so far behind `--` and the shell's name in [`VARIABLE`]. So it always fits
//! the command line of this build, and names of backends and pools come from the control
//! plane that the line would talk to. One that is away costs a moment and no names.

use std::{env, ffi::OsString, process::ExitCode, time::Duration};

use clap::{Arg, Command, CommandFactory as _, Parser as _, ValueEnum as _};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use lb_core::model::natural_order;

use crate::{
    args::{Cli, GetKind},
    client::Client,
    command,
    exit::{Exit, Failure},
    output,
};

/// Set by the script; everything else about completions is the script's and the engine's.
const VARIABLE: &str = "LBCTL_COMPLETE";

/// Nobody waits longer for a name.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a shell that asks for completions; nothing when nobody does.
pub(crate) fn answer() -> Option<ExitCode> {
    let here = env::current_dir().ok();
    let asked = CompleteEnv::with_factory(completed_command)
        .var(VARIABLE)
        .try_complete(env::args_os(), here.as_deref());
    match asked {
        Ok(false) => None,
        Ok(true) => Some(Exit::Success.into()),
        // A message would stand in the middle of the line that is being typed.
        Err(_) => Some(Exit::Failed.into()),
    }
}

/// Prints the script for a shell.
pub(crate) fn script(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there are no completions for {shell}"))
    })?;
    completer.write_registration(VARIABLE, "lbctl", "lbctl", "lbctl", &mut script)?;
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// What an argument names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Named {
    /// An object of this kind.
    One(GetKind),
    /// An object of the kind that stands before it.
    OfKindBefore,
    /// `kind/name` of anything that can be waited on.
    Any,
}

fn completed_command() -> Command {
    Cli::command().mut_subcommands(|command| {
        let verb = command.get_name().to_owned();
        command.mut_args(|arg| match named(&verb, &arg) {
            Some(named) => arg.add(ArgValueCandidates::new(move || candidates(named))),
            None => arg,
        })
    })
}

/// What an argument of a command names, if it is something that exists.
fn named(verb: &str, arg: &Arg) -> Option<Named> {
    let id = arg.get_id().as_str();
    match (verb, id) {
        ("get" | "describe", "name") => return Some(Named::OfKindBefore),
        ("wait", "target") => return Some(Named::Any),
        (_, "pool" | "pools") => return Some(Named::One(GetKind::Pools)),
        (_, "listener") => return Some(Named::One(GetKind::Listeners)),
        (_, "route") => return Some(Named::One(GetKind::Routes)),
        _ => {}
    }
    let (action, kind) = verb.split_once('-')?;
    let is_there = matches!(action, "set" | "remove" | "enable" | "disable" | "drain" | "forget");
    let kind = GetKind::from_str(kind, false).ok()?;
    (is_there && matches!(id, "name" | "id")).then_some(Named::One(kind))
}

fn candidates(named: Named) -> Vec<CompletionCandidate> {
    let line = Line::of_this_process();
    let kinds = match named {
        Named::One(kind) => vec![kind],
        Named::OfKindBefore => line.kind().into_iter().collect(),
        Named::Any => vec![GetKind::Backends, GetKind::Pools, GetKind::Proxies],
    };
    let Ok(runtime) = command::runtime() else { return Vec::new() };
    let servers = line.servers();
    let found = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, names(&servers, &kinds)).await.ok()?.ok()
    });
    let shown = |(kind, name): (GetKind, String)| match named {
        Named::Any => format!("{}/{name}", kind.name()),
        Named::One(_) | Named::OfKindBefore => name,
    };
    found.unwrap_or_default().into_iter().map(shown).map(CompletionCandidate::new).collect()
}

async fn names(servers: &[String], kinds: &[GetKind]) -> Result<Vec<(GetKind, String)>, Failure> {
    let client = Client::connect(servers, PATIENCE).await?;
    let mut all = Vec::new();
    for &kind in kinds {
        let mut names = command::names_of(&client, kind).await?;
        names.sort_by(|a, b| natural_order(a, b));
        all.extend(names.into_iter().map(|name| (kind, name)));
    }
    Ok(all)
}

/// The line that is being typed.
struct Line(Vec<String>);

impl Line {
    fn of_this_process() -> Self {
        let words = env::args_os().skip_while(|word| word != "--").skip(1);
        Self(words.map(|word: OsString| word.to_string_lossy().into_owned()).collect())
    }

    /// The first word that is a kind.
    fn kind(&self) -> Option<GetKind> {
        self.0.iter().skip(1).find_map(|word| GetKind::from_str(word, false).ok())
    }

    /// As the command would find them, were it run. The line may not be a whole one yet, so
    /// all else that is on it is left alone.
    fn servers(&self) -> Vec<String> {
        let of_flag = self.0.iter().enumerate().find_map(|(index, word)| {
            let rest = word.strip_prefix("--server")?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None => self.0.get(index + 1).cloned(),
            }
        });
        let mut words = vec!["lbctl".to_owned()];
        words.extend(of_flag.map(|servers| format!("--server={servers}")));
        words.push("status".to_owned());
        Cli::try_parse_from(&words).map_or_else(|_| Vec::new(), |cli| cli.global.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_by(verb: &str, id: &str) -> Option<Named> {
        let command = Cli::command();
        let command = command.find_subcommand(verb).unwrap();
        named(verb, command.get_arguments().find(|arg| arg.get_id() == id).unwrap())
    }

    #[test]
    fn names_are_offered_where_something_that_exists_is_named() {
        let one = |kind| Some(Named::One(kind));
        assert_eq!(named_by("enable-backend", "id"), one(GetKind::Backends));
        assert_eq!(named_by("set-pool", "name"), one(GetKind::Pools));
        assert_eq!(named_by("set-algorithm", "pool"), one(GetKind::Pools));
        assert_eq!(named_by("remove-route", "name"), one(GetKind::Routes));
        assert_eq!(named_by("add-route", "listener"), one(GetKind::Listeners));
        assert_eq!(named_by("describe", "name"), Some(Named::OfKindBefore));
        assert_eq!(named_by("remove-limit", "name"), one(GetKind::Limits));
        assert_eq!(named_by("add-limit", "route"), one(GetKind::Routes));
        // A new name is nobody's.
        assert_eq!(named_by("add-pool", "name"), None);
        assert_eq!(named_by("add-backend", "id"), None);
    }

    #[test]
    fn the_line_tells_whom_to_ask_for_what() {
        let line = |text: &str| Line(text.split_whitespace().map(str::to_owned).collect());
        assert_eq!(line("lbctl describe backend").kind(), Some(GetKind::Backends));
        assert_eq!(line("lbctl -o json get proxies p").kind(), Some(GetKind::Proxies));
        assert_eq!(line("lbctl get").kind(), None);
        assert_eq!(line("lbctl --server a:1 get backend").servers(), ["http://a:1"]);
        assert_eq!(
            line("lbctl get backend --server=a:1,b:2").servers(),
            ["http://a:1", "http://b:2"]
        );
    }
}
