//! The proxy as a program of its own; `lbctl data-plane` is the same.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Proxy of the load balancer: follows a control plane and serves traffic
#[derive(Debug, Parser)]
#[command(name = "lb-data-plane", version)]
struct Command {
    #[command(flatten)]
    args: lb_data_plane::args::Args,
}

fn main() -> ExitCode {
    match lb_data_plane::run(Command::parse().args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
