//! The log of a real process: each test runs this very program again, as a process that logs.

use std::process::{Command, Output};

use serde_json::Value;
use star_core::{
    config::{LogConfig, LogFormat},
    logger,
};

const FORMAT: &str = "STAR_TEST_LOG_FORMAT";

/// Not a test of its own: what the processes do that the tests start.
#[test]
fn child() {
    let Ok(format) = std::env::var(FORMAT) else { return };
    let format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
    let config = LogConfig { level: "info,quiet=error".to_owned(), format };
    logger::init(&config, "server \"a\"").unwrap();
    logger::init(&config, "another").unwrap();
    tracing::info!(stars = 8, "a \"star\" is up");
    tracing::debug!("too small a matter");
    tracing::warn!(target: "quiet", "too quiet a module");
}

fn log(format: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let Output { status, stderr, .. } =
        Command::new(program).args(["--exact", "child", "--nocapture"]).env(FORMAT, format).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{stderr}");
    stderr.lines().map(str::to_owned).collect()
}

#[test]
fn text_lines_begin_with_the_server() {
    let lines = log("text");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("[server \"a\"] "), "{lines:?}");
    assert!(lines[0].contains("INFO") && lines[0].ends_with("a \"star\" is up stars=8"), "{lines:?}");
}

#[test]
fn json_lines_are_objects_with_the_server() {
    let lines = log("json");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["server"], &line["level"]), (&"server \"a\"".into(), &"INFO".into()), "{line}");
    assert_eq!((&line["message"], &line["stars"]), (&"a \"star\" is up".into(), &8.into()), "{line}");
}

#[test]
fn a_level_that_is_no_filter_is_an_error() {
    let config = LogConfig { level: "a=b=c".to_owned(), format: LogFormat::Text };
    assert!(logger::init(&config, "a").unwrap_err().to_string().contains("a=b=c"));
}
