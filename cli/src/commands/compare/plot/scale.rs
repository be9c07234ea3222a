//! Scales: where numbers lie in a picture, and which of them are written beside it.

use std::ops::Range;

use plotters::coord::{
    ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    types::RangedCoordf64,
};

use crate::output;

/// A scale that is marked where it is told to be.
#[derive(Clone)]
pub(super) struct Scale {
    numbers: RangedCoordf64,
    marks: Vec<f64>,
}

impl Scale {
    pub(super) fn new(numbers: Range<f64>, marks: impl IntoIterator<Item = f64>) -> Self {
        Self { numbers: numbers.into(), marks: marks.into_iter().collect() }
    }

    /// Whole powers of ten that hold all these numbers, for their logarithms; `room` is left behind the last, in powers.
    pub(super) fn of_powers(numbers: impl Iterator<Item = f64>, room: f64) -> Self {
        let bounds = numbers.filter(|number| *number > 0.0).map(f64::log10).fold(None, |bounds, power| {
            let (least, most) = bounds.unwrap_or((power, power));
            Some((power.min(least), power.max(most)))
        });
        let (least, most) = bounds.map_or((0.0, 1.0), |(least, most)| (least.floor(), most.ceil()));
        let most = most.max(least + 1.0);
        Self::new(least..most + room, (least as i32..=most as i32).map(f64::from))
    }

    /// Where it begins.
    pub(super) fn begin(&self) -> f64 {
        self.numbers.range().start
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, number: &f64, limit: (i32, i32)) -> i32 {
        self.numbers.map(number, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.numbers.range()
    }
}

/// A power of ten, as people write it.
pub(super) fn power(exponent: f64) -> String {
    match exponent {
        0.0.. => output::count(10_f64.powf(exponent).round() as u64),
        _ => format!("{}", 10_f64.powf(exponent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_hold_all_numbers_and_are_at_least_two() {
        let marks = |numbers: &[f64]| Scale::of_powers(numbers.iter().copied(), 0.0).marks;
        assert_eq!(marks(&[250.0, 0.0, 1_000.0, 99_000.0]), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(marks(&[1_000.0]), [3.0, 4.0]);
        assert_eq!(marks(&[]), [0.0, 1.0]);
        assert_eq!([0.0, 3.0, -1.0].map(power), ["1", "1,000", "0.1"]);
    }
}
