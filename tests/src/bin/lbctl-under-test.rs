//! `lbctl` once more, for the tests to spawn: cargo builds the executables of the tests'
//! own package before it runs them, and no others.

use std::process::ExitCode;

fn main() -> ExitCode {
    lbctl::main()
}
