//! What may happen between the steps of a read. Each test fails when the steps are put in another order.

use std::sync::Arc;

use star_core::{Time, config::GroupAccess, store::Store};

use super::{look::Step, *};
use crate::{MappedStore, Options};

const KEY: &str = "a-key";
const LEASE: Time = Time(1000);

type Script<'a> = &'a mut dyn FnMut(Step, &mut Scene);

/// A store, and a clock that stands where it is put.
struct Scene {
    directory: tempfile::TempDir,
    store: Option<MappedStore>,
    next_version: u64,
    now: Time,
    /// Whether the first look is a glance.
    hurries: bool,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut scene = Self { directory, store: None, next_version: 1, now: Time(10), hurries: true };
        scene.store = Some(MappedStore::create(&scene.options()).unwrap());
        scene.allow(LEASE);
        scene
    }

    /// One for each of the two looks.
    fn of_each_look() -> [Self; 2] {
        [true, false].map(|hurries| Self { hurries, ..Self::new() })
    }

    /// For readers that look at the machine's clock.
    fn forever() -> Self {
        let mut scene = Self::new();
        scene.allow(Time(u64::MAX));
        scene
    }

    fn options(&self) -> Options {
        Options {
            path: self.directory.path().join("store"),
            capacity_bytes: 1 << 20,
            entries_max: Some(64),
            stars: 2,
            cluster: "test".into(),
            incarnation: Incarnation(1),
            group: GroupAccess::None,
            huge_pages: false,
        }
    }

    fn store(&mut self) -> &mut MappedStore {
        self.store.as_mut().unwrap()
    }

    fn allow(&mut self, until: Time) {
        (0..2).for_each(|star| self.store().set_serving(star_core::StarId(star), true));
        self.store().set_lease(until);
    }

    fn set(&mut self, value: &str) {
        self.set_key(&Key::new(KEY), value);
    }

    fn set_key(&mut self, key: &Key, value: &str) {
        let version = Version(self.next_version);
        self.next_version += 1;
        let place = self.store().place(key, Encoding::Raw, value.len()).unwrap();
        self.store().fill(place, 0, value.as_bytes());
        self.store().mark_dirty(key).unwrap();
        self.store().publish(key, place, version, false);
    }

    /// Other keys, so that there are several buckets.
    fn crowd(&mut self) {
        (0..30).for_each(|number| self.set_key(&Key::new(format!("crowd-{number}")), "value"));
    }

    fn restart(&mut self) {
        self.store = None;
        self.store = Some(MappedStore::open(&self.options()).unwrap().0);
    }

    /// Reads the key, with `script` run once at each step of the first look that comes by it.
    fn read(&mut self, script: Script<'_>) -> (Answer, String) {
        let reader = Reader::open(self.options().path).unwrap();
        let mut buffer = Vec::new();
        let mut scripted = Scripted { scene: self, script, seen: Vec::new() };
        let answer = reader.copy(KeyRef::new(KEY), &mut buffer, &mut scripted);
        (answer, String::from_utf8(buffer).unwrap())
    }

    fn read_with(&mut self, when: Step, mut what: impl FnMut(&mut Self)) -> (Answer, String) {
        self.read(&mut |step, scene| {
            if step == when {
                what(scene);
            }
        })
    }
}

impl Scene {
    /// The same for an object in place.
    fn pin_with(
        &mut self,
        reader: &Reader,
        when: Step,
        mut what: impl FnMut(&mut Self),
    ) -> Result<Option<Vec<u8>>, Reason> {
        let script: Script<'_> = &mut |step, scene| {
            if step == when {
                what(scene);
            }
        };
        // The first pin of a reader is not for the first look.
        let _ = reader.get_ref(&Key::new(KEY));
        let mut scripted = Scripted { scene: self, script, seen: Vec::new() };
        let found = reader.in_place(KeyRef::new(KEY), &mut scripted)?;
        Ok(found.map(|found| found.to_vec()))
    }

    fn reader(&self) -> Arc<Reader> {
        Arc::new(Reader::open(self.options().path).unwrap())
    }
}

