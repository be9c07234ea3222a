//! Names and ports for servers that the program starts by itself.

use std::net::TcpListener;

use star_core::cluster::ServerInfo;

use crate::error::CliError;

/// Below the ports that systems give to outgoing connections, so that none of those takes one between our look and the
/// server's start.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// a, b, … z, then s26, s27 …
pub(crate) fn server_name(number: usize) -> String {
    u8::try_from(number)
        .ok()
        .filter(|number| *number < 26)
        .map_or_else(|| format!("s{number}"), |number| char::from(b'a' + number).to_string())
}

/// `count` servers on 127.0.0.1, on ports one after another.
pub(crate) fn from_base_port(count: usize, base_port: u16) -> Result<Vec<ServerInfo>, CliError> {
    let last = usize::from(base_port) + count.saturating_sub(1);
    if last > usize::from(u16::MAX) {
        return Err(CliError::usage(format!("{count} servers from port {base_port} on would need port {last}"))
            .hint("ports end at 65535: choose a lower --base-port"));
    }
    Ok((0..count).map(|number| info(number, base_port + number as u16)).collect())
}

/// `count` servers on 127.0.0.1, on ports that are free now.
pub(crate) fn on_free_ports(count: usize) -> Result<Vec<ServerInfo>, CliError> {
    // Two programs that start at the same time begin to look at different places.
    let start = (std::process::id().wrapping_mul(0x9E37_79B9) >> 16) as u16 % PORTS;
    let mut servers = Vec::new();
    for offset in 0..PORTS {
        if servers.len() == count {
            return Ok(servers);
        }
        let port = FIRST_PORT + (start + offset) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            servers.push(info(servers.len(), port));
        }
    }
    Err(CliError::new(format!("there are no {count} free ports on 127.0.0.1 from {FIRST_PORT} on")))
}

fn info(number: usize, port: u16) -> ServerInfo {
    ServerInfo { name: server_name(number), addr: format!("127.0.0.1:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_on_after_z() {
        assert_eq!([0, 4, 25, 26].map(server_name), ["a", "e", "z", "s26"].map(str::to_owned));
    }

    #[test]
    fn free_ports_are_free_and_differ() {
        let servers = on_free_ports(5).expect("five free ports");
        let held: Vec<_> = servers.iter().map(|server| TcpListener::bind(&server.addr).expect("free")).collect();
        assert_eq!(held.len(), 5);
    }

    #[test]
    fn ports_end_at_65535() {
        assert!(from_base_port(5, 65_531).is_ok());
        assert!(from_base_port(6, 65_531).is_err());
    }
}
