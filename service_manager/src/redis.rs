//! The redis service: a Redis server for the control plane, on the loopback interface alone, which forgets nothing that
//! it has confirmed.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use star_control::{ControlPlane, RedisOptions, RedisPlane, document::CLUSTER_KEY};

use crate::{error::ServiceError, launch::Launch, settings::Settings};

const PROGRAM: &str = "redis-server";

/// What the URL of a Redis begins with that sentinels watch.
const SENTINELS: &str = "redis+sentinel://";

/// How to start the server that `control.redis_url` names.
pub(crate) fn launch(settings: &Settings) -> Result<Launch, ServiceError> {
    let url = &settings.config.control.redis_url;
    if url.starts_with(SENTINELS) {
        let reason = "it names sentinels, and whoever runs those starts the servers that they watch".to_owned();
        return Err(ServiceError::RedisUrl { reason });
    }
    let info = connection(url)?;
    let addr = loopback(&info)?;
    let directory = settings.directory.redis();
    let path = directory.join("redis.conf");
    Ok(Launch {
        name: "redis".to_owned(),
        addr,
        program: PROGRAM.into(),
        args: vec![path.clone().into()],
        leaves: vec![path.clone()],
        configuration: Some((path, configuration(addr, &info, &directory)?)),
    })
}

/// Whether the Redis of the configuration answers; the error is a sentence for people.
pub(crate) async fn health(settings: &Settings) -> Result<String, String> {
    let url = settings.config.control.redis_url.as_str();
    if url.starts_with(SENTINELS) {
        let options = RedisOptions::new(url, &settings.config.cluster.name);
        let plane = RedisPlane::new(options).map_err(|error| error.to_string())?;
        return plane
            .get(CLUSTER_KEY)
            .await
            .map(|_| "its primary answers".to_owned())
            .map_err(|error| error.to_string());
    }
    let client = Client::open(url).map_err(|error| error.to_string())?;
    let ask = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    match ask.await {
        Ok(_) => Ok("answers PING".to_owned()),
        Err(error) => Err(format!("PING: {error}")),
    }
}

/// Where the Redis of the configuration is, without its password.
pub(crate) fn place(settings: &Settings) -> String {
    connection(&settings.config.control.redis_url)
        .map_or_else(|_| "control.redis_url".to_owned(), |info| info.addr().to_string())
}

fn connection(url: &str) -> Result<ConnectionInfo, ServiceError> {
    url.into_connection_info().map_err(|error| ServiceError::RedisUrl { reason: error.to_string() })
}

/// The address to listen at: it must be of the loopback interface.
fn loopback(info: &ConnectionInfo) -> Result<SocketAddr, ServiceError> {
    let refused = |reason: String| ServiceError::RedisUrl { reason };
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(refused(format!("{} is no TCP address without encryption", info.addr())));
    };
    let ip = if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>().ok() };
    match ip {
        Some(ip) if ip.is_loopback() => Ok((ip, *port).into()),
        _ => Err(refused(format!("{host} is not the loopback address of this machine"))),
    }
}

fn configuration(addr: SocketAddr, info: &ConnectionInfo, directory: &Path) -> Result<String, ServiceError> {
    let redis = info.redis_settings();
    if let Some(user) = redis.username().filter(|user| *user != "default") {
        return Err(ServiceError::RedisUrl { reason: format!("only the user default is set up here, not {user}") });
    }
    let databases = redis.db().max(15) + 1;
    let mut text = format!(
        "# Written by service_manager at every start: changes are lost.\n\
         bind {}\nport {}\nprotected-mode yes\ndaemonize no\nsupervised no\nlogfile \"\"\ndatabases {databases}\n\
         # Views and leases must survive a power failure once they are confirmed.\n\
         appendonly yes\nappendfsync always\nsave \"\"\ndir {}\n",
        addr.ip(),
        addr.port(),
        quoted(&directory.to_string_lossy()),
    );
    if let Some(password) = redis.password() {
        let _ = writeln!(text, "requirepass {}", quoted(password));
    }
    Ok(text)
}

/// A value as the configuration of Redis takes it, whatever it holds.
fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens_at(url: &str) -> Result<String, ServiceError> {
        loopback(&connection(url)?).map(|addr| addr.to_string())
    }

    #[test]
    fn only_the_loopback_interface_is_listened_at() {
        for (url, addr) in [
            ("redis://127.0.0.1:6380/3", "127.0.0.1:6380"),
            ("redis://localhost", "127.0.0.1:6379"),
            ("redis://:secret@127.0.0.2:1", "127.0.0.2:1"),
        ] {
            assert_eq!(listens_at(url).expect(url), addr);
        }
        for url in ["redis://10.0.0.1", "redis://0.0.0.0", "redis://example.org", "unix:///tmp/x", "http://x", ""] {
            assert!(matches!(listens_at(url), Err(ServiceError::RedisUrl { .. })), "{url}");
        }
    }

    #[test]
    fn values_are_quoted_whatever_they_hold() {
        assert_eq!(quoted(r#"a b"c\d"#), r#""a b\"c\\d""#);
        assert_eq!(quoted("\n\u{e9}"), r#""\x0a\xc3\xa9""#);
    }

    #[test]
    fn the_password_of_the_url_is_the_one_that_is_asked_for() {
        let addr = ([127, 0, 0, 1], 6379).into();
        let text = |url: &str| configuration(addr, &connection(url).expect("a URL"), Path::new("/d"));
        let with = text("redis://:se%22cret@127.0.0.1/20").expect("a configuration");
        assert!(with.contains("requirepass \"se\\\"cret\"\n") && with.contains("databases 21\n"), "{with}");
        let without = text("redis://127.0.0.1").expect("a configuration");
        assert!(!without.contains("requirepass") && without.contains("appendfsync always\n"), "{without}");
        assert!(text("redis://somebody:x@127.0.0.1").is_err());
    }
}
