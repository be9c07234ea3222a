//! How slow links are found, and how others hear of them.
//!
//! A server with much under way *sounds* its links: it says a word to all members at once, and one of them, another each time,
//! passes it on to the others. A member so hears it twice, directly and by way of a third. The way of two links should take longer. If
//! the direct word is later again and again, values from there to here come sooner around the link. That needs no clock but the
//! receiver's own, and tells slow links from slow servers: a server that is slow is late with both words, as sender and as
//! receiver.

use star_core::{ids::ServerId, protocol::Effects, store::Store};

use super::{
    config::Route,
    context::Context,
    message::{Body, Message},
    node::StarNode,
    replica::Replica,
};

impl<S: Store> StarNode<S> {
    /// Some time has passed: tells the others which links to this server are slow, and sounds those from it.
    pub(crate) fn watch_links<E: Effects<Message>>(&mut self, effects: &mut E) {
        let (now, watch) = (self.shared.now, self.config.link_watch);
        if let Some(senders) = self.shared.slow.on_tick(now, self.config.me) {
            self.tell_slow_links(effects, &senders);
        }
        if self.config.route == Route::Auto && now.since(self.shared.slow.sounded_at) >= watch.every {
            self.shared.slow.sounded_at = now;
            if self.has_under_way(watch.from_bytes) {
                self.sound_links(effects);
            }
        }
    }

    /// Tells each server that shares a star with this one, in one of their stars.
    fn tell_slow_links<E: Effects<Message>>(&mut self, effects: &mut E, senders: &[ServerId]) {
        let mut told: Vec<ServerId> = Vec::new();
        self.each_replica(effects, |replica, cx| {
            for peer in &replica.peers {
                if !told.contains(peer) {
                    told.push(*peer);
                    replica.send(cx, *peer, Body::SlowLinks { from: senders.to_vec() });
                }
            }
        });
    }

    /// Whether so many bytes of values are under way at this server, its own and others'.
    fn has_under_way(&self, bytes: u64) -> bool {
        let mut sum = 0;
        let writes = self.replicas.iter().flat_map(|replica| replica.buffer.values());
        writes.map(|write| u64::from(write.head.value_bytes)).any(|value_bytes| {
            sum += value_bytes;
            sum >= bytes
        })
    }

    /// In one star at a time, by turns: stars with the same members share their links.
    fn sound_links<E: Effects<Message>>(&mut self, effects: &mut E) {
        let stars = self.replicas.len();
        let after = self.shared.slow.sounded_in;
        let can_sound = |star: &usize| self.replicas[*star].can_sound(self.config.me);
        let Some(star) = (1..=stars).map(|step| (after + step) % stars).find(can_sound) else { return };
        self.shared.slow.sounded_in = star;
        self.shared.slow.last_sounding += 1;
        let sounding = Body::Sounding { origin: self.config.me, number: self.shared.slow.last_sounding };
        let (replica, mut cx) = self.parts(star, effects);
        replica.broadcast(&mut cx, sounding);
    }
}

impl Replica {
    /// With two members there is no way around.
    fn can_sound(&self, me: ServerId) -> bool {
        self.installed && self.view.is_member(me) && self.peers.len() > 1
    }

    /// Who passes a sounding on.
    fn passer_of(&self, origin: ServerId, number: u64) -> Option<ServerId> {
        let others = || self.view.members.iter().copied().filter(|member| *member != origin);
        let count = others().count() as u64;
        others().nth(number.checked_rem(count)? as usize)
    }

    pub(crate) fn on_sounding<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        origin: ServerId,
        number: u64,
    ) {
        let me = cx.me();
        // No values go over a slow link, so what comes over it comes soon, and says nothing of how they would.
        if origin == me || cx.shared.slow.is_slow(from, me) || cx.shared.slow.is_slow(origin, me) {
            return;
        }
        let is_slow = if from != origin {
            cx.shared.slow.on_passed_on(cx.now, origin, number, &cx.config.link_watch)
        } else if self.passer_of(origin, number) == Some(me) {
            let sounding = self.message(Body::Sounding { origin, number });
            for peer in self.peers.iter().filter(|peer| **peer != origin) {
                cx.effects.send(*peer, &sounding);
            }
            false
        } else {
            cx.shared.slow.on_direct(cx.now, origin, number, &cx.config.link_watch)
        };
        // If most links to this server were slow, it would not be the links.
        let slow_after = cx.shared.slow.to(me).count() + 1;
        if is_slow && 2 * slow_after <= self.peers.len() {
            cx.shared.counters.slow_links_found += 1;
            cx.shared.slow.avoid(cx.now, origin, me, &cx.config.link_watch);
        }
    }
}
