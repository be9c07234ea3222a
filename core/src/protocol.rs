//! The shape of every replication protocol here: pure code that turns one input into effects.
//!
//! A protocol has no clock, socket, task, thread or random source. The [`crate::server::Server`] drives it with real
//! connections, the simulator with made-up ones; both see the same code.

use bytes::Bytes;

use crate::{
    ids::ServerId,
    message::{Request, ResponseBody, Wire},
    time::Time,
};

/// Names a client's request while it is under way at one server. Chosen by the driver, opaque to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The client's connection.
    pub connection: u64,
    /// The request on that connection.
    pub request: u64,
}

/// What can happen to a protocol.
#[derive(Clone, Debug)]
pub enum Input<M, C> {
    /// A client asks for something; every request is answered exactly once, unless the server stops before.
    Request {
        /// To be given back with the answer.
        token: Token,
        /// What the client asks for.
        request: Request,
    },
    /// Another server says something.
    Message {
        /// The server that sent it.
        from: ServerId,
        /// What it says.
        message: M,
    },
    /// Messages to this server go through from now on; what was sent before may be lost.
    LinkUp(ServerId),
    /// Messages to this server are lost until the next [`Input::LinkUp`].
    LinkDown(ServerId),
    /// News from the control plane.
    Control(C),
    /// A little time has passed (see [`TICK_MS`]).
    Tick,
}

/// How often a protocol gets [`Input::Tick`], in milliseconds.
pub const TICK_MS: u64 = 20;

/// A pure replication protocol at one server.
pub trait Protocol {
    /// What the servers say to one another.
    type Message: Wire;
    /// What the control plane tells this protocol.
    type Control;

    /// Takes one input. `now` is read after the input arrived and is never before an earlier `now`.
    fn step<E: Effects<Self::Message>>(
        &mut self,
        now: Time,
        input: Input<Self::Message, Self::Control>,
        effects: &mut E,
    );

    /// These inputs come next, together: whatever makes their steps faster may be done. Changes nothing.
    fn expect(&self, _inputs: &[Input<Self::Message, Self::Control>]) {}

    /// Called once after each batch of inputs, before anything is sent: the place for what many inputs can share.
    fn end_turn<E: Effects<Self::Message>>(&mut self, now: Time, effects: &mut E);
}

/// What a protocol can do to the world. Effects reach each receiver in the order in which they were given.
pub trait Effects<M> {
    /// Sends a message to a server; it may be lost, but messages to one server are not reordered on one link.
    fn send(&mut self, to: ServerId, message: &M);

    /// Sends the same message to several servers.
    fn broadcast(&mut self, to: &[ServerId], message: &M) {
        for to in to {
            self.send(*to, message);
        }
    }

    /// Sends a message that no client waits for: with what these servers are sent next, or within some milliseconds. So a
    /// server that has nothing else to hear is not woken for it.
    fn broadcast_later(&mut self, to: &[ServerId], message: &M) {
        self.broadcast(to, message);
    }

    /// Answers a client; `value` is the answer's tail (see [`crate::message::Response`]).
    fn reply(&mut self, token: Token, body: &ResponseBody, value: &[u8]);
}

/// An effect as data, for tests and the simulator.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<M> {
    /// See [`Effects::send`].
    Send {
        /// The receiver.
        to: ServerId,
        /// The message.
        message: M,
    },
    /// See [`Effects::reply`].
    Reply {
        /// The request that is answered.
        token: Token,
        /// The answer.
        body: ResponseBody,
        /// The answer's tail.
        value: Bytes,
    },
}

impl<M: Clone> Effects<M> for Vec<Effect<M>> {
    fn send(&mut self, to: ServerId, message: &M) {
        self.push(Effect::Send { to, message: message.clone() });
    }

    fn reply(&mut self, token: Token, body: &ResponseBody, value: &[u8]) {
        self.push(Effect::Reply { token, body: body.clone(), value: Bytes::copy_from_slice(value) });
    }
}
