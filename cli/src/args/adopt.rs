//! Consent to the state of another store.

use clap::Args;

/// `adopt-store`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl status                           which proxies refuse the store's state, and for which pool
  lbctl adopt-store
  lbctl adopt-store proxy-2              this one first, to see what it comes to

A proxy that holds the state of another store (the control plane's data directory was lost, or is a
new one) refuses a state in which a pool that it can serve has nothing that can: it rather goes on
as it was. Such a proxy takes part in no change until that pool is back in the store, or an operator
says that it is not wanted any more. This says so, once, to the proxies that refuse at present.
Requests to pools that are silent in the store are then answered 503.")]
pub(crate) struct AdoptStore {
    /// This proxy only [default: all that refuse]
    #[arg(value_name = "PROXY")]
    pub(crate) proxy: Option<String>,
    /// Do not wait until the proxies have applied the state
    #[arg(long)]
    pub(crate) no_wait: bool,
}
