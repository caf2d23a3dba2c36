//! Options that every command takes and some have no use for.

use clap::{Arg, ArgMatches, Command, error::ErrorKind, parser::ValueSource};

/// Commands that ask no control plane and print no answer, with what is meant instead of
/// `--server`.
const SERVERS: [(&str, &str); 4] = [
    ("control-plane", "the address that it listens on is --grpc"),
    ("data-plane", "the control plane that a proxy follows is --control-plane URL"),
    ("dev", "it starts a control plane of its own"),
    ("demo-backend", "it asks no control plane"),
];

const OPTIONS: [&str; 3] = ["server", "output", "timeout"];

/// Leaves these options out of the help of such commands.
pub(crate) fn hide_idle_options(mut command: Command) -> Command {
    let options = command.get_arguments().filter(|arg| OPTIONS.contains(&arg.get_id().as_str()));
    // A subcommand that has one already gets none from above.
    let hidden: Vec<Arg> = options.map(|arg| arg.clone().hide(true)).collect();
    for (name, _) in SERVERS {
        command = command.mut_subcommand(name, |idle| idle.args(&hidden));
    }
    command
}

/// Refuses what was typed for a command that would ignore it. What the environment sets is for the
/// other commands of the same shell.
pub(crate) fn refuse_idle_options(found: &ArgMatches) -> Result<(), clap::Error> {
    let Some((command, of_command)) = found.subcommand() else { return Ok(()) };
    let Some((_, instead)) = SERVERS.iter().find(|(name, _)| *name == command) else {
        return Ok(());
    };
    let why = [*instead, "it prints logs and no answer", "it runs until it is stopped"];
    for (id, why) in OPTIONS.into_iter().zip(why) {
        if of_command.value_source(id) == Some(ValueSource::CommandLine) {
            let message = format!("--{id} is nothing for '{command}': {why}; see --help\n");
            return Err(clap::Error::raw(ErrorKind::UnknownArgument, message));
        }
    }
    Ok(())
}