impl Scene {
    /// The same for all keys.
    fn list_with(&mut self, when: Step, mut what: impl FnMut(&mut Self)) -> Result<Listing, Reason> {
        let script: Script<'_> = &mut |step, scene| {
            if step == when {
                what(scene);
            }
        };
        let reader = self.reader();
        reader.list_among("", &mut Scripted { scene: self, script, seen: Vec::new() })
    }
}

struct Scripted<'a> {
    scene: &'a mut Scene,
    script: Script<'a>,
    seen: Vec<Step>,
}

impl Surroundings for Scripted<'_> {
    fn at(&mut self, step: Step) {
        if !self.seen.contains(&step) {
            self.seen.push(step);
            (self.script)(step, self.scene);
        }
    }

    fn in_time(&mut self, until: Time) -> bool {
        self.scene.now < until
    }

    fn hurries(&self) -> bool {
        self.scene.hurries
    }
}

fn found(version: u64) -> Answer {
    Answer::Found { version: Version(version), encoding: Encoding::Raw }
}

const STEPS: [Step; 3] = [Step::Permitted, Step::Found, Step::Taken];

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_read_again() {
    for step in STEPS {
        for mut scene in Scene::of_each_look() {
            scene.set("old");
            assert_eq!(scene.read_with(step, |scene| scene.set("new")), (found(2), "new".into()), "{step:?}");
        }
    }
}

#[test]
fn a_block_that_is_freed_and_used_again_is_never_taken_for_the_object() {
    for step in STEPS {
        for mut scene in Scene::of_each_look() {
            scene.set("old");
            let answer = scene.read_with(step, |scene| (0..8).for_each(|i| scene.set(["odd", "eve"][i % 2])));
            assert_eq!(answer, (found(9), "eve".into()), "{step:?}");
        }
    }
}

#[test]
fn a_key_that_appears_while_it_is_looked_for_is_found() {
    for step in STEPS {
        let mut scene = Scene::new();
        assert_eq!(scene.read_with(step, |scene| scene.set("new")), (found(1), "new".into()), "{step:?}");
    }
}

#[test]
fn a_mark_that_comes_while_the_object_is_read_is_met() {
    for known in [true, false] {
        for step in STEPS {
            for mut scene in Scene::of_each_look() {
                if known {
                    scene.set("old");
                }
                let answer = scene.read_with(step, |scene| scene.store().mark_dirty(&Key::new(KEY)).unwrap());
                assert_eq!(answer, (Answer::Ask(Reason::Dirty), String::new()), "{known} {step:?}");
            }
        }
    }
}

/// The lease must have been there when the read began. The server was out of its view when the object was read, and
/// comes back before the clock is looked at: its new lease says nothing of what was read before.
#[test]
fn a_lease_that_came_after_the_look_does_not_vouch_for_it() {
    for mut scene in Scene::of_each_look() {
        let hurried = scene.hurries;
        scene.set("old");
        scene.now = LEASE;
        let answer = scene.read_with(Step::Checked, |scene| {
            scene.set("new");
            scene.store().set_lease(Time(LEASE.0 * 2));
        });
        // After a glance it is looked at once more, under the new lease.
        let looked_again = (found(2), "new".into());
        assert_eq!(answer, if hurried { looked_again } else { (Answer::Ask(Reason::NoLease), String::new()) });
    }
}

#[test]
fn a_lease_that_runs_out_during_the_look_is_not_enough() {
    for step in [Step::Permitted, Step::Found, Step::Taken, Step::Checked] {
        for mut scene in Scene::of_each_look() {
            scene.set("old");
            let answer = scene.read_with(step, |scene| scene.now = LEASE);
            assert_eq!(answer, (Answer::Ask(Reason::NoLease), String::new()), "{step:?}");
        }
    }
}

