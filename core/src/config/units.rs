//! Sizes and durations, written with a unit or as a bare number.

use serde::{Deserialize, Deserializer, de::Error};
use toml::Value;

const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

const DURATIONS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A number of bytes, from a whole number or a text such as `"64 MiB"`.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number(deserializer, SIZES, r#"a whole number of bytes, or one with B, KiB, MiB, GiB or TiB, such as "64 MiB""#)
}

/// A number of milliseconds, from a whole number or a text such as `"600 ms"`.
pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number(deserializer, DURATIONS, r#"a whole number of milliseconds, or one with ms, s, min, h or d, such as "5 s""#)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, units: &[(&str, u64)], wanted: &str) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => parse(text, units),
        _ => None,
    };
    number.ok_or_else(|| D::Error::custom(format!("{value} is not {wanted}")))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor).filter(|number| i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, number) in [("64 MiB", Some(64 << 20)), ("1KiB", Some(1024)), ("7 B", Some(7)), ("0 B", Some(0))] {
            assert_eq!(parse(text, SIZES), number, "{text}");
        }
        for text in ["", "MiB", "1 MB", "1.5 MiB", "-1 B", "1", "1 mib", "9999999 TiB", "1 MiB x"] {
            assert_eq!(parse(text, SIZES), None, "{text}");
        }
        for (text, number) in [("600 ms", Some(600)), ("5 s", Some(5_000)), ("10 min", Some(600_000)), ("1 m", None)] {
            assert_eq!(parse(text, DURATIONS), number, "{text}");
        }
    }
}
