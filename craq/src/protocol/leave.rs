//! A member that is asked to leave gives way by its own word: from the moment it acts on the view that says so it answers
//! no read and takes no write, and then its agent takes it out. So nobody needs to wait for its lease.

use star_core::{protocol::Effects, store::Store};

use super::{context::Context, message::Message, replica::Replica};

impl Replica {
    /// A new view: notes whether this server is asked to leave. That it is asked again counts from the first time.
    pub(crate) fn begin_leaving<S: Store, E: Effects<Message>>(&mut self, cx: &Context<'_, S, E>) {
        let is_asked = self.view.leaving.contains(&cx.me());
        self.leaving_since = is_asked.then(|| self.leaving_since.unwrap_or(cx.now));
        self.may_leave = false;
    }

    /// Leaves once no client waits for a write of this server. Not for long: what holds the writes up may be the very
    /// link because of which it is to leave.
    pub(crate) fn tend_leaving<S: Store, E: Effects<Message>>(&mut self, cx: &Context<'_, S, E>) {
        if let Some(since) = self.leaving_since {
            self.may_leave = self.own.is_empty() || cx.now.since(since) >= cx.config.repair_after * 2;
        }
    }
}
