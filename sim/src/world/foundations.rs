//! The foundations of stars: when the history of each began, and began anew because all copies of its objects were lost.
//!
//! An answer belongs to the foundation in which the server was that gave it. It must have been the latest one at some
//! moment between the question and the answer; for a read, at the moment of the answer.

use std::borrow::Cow;

use star_control::ClusterState;
use star_core::{
    ids::{Epoch, StarId},
    message::ResponseBody,
};

use super::{client::Attempt, workload::Part};
use crate::{
    history::{Op, Record},
    invariants::one_foundation,
};

/// All foundations of all stars.
#[derive(Debug)]
pub(crate) struct Foundations {
    stars: Vec<Star>,
}

#[derive(Debug, Default)]
struct Star {
    /// When each foundation began, by the world's clock; the first is the first view.
    began: Vec<u64>,
    /// The epochs of those that the present servers can know, the latest last.
    epochs: Vec<Epoch>,
    /// No foundation counts that is not after this epoch: it is of a time before all servers started anew.
    passed: Epoch,
    /// When it went on last with what a store held.
    resumed: Epoch,
}

/// Which foundation of its star: 0 is the first.
pub(crate) type Place = u16;

/// What nobody can place: an answer of many parts during which a star was founded.
pub(crate) const NOWHERE: Place = Place::MAX;

impl Foundations {
    pub(crate) fn new(stars: u16) -> Self {
        Self { stars: (0..stars).map(|_| Star::default()).collect() }
    }

    /// The views have changed; gives the stars that are founded by that.
    pub(crate) fn note(&mut self, now: u64, state: &ClusterState) -> Vec<StarId> {
        let mut founded = Vec::new();
        for (star, view) in self.stars.iter_mut().zip(&state.stars) {
            if view.founded > star.epochs.last().copied().unwrap_or(star.passed) {
                star.began.push(now);
                star.epochs.push(view.founded);
                founded.push(view.star);
            }
        }
        founded
    }

    /// The views have changed; how many stars went on with what a store held by that.
    pub(crate) fn note_resumed(&mut self, state: &ClusterState) -> u64 {
        let mut count = 0;
        for (star, view) in self.stars.iter_mut().zip(&state.stars) {
            let resumed = view.resumed.map_or(Epoch(0), |resumed| resumed.epoch);
            count += u64::from(resumed > star.resumed);
            star.resumed = star.resumed.max(resumed);
        }
        count
    }

    /// All servers start anew, without memory, from this state: what they found from now on comes after everything.
    pub(crate) fn start_anew(&mut self, state: &ClusterState) {
        for (star, view) in self.stars.iter_mut().zip(&state.stars) {
            star.epochs.clear();
            star.passed = view.founded;
            star.resumed = view.resumed.map_or(Epoch(0), |resumed| resumed.epoch);
        }
    }

    /// The epoch of the latest foundation; 0 if there is none.
    pub(crate) fn latest(&self, star: StarId) -> Epoch {
        self.stars[usize::from(star.0)].epochs.last().copied().unwrap_or_default()
    }

    /// The place of the latest foundation.
    pub(crate) fn latest_place(&self, star: StarId) -> Place {
        self.stars[usize::from(star.0)].began.len().saturating_sub(1) as Place
    }

    /// The place of the foundation of this epoch; `None` if there is no such foundation.
    pub(crate) fn place(&self, star: StarId, founded: Epoch) -> Option<Place> {
        let star = &self.stars[usize::from(star.0)];
        let back = star.epochs.iter().rev().position(|epoch| *epoch == founded)?;
        Some((star.began.len() - 1 - back) as Place)
    }

    /// When a foundation began, and when the next one did, if there is one.
    pub(crate) fn span(&self, star: StarId, place: Place) -> (u64, Option<u64>) {
        let began = &self.stars[usize::from(star.0)].began;
        let at = |place: usize| began.get(place).copied();
        (at(place.into()).unwrap_or(0), at(usize::from(place) + 1))
    }

    /// The foundations that were the latest at some moment from `call` to now.
    pub(crate) fn since(&self, star: StarId, call: u64) -> impl Iterator<Item = Place> + use<> {
        let began = &self.stars[usize::from(star.0)].began;
        let first = began.iter().skip(1).take_while(|at| **at <= call).count() as Place;
        first..=self.latest_place(star)
    }

    /// Which foundation answers each part of a request, by what the server that answers knows to be `founded`; nothing
    /// before any star was founded again.
    pub(crate) fn places(
        &self,
        attempt: &Attempt,
        body: &ResponseBody,
        stars: u16,
        founded: impl Fn(StarId) -> Epoch,
    ) -> Result<Vec<Place>, String> {
        if self.again() == 0 {
            return Ok(Vec::new());
        }
        let place = |(at, (part, body)): (usize, (&Part, &ResponseBody))| {
            let star = attempt.asked.star(at, stars);
            let (latest, founded) = (self.latest_place(star), founded(star));
            if founded == Epoch(0) || matches!(body, ResponseBody::Error(_)) {
                return Ok(latest);
            }
            let is_one = attempt.asked.is_one();
            match self.place(star, founded) {
                Some(place) if place == latest && (is_one || self.span(star, latest).0 <= attempt.call) => Ok(place),
                Some(place) if is_one && part.op != Op::Read => Ok(place),
                // Some parts may have been answered before it was founded, and some after.
                _ if !is_one && self.span(star, latest).0 > attempt.call => Ok(NOWHERE),
                _ => Err(format!(
                    "one foundation: star {star} is answered for as founded in epoch {founded}, not in epoch {}",
                    self.latest(star)
                )),
            }
        };
        attempt.asked.answers(body).enumerate().map(place).collect()
    }

    /// The record of an operation in each foundation in which it may have been done: where it was answered, and as one
    /// that may have been done in all others that it met, because its client sent it again. Each has a key of its own.
    pub(crate) fn records<'a>(
        &self,
        star: StarId,
        record: Record<'a>,
        place: Option<Place>,
    ) -> Result<Vec<Record<'a>>, String> {
        if self.latest_place(star) == 0 {
            return Ok(vec![record]);
        }
        let place = place.or(Some(0)).filter(|place| *place != NOWHERE && record.ret.is_some());
        if let Some(place) = place {
            one_foundation::check_write(star, record.call, self.span(star, place).1)?;
        }
        let in_one = |at: Place| {
            let key = if at == 0 { record.key.clone() } else { Cow::Owned(format!("{}@{at}", record.key)) };
            if place == Some(at) {
                return Some(Record { key, ..record.clone() });
            }
            let call = record.call.max(self.span(star, at).0);
            let unknown = Record { key, version: None, call, ret: None, ok: false, ..record.clone() };
            (record.op != Op::Read).then_some(unknown)
        };
        Ok(self.since(star, record.call).filter_map(in_one).collect())
    }

    /// How often a star was founded again.
    pub(crate) fn again(&self) -> u64 {
        self.stars.iter().map(|star| star.began.len().saturating_sub(1) as u64).sum()
    }
}
