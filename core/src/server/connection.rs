//! One incoming connection: reads, splits into frames, and hands each to whom it concerns.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::Notify,
    task::{spawn_local, yield_now},
};
use tracing::{debug, info, warn};

use super::{ConnectionId, Hello, Shared, State, io::JSON_REQUEST, log_end, read_size::ReadSize, turn::end_turn};
use crate::{
    error::ErrorCode,
    message::{
        Asked, Fault, Local, Request, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameError, FrameKind},
        from_postcard, json,
    },
    protocol::{Input, Protocol},
};

/// How many inputs are read from their frames before the first of them is a step: so many can be got ready for together.
const INPUTS_AT_A_TIME: usize = 32;

/// How long a connection that is told why it ends may take to read it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Whether a connection goes on.
enum Next {
    Read,
    /// The connection ends once what is queued for it was written.
    End,
}

/// A connection was accepted.
pub(super) fn accepted<P: Protocol + 'static>(shared: &Rc<Shared<P>>, stream: TcpStream, from: SocketAddr) {
    let over = shared.with_io(|io| io.open_connections() >= shared.limits.connections_max);
    if over && !close_a_silent_one(shared) {
        warn!(%from, max = shared.limits.connections_max, "refusing a connection: as many are open as may be");
        return; // Dropping the stream closes it.
    }
    if let Err(error) = stream.set_nodelay(true) {
        return log_end(from, &error);
    }
    let (reader, writer) = stream.into_split();
    let id = shared.with_io(|io| io.add(writer));
    let shared = Rc::clone(shared);
    spawn_local(async move {
        let wake = shared.with_io(|io| io.get(id).map(|connection| Rc::clone(&connection.wake_reader)));
        if let Some(wake) = wake {
            let (buffer, inputs, read_size) = (BytesMut::new(), Vec::new(), ReadSize::new());
            let mut task = Connection { shared: &shared, id, from, wake, buffer, inputs, read_size };
            task.run(reader).await;
        }
        shared.with_io(|io| io.remove(id));
    });
}

/// Makes room by closing a connection that has said nothing whole yet; false if there is none.
fn close_a_silent_one<P: Protocol>(shared: &Shared<P>) -> bool {
    shared.with_io(|io| {
        let silent = io.longest_silent();
        if let Some(id) = silent {
            io.close(id);
        }
        silent.is_some()
    })
}

/// Tells all connections to end, and waits until they have (or a second has passed).
pub(super) async fn close_all<P: Protocol + 'static>(shared: &Rc<Shared<P>>) {
    for _ in 0..100 {
        end_turn(shared);
        let open = shared.with_io(|io| {
            io.ids().into_iter().for_each(|id| io.close(id));
            io.open_connections()
        });
        if open == 0 && Rc::strong_count(shared) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Connection<'a, P: Protocol> {
    shared: &'a Rc<Shared<P>>,
    id: ConnectionId,
    from: SocketAddr,
    wake: Rc<Notify>,
    buffer: BytesMut,
    /// What was read from frames and is no step yet; empty but while frames are taken.
    inputs: Vec<Input<P::Message, P::Control>>,
    read_size: ReadSize,
}

