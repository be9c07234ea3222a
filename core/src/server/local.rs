//! What a server does for those who ask about its own store, beside its protocol and without the protocol's knowledge.

use super::{Shared, State};
use crate::{
    error::ErrorCode,
    message::{Local, Request, ResponseBody},
    protocol::{Effects, Input, Protocol, Token},
    time::Time,
};

/// What comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalOutcome {
    /// The answer.
    Answer(ResponseBody),
    /// It is a request to the protocol, which answers it.
    Request(Request),
    /// The answer comes at the end of a turn.
    Later,
}

/// Answers questions about the store of a server whose protocol is a `P`. On the server's thread, like the protocol.
pub trait LocalService<P> {
    /// Takes a question. `token` names it where the answer comes later.
    fn ask(&mut self, now: Time, protocol: &mut P, token: Token, question: Local) -> LocalOutcome;

    /// The end of a turn, of which there is one in every [`crate::protocol::TICK_MS`] at least: answers what waited, through
    /// `answer`.
    fn end_turn(&mut self, now: Time, protocol: &mut P, answer: &mut dyn FnMut(Token, &ResponseBody));
}

impl<P: Protocol> Shared<P> {
    /// Hands a question about the server's own store to whom it concerns.
    pub(crate) fn ask_local(&self, token: Token, question: Local) {
        let mut state = self.state.borrow_mut();
        let State { protocol, local, io, .. } = &mut *state;
        let now = self.clock.now();
        let outcome = match local {
            Some(local) => local.ask(now, protocol, token, question),
            None => {
                let text = "this server keeps no store that others of its machine can use";
                LocalOutcome::Answer(ResponseBody::error(ErrorCode::Disabled, text))
            }
        };
        match outcome {
            LocalOutcome::Answer(body) => Effects::<P::Message>::reply(io, token, &body, &[]),
            LocalOutcome::Request(request) => protocol.step(now, Input::Request { token, request }, io),
            LocalOutcome::Later => {}
        }
        self.turn_due(&mut state);
    }
}