#[test]
fn a_lease_that_is_renewed_during_the_look_disturbs_nobody() {
    for mut scene in Scene::of_each_look() {
        scene.set("old");
        let mut looks = 0;
        let answer = scene.read(&mut |step, scene| {
            looks += usize::from(step == Step::Permitted);
            scene.store().set_lease(Time(LEASE.0 + 500));
        });
        assert_eq!((answer, looks), ((found(1), "old".into()), 1));
    }
}

#[test]
fn a_lease_that_is_handed_back_and_given_again_makes_the_reader_look_again() {
    for mut scene in Scene::of_each_look() {
        scene.set("old");
        let answer = scene.read_with(Step::Checked, |scene| {
            scene.store().set_lease(Time::ZERO);
            scene.set("new");
            scene.store().set_lease(Time(LEASE.0 * 2));
        });
        assert_eq!(answer, (found(2), "new".into()));
    }
}

#[test]
fn a_star_that_is_left_and_joined_again_makes_the_reader_look_again() {
    for mut scene in Scene::of_each_look() {
        scene.set("old");
        let star = Key::new(KEY).star(2);
        let answer = scene.read_with(Step::Checked, |scene| {
            scene.store().set_serving(star, false);
            scene.set("new");
            scene.store().set_serving(star, true);
        });
        assert_eq!(answer, (found(2), "new".into()));
        let answer = scene.read_with(Step::Checked, |scene| scene.store().set_serving(star, false));
        assert_eq!(answer.0, Answer::Ask(Reason::NotServing));
    }
}

/// A restart takes the marks away. A read that began under the old life's lease must not take that for clean.
#[test]
fn a_restart_during_the_look_ends_the_old_permission() {
    // A read that has met the mark goes no further than `Found`.
    for step in [Step::Permitted, Step::Found] {
        for mut scene in Scene::of_each_look() {
            scene.set("old");
            scene.store().mark_dirty(&Key::new(KEY)).unwrap();
            let answer = scene.read_with(step, Scene::restart);
            assert_eq!(answer.0, Answer::Ask(Reason::NoLease), "{step:?}");
        }
    }
}

#[test]
fn a_new_file_in_the_old_ones_place_is_noticed() {
    let mut scene = Scene::new();
    scene.set("old");
    let old = Reader::open(scene.options().path).unwrap();
    assert!(!old.moved());
    scene.store = None;
    let mut buffer = Vec::new();
    assert_eq!(old.get(&Key::new(KEY), &mut buffer), Answer::Ask(Reason::NoLease));
    scene.store = Some(MappedStore::create(&scene.options()).unwrap());
    scene.allow(Time(u64::MAX));
    assert_eq!(old.get(&Key::new(KEY), &mut buffer), Answer::Ask(Reason::Moved));
    assert!(old.moved());
    let new = Reader::open(scene.options().path).unwrap();
    assert_eq!(new.get(&Key::new(KEY), &mut buffer), Answer::NotFound);
}

#[test]
fn a_writer_that_stopped_in_a_change_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.set("old");
    let reader = Reader::open(scene.options().path).unwrap();
    let file = File::options().read(true).write(true).open(scene.options().path).unwrap();
    let memory = Memory::writable(&file, reader.geometry.file_bytes).unwrap();
    let bucket = Table::at_word(reader.table.home(&reader.memory, Key::new(KEY).hash()));
    memory.store(
        bucket,
        memory.load(bucket, std::sync::atomic::Ordering::Relaxed) + 1,
        std::sync::atomic::Ordering::Relaxed,
    );
    assert_eq!(scene.read(&mut |_, _| {}).0, Answer::Ask(Reason::Contended));
    scene.restart();
    scene.allow(LEASE);
    assert_eq!(scene.read(&mut |_, _| {}), (found(1), "old".into()), "recovery mends the bucket");
}

mod lists;
mod pins;
