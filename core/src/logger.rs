//! The log: one line an event, to standard error, as text for people or as JSON for programs.

use std::{fmt, io::IsTerminal};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, JsonFields, Writer},
    },
    registry::LookupSpan,
};

use crate::config::{LogConfig, LogFormat};

/// Libraries that speak of every step they take, also where nothing is wrong: silent unless they are asked for by name.
const SILENT: &str = "openraft=off";

/// The log cannot be set up: its level is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log.level {level:?} is no filter: {reason}. Take off, error, warn, info, debug or trace, also by module")]
pub struct LogError {
    /// The level that was asked for.
    pub level: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Sets the process's log up: every line says that it comes from `server`. If the process has a log already, that one
/// stays.
pub fn init(config: &LogConfig, server: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(format!("{SILENT},{}", config.level))
        .map_err(|error| LogError { level: config.level.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let ansi = std::io::stderr().is_terminal();
    let server = server.to_owned();
    // An error says that the process has a log already.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(ansi).event_format(Text { server, line: Format::default() }).try_init(),
        LogFormat::Json => {
            let line = Format::default().json().flatten_event(true);
            builder.with_ansi(false).fmt_fields(JsonFields::new()).event_format(Json { server, line }).try_init()
        }
    };
    Ok(())
}

/// Lines that begin with the server's name.
struct Text<F> {
    server: String,
    line: F,
}

/// Objects whose first field is the server's name.
struct Json<F> {
    server: String,
    line: F,
}

impl<F, S, N> FormatEvent<S, N> for Text<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(out, "[{}] ", self.server)?;
        self.line.format_event(context, out, event)
    }
}

impl<F, S, N> FormatEvent<S, N> for Json<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let name = serde_json::to_string(&self.server).map_err(|_| fmt::Error)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(out, r#"{{"server":{name},{rest}"#),
            None => out.write_str(&line),
        }
    }
}
