//! What may happen while keys are listed, and while buckets are split.

use super::*;

#[test]
fn a_list_is_of_one_permission() {
    let mut scene = Scene::new();
    let leave_and_return = |scene: &mut Scene| {
        (0..2).for_each(|star| scene.store().set_serving(star_core::StarId(star), false));
        scene.set("written while it was away");
        scene.allow(LEASE);
    };
    let listing = scene.list_with(Step::Checked, leave_and_return).unwrap();
    assert_eq!((listing.keys, listing.dirty), (vec![Key::new(KEY)], vec![]));
    let lapse = |scene: &mut Scene| scene.now = LEASE;
    assert_eq!(scene.list_with(Step::Checked, lapse), Err(Reason::NoLease));
    scene.now = Time(10);
    scene.store().set_serving(star_core::StarId(1), false);
    assert_eq!(scene.list_with(Step::Checked, |_| {}), Err(Reason::NotServing));
}

#[test]
fn a_list_tells_what_is_sure_from_what_is_dirty() {
    let mut scene = Scene::new();
    scene.set("value");
    let new = Key::new("new");
    let listing = scene.list_with(Step::Permitted, |scene| scene.store().mark_dirty(&Key::new("new")).unwrap());
    let listing = listing.unwrap();
    assert_eq!((listing.keys, listing.dirty), (vec![Key::new(KEY)], vec![new]));
    let listing = scene.list_with(Step::Permitted, |scene| scene.store().mark_dirty(&Key::new(KEY)).unwrap());
    assert_eq!(listing.unwrap().dirty, [Key::new(KEY), Key::new("new")]);
}

#[test]
fn a_bucket_that_changes_while_it_is_listed_is_looked_at_again() {
    let mut scene = Scene::new();
    scene.set("value");
    scene.crowd();
    let (old, reader) = (Key::new(KEY), scene.reader());
    // In a bucket that comes later; its block takes the old one's room, which the reader is about to look at.
    let home = |key: &Key| reader.table.home(&reader.memory, key.hash());
    let later = |key: &Key| home(key) > home(&old);
    let new = (0..1000).map(|i| Key::new(format!("b-{i:03}"))).find(later).unwrap();
    let replace = |scene: &mut Scene| {
        scene.store().remove(&old, false);
        let place = scene.store().place(&new, Encoding::Raw, 5).unwrap();
        scene.store().publish(&new, place, Version(9), false);
    };
    let mut keys = scene.list_with(Step::Found, replace).unwrap().keys;
    keys.retain(|key| !key.as_str().starts_with("crowd"));
    assert_eq!(keys, std::slice::from_ref(&new));
}

/// A key that moves to another bucket while it is looked for is there all the same, and one that does not come stays away.
#[test]
fn a_bucket_that_is_split_is_looked_for_again() {
    for other in 0..40 {
        let mut scene = Scene::new();
        let key = Key::new(KEY);
        scene.set("value");
        (0..other).for_each(|number| scene.set_key(&Key::new(format!("crowd-{number}")), "value"));
        let home = |scene: &Scene| {
            let reader = scene.reader();
            reader.table.home(&reader.memory, key.hash())
        };
        let mut moved = false;
        let read = scene.read_with(Step::Aimed, |scene| {
            let before = home(scene);
            for number in other..60 {
                scene.set_key(&Key::new(format!("crowd-{number}")), "value");
                moved |= home(scene) != before;
            }
        });
        assert_eq!(read, (found(1), "value".into()), "{other}");
        assert!(moved || other > 24, "{other}");
    }
}

#[test]
fn a_list_has_what_moves_to_other_buckets_meanwhile() {
    for step in [Step::Permitted, Step::Found, Step::Checked] {
        let mut scene = Scene::new();
        (0..20).for_each(|number| scene.set_key(&Key::new(format!("old-{number:02}")), "value"));
        let grow = |scene: &mut Scene| (0..40).for_each(|i| scene.set_key(&Key::new(format!("new-{i:02}")), "value"));
        let mut keys = scene.list_with(step, grow).unwrap().keys;
        keys.retain(|key| key.as_str().starts_with("old"));
        assert_eq!(keys, (0..20).map(|number| Key::new(format!("old-{number:02}"))).collect::<Vec<_>>(), "{step:?}");
    }
}
