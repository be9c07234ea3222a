//! Links to other members that are broken on purpose, for tests: nothing is sent, and nothing is taken.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use star_control::embedded::{Carried, Carrier, CarryError};

/// The broken links of one member, by the other's place in the configuration. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Arc<Mutex<BTreeSet<usize>>>);

impl Links {
    /// Breaks the link, or mends it.
    pub(crate) fn set_cut(&self, place: usize, is_cut: bool) {
        if is_cut {
            self.cut().insert(place)
        } else {
            self.cut().remove(&place)
        };
    }

    pub(crate) fn is_cut(&self, place: usize) -> bool {
        self.cut().contains(&place)
    }

    fn cut(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings calls to members, but to those behind a broken link.
#[derive(Debug)]
pub(crate) struct LinkedCarrier {
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) links: Links,
    /// Where the members listen, in the order of the configuration.
    pub(crate) addrs: Vec<String>,
}

impl Carrier for LinkedCarrier {
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a> {
        let is_cut =
            move || self.addrs.iter().position(|one| one == addr).is_some_and(|place| self.links.is_cut(place));
        Box::pin(async move {
            if is_cut() {
                return Err(CarryError::NotSent(format!("the link to {addr} is cut")));
            }
            let answer = self.carrier.exchange(addr, call, limit).await?;
            // It may have been cut meanwhile.
            if is_cut() { Err(CarryError::NoAnswer(format!("the link to {addr} is cut"))) } else { Ok(answer) }
        })
    }
}
