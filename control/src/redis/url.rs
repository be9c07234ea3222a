//! Where Redis is: a server by its address, or a primary by the sentinels that know it.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// What the URL of a Redis that sentinels watch begins with.
const SENTINEL: &str = "redis+sentinel://";

/// The port of a sentinel that is given without one.
const SENTINEL_PORT: u16 = 26379;

pub(super) enum RedisUrl {
    Server(ConnectionInfo),
    Sentinels {
        addrs: Vec<ConnectionAddr>,
        primary: String,
        /// For the servers that the sentinels name.
        settings: RedisConnectionInfo,
    },
}

impl RedisUrl {
    /// `redis://[[user]:password@]host:port[/database]`, or
    /// `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/primary[/database]`; user, password and database are
    /// those of the servers. The error is a sentence for people.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix(SENTINEL) else {
            return url.into_connection_info().map(Self::Server).map_err(|error| error.to_string());
        };
        let (authority, path) = rest.split_once('/').ok_or("it names no primary")?;
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let (primary, database) = path.split_once('/').unwrap_or((path, ""));
        if primary.is_empty() {
            return Err("it names no primary".into());
        }
        let addrs = hosts.split(',').map(address).collect::<Result<_, _>>()?;
        // The rest is written as in any URL of Redis, and so read by the same code.
        let at = if login.is_empty() { "" } else { "@" };
        let like = format!("redis://{login}{at}localhost/{database}");
        let info = like.into_connection_info().map_err(|error| error.to_string())?;
        Ok(Self::Sentinels { addrs, primary: primary.to_owned(), settings: info.redis_settings().clone() })
    }
}

fn address(host: &str) -> Result<ConnectionAddr, String> {
    let like = format!("redis://{host}").into_connection_info().map_err(|error| format!("{host:?}: {error}"))?;
    match like.addr() {
        ConnectionAddr::Tcp(name, port) if !name.is_empty() => {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            Ok(ConnectionAddr::Tcp(name.clone(), if has_port { *port } else { SENTINEL_PORT }))
        }
        _ => Err(format!("{host:?} is no address of a sentinel")),
    }
}

/// Without user and password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(info) => info.addr().fmt(f),
            Self::Sentinels { addrs, primary, .. } => {
                write!(f, "{primary}, of which the sentinels ")?;
                for (place, addr) in addrs.iter().enumerate() {
                    write!(f, "{}{addr}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str(" know")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_and_what_they_are_asked_for_are_read_from_the_url() {
        let url = "redis+sentinel://:pass%20word@127.0.0.1:5000,other,127.0.0.1:5002/main/3";
        let url = RedisUrl::parse(url).expect("a URL");
        let people = "main, of which the sentinels 127.0.0.1:5000, other:26379, 127.0.0.1:5002 know";
        assert_eq!(url.to_string(), people, "without the password");
        let RedisUrl::Sentinels { primary, settings, .. } = url else { panic!("sentinels") };
        assert_eq!((primary.as_str(), settings.password(), settings.db()), ("main", Some("pass word"), 3));
        let plain = RedisUrl::parse("redis+sentinel://127.0.0.1:5000/main").expect("a URL");
        assert_eq!(plain.to_string(), "main, of which the sentinels 127.0.0.1:5000 know");
    }

    #[test]
    fn urls_that_name_no_place_are_refused() {
        for url in [
            "redis+sentinel://127.0.0.1:5000",
            "redis+sentinel://127.0.0.1:5000/",
            "redis+sentinel:///main",
            "redis+sentinel://a,,b/main",
            "redis+sentinel://a/main/many",
            "redis+sentinel://a:99999999/main",
            "http://127.0.0.1",
            "",
        ] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
    }
}
