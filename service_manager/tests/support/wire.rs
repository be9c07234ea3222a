//! JSON messages as a stranger would speak them: a length of eight bytes, then text.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// A connection that speaks JSON.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self(stream)
    }

    /// Sends a message and returns the answer.
    pub(crate) fn ask(&mut self, message: &Value) -> Value {
        self.ask_bytes(message.to_string().as_bytes())
    }

    /// Sends a message and returns the answer; nothing if the server ends.
    pub(crate) fn try_ask(&mut self, message: &Value) -> Option<Value> {
        self.0.write_all(&framed(message.to_string().as_bytes())).ok()?;
        self.answer().ok()
    }

    /// Sends the text of a message, whatever it is, and returns the answer.
    pub(crate) fn ask_bytes(&mut self, text: &[u8]) -> Value {
        self.0.write_all(&framed(text)).expect("the server reads");
        self.answer().expect("an answer")
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> io::Result<Value> {
        Ok(serde_json::from_slice(&self.answer_text()?).expect("JSON"))
    }

    /// The text of the next answer.
    pub(crate) fn answer_text(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 8];
        self.0.read_exact(&mut length)?;
        let mut text = vec![0; usize::try_from(u64::from_be_bytes(length)).expect("a length")];
        self.0.read_exact(&mut text)?;
        Ok(text)
    }

    /// Reads until the server closes the connection, and returns whether it did so in time.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.0.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// A message's text with its length in front.
pub(crate) fn framed(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}
