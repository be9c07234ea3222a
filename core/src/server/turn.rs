//! The end of a turn: the protocol says its last, and one batch goes out on each connection.

use std::{rc::Rc, time::Duration};

use tokio::task::spawn_local;

use super::{Shared, State, io::Io};
use crate::protocol::{Effects, Protocol};

/// So long waits what may wait (see [`Effects::broadcast_later`]), if nothing else goes the same way: long beside what an
/// operation takes, so that a server is woken once for many, and short beside what people notice.
const SENT_LATER_AFTER: Duration = Duration::from_millis(1);

/// Ends each turn: once all tasks that were ready have run, the protocol says its last, and all is written.
pub(super) async fn end_turns<P: Protocol + 'static>(shared: Rc<Shared<P>>) {
    loop {
        shared.turn.notified().await;
        end_turn(&shared);
    }
}

pub(super) fn end_turn<P: Protocol + 'static>(shared: &Rc<Shared<P>>) {
    let mut state = shared.state.borrow_mut();
    let State { protocol, local, io, turn_is_due, later_is_due, .. } = &mut *state;
    *turn_is_due = false;
    let now = shared.clock.now();
    protocol.end_turn(now, io);
    if let Some(local) = local {
        local.end_turn(now, protocol, &mut |token, body| Effects::<P::Message>::reply(io, token, body, &[]));
    }
    if io.has_waiting() && !std::mem::replace(later_is_due, true) {
        let shared = Rc::downgrade(shared);
        spawn_local(async move {
            tokio::time::sleep(SENT_LATER_AFTER).await;
            if let Some(shared) = shared.upgrade() {
                shared.state.borrow_mut().later_is_due = false;
                shared.with_io(Io::send_what_waits);
            }
        });
    }
    for (id, stream) in io.flush() {
        // A client that reads nothing may keep this waiting for good: it must not keep the server.
        let shared = Rc::downgrade(shared);
        spawn_local(async move {
            // If the socket is broken the next write says so.
            let _ = stream.writable().await;
            drop(stream);
            if let Some(shared) = shared.upgrade() {
                shared.with_io(|io| io.unblock(id));
            }
        });
    }
}
