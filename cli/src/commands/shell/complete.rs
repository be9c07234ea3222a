//! Completion of commands, server names and keys.

use std::{cell::RefCell, rc::Rc, time::Duration};

use rustyline::{
    Context, Helper, Result,
    completion::{Completer as Complete, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};
use tokio::runtime::Runtime;

use super::run::{COMMANDS, Session, takes_key};

/// The most keys that are offered.
const KEYS: u32 = 50;
/// Whoever presses Tab does not want to wait.
const KEYS_WITHIN: Duration = Duration::from_millis(250);

/// Completes what is typed.
pub(super) struct Completer {
    runtime: Rc<Runtime>,
    session: Rc<RefCell<Session>>,
}

impl Completer {
    pub(super) fn new(runtime: Rc<Runtime>, session: Rc<RefCell<Session>>) -> Self {
        Self { runtime, session }
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let Ok(session) = self.session.try_borrow() else { return Vec::new() };
        let listed = async { tokio::time::timeout(KEYS_WITHIN, session.client().list(prefix, None, KEYS)).await };
        match self.runtime.block_on(listed) {
            Ok(Ok(page)) => page.keys,
            // Completion is a convenience: the command itself will say what is wrong.
            _ => Vec::new(),
        }
    }
}

impl Complete for Completer {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let typed = &line[..position];
        let start = typed.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let word = &typed[start..];
        let before: Vec<&str> = typed[..start].split_whitespace().collect();
        let candidates = match before.as_slice() {
            [] => COMMANDS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            ["use" | "failLink" | "fixLink" | "failProcess"] | ["failLink" | "fixLink", _] => {
                self.session.try_borrow().map(|session| session.server_names()).unwrap_or_default()
            }
            ["time"] => vec!["on".to_owned(), "off".to_owned()],
            [command] if takes_key(command) => self.keys(word),
            _ => Vec::new(),
        };
        // Keys with blanks would need quotes.
        let fits = |text: &String| text.starts_with(word) && !text.contains(char::is_whitespace);
        let pair = |text: String| Pair { replacement: format!("{text} "), display: text };
        Ok((start, candidates.into_iter().filter(fits).map(pair).collect()))
    }
}

impl Hinter for Completer {
    type Hint = String;
}
impl Highlighter for Completer {}
impl Validator for Completer {}
impl Helper for Completer {}
