//! Objects in place: what pins them, and how that ends.

use super::*;

#[test]
fn what_is_pinned_stays_as_it_is() {
    let mut scene = Scene::forever();
    scene.set("old");
    let reader = scene.reader();
    let old = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    let used_bytes = scene.store().usage().used_bytes;
    (0..1000).for_each(|i| scene.set(["odd", "eve"][i % 2]));
    assert_eq!((&*old, old.version()), (&b"old"[..], Version(1)));
    assert_eq!(scene.store().pinned().objects, 1);
    let new = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    assert_eq!((&*new, new.version()), (&b"eve"[..], Version(1001)));
    let key = Key::new(KEY);
    scene.store().remove(&key, false);
    assert_eq!((reader.get_ref(&key).unwrap().is_none(), &*old, &*new), (true, &b"old"[..], &b"eve"[..]));
    assert_eq!(scene.store().usage().used_bytes, 2 * used_bytes, "what is pinned is in use");
    drop((old, new));
    assert!(scene.store().release_pinned());
    assert_eq!((scene.store().pinned(), scene.store().usage().used_bytes), (crate::Pinned::default(), 0));
}

#[test]
fn an_object_that_is_replaced_while_it_is_pinned_is_looked_for_again() {
    for step in STEPS {
        for mut scene in Scene::of_each_look() {
            scene.set("old");
            let reader = scene.reader();
            // So often that the room of the first is used again unless its pin was seen.
            let found = scene.pin_with(&reader, step, |scene| (0..8).for_each(|i| scene.set(["odd", "eve"][i % 2])));
            assert_eq!(found, Ok(Some(b"eve".to_vec())), "{step:?}");
            scene.store().release_pinned();
            assert_eq!(scene.store().pinned().objects, 0, "{step:?}: the pin of a look that came to nothing is gone");
        }
    }
}

/// What is held in place outlives the reader that it was read with, and the store knows of it as before.
#[test]
fn an_object_in_place_needs_no_reader() {
    let mut scene = Scene::forever();
    scene.set("old");
    let reader = scene.reader();
    let old = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    drop(reader);
    (0..1000).for_each(|i| scene.set(["odd", "eve"][i % 2]));
    scene.store().release_pinned();
    assert_eq!((&*old, scene.store().pinned().objects), (&b"old"[..], 1));
    assert!(reference::left() >= 1, "its mapping is kept");
    drop(old);
    let pinned = |scene: &mut Scene| {
        scene.store().release_pinned();
        scene.store().pinned().objects
    };
    assert_eq!(pinned(&mut scene), 0);
}

#[test]
fn a_look_that_comes_to_nothing_pins_nothing() {
    for mut scene in Scene::of_each_look() {
        scene.set("old");
        let reader = scene.reader();
        let marked = scene.pin_with(&reader, Step::Taken, |scene| scene.store().mark_dirty(&Key::new(KEY)).unwrap());
        assert_eq!(marked, Err(Reason::Dirty));
        scene.store().mark_clean(&Key::new(KEY));
        let lapsed = scene.pin_with(&reader, Step::Checked, |scene| scene.now = LEASE);
        assert_eq!(lapsed, Err(Reason::NoLease));
        scene.set("new");
        assert_eq!(scene.store().pinned().objects, 0);
    }
}

#[test]
fn a_full_store_has_room_again_when_pins_end() {
    let mut scene = Scene::forever();
    let (key, half) = (Key::new(KEY), "x".repeat(600 << 10));
    scene.set(&half);
    let reader = scene.reader();
    let pinned = reader.get_ref(&key).unwrap().unwrap();
    scene.store().remove(&key, false);
    assert!(scene.store().place(&key, Encoding::Raw, half.len()).is_err());
    assert!(pinned.iter().all(|byte| *byte == b'x'));
    drop(pinned);
    assert!(scene.store().place(&key, Encoding::Raw, half.len()).is_ok());
}

