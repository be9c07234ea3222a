//! Keys and values as people write them: any JSON, or a word for a string.

use serde_json::{Deserializer, Map, Value};

/// Takes a literal off the front of a line: it, and what follows. A word that is no JSON stands for itself as a string.
pub fn literal(line: &str) -> Result<(Value, &str), String> {
    let line = line.trim_start();
    if line.is_empty() {
        return Err("a literal is missing, such as 1, \"text\", [1, 2] or {\"key\": \"value\"}".to_owned());
    }
    let mut literals = Deserializer::from_str(line).into_iter::<Value>();
    let ends_well = |rest: &str| rest.is_empty() || rest.starts_with(char::is_whitespace);
    if let Some(Ok(value)) = literals.next() {
        let rest = &line[literals.byte_offset()..];
        if ends_well(rest) {
            return Ok((sorted(value), rest));
        }
    }
    if line.starts_with(['{', '[', '"']) {
        return Err(format!("this is no JSON: {line}"));
    }
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    Ok((Value::from(&line[..end]), &line[end..]))
}

/// The same with the keys of all objects in order, so that what is equal has one text.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_follow_one_another_on_a_line() {
        let (key, rest) = literal(r#" {"b": [1, {"d": 2, "c": 3}], "a": null} "two words"  "#).expect("a key");
        assert_eq!(key.to_string(), r#"{"a":null,"b":[1,{"c":3,"d":2}]}"#);
        let (value, rest) = literal(rest).expect("a value");
        assert_eq!((value, rest.trim()), (Value::from("two words"), ""));
        let (key, rest) = literal("k -1.5").expect("a key");
        assert_eq!((key, literal(rest).expect("a value").0), (Value::from("k"), Value::from(-1.5)));
        assert_eq!(literal("12ab c").expect("a word").0, Value::from("12ab"));
        assert_ne!(literal("1").expect("a number").0.to_string(), literal("\"1\"").expect("a text").0.to_string());
        assert!(literal("  ").is_err() && literal("{\"a\"").is_err() && literal("\"a").is_err());
    }
}
