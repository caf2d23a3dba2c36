//! `top`

use std::time::Duration;

use clap::Args;

use super::value;
use crate::top::Pane;

/// `top`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  lbctl top
  lbctl top --pane backends --read-only
  lbctl top --snapshot 1                     one frame as text, for scripts and tickets
  lbctl top --snapshot 3 --pane pools --interval 2s

Keys: 1-5 or Tab choose a pane, arrows a line, Enter tells all about it; / filters, s sorts;
d e x drain, enable and disable a backend, + and - change its weight, each after a question;
p holds the picture, ? helps, q quits. Needs a terminal, except with --snapshot.")]
pub(crate) struct Top {
    /// The pane to begin with
    #[arg(long, default_value = "overview")]
    pub(crate) pane: Pane,
    /// How often to ask the control plane
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = value::setting)]
    pub(crate) interval: Duration,
    /// Print this many frames as plain text to stdout and end
    #[arg(long, value_name = "N", value_parser = value::number(1..=10_000))]
    pub(crate) snapshot: Option<u32>,
    /// Change nothing, whatever key is pressed
    #[arg(long)]
    pub(crate) read_only: bool,
}
