//! The allocator against its promises: nothing given twice, everything comes back, little is lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const AREA: usize = 4 << 20;

/// A small deterministic source of sizes.
fn sizes(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    }
}

fn fill(allocator: &mut Allocator, mut size: impl FnMut() -> usize) -> Vec<(usize, usize)> {
    let mut held = Vec::new();
    loop {
        let bytes = size();
        match allocator.allocate(bytes) {
            Some(offset) => held.push((offset, bytes)),
            None => return held,
        }
    }
}

#[test]
fn full_then_empty_then_full_again_holds_the_same() {
    for bytes in [48, 144, 1000, 5000, 16_384, 16_385, 70_000, 1 << 20] {
        let mut allocator = Allocator::new(AREA);
        let held = fill(&mut allocator, || bytes);
        assert!(held.len() * bytes * 100 > AREA * 80, "{bytes}: {} blocks", held.len());
        for (offset, bytes) in &held {
            allocator.free(*offset, *bytes);
        }
        assert_eq!(allocator.used_bytes(), 0);
        assert_eq!(fill(&mut allocator, || bytes).len(), held.len(), "{bytes}");
    }
}

#[test]
fn what_small_blocks_leave_serves_large_ones_and_back() {
    let mut allocator = Allocator::new(AREA);
    for round in 0..4 {
        let bytes = if round % 2 == 0 { 100 } else { 1 << 20 };
        let held = fill(&mut allocator, || bytes);
        assert!(held.len() * bytes * 100 > AREA * 80, "round {round}: {} blocks of {bytes}", held.len());
        held.iter().rev().for_each(|(offset, bytes)| allocator.free(*offset, *bytes));
    }
}

#[test]
fn one_block_that_comes_and_goes_does_not_move_a_page() {
    let mut allocator = Allocator::new(AREA);
    let first = allocator.allocate(100).unwrap();
    allocator.free(first, 100);
    assert!(allocator.extents.runs()[0].0 > 0, "the page is kept");
    assert_eq!(allocator.allocate(100), Some(first));
}

/// A mix of sizes churned for a long time: what is asked for still fills most of the area before the first refusal.
#[test]
fn fragmentation_is_bounded() {
    let area = 64 << 20;
    let mut next = sizes(7);
    let mut size = move || match next(10) {
        0..=5 => 48 + next(400),
        6..=8 => 1024 + next(15_000),
        _ => 20_000 + next(200_000),
    };
    let mut pick = sizes(99);
    let mut allocator = Allocator::new(area);
    let mut held: Vec<(usize, usize)> = Vec::new();
    let mut asked = 0;
    let (mut worst, mut sum, mut refusals) = (usize::MAX, 0, 0);
    for _ in 0..400_000 {
        let bytes = size();
        if let Some(offset) = allocator.allocate(bytes) {
            held.push((offset, bytes));
            asked += bytes;
            continue;
        }
        worst = worst.min(asked);
        sum += asked;
        refusals += 1;
        for _ in 0..20 {
            let (offset, bytes) = held.swap_remove(pick(held.len()));
            allocator.free(offset, bytes);
            asked -= bytes;
        }
    }
    assert!(refusals > 1000, "the area was full {refusals} times");
    let (worst, mean) = (worst * 100 / area, sum / refusals * 100 / area);
    println!("refused at {mean} % full on average, {worst} % at worst");
    assert!(worst >= 75 && mean >= 85, "refused at {mean} % full on average, {worst} % at worst");
}

/// What a window's blocks are is all that stands between it and room in one piece; nothing new comes there meanwhile.
#[test]
fn a_window_that_is_emptied_holds_what_was_asked_for() {
    let mut next = sizes(11);
    let mut made = 0;
    for round in 0..60 {
        let mut allocator = Allocator::new(AREA);
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        held.extend(fill(&mut allocator, || if next(3) == 0 { 16_000 + next(90_000) } else { 48 + next(9000) }));
        let gone: Vec<usize> = held.keys().copied().filter(|_| next(10) < 4).collect();
        gone.iter().for_each(|offset| allocator.free(*offset, held.remove(offset).unwrap()));
        let bytes = if round % 2 == 0 { 100_000 + next(300_000) } else { 48 + next(16_000) };
        let windows = allocator.windows(bytes);
        let Some(window) = windows.get(next(windows.len().max(1))) else { continue };
        let blocks = allocator.blocks_in(window);
        assert!(blocks.iter().all(|offset| held.contains_key(offset)), "each of them is in use");
        allocator.avoid(window);
        let new: Vec<(usize, usize)> = (0..200)
            .filter_map(|_| {
                let bytes = 48 + next(20_000);
                Some((allocator.allocate(bytes)?, bytes))
            })
            .collect();
        blocks.iter().for_each(|offset| allocator.free(*offset, held.remove(offset).unwrap()));
        allocator.allow_all();
        let offset = allocator.allocate(bytes).expect("room in one piece");
        let mut all: Vec<(usize, usize)> = held.into_iter().chain(new).chain([(offset, bytes)]).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "nothing is given twice");
        made += 1;
    }
    assert!(made > 40, "{made}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_never_overlap_and_can_be_claimed_again(
        steps in prop::collection::vec((any::<bool>(), 1..40_000usize), 1..400),
    ) {
        let mut allocator = Allocator::new(1 << 20);
        let mut held: BTreeMap<usize, usize> = BTreeMap::new();
        for (add, number) in steps {
            if add {
                // Mostly small ones.
                let bytes = if number % 4 == 0 { number } else { number % 600 + 1 };
                let Some(offset) = allocator.allocate(bytes) else { continue };
                prop_assert!(offset + bytes <= 1 << 20);
                let align = if bytes > 2048 { 64 } else { 16 };
                prop_assert!(offset.is_multiple_of(align));
                prop_assert!(held.range(..=offset).next_back().is_none_or(|(at, len)| at + len <= offset));
                prop_assert!(held.range(offset..).next().is_none_or(|(at, _)| offset + bytes <= *at));
                held.insert(offset, bytes);
            } else if let Some((&offset, &bytes)) = held.range(number * 26..).next() {
                held.remove(&offset);
                allocator.free(offset, bytes);
            }
        }
        let mut again = Allocator::new(1 << 20);
        for (offset, bytes) in &held {
            prop_assert!(again.claim(*offset, *bytes));
            prop_assert!(!again.claim(*offset, *bytes), "claimed twice");
        }
        prop_assert_eq!(again.used_bytes(), allocator.used_bytes());
        for (offset, bytes) in held {
            again.free(offset, bytes);
        }
        prop_assert!(again.allocate(1 << 20).is_some(), "all of it is one piece again");
    }
}
