//! What the tests share: options, and values that say what they must be.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;

use star_core::{
    Incarnation, Key, StarId, Time, Version,
    config::GroupAccess,
    store::{Encoding, Store},
};
use star_objstore::{MappedStore, Options};

pub(crate) const STARS: u16 = 8;

pub(crate) fn options(path: &Path, capacity_bytes: u64) -> Options {
    Options {
        path: path.to_path_buf(),
        capacity_bytes,
        entries_max: None,
        stars: STARS,
        cluster: "test-cluster".into(),
        incarnation: Incarnation(1),
        group: GroupAccess::None,
        huge_pages: false,
    }
}

/// Lets readers answer for every star, for the whole test.
pub(crate) fn allow(store: &mut MappedStore) {
    (0..STARS).for_each(|star| store.set_serving(StarId(star), true));
    store.set_lease(Time(u64::MAX));
}

pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The one right value of a key's version. Its length is part of what is checked.
pub(crate) fn value(key: &str, version: u64) -> Vec<u8> {
    let seed = mix(Key::new(key).hash() ^ version);
    let len = match seed % 20 {
        0 => 0,
        1..=13 => seed >> 32 & 255,
        14..=17 => seed >> 32 & 4095,
        18 => 4096 + (seed >> 32 & 16_383),
        _ => 16_384 + (seed >> 32 & 65_535),
    };
    (0..len.div_ceil(8)).flat_map(|i| mix(seed.wrapping_add(i)).to_le_bytes()).take(len as usize).collect()
}

/// One whole write, the way a server does it. False, and nothing changed, if there is no room.
pub(crate) fn set(store: &mut impl Store, key: &Key, version: u64, value: &[u8]) -> bool {
    let Ok(place) = store.place(key, Encoding::Raw, value.len()) else { return false };
    let half = value.len() / 3;
    store.fill(place, 0, &value[..half]);
    store.fill(place, half, &value[half..]);
    if store.mark_dirty(key).is_err() {
        store.discard(place);
        return false;
    }
    store.publish(key, place, Version(version), false);
    true
}

pub(crate) fn delete(store: &mut impl Store, key: &Key) {
    if store.get(key).object.is_some() {
        store.mark_dirty(key).unwrap();
        store.remove(key, false);
    }
}
