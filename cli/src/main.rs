//! The `lbctl` executable; everything is in the library, so that a test binary can
//! be the same program.

use std::process::ExitCode;

// Proxies run in it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lbctl::main()
}
