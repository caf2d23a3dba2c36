//! The `lbctl` executable; everything is in the library, so that a test binary can
//! be the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lbctl::main()
}
