//! `manpages`: a manual page for each command, made of what `--help` says.

use std::{fs, io, path::Path, process::ExitCode};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Manpages},
    exit::{Exit, Failure},
    format, output,
};

/// Writes them.
pub(super) fn run(args: &Manpages) -> Result<ExitCode, Failure> {
    let directory = &args.directory;
    let number = write(directory).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!(
                "cannot write manual pages to {}: {error}; name a directory that you may write to",
                directory.display()
            ),
        )
    })?;
    let pages = format::count(number, "manual page", "manual pages");
    output::print(&format!("wrote {pages} to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write(directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    // Without its own help command, which has nothing to tell.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let pages = std::iter::once(&command).chain(command.get_subcommands());
    let mut number = 0;
    for page in pages.filter(|page| !page.is_hide_set()) {
        let name = match page.get_name() {
            "lbctl" => "lbctl".to_owned(),
            name => format!("lbctl-{name}"),
        };
        let mut text = Vec::new();
        clap_mangen::Man::new(page.clone()).title(&name).render(&mut text)?;
        fs::write(directory.join(format!("{name}.1")), text)?;
        number += 1;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let directory = tempfile::tempdir().unwrap();
        let number = write(&directory.path().join("new")).unwrap();
        assert_eq!(number, 1 + Cli::command().get_subcommands().count());
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let path = directory.path().join(format!("new/lbctl-{name}.1"));
            let page = fs::read_to_string(&path).unwrap();
            assert!(page.contains("Examples:") && page.contains(".SH NAME"), "{name}");
        }
        let main = fs::read_to_string(directory.path().join("new/lbctl.1")).unwrap();
        assert!(main.contains("lbctl\\-get(1)"), "{main}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = file.path().join("below");
        let failure = run(&Manpages { directory: directory.clone() }).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.contains(&directory.display().to_string()), "{failure}");
    }
}