#[test]
fn pins_have_an_end_and_copies_go_on() {
    let mut scene = Scene::forever();
    scene.set("old");
    let (reader, key) = (scene.reader(), Key::new(KEY));
    let mut pins = Vec::new();
    let refusal = loop {
        match reader.get_ref(&key) {
            Ok(pin) => pins.push(pin.unwrap()),
            Err(reason) => break reason,
        }
    };
    assert_eq!((refusal, pins.len()), (Reason::NoPin, 16 * crate::pins::SLOTS));
    assert_eq!(reader.get(&key, &mut Vec::new()), found(1));
    scene.set("new");
    assert_eq!(scene.store().pinned().objects, 1, "one object, however often it is pinned");
    pins.truncate(1);
    scene.store().release_pinned();
    assert_eq!(scene.store().pinned().objects, 1, "the last pin counts as much");
    pins.clear();
    scene.store().release_pinned();
    assert_eq!(scene.store().pinned().objects, 0);
    let others: Vec<_> = (0..300).map_while(|_| Some((scene.reader(), scene.reader().get_ref(&key).ok()?))).collect();
    assert_eq!(others.len(), 255 - 16, "a record for each reader while there are any");
}

/// The room of a pinned object is not used again, though the server that knew of it is gone.
#[test]
fn pins_outlive_the_writer() {
    let mut scene = Scene::forever();
    scene.set("old");
    let reader = scene.reader();
    let old = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    scene.set("new");
    let kept = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    scene.restart();
    assert_eq!(scene.store().pinned().objects, 1);
    (0..1000).for_each(|i| scene.set(["odd", "eve"][i % 2]));
    assert_eq!((&*old, &*kept, scene.store().pinned().objects), (&b"old"[..], &b"new"[..], 2));
    drop((old, kept));
    scene.restart();
    assert_eq!(scene.store().pinned().objects, 0);
}

/// The same where its bytes are not what they were: whoever holds it goes by the lengths that stand in it.
#[test]
fn a_damaged_object_keeps_its_room_while_it_is_pinned() {
    let mut scene = Scene::forever();
    scene.set("old");
    let reader = scene.reader();
    let old = reader.get_ref(&Key::new(KEY)).unwrap().unwrap();
    let at = Table::new(&reader.geometry).find(&reader.memory, Key::new(KEY).hash(), |_| true).unwrap().1.block_at();
    scene.set("new");
    let file = File::options().read(true).write(true).open(scene.options().path).unwrap();
    let block = crate::block::Block::read(&reader.memory, &reader.geometry, at).unwrap();
    Memory::writable(&file, reader.geometry.file_bytes).unwrap().write(block.value_at(), b"ill");
    scene.restart();
    assert_eq!(scene.store().pinned().objects, 1);
    (0..1000).for_each(|i| scene.set(["odd", "eve"][i % 2]));
    assert_eq!((&*old, old.version()), (&b"ill"[..], Version(1)));
    drop(old);
    assert!(scene.store().release_pinned());
}

/// A reader that is killed: its process's locks go, and whatever it had stored in the pin table stays.
#[test]
fn what_dead_readers_pinned_comes_back() {
    let mut scene = Scene::forever();
    scene.set("old");
    let key = Key::new(KEY);
    for round in 0..10_000 {
        let reader = scene.reader();
        let mut pins = Vec::new();
        // Dead before, in the middle of, and after a look; and between two.
        match round % 4 {
            0 => drop(reader.get_ref(&key).unwrap()),
            1 => pins.extend((0..60).map(|_| reader.get_ref(&key).unwrap().unwrap())),
            2 => {
                let holder = reader.holder.as_ref().unwrap();
                let at = Table::new(&reader.geometry).find(&reader.memory, key.hash(), |_| true).unwrap().1.block_at();
                holder.pin(at).unwrap();
            }
            _ => {}
        }
        scene.set(["odd", "eve"][round % 2]);
        assert_eq!(scene.store().pinned().objects, u64::from(matches!(round % 4, 1 | 2)), "{round}");
        scene.store().release_pinned();
        assert_eq!(scene.store().pinned().objects, u64::from(matches!(round % 4, 1 | 2)), "{round}: it lives");
        reader.holder.as_ref().unwrap().die();
        scene.store().release_pinned();
        assert_eq!(scene.store().pinned().objects, 0, "{round}");
        pins.into_iter().for_each(std::mem::forget);
    }
    scene.store().remove(&key, false);
    assert_eq!(scene.store().usage().used_bytes, 0);
}
