//! A Redis server of one's own, asked over a socket: what reading another process's objects costs without shared memory.

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use star_core::Key;

/// A server that keeps nothing on disk, until this is dropped.
pub(crate) struct Redis {
    server: Child,
    port: u16,
    socket: std::path::PathBuf,
}

impl Redis {
    /// None where there is no redis-server.
    pub(crate) fn start(directory: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let socket = directory.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(directory).arg("--unixsocket").arg(&socket).stdout(Stdio::null());
        let server = match command.spawn() {
            Ok(server) => server,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let this = Self { server, port, socket };
        for _ in 0..1000 {
            if this.tcp().is_ok() && fs::exists(&this.socket)? {
                return Ok(Some(this));
            }
            #[allow(clippy::disallowed_methods, reason = "waits for another process")]
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("redis-server does not answer".into())
    }

    pub(crate) fn tcp(&self) -> io::Result<Connection<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        Ok(Connection::new(stream))
    }

    pub(crate) fn unix(&self) -> io::Result<Connection<UnixStream>> {
        Ok(Connection::new(UnixStream::connect(&self.socket)?))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// One request at a time.
pub(crate) struct Connection<S> {
    stream: BufReader<S>,
    request: Vec<u8>,
    line: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(1 << 16, stream), request: Vec::new(), line: Vec::new() }
    }

    fn call(&mut self, words: &[&[u8]]) -> io::Result<u8> {
        self.request.clear();
        write!(self.request, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.request, "${}\r\n", word.len())?;
            self.request.extend_from_slice(word);
            self.request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&self.request)?;
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        self.line.first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(crate) fn set(&mut self, key: &Key, value: &[u8]) -> io::Result<()> {
        match self.call(&[b"SET", key.as_str().as_bytes(), value])? {
            b'+' => Ok(()),
            _ => Err(io::Error::other(String::from_utf8_lossy(&self.line).into_owned())),
        }
    }

    /// Reads a value into the buffer; false if there is none.
    pub(crate) fn get(&mut self, key: &Key, value: &mut Vec<u8>) -> io::Result<bool> {
        self.call(&[b"GET", key.as_str().as_bytes()])?;
        let text = std::str::from_utf8(&self.line).unwrap_or_default().trim_end();
        let Some(bytes) = text.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) else {
            return Ok(false);
        };
        value.resize(bytes + 2, 0);
        self.stream.read_exact(value)?;
        value.truncate(bytes);
        Ok(true)
    }
}