impl<P: Protocol + 'static> Connection<'_, P> {
    async fn run(&mut self, reader: OwnedReadHalf) {
        let Some(mut reader) = self.enter(reader).await else { return };
        let mut decoder = Decoder::new(self.shared.limits.frame_bytes_max);
        let mut may_have_more = true;
        loop {
            if self.is_closing() {
                return;
            }
            if self.must_pause() {
                self.wake.notified().await;
                continue;
            }
            match self.take_frames(&mut decoder) {
                Next::End => return self.end(reader).await,
                Next::Read if self.must_pause() => continue,
                Next::Read => {}
            }
            // The turn ends, and others get theirs, before more is read. Where nothing more is there to read, waiting for it
            // does the same without a look at all sockets in between.
            if may_have_more {
                yield_now().await;
            }
            // Read no more than there is room for, and no more at once than leaves others their turn.
            self.buffer.reserve(self.read_size.room(decoder.wanted_bytes(&self.buffer)));
            let room = self.buffer.capacity() - self.buffer.len();
            let read = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.buffer) => read,
                () = self.wake.notified() => continue,
            };
            match read {
                Ok(0) => return,
                Ok(count) => may_have_more = self.read_size.note(count, room),
                Err(error) => return log_end(self.from, &error),
            }
        }
    }

    /// Looks at how the first frame begins, before anything is read. A connection to the control plane is handed on, so that
    /// neither waits for the other's work; a server that connects waits until this one knows who it is. `None`: there is
    /// nothing to read here.
    async fn enter(&self, mut reader: OwnedReadHalf) -> Option<OwnedReadHalf> {
        let mut start = [0; 2];
        let looked = tokio::select! {
            looked = reader.peek(&mut start) => looked,
            () = self.closed() => return None,
        };
        if let Err(error) = looked {
            log_end(self.from, &error);
            return None;
        }
        self.with(|connection| connection.begun = true);
        if start[0] != frame::MAGIC {
            return Some(reader);
        }
        if start[1] == FrameKind::Hello as u8 {
            self.with(|connection| connection.greets = true);
            tokio::select! {
                _ = self.shared.joined() => {}
                () = self.closed() => return None,
            }
            self.with(|connection| connection.greets = false);
        }
        if let Some(door) = self.shared.control_door.as_ref().filter(|_| start[1] == FrameKind::Control as u8) {
            let writer = self.shared.with_io(|io| io.take_writer(self.id))?;
            match reader.reunite(writer).map(TcpStream::into_std) {
                Ok(Ok(stream)) => door(stream),
                Ok(Err(error)) => log_end(self.from, &error),
                Err(_) => unreachable!("both are halves of one stream"),
            }
            return None;
        }
        Some(reader)
    }

    /// Changes what is known of this connection, while it is there.
    fn with(&self, change: impl FnOnce(&mut super::io::Connection)) {
        if let Some(connection) = self.shared.state.borrow_mut().io.get(self.id) {
            change(connection);
        }
    }

    /// Waits until the connection is to end.
    async fn closed(&self) {
        while !self.is_closing() {
            self.wake.notified().await;
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.state.borrow_mut().io.get(self.id).is_none_or(|connection| connection.is_closing)
    }

    fn must_pause(&self) -> bool {
        self.shared.state.borrow_mut().io.must_pause(self.id)
    }

    /// Handles the frames that are whole.
    fn take_frames(&mut self, decoder: &mut Decoder) -> Next {
        let mut whole = 0;
        let next = loop {
            match decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => {
                    whole += 1;
                    if let Next::End = self.on_frame(frame) {
                        break Next::End;
                    }
                }
                Ok(None) => break Next::Read,
                Err(error) => {
                    self.step_inputs();
                    break self.on_broken_stream(error);
                }
            }
            if self.inputs.len() >= INPUTS_AT_A_TIME {
                self.step_inputs();
            }
            if self.must_pause() {
                break Next::Read;
            }
        };
        self.step_inputs();
        self.note_partial(whole).unwrap_or(next)
    }

    fn step_inputs(&mut self) {
        if !self.inputs.is_empty() {
            self.shared.step_all(&mut self.inputs);
        }
    }

    /// Keeps count of what is not whole yet; an answer if that is too much.
    fn note_partial(&self, whole: u64) -> Option<Next> {
        let partial_bytes = self.buffer.len();
        let too_much = self.shared.state.borrow_mut().io.note_partial(self.id, whole, partial_bytes);
        too_much.then(|| {
            let text = "the server holds as many unfinished messages as it may; try again a little later";
            self.refuse(ErrorCode::Overloaded, text);
            Next::End
        })
    }

    fn on_frame(&mut self, frame: Frame) -> Next {
        match frame {
            Frame::Compact { kind: FrameKind::Peer, header, tail, .. } => self.on_peer(&header, tail),
            Frame::Compact { kind: FrameKind::Request, id, header, tail } => {
                self.on_request(id, &header, tail);
                Next::Read
            }
            other => {
                self.step_inputs();
                self.on_rare_frame(other)
            }
        }
    }

    fn on_rare_frame(&mut self, frame: Frame) -> Next {
        match frame {
            Frame::Json(text) => self.on_json(&text),
            Frame::Compact { kind: FrameKind::Hello, header, .. } => return self.on_hello(&header),
            Frame::Compact { kind: FrameKind::Control, id, .. } => return self.on_control(id),
            Frame::Compact { kind: FrameKind::Fault, id, header, tail } => match Fault::decode(&header, tail) {
                Ok(fault) => self.on_fault(id, &fault),
                Err(why) => self.answer(id, &ResponseBody::error(ErrorCode::BadRequest, why)),
            },
            Frame::Compact { kind: FrameKind::Local, id, header, tail } => self.on_local(id, &header, tail),
            Frame::Compact { kind, .. } => {
                self.refuse(ErrorCode::BadRequest, &format!("a server takes no frames of kind {kind:?}"));
                return Next::End;
            }
            Frame::TooLarge { id, frame_bytes } => self.on_too_large(id, frame_bytes),
        }
        Next::Read
    }

    fn on_json(&self, text: &[u8]) {
        let asked = json::asked(text);
        self.with(|connection| {
            connection.speaks_json = true;
            connection.under_way += 1;
        });
        match asked {
            Ok(Asked::Request(request)) => {
                self.shared.step(Input::Request { token: self.id.token(JSON_REQUEST), request });
            }
            Ok(Asked::Fault(fault)) => self.on_fault(JSON_REQUEST, &fault),
            Ok(Asked::Local(question)) => self.shared.ask_local(self.id.token(JSON_REQUEST), question),
            Err(failure) => self.answer(JSON_REQUEST, &ResponseBody::Error(failure)),
        }
    }

    fn on_request(&mut self, frame_id: u64, header: &[u8], tail: Bytes) {
        if frame_id == JSON_REQUEST {
            return self.refuse(ErrorCode::BadRequest, "the id 2^64 - 1 is reserved: take another");
        }
        self.with(|connection| connection.under_way += 1);
        match Request::decode(header, tail) {
            Ok(request) => self.inputs.push(Input::Request { token: self.id.token(frame_id), request }),
            Err(why) => self.answer(frame_id, &ResponseBody::error(ErrorCode::BadRequest, why)),
        }
    }

    fn on_local(&self, frame_id: u64, header: &[u8], tail: Bytes) {
        if frame_id == JSON_REQUEST {
            return self.refuse(ErrorCode::BadRequest, "the id 2^64 - 1 is reserved: take another");
        }
        self.with(|connection| connection.under_way += 1);
        match Local::decode(header, tail) {
            Ok(question) => self.shared.ask_local(self.id.token(frame_id), question),
            Err(why) => self.answer(frame_id, &ResponseBody::error(ErrorCode::BadRequest, why)),
        }
    }

    fn on_fault(&self, frame_id: u64, fault: &Fault) {
        let mut state = self.shared.state.borrow_mut();
        let State { faults, io, .. } = &mut *state;
        let answer = faults.have(fault, io);
        drop(state);
        self.answer(frame_id, &answer);
    }

    fn on_hello(&self, header: &[u8]) -> Next {
        let Some(ours) = self.shared.hello.get() else {
            self.refuse(ErrorCode::BadRequest, "a server's connection begins with its hello");
            return Next::End;
        };
        match from_postcard::<Hello>(header) {
            Ok(hello) if hello.cluster == ours.cluster && hello.to == ours.server && hello.server != ours.server => {
                debug!(server = %hello.server, incarnation = %hello.incarnation, "a server greets");
                let mut state = self.shared.state.borrow_mut();
                if let Some(connection) = state.io.get(self.id) {
                    connection.peer = Some(hello.server);
                }
                if !state.io.is_failed(hello.server) {
                    state.reach.greeted(hello.server, self.shared.clock.now());
                }
                Next::Read
            }
            Ok(hello) => {
                debug!(?hello, ?ours, "refusing a server of another cluster, or one that means another server");
                Next::End
            }
            Err(why) => {
                self.refuse(ErrorCode::BadRequest, &why);
                Next::End
            }
        }
    }

    fn on_peer(&mut self, header: &[u8], tail: Bytes) -> Next {
        let peer = self.shared.state.borrow_mut().io.get(self.id).and_then(|connection| connection.peer);
        let Some(from) = peer else {
            self.refuse(ErrorCode::BadRequest, "a message between servers, from one that has not said hello");
            return Next::End;
        };
        if self.shared.state.borrow().io.is_failed(from) {
            return Next::Read;
        }
        match P::Message::decode(header, tail) {
            Ok(message) => {
                self.inputs.push(Input::Message { from, message });
                Next::Read
            }
            Err(why) => {
                warn!(%from, %why, "closing a link whose messages cannot be read: does the server run another version?");
                Next::End
            }
        }
    }

    /// A connection to the control plane never comes as far as here (see [`Self::enter`]).
    fn on_control(&self, frame_id: u64) -> Next {
        if self.shared.control_door.is_none() {
            let text = "this server does not keep the control plane; ask one that does";
            self.answer(frame_id, &ResponseBody::error(ErrorCode::Disabled, text));
            return Next::Read;
        }
        self.refuse(ErrorCode::BadRequest, "a connection to the control plane begins with a frame to it");
        Next::End
    }

    fn on_too_large(&self, frame_id: Option<u64>, frame_bytes: u64) {
        let max = self.shared.limits.frame_bytes_max;
        let text = format!("the message has {frame_bytes} bytes, and at most {max} are taken");
        let body = ResponseBody::error(ErrorCode::TooLarge, text);
        match frame_id {
            Some(frame_id) => self.answer(frame_id, &body),
            None => self.shared.with_io(|io| io.refuse(self.id, true, &body)),
        }
    }

    fn on_broken_stream(&self, error: FrameError) -> Next {
        info!(from = %self.from, %error, "closing a connection whose bytes make no sense");
        let code = match error {
            FrameError::Absurd { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::BadRequest,
        };
        let is_json = match error {
            FrameError::Garbage(_) => true,
            FrameError::UnknownKind(_) | FrameError::Reserved(_) => false,
            FrameError::Absurd { is_json, .. } => is_json,
        };
        let body = ResponseBody::error(code, format!("{error}; the connection is closed"));
        self.shared.with_io(|io| io.refuse(self.id, is_json, &body));
        Next::End
    }

    fn refuse(&self, code: ErrorCode, text: &str) {
        let body = ResponseBody::error(code, text);
        self.shared.with_io(|io| {
            let as_json = io.get(self.id).is_some_and(|connection| connection.speaks_json);
            io.refuse(self.id, as_json, &body);
        });
    }

    fn answer(&self, frame_id: u64, body: &ResponseBody) {
        let token = self.id.token(frame_id);
        self.shared.with_io(|io| crate::protocol::Effects::<P::Message>::reply(io, token, body, &[]));
    }

    /// Ends the connection so that the client can still read why: a socket closed with unread bytes is reset at once.
    async fn end(&mut self, mut reader: OwnedReadHalf) {
        yield_now().await;
        let drain = async {
            let mut sink = [0_u8; 4096];
            while matches!(reader.read(&mut sink).await, Ok(count) if count > 0) {}
        };
        end_turn(self.shared);
        // Nobody else need make it end.
        self.shared.with_io(|io| io.close(self.id));
        // The client closes when it has read the refusal; one that does not is cut off.
        let _ = tokio::time::timeout(FAREWELL, drain).await;
    }
}
