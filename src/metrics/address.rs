//! Where metrics are served.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Unless another is named.
pub(crate) const DEFAULT_PORT: u16 = 9797;

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    fn loopback(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }
}

impl FromStr for Address {
    type Err = String;

    /// A port alone means the loopback interface: who wants the world to look says so.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("give a path after unix:".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if text.is_empty() {
            return Ok(Self::loopback(DEFAULT_PORT));
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::loopback(port));
        }
        let found = text
            .to_socket_addrs()
            .map_err(|error| error.to_string())
            .and_then(|mut found| found.next().ok_or_else(|| "no such address".to_owned()));
        found.map(Self::Tcp).map_err(|reason| {
            format!("{reason}: give a port (on loopback), an address with a port such as 192.0.2.7:{DEFAULT_PORT}, or unix:PATH")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_not_for_the_world() {
        for (text, expected) in [
            ("", "127.0.0.1:9797"),
            ("9100", "127.0.0.1:9100"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:9797", "[::1]:9797"),
        ] {
            let expected = Address::Tcp(expected.parse().expect("an address"));
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!("unix:/run/m".parse(), Ok(Address::Unix("/run/m".into())));
        for wrong in ["unix:", "70000", "example", ":80x", "/run/m"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
