//! `lbctl`: operates the load balancer, and is a whole installation in one binary.
//!
//! | module | does |
//! |---|---|
//! | `args` | the command line, by clap |
//! | `client` | finds a control plane, calls it, turns gRPC errors into sentences |
//! | `command` | one module per group of commands |
//! | `completion` | what a shell may offer while a command is typed |
//! | `view` | what the control plane answers, as numbers with units and stable names |
//! | `output` | tables for people, JSON and YAML for programs |
//! | `top` | the fleet on a screen that keeps itself up to date |
//! | `dev` | the whole balancer on one machine, as real processes |
//! | `demo_backend` | a small HTTP server to balance |
//!
//! Data goes to stdout, everything else to stderr. A change counts as done when the
//! proxies say so, and every failure names the next step; its kind is in the exit
//! code ([`exit::Exit`]).

mod args;
mod client;
mod clock;
mod command;
mod completion;
mod demo_backend;
mod dev;
pub mod exit;
mod format;
mod output;
mod signal;
mod top;
mod view;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _};

use self::{args::Cli, exit::Exit};

/// Runs the command line of this process.
///
/// Both planes build runtimes of their own, so this must not be called from within
/// one.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(answered) = completion::answer() {
        return answered;
    }
    let cli = match parse(env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which is which.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            if let Some(message) = args::in_words(&error) {
                return exit::report(&exit::Failure::new(exit, message));
            }
            return match error.print() {
                Ok(()) => exit.into(),
                Err(error) => exit::report(&error.into()),
            };
        }
    };
    match command::run(cli) {
        Ok(code) => code,
        Err(failure) => exit::report(&failure),
    }
}

/// Reads the command line; under the name of a program that is a subcommand, its usage is told so.
fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = args::hide_idle_options(Cli::command());
    if let Some(subcommand) = stands_for(&arguments) {
        let usage = format!("lb-{subcommand} [OPTIONS]");
        command = command.mut_subcommand(subcommand, |plane| plane.override_usage(usage));
    }
    let arguments = called_as(arguments);
    let unbuilt = command.clone();
    let found = match command.try_get_matches_from_mut(&arguments) {
        Ok(found) => found,
        // clap shows what the environment sets as if it had to be typed.
        Err(error) => {
            let mut bare = unbuilt.mut_arg("server", |server| server.env(None));
            return Err(bare.try_get_matches_from_mut(&arguments).err().unwrap_or(error));
        }
    };
    args::refuse_idle_options(&found)?;
    Cli::from_arg_matches(&found).map_err(|error| error.format(&mut command))
}

/// The subcommand for which the program's name stands: a link to it that is called
/// `lb-control-plane` or `lb-data-plane` is that program.
fn stands_for(arguments: &[OsString]) -> Option<&'static str> {
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    match name?.to_str()? {
        "lb-control-plane" => Some("control-plane"),
        "lb-data-plane" => Some("data-plane"),
        _ => None,
    }
}

/// The command line with that subcommand.
fn called_as(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(subcommand) = stands_for(&arguments) else { return arguments };
    // That is the same for all of them.
    let asks_version = |argument: &OsString| argument == "--version" || argument == "-V";
    if !arguments.get(1).is_some_and(asks_version) {
        arguments.insert(1, subcommand.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_program_that_it_is_called() {
        let called = |line: &str| {
            let arguments = called_as(line.split(' ').map(OsString::from).collect());
            arguments.iter().skip(1).map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(called("/usr/local/bin/lb-data-plane --id a"), "data-plane --id a");
        assert_eq!(called("lb-control-plane"), "control-plane");
        assert_eq!(called("lb-data-plane --version"), "--version");
        assert_eq!(called("/usr/bin/lbctl data-plane"), "data-plane");
    }

    fn read(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn what_a_command_would_ignore_is_refused() {
        for (line, instead) in [
            ("lbctl data-plane --server http://a:9400", "--control-plane"),
            ("lbctl --server http://a:9400 data-plane", "--control-plane"),
            ("lb-data-plane --server http://a:9400", "--control-plane"),
            ("lbctl control-plane -o json", "no answer"),
            ("lbctl dev --timeout 5s", "until it is stopped"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.use_stderr());
            let told = args::in_words(&error).unwrap_or_else(|| error.to_string());
            assert!(told.contains(" is nothing for '") && told.contains(instead), "{told}");
        }
        assert!(read("lbctl --server http://a:9400 status").is_ok());
        assert!(read("lbctl data-plane --id a").is_ok());
    }

    #[test]
    fn the_name_alone_shows_what_there_is() {
        let error = read("lbctl").unwrap_err();
        assert_eq!(args::in_words(&error), None);
        assert!(error.to_string().contains("Examples:"), "{error}");
        let error = read("lbctl -o json").unwrap_err();
        assert_eq!(
            args::in_words(&error).unwrap(),
            "a command is missing: 'lbctl --help' lists all"
        );
    }

    #[test]
    fn the_usage_of_a_link_is_what_can_be_typed() {
        let refused = |line: &str| {
            let arguments = line.split(' ').map(OsString::from).collect();
            parse(arguments).unwrap_err().to_string()
        };
        for line in ["lb-data-plane --help", "/usr/bin/lb-control-plane --nonsense"] {
            let text = refused(line);
            let (program, _) = line.trim_start_matches("/usr/bin/").split_once(' ').unwrap();
            assert!(text.contains(&format!("Usage: {program} [OPTIONS]\n")), "{text}");
        }
        let text = refused("lbctl data-plane --help");
        assert!(text.contains("Usage: lbctl data-plane [OPTIONS]"), "{text}");
    }
}
