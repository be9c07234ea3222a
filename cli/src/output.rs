//! What the program prints: JSON lines for scripts, tables and short numbers for people.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::Serialize;

/// Green: as it should be.
pub(crate) const GOOD: Style = Style::new().fg_color(Some(clap::builder::styling::Color::Ansi(AnsiColor::Green)));
/// Red: wrong.
pub(crate) const BAD: Style = Style::new().bold().fg_color(Some(clap::builder::styling::Color::Ansi(AnsiColor::Red)));
/// What stands out.
pub(crate) const STRONG: Style = Style::new().bold();

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints text on a line of its own. Unlike `println!` it does not panic if nobody reads any more.
pub(crate) fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    out.flush()
}

/// Prints a note for people beside the output.
pub(crate) fn note(text: impl AsRef<str>) {
    anstream::eprintln!("{}", text.as_ref());
}

/// Whether a person sees what is printed.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person sees progress.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A table with these columns; those of the given numbers hold numbers.
pub(crate) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_style(TableComponent::HeaderLines, '─').set_header(header);
    for number in numbers {
        if let Some(column) = table.column_mut(*number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people say them: `12.3 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    bytesize::ByteSize(number).to_string()
}

/// Microseconds as people say them: `812 µs`, `1.24 ms`.
pub(crate) fn micros(micros: f64) -> String {
    match micros {
        ..0.95 => format!("{:.0} ns", micros * 1e3),
        ..9.95 => format!("{micros:.1} µs"),
        ..999.5 => format!("{micros:.0} µs"),
        ..999_500.0 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Seconds with one digit: `2.4 s`.
pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

/// A span in whole seconds: `1h 2m 3s`.
pub(crate) fn uptime(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_enough() {
        assert_eq!([0, 7, 999, 1000, 1_234_567].map(count), ["0", "7", "999", "1,000", "1,234,567"].map(str::to_owned));
        assert_eq!(
            [0.12, 3.12, 812.0, 1240.0, 2_500_000.0].map(micros),
            ["120 ns", "3.1 µs", "812 µs", "1.24 ms", "2.50 s"].map(str::to_owned)
        );
        assert_eq!(uptime(Duration::from_millis(3_723_900)), "1h 2m 3s");
    }
}
