//! Star's compact frames.

use bytes::{Bytes, BytesMut};
use star_core::{
    Key, RequestId,
    message::{
        Condition, Request, RequestBody, Response, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
    },
    store::Encoding,
};

use super::{Answer, Dialect, Outcome};

/// The longest answer that is taken.
const FRAME_BYTES_MAX: u64 = 128 << 20;

#[derive(Debug)]
pub(super) struct Star {
    decoder: Decoder,
}

impl Star {
    pub(super) fn new() -> Self {
        Self { decoder: Decoder::new(FRAME_BYTES_MAX) }
    }
}

impl Dialect for Star {
    fn get(&mut self, id: u64, key: &Key, out: &mut Vec<u8>) {
        let request = Request::from(RequestBody::Get { key: key.clone() });
        frame::encode(FrameKind::Request, id, &request, &[], out);
    }

    fn set(&mut self, id: u64, key: &Key, value: &[u8], request_id: RequestId, out: &mut Vec<u8>) {
        let (key, condition) = (key.clone(), Condition::Always);
        let body = RequestBody::Set { key, encoding: Encoding::Raw, condition, request_id };
        frame::encode(FrameKind::Request, id, &Request { body, value: Bytes::new() }, value, out);
    }

    fn answer(&mut self, buffer: &mut BytesMut, _out: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        match self.decoder.decode(buffer).map_err(|error| error.to_string())? {
            None => Ok(None),
            Some(Frame::Compact { kind: FrameKind::Response, id, header, tail }) => {
                let Response { body, value } = Response::decode(&header, tail)?;
                Ok(Some(Answer { id, outcome: body.into(), value }))
            }
            Some(other) => Err(format!("{other:?}")),
        }
    }
}

impl From<ResponseBody> for Outcome {
    fn from(body: ResponseBody) -> Self {
        match body {
            ResponseBody::Written { version } => Self::Written(Some(version.0)),
            ResponseBody::Value { version, .. } => Self::Found(Some(version.0)),
            ResponseBody::NotFound => Self::NotFound,
            ResponseBody::Error(failure) => {
                Self::Refused { code: failure.code.name().to_owned(), unknown: failure.code.retry() }
            }
            _ => Self::Refused { code: "UNEXPECTED".to_owned(), unknown: true },
        }
    }
}
