//! Compact frames, and the splitting of a byte stream into frames of both codecs.
//!
//! ```text
//!  byte 0      1      2        4              8              12             20
//!  +-------+------+--------+--------------+--------------+--------------+-----------+---------+
//!  | MAGIC | kind | 0 0    | header bytes | tail bytes   | id           | header    | tail    |
//!  | 0xA7  | u8   | u16 LE | u32 LE       | u32 LE       | u64 LE       | postcard  | raw     |
//!  +-------+------+--------+--------------+--------------+--------------+-----------+---------+
//! ```
//!
//! `id` is the sender's: an answer carries the id of its request, so many may be under way on one connection.

use bytes::{Buf, Bytes, BytesMut};

use super::Wire;

/// The first byte of every compact frame. A JSON message begins with the high byte of its length, which is always 0.
pub const MAGIC: u8 = 0xA7;

/// The fixed part of a compact frame.
pub const FIXED_BYTES: usize = 20;

/// The length in front of a JSON message.
pub const JSON_LENGTH_BYTES: usize = 8;

/// The longest header: a list of a thousand keys of the greatest length fits.
pub const HEADER_BYTES_MAX: usize = 2 << 20;

/// What a compact frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A client's request.
    Request = 1,
    /// The answer to a request.
    Response = 2,
    /// The first frame of a server that connects to another.
    Hello = 3,
    /// What servers say to one another.
    Peer = 4,
    /// A request to the embedded control plane.
    Control = 5,
    /// The control plane's answer.
    ControlAnswer = 6,
    /// A client asks for a fault; the answer is a [`FrameKind::Response`].
    Fault = 7,
    /// A client asks a server about its own store; the answer is a [`FrameKind::Response`].
    Local = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Hello,
            4 => Self::Peer,
            5 => Self::Control,
            6 => Self::ControlAnswer,
            7 => Self::Fault,
            8 => Self::Local,
            _ => return None,
        })
    }
}

/// One frame of either codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The text of a JSON message.
    Json(Bytes),
    /// A compact frame.
    Compact {
        /// What it carries.
        kind: FrameKind,
        /// The sender's number for it.
        id: u64,
        /// The postcard part.
        header: Bytes,
        /// The raw part.
        tail: Bytes,
    },
    /// A frame that was passed over because it is too large; the stream goes on after it.
    TooLarge {
        /// The id of a compact frame; `None` for a JSON message.
        id: Option<u64>,
        /// Its length in bytes, all told.
        frame_bytes: u64,
    },
}

/// Why a stream cannot be read on: the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte belongs to neither codec.
    #[error(
        "byte {0:#04x} starts neither a JSON message (8-byte big-endian length, first byte 0) nor a compact frame (0xa7)"
    )]
    Garbage(u8),
    /// The kind is unknown.
    #[error("a compact frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The reserved bytes are not 0: a newer version of the format.
    #[error("a compact frame with reserved bytes {0:#06x}, from a newer version?")]
    Reserved(u16),
    /// The frame is so long that it is not worth passing over.
    #[error("a frame of {frame_bytes} bytes, and at most {max_bytes} are taken")]
    Absurd {
        /// What the frame says of its length.
        frame_bytes: u64,
        /// The most that is taken.
        max_bytes: u64,
        /// Whether it is a JSON message.
        is_json: bool,
    },
}

/// Splits a byte stream into frames. Never holds more than one frame's bytes, and only those that have arrived.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: u64,
    skip_bytes: u64,
}

impl Decoder {
    /// A decoder that takes frames of at most `frame_bytes_max` bytes (header and tail of a compact frame, or the text
    /// of a JSON message). Frames up to 16 times as long are passed over, longer ones end the stream.
    pub fn new(frame_bytes_max: u64) -> Self {
        Self { frame_bytes_max, skip_bytes: 0 }
    }

