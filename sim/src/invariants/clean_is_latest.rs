//! Clean means latest: what a serving server with a lease calls clean is at least as new as anything that any server
//! has told any client.

use star_core::ids::{ServerId, Version};

use super::Scene;
use crate::subject::Subject;

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
