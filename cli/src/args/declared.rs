//! Commands about declared state: files that say what there is to be.

use std::path::PathBuf;

use clap::Args;

use super::WriteArgs;

/// Where declared state is read.
#[derive(Args, Clone, Debug)]
pub(crate) struct Files {
    /// A TOML or JSON file, a directory of them, or - for standard input; may be repeated,
    /// all are read as one
    #[arg(short = 'f', long = "file", value_name = "FILE", required_unless_present = "bare")]
    flagged: Vec<PathBuf>,
    /// The same without the flag
    #[arg(value_name = "FILE")]
    bare: Vec<PathBuf>,
}

impl Files {
    /// Those with the flag, then the others.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PathBuf> {
        self.flagged.iter().chain(&self.bare)
    }
}

/// `apply`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl apply -f lb.toml
  lbctl apply -f lb.toml --dry-run      what would change, checked by the control plane
  lbctl apply -f conf.d --prune         and remove what no file names
  lbctl export | lbctl apply -f -       changes nothing

All or nothing, in one revision. A key that is left out gets its default; an object that
is left out stays, unless --prune is given. docs/configuration.md lists all keys.")]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Remove what no file names; the pool and the listener 'default' stay, and the route
    /// 'default' unless a declared one matches the same requests
    #[arg(long)]
    pub(crate) prune: bool,
    /// Do not wait until the proxies have applied the change
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Check and show the changes, but do not make them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove more than half of a pool's backends at once
    #[arg(long)]
    pub(crate) force: bool,
}

/// `diff`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl diff -f lb.toml
  lbctl diff -f lb.toml --prune || lbctl apply -f lb.toml --prune

Exits with 0 when nothing differs, with 1 when something does, with more after an error.")]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Also show what 'lbctl apply --prune' would remove
    #[arg(long)]
    pub(crate) prune: bool,
}

/// `validate`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl validate -f lb.toml
  lbctl validate -f conf.d

Needs no control plane. All faults are told at once, with file, line and column. Pools and
listeners that are referred to must be declared in the files, or be called 'default'.")]
pub(crate) struct Validate {
    #[command(flatten)]
    pub(crate) files: Files,
}

/// `export`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl export > lb.toml
  lbctl export -o json
  lbctl export --all          every key, defaults too")]
pub(crate) struct Export {
    /// Also write values that are the defaults
    #[arg(long)]
    pub(crate) all: bool,
}

impl Apply {
    /// The options that it shares with other changes.
    pub(crate) fn write_args(&self) -> WriteArgs {
        let Self { no_wait, dry_run, force, .. } = *self;
        WriteArgs { no_wait, dry_run, force, if_revision: None }
    }
}
