//! `star serve`: one server in the foreground.

use std::io::Read;

use clap::Args;
use star::{StarServer, StartError};
use star_core::config::Config;
use tokio::sync::oneshot;

use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    settings,
    signals::Signals,
};

const EXAMPLES: &str = "\
Examples:
  star serve --name a                             server a of the configuration
  star serve --name a --set log.level=debug
  STAR_CONTROL__BACKEND=redis star serve --name a
The log goes to stderr. Ctrl-C or SIGTERM stops the server in good order.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The server: one of those that the configuration names
    #[arg(long)]
    name: String,
    /// Stop when stdin is closed: for programs that start servers and must not leave any behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(crate) fn run(global: &GlobalArgs, args: &ServeArgs) -> CliResult {
    let config = settings::load(global)?;
    serve(&config, &args.name, args.until_stdin_closes, || StarServer::start(&config, &args.name))
}

/// Runs a server until it is asked to end, or must.
pub(super) fn serve(
    config: &Config,
    name: &str,
    until_stdin_closes: bool,
    start: impl FnOnce() -> Result<StarServer, StartError>,
) -> CliResult {
    star_core::logger::init(&config.log, name)?;
    let runtime = connection::runtime()?;
    // Before the server starts: a signal that comes while it does must stop it too, in good order.
    let signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let server = start()?;
    let outcome = runtime.block_on(wait(&server, signals, until_stdin_closes));
    server.stop();
    outcome
}

/// Waits for whatever ends the server.
async fn wait(server: &StarServer, mut signals: Signals, until_stdin_closes: bool) -> CliResult {
    let mut failure = server.failure();
    tokio::select! {
        () = signals.next() => Ok(Exit::Done),
        () = stdin_closes(), if until_stdin_closes => Ok(Exit::Done),
        failed = failure.wait_for(Option::is_some) => match failed {
            Ok(why) => Err(CliError::new(format!(
                "server {} had to stop: {}",
                server.name(),
                why.as_deref().unwrap_or("for no reason that it names")
            ))),
            Err(_) => Err(CliError::new(format!("the thread of server {} ended", server.name()))),
        },
    }
}

/// Waits for the end of stdin on a thread of its own, which nobody waits for when the server ends otherwise.
async fn stdin_closes() {
    let (closed, is_closed) = oneshot::channel();
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut bytes = [0; 256];
        // An error ends stdin as well.
        while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
        // Nobody waits any more if the server is stopping.
        let _: Result<(), ()> = closed.send(());
    });
    match reader {
        Ok(_) => drop(is_closed.await),
        // Without the thread the server lives until a signal.
        Err(_) => std::future::pending().await,
    }
}
