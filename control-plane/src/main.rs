//! The control plane's own binary. `lbctl control-plane` runs the same function.

use std::process::ExitCode;

use clap::Parser;

/// Owns backends, their health and the choice of algorithm; streams configuration to
/// the proxies.
#[derive(Debug, Parser)]
#[command(name = "lb-control-plane", version)]
struct Command {
    #[command(flatten)]
    args: lb_control_plane::Args,
}

fn main() -> ExitCode {
    match lb_control_plane::run(Command::parse().args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
