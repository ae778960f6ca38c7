//! Programs of others, for the tests of `interop`: where they are, and a port for them.

use std::net::TcpListener;
use std::path::PathBuf;

/// Where a program is that must be installed. Debian keeps servers where an ordinary user's path does not look.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(elsewhere)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is installed"))
}

/// A port of loopback that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener has one");
    address.port()
}
