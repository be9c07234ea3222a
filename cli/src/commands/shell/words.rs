//! A line as words: separated by blanks, kept together by quotes.

/// The words of a line; the error is a sentence for people. `#` at the beginning of a word begins a comment.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => match letters.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("the line ends with a backslash that stands before nothing".to_owned()),
            },
            ('"' | '\'', None) => {
                quote = Some(letter);
                // "" is a word too.
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    match quote {
        Some(open) => Err(format!("the quote {open} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_separate_and_quotes_keep_together() {
        let cases: [(&str, &[&str]); 7] = [
            ("", &[]),
            ("  get  k ", &["get", "k"]),
            (r#"set k "two words""#, &["set", "k", "two words"]),
            (r#"set k '{"a": 1}'"#, &["set", "k", r#"{"a": 1}"#]),
            (r#"set k """#, &["set", "k", ""]),
            (r#"set a\ b "\"" x#y"#, &["set", "a b", "\"", "x#y"]),
            ("get k # what it was", &["get", "k"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).expect(line), words, "{line}");
        }
        assert!(split("set k 'open").is_err());
        assert!(split("set k \\").is_err());
    }
}
