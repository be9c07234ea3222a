//! Clean means latest: what a serving server with a lease calls clean is at least as new as anything that any server
//! has told any client.

use star_core::ids::{ServerId, Version};

use super::Scene;
use crate::subject::Subject;

/// What the last look at each server rested on; the same again would say the same.
#[derive(Debug, Default)]
pub(crate) struct CleanIsLatest {
    looked: Vec<Option<Grounds>>,
}

/// Changes of the store, promises to clients, and which stars the server serves, as bits.
type Grounds = (u64, u64, u64);

impl CleanIsLatest {
    /// A server starts anew.
    pub(crate) fn forget(&mut self, server: ServerId) {
        if let Some(looked) = self.looked.get_mut(usize::from(server.0)) {
            *looked = None;
        }
    }

    /// Looks at a server after its turn, if anything has changed since the last look. `serving`: its stars, as bits.
    pub(crate) fn check<S: Subject>(
        &mut self,
        scene: &Scene<'_, S>,
        server: ServerId,
        serving: u64,
    ) -> Result<(), String> {
        let Some(node) = scene.node(server) else { return Ok(()) };
        if !scene.holds_lease(server) {
            return Ok(());
        }
        let at = usize::from(server.0);
        if self.looked.len() <= at {
            self.looked.resize(at + 1, None);
        }
        let grounds = node.store_changes().map(|changes| (changes, scene.book.promises(), serving));
        if grounds.is_some() && self.looked[at] == grounds {
            return Ok(());
        }
        self.looked[at] = grounds;
        check(scene, server)
    }
}

/// Looks at a server.
pub(crate) fn check<S: Subject>(scene: &Scene<'_, S>, server: ServerId) -> Result<(), String> {
    let Some(node) = scene.node(server) else { return Ok(()) };
    if !scene.holds_lease(server) {
        return Ok(());
    }
    for (key, page) in scene.book.pages() {
        let (promised, was_delete) = page.promised;
        let (version, dirty) = node.look_up(key);
        if dirty || promised == Version(0) {
            continue;
        }
        let stale = match version {
            Some(version) => version < promised || (was_delete && version == promised),
            // Gone is newer than a write that was promised if somebody asked for a delete at all.
            None => !was_delete && !page.may_be_deleted(),
        };
        if stale && node.glance(key.star(scene.stars)).serving {
            let what = if was_delete { "the delete at version" } else { "version" };
            return Err(format!(
                "clean means latest: server {server} has key {key} clean at {version:?}, but a client was told of \
                 {what} {promised}"
            ));
        }
    }
    Ok(())
}
