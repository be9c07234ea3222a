//! `service_manager`: starts, stops and watches the services of this machine that Star needs: a Redis server for the
//! control plane, and the star servers.

mod args;
mod error;
mod launch;
mod manager;
mod objstore;
mod ports;
mod process;
mod record;
mod redis;
mod report;
mod settings;
mod signals;

use std::{process::ExitCode, time::Duration};

use args::{Cli, Command, StartArgs, StopArgs};
use clap::Parser;
use error::ServiceError;
use manager::Manager;
use report::State;
use settings::{ControlChoice, Settings};

/// How long processes that a failed start must stop again may take to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// The exit code of `status` when something that was started is dead or not healthy.
const UNHEALTHY: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(&cli)),
        Err(error) => Err(ServiceError::io("start", "the runtime")(error)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::failure(&error, cli.global.json);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: &Cli) -> Result<u8, ServiceError> {
    let settings = Settings::load(cli.global.config.clone())?;
    let json = cli.global.json;
    let mut outcomes = Vec::new();
    let done = match &cli.command {
        Command::Start { service, start } => {
            manager(settings, Some(start), None).start(service.services(), &mut outcomes).await
        }
        Command::Stop { service, lose_objects, stop } => {
            let manager = Manager { loses_objects: *lose_objects, ..manager(settings, None, Some(stop)) };
            manager.stop(service.services(), &mut outcomes).await
        }
        Command::Restart { service, start, stop } => {
            manager(settings, Some(start), Some(stop)).restart(service.services(), &mut outcomes).await
        }
        Command::Status { service } => {
            let statuses = manager(settings, None, None).status(service.services()).await?;
            print(report::statuses(&statuses, json));
            let degraded = statuses.iter().any(|status| status.state == State::Degraded);
            return Ok(if degraded { UNHEALTHY } else { 0 });
        }
    };
    // With an error in JSON there is one object, the error; people also want to know what was done before it.
    if done.is_ok() || !json {
        print(report::outcomes(&outcomes, json));
    }
    done.map(|()| 0)
}

fn manager(settings: Settings, start: Option<&StartArgs>, stop: Option<&StopArgs>) -> Manager {
    Manager {
        settings,
        control: start.map_or(ControlChoice::Auto, |start| start.control),
        timeout: start.map_or(Duration::from_secs(30), |start| start.timeout),
        grace: stop.map_or(GRACE, |stop| stop.grace),
        loses_objects: false,
    }
}

/// Whoever read the output may have seen enough and gone; the work is done all the same.
fn print(printed: std::io::Result<()>) {
    drop(printed);
}
