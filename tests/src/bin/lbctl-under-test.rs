//! `lbctl` once more, for the tests to spawn: cargo builds the executables of the tests'
//! own package before it runs them, and no others.

use std::process::ExitCode;

// Proxies run in it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lbctl::main()
}