    /// The next frame, once all of it is in `buffer`. `None`: more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.skip_bytes > 0 {
            let skipped = self.skip_bytes.min(buffer.len() as u64);
            buffer.advance(skipped as usize);
            self.skip_bytes -= skipped;
            if self.skip_bytes > 0 {
                return Ok(None);
            }
        }
        match buffer.first() {
            None => Ok(None),
            Some(0) => self.decode_json(buffer),
            Some(&MAGIC) => self.decode_compact(buffer),
            Some(&other) => Err(FrameError::Garbage(other)),
        }
    }

    /// How many more bytes the frame at the front of `buffer` needs at least; 0 if that is not known yet.
    pub fn wanted_bytes(&self, buffer: &BytesMut) -> usize {
        let total = match buffer.first() {
            Some(0) if buffer.len() >= JSON_LENGTH_BYTES => JSON_LENGTH_BYTES as u64 + be_u64(buffer),
            Some(&MAGIC) if buffer.len() >= FIXED_BYTES => {
                FIXED_BYTES as u64 + u64::from(le_u32(&buffer[4..])) + u64::from(le_u32(&buffer[8..]))
            }
            _ => 0,
        };
        total.min(self.frame_bytes_max + FIXED_BYTES as u64).saturating_sub(buffer.len() as u64) as usize
    }

    fn decode_json(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if buffer.len() < JSON_LENGTH_BYTES {
            return Ok(None);
        }
        let text_bytes = be_u64(buffer);
        if text_bytes > self.frame_bytes_max {
            return self.pass_over(buffer, JSON_LENGTH_BYTES, text_bytes, None);
        }
        if ((buffer.len() - JSON_LENGTH_BYTES) as u64) < text_bytes {
            return Ok(None);
        }
        buffer.advance(JSON_LENGTH_BYTES);
        Ok(Some(Frame::Json(buffer.split_to(text_bytes as usize).freeze())))
    }

    fn decode_compact(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if buffer.len() < FIXED_BYTES {
            return Ok(None);
        }
        let kind = FrameKind::from_byte(buffer[1]).ok_or(FrameError::UnknownKind(buffer[1]))?;
        let reserved = u16::from_le_bytes([buffer[2], buffer[3]]);
        if reserved != 0 {
            return Err(FrameError::Reserved(reserved));
        }
        let (header_bytes, tail_bytes) = (le_u32(&buffer[4..]) as usize, le_u32(&buffer[8..]) as usize);
        let id = u64::from_le_bytes(buffer[12..20].try_into().expect("eight bytes"));
        let body_bytes = header_bytes + tail_bytes;
        if header_bytes > HEADER_BYTES_MAX || body_bytes as u64 > self.frame_bytes_max {
            return self.pass_over(buffer, FIXED_BYTES, body_bytes as u64, Some(id));
        }
        if buffer.len() < FIXED_BYTES + body_bytes {
            return Ok(None);
        }
        buffer.advance(FIXED_BYTES);
        let mut header = buffer.split_to(body_bytes).freeze();
        let tail = header.split_off(header_bytes);
        Ok(Some(Frame::Compact { kind, id, header, tail }))
    }

    fn pass_over(
        &mut self,
        buffer: &mut BytesMut,
        fixed_bytes: usize,
        body_bytes: u64,
        id: Option<u64>,
    ) -> Result<Option<Frame>, FrameError> {
        if body_bytes > self.frame_bytes_max.saturating_mul(16) {
            return Err(FrameError::Absurd {
                frame_bytes: body_bytes,
                max_bytes: self.frame_bytes_max,
                is_json: id.is_none(),
            });
        }
        buffer.advance(fixed_bytes);
        self.skip_bytes = body_bytes;
        let skipped = body_bytes.min(buffer.len() as u64);
        buffer.advance(skipped as usize);
        self.skip_bytes -= skipped;
        Ok(Some(Frame::TooLarge { id, frame_bytes: body_bytes }))
    }
}

/// Appends a compact frame whose tail is `tail` to `out`.
pub fn encode<M: Wire>(kind: FrameKind, id: u64, message: &M, tail: &[u8], out: &mut Vec<u8>) {
    encode_head(kind, id, message, tail.len(), out);
    out.extend_from_slice(tail);
}

/// Appends all of a compact frame but its tail to `out`; the caller sends `tail_bytes` bytes after it.
pub fn encode_head<M: Wire>(kind: FrameKind, id: u64, message: &M, tail_bytes: usize, out: &mut Vec<u8>) {
    encode_with(kind, id, tail_bytes, out, |out| message.encode_header(out));
}

/// Like [`encode_head`], for a header that `write` appends.
pub fn encode_with(kind: FrameKind, id: u64, tail_bytes: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let mut fixed = [0_u8; FIXED_BYTES];
    fixed[0] = MAGIC;
    fixed[1] = kind as u8;
    fixed[8..12].copy_from_slice(&u32::try_from(tail_bytes).expect("a tail under 4 GiB").to_le_bytes());
    fixed[12..20].copy_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&fixed);
    write(out);
    let header_bytes = (out.len() - start - FIXED_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&header_bytes.to_le_bytes());
}

fn be_u64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}
