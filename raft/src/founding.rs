//! The first start, and the start of a member that lost its store.
//!
//! A plane is founded once, by its first member, when all members are there and none knows of a plane. The members are
//! then written down by their *stores*. So a member without memory is told from one that is new: whoever knows the plane
//! knows its stores. A member whose store is not among them takes no part: it might have voted, or acked, before.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    host::MemberState,
    network::Network,
    options::Member,
    rpc::{Ask, Presence, Told},
    seat::Seat,
    types::{Group, Site, StoreId},
};

/// Between two looks around.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one member may take to say who it is.
const PROBE_LIMIT: Duration = Duration::from_millis(500);

/// What one look around shows.
enum Found {
    /// These members (by name) did not answer.
    Missing(Vec<String>),
    /// All are there, and none knows of a plane.
    AllNew(BTreeMap<StoreId, Site>),
    /// The plane is there, with or without this store.
    Plane { is_mine: bool, by: String },
}

/// Goes on until this member is part of the plane, or it is clear that it cannot be.
pub(crate) async fn found<G: Group>(
    seat: &Seat<G>,
    network: &Network,
    members: &[Member],
    mine: usize,
    state: &watch::Sender<MemberState>,
) {
    while !seat.is_founded() {
        match look_around::<G>(seat.presence(), network, members, mine).await {
            Found::Missing(names) => {
                let is_news = state.send_if_modified(|state| {
                    let news = MemberState::Founding { missing: names.clone() };
                    let is_news = *state != news;
                    *state = news;
                    is_news
                });
                if is_news {
                    info!(missing = names.join(", "), "the first start of the {} needs all of its members", G::NAME);
                }
            }
            Found::AllNew(sites) if mine == 0 => match seat.initialize(sites).await {
                Ok(()) => info!("the {} is founded", G::NAME),
                Err(why) => warn!(%why, "the {} cannot be founded yet", G::NAME),
            },
            Found::Plane { is_mine: false, by } if !seat.is_founded() => {
                let why = format!(
                    "{} is a member of a {what} whose members know it by another store: this store is new, so \
                     what this member once promised is lost, and it takes no part ({by} says so). Restore its \
                     directory, or stop all servers, remove the {what}'s directory at every one, and start anew",
                    members[mine].name,
                    what = G::NAME,
                );
                error!(%why, "no part of the {}", G::NAME);
                state.send_replace(MemberState::Stranger { why });
                return;
            }
            // The first member founds it, or the leader is about to write.
            Found::AllNew(_) | Found::Plane { .. } => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    state.send_replace(MemberState::Member);
}

async fn look_around<G: Group>(me: Presence, network: &Network, members: &[Member], mine: usize) -> Found {
    let (mut sites, mut missing) = (BTreeMap::new(), Vec::new());
    for (index, member) in members.iter().enumerate() {
        let presence = if index == mine {
            me.clone()
        } else {
            match network.ask(&member.addr, None, Ask::<G>::Probe, PROBE_LIMIT).await {
                Ok(Told::Probe(presence)) => presence,
                _ => {
                    missing.push(member.name.clone());
                    continue;
                }
            }
        };
        if !presence.members.is_empty() {
            return Found::Plane { is_mine: presence.members.contains(&me.store), by: member.name.clone() };
        }
        if presence.is_founded {
            // It has voted, so there is a plane, or will be one.
            missing.push(member.name.clone());
        }
        sites.insert(presence.store, Site { name: member.name.clone(), addr: member.addr.clone() });
    }
    if missing.is_empty() { Found::AllNew(sites) } else { Found::Missing(missing) }
}
