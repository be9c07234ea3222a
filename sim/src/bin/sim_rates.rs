//! `sim_rates`: the figures of what protocols can do where links or processors limit, in simulated time.

use std::process::ExitCode;

const USAGE: &str = "\
sim_rates: what Star, CRAQ and chain replication do where links or processors limit, in simulated time

It takes no options and prints tables; they are the same on every machine.";

fn main() -> ExitCode {
    if let Some(option) = std::env::args().nth(1) {
        let is_help = ["-h", "--help"].contains(&option.as_str());
        if !is_help {
            eprintln!("{option} is not an option\n\n{USAGE}");
            return ExitCode::from(2);
        }
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    star_sim::rates::figures(|figure| println!("{figure}"));
    ExitCode::SUCCESS
}
