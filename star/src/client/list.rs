//! Lists of keys, put together from servers that serve the stars between them.

use std::sync::Arc;

use compact_str::CompactString;
use star_core::{
    Clock, StarId, Time,
    message::{Request, RequestBody, Response, ResponseBody},
};
use tokio::task::JoinSet;

use super::{
    ClientError, StarClient,
    directory::{Attempt, Server},
};

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys, in order.
    pub keys: Vec<String>,
    /// Whether there may be more after the last.
    pub more: bool,
}

/// The answer of one server, for some stars.
#[derive(Debug)]
struct Part {
    keys: Vec<CompactString>,
    more: bool,
}

impl StarClient {
    /// At most `limit` (and 1000) keys that begin with `prefix` and sort after `after`, in order. Each star is seen at one
    /// point between call and answer.
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, ClientError> {
        let deadline = Clock.now() + self.inner.options.give_up_after;
        let directory = self.inner.servers.directory();
        let ask = |stars: &[StarId]| {
            let (prefix, after, stars) = (prefix.into(), after.map(CompactString::from), stars.to_vec());
            Request::from(RequestBody::List { prefix, after, limit, stars })
        };
        let mut open: Vec<StarId> = directory.stars().collect();
        if open.is_empty() {
            // This client came before the first view: it does not know the stars, and any server may know them by now.
            return part(self.call(ask(&[])).await?).map(|part| merge(vec![part], limit));
        }
        let mut attempt = Attempt { first: self.inner.servers.pick(), number: 0, leader_first: false };
        let mut parts = Vec::new();
        let mut tried = Vec::new();
        let mut pause = super::PAUSE_MIN;
        loop {
            let groups = self.inner.servers.directory().cover(&open, &tried, attempt);
            let mut failed = None;
            open.clear();
            for (server, stars, answer) in self.list_at(groups, ask, deadline).await {
                match answer.and_then(part) {
                    Ok(part) => parts.push(part),
                    Err(error) if !error.retry() => return Err(error),
                    Err(error) => {
                        tried.push(server);
                        open.extend(stars);
                        failed = Some(error);
                    }
                }
            }
            match failed {
                None => return Ok(merge(parts, limit)),
                Some(error) if Clock.now() + pause >= deadline => return Err(error),
                Some(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(super::PAUSE_MAX);
            attempt.number += 1;
        }
    }

    /// Asks servers, each for some stars, at the same time. The answers, with the address that was asked and the stars.
    async fn list_at(
        &self,
        groups: Vec<(Arc<Server>, Vec<StarId>)>,
        ask: impl Fn(&[StarId]) -> Request,
        deadline: Time,
    ) -> Vec<(String, Vec<StarId>, Result<Response, ClientError>)> {
        let mut asked = JoinSet::new();
        for (server, stars) in groups {
            let (client, request) = (self.clone(), ask(&stars));
            asked.spawn(async move {
                let answer = client.try_once(&server, &request, deadline).await;
                (server.client.addr().to_owned(), stars, answer)
            });
        }
        asked.join_all().await
    }
}

fn part(answer: Response) -> Result<Part, ClientError> {
    match answer.body {
        ResponseBody::Keys { keys, more } => Ok(Part { keys, more }),
        other => Err(ClientError::unexpected(&other)),
    }
}

/// Puts the answers of different stars together. What comes after the last key of a part that has more is left to the
/// next page: keys of that part may belong before it.
fn merge(parts: Vec<Part>, limit: u32) -> Page {
    let ends = parts.iter().filter(|part| part.more).filter_map(|part| part.keys.last());
    let end = ends.min().cloned();
    let mut keys: Vec<_> = parts.into_iter().flat_map(|part| part.keys).collect();
    keys.sort_unstable();
    let whole = end.as_ref().map_or(keys.len(), |end| keys.partition_point(|key| key <= end));
    let shown = whole.min(limit as usize);
    let more = end.is_some() || shown < keys.len();
    keys.truncate(shown);
    Page { keys: keys.into_iter().map(CompactString::into_string).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(keys: &str, more: bool) -> Part {
        Part { keys: keys.chars().map(|key| CompactString::from(key.to_string())).collect(), more }
    }

    fn page(parts: Vec<Part>, limit: u32) -> (String, bool) {
        let Page { keys, more } = merge(parts, limit);
        (keys.concat(), more)
    }

    #[test]
    fn parts_are_merged_in_the_order_of_keys() {
        assert_eq!(
            page(vec![part("adg", false), part("be", false), part("cfh", false)], 10),
            ("abcdefgh".into(), false)
        );
        assert_eq!(page(vec![part("adg", false), part("be", false)], 3), ("abd".into(), true));
        assert_eq!(page(vec![part("adg", false), part("be", false)], 5), ("abdeg".into(), false));
        assert_eq!(page(vec![part("", false)], 5), (String::new(), false));
    }

    #[test]
    fn nothing_is_shown_beyond_the_end_of_a_part_that_goes_on() {
        assert_eq!(page(vec![part("bd", true), part("ace", false)], 10), ("abcd".into(), true));
        assert_eq!(page(vec![part("bz", true), part("ac", true)], 10), ("abc".into(), true));
        assert_eq!(page(vec![part("ab", true), part("yz", true)], 2), ("ab".into(), true));
    }
}
