//! The sizes in which small blocks get room.

use crate::layout::PAGE_BYTES;

/// Blocks larger than this get room of their own.
pub(super) const SMALL_BYTES_MAX: usize = PAGE_BYTES / 4;
/// Blocks up to this size find their class in a table.
const TABLE_BYTES_MAX: usize = 2048;
const STEPS: [(usize, usize); 4] = [(256, 16), (512, 32), (1024, 64), (TABLE_BYTES_MAX, 128)];
/// The smallest block: a head of 24 bytes and a key of up to 24.
const SMALLEST_BYTES: usize = 48;
/// From 31 blocks in a page down to 4.
const FRACTIONS: usize = 28;

/// How many classes there are.
pub(super) const CLASSES: usize = (256 - SMALLEST_BYTES) / 16 + 1 + 8 + 8 + 8 + FRACTIONS;

/// Bytes of a block of each class, growing; multiples of 16, above 2 KiB of 64.
///
/// At most an eighth is lost to rounding up to 2 KiB. Above, a class is a page divided by a whole number, so that
/// nothing is left over at the end of a page.
pub(super) static CLASS_BYTES: [usize; CLASSES] = class_bytes();
static TABLE: [u8; TABLE_BYTES_MAX / 16 + 1] = table();

const fn class_bytes() -> [usize; CLASSES] {
    let mut classes = [0; CLASSES];
    let (mut count, mut bytes, mut step) = (0, SMALLEST_BYTES, 0);
    while bytes <= TABLE_BYTES_MAX {
        classes[count] = bytes;
        count += 1;
        if bytes >= STEPS[step].0 {
            step += 1;
        }
        if step == STEPS.len() {
            break;
        }
        bytes += STEPS[step].1;
    }
    let mut blocks = 3 + FRACTIONS;
    while blocks > 3 {
        classes[count] = PAGE_BYTES / blocks / 64 * 64;
        count += 1;
        blocks -= 1;
    }
    assert!(count == CLASSES);
    classes
}

const fn table() -> [u8; TABLE_BYTES_MAX / 16 + 1] {
    let mut table = [0; TABLE_BYTES_MAX / 16 + 1];
    let (mut i, mut class) = (0, 0);
    while i < table.len() {
        if CLASS_BYTES[class] < i * 16 {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

/// The class of a block, or None for one that is too large for any.
#[inline]
pub(super) fn class_of(bytes: usize) -> Option<usize> {
    if bytes <= TABLE_BYTES_MAX {
        Some(usize::from(TABLE[bytes.div_ceil(16)]))
    } else if bytes <= SMALL_BYTES_MAX {
        Some(CLASS_BYTES.partition_point(|class| *class < bytes))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_and_are_aligned() {
        assert!(CLASS_BYTES.windows(2).all(|pair| pair[0] < pair[1]), "{CLASS_BYTES:?}");
        assert!(CLASS_BYTES.iter().all(|bytes| bytes.is_multiple_of(16)));
        assert!(CLASS_BYTES.iter().all(|bytes| *bytes <= 2048 || bytes.is_multiple_of(64)));
        assert_eq!(CLASS_BYTES.last(), Some(&SMALL_BYTES_MAX));
    }

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for bytes in 1..=SMALL_BYTES_MAX {
            let class = class_of(bytes).unwrap();
            assert!(CLASS_BYTES[class] >= bytes);
            assert!(class == 0 || CLASS_BYTES[class - 1] < bytes);
        }
        assert_eq!(class_of(SMALL_BYTES_MAX + 1), None);
    }

    #[test]
    fn rounding_loses_little() {
        let lost = |bytes: usize| CLASS_BYTES[class_of(bytes).unwrap()] - bytes;
        assert!((256..=2048).all(|bytes| lost(bytes) * 8 <= bytes + 128));
        assert!((2049..=SMALL_BYTES_MAX).all(|bytes| lost(bytes) * 4 <= bytes + 256));
    }
}
