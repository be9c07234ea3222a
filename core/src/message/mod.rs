//! Messages: what clients and servers say, and the two codecs they say it in on one port.
//!
//! * [`json`]: an 8-byte big-endian length, then a JSON object. Any language can speak it.
//! * [`frame`]: compact frames: a fixed header, a postcard message, and the value's raw bytes as the tail.
//!
//! The first byte tells them apart: a JSON length starts with 0, a compact frame with [`frame::MAGIC`].

mod fault;
pub mod frame;
pub mod json;
mod local;
mod request;
mod response;

use bytes::Bytes;
pub use fault::{Asked, Fault};
pub use json::JsonMessage;
pub use local::{Capacity, Local, Notice, Position, RoomPlace};
pub use request::{Condition, Request, RequestBody, SetEntry};
pub use response::{ManyEntry, Response, ResponseBody};

/// A message that travels in a compact frame: a header in postcard, and bytes as the frame's tail.
pub trait Wire: Clone + std::fmt::Debug + Sized {
    /// Appends the header to `out`.
    fn encode_header(&self, out: &mut Vec<u8>);

    /// The bytes that follow the header, not copied into it.
    fn tail(&self) -> &Bytes;

    /// The message of this header and tail; the error is a sentence for people.
    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String>;
}

/// Appends `value` in postcard to `out`.
pub fn to_postcard<T: serde::Serialize>(value: &T, out: &mut Vec<u8>) {
    postcard::serialize_with_flavor(value, Append(out)).expect("our own messages can be written to memory");
}

/// Writes behind what a buffer holds already.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads a value from postcard, refusing bytes left over.
pub fn from_postcard<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes are left over after the message", rest.len())),
        Err(error) => Err(format!("the message cannot be read: {error}")),
    }
}
