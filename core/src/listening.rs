//! What to say of an address that cannot be listened on, in the same words in every program.

use std::{fmt, io};

/// Why the system refused an address, in one sentence with what to do.
///
/// `host` and `port` are the flags that choose the two parts of the address; they are one where
/// one flag chooses both.
#[must_use]
pub fn cannot_listen(
    address: &dyn fmt::Display,
    error: &io::Error,
    host: &str,
    port: &str,
) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is already in use by another process; stop that one (ss -ltnp shows it), \
             or choose another with {port} (port 0 takes a free one)"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "cannot listen on {address}: this machine does not have that address; choose one that \
             it has with {host} ('ip addr' lists them)"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "cannot listen on {address}: this user may not; choose a port from 1024 on with \
             {port}, or give the process CAP_NET_BIND_SERVICE"
        ),
        _ => format!("cannot listen on {address}: {error}; choose another with {port}"),
    }
}

/// The exit code for it: 9 for an address in use; 78 where starting again does not help, 1
/// otherwise.
#[must_use]
pub fn exit_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::AddrInUse => 9,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => 78,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_that_helps_is_named_and_the_systems_numbers_are_not() {
        for (kind, flag, code) in [
            (io::ErrorKind::AddrInUse, "--port", 9),
            (io::ErrorKind::AddrNotAvailable, "--host", 78),
            (io::ErrorKind::PermissionDenied, "--port", 78),
            (io::ErrorKind::OutOfMemory, "--port", 1),
        ] {
            let error = io::Error::from(kind);
            let told = cannot_listen(&"10.9.9.9:80", &error, "--host", "--port");
            assert!(told.contains("10.9.9.9:80") && told.contains(flag), "{told}");
            assert!(!told.contains("os error"), "{told}");
            assert_eq!(exit_code(&error), code, "{told}");
        }
    }
}
