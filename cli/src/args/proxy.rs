//! Arguments of the commands about proxies.

use clap::Args;

/// `forget-proxy`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl forget-proxy proxy-3
  lbctl forget-proxy proxy-3 --dry-run

For a proxy that is lost and will not come back, say because its machine is gone: it is no longer
listed, no alarm, and nothing waits for it. One that was stopped in order says so itself, and needs
no forgetting. A proxy that comes back after all is listed again.")]
pub(crate) struct ForgetProxy {
    /// Its id
    pub(crate) id: String,
    /// Say what would be forgotten, and forget nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
