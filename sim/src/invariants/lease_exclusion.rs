//! Lease exclusion: a server answers a read only while it holds a lease on its own clock, so that nobody reads at a
//! server that the others have gone on without.

use star_core::{ids::ServerId, message::ResponseBody};

/// Judges what a server says to a client who only reads.
pub(crate) fn check(server: ServerId, holds_lease: bool, body: &ResponseBody) -> Result<(), String> {
    let tells = |body: &ResponseBody| {
        matches!(body, ResponseBody::Value { .. } | ResponseBody::NotFound | ResponseBody::Keys { .. })
    };
    let answers = match body {
        // Parts were answered one by one as long as there was a lease; the answer counts if all of them were.
        ResponseBody::Many(parts) => parts.iter().all(|part| tells(&part.body)),
        body => tells(body),
    };
    if answers && !holds_lease {
        return Err(format!("lease exclusion: server {server} answers a read without a lease: {body:?}"));
    }
    Ok(())
}
