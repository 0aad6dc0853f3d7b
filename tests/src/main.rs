//! `campaign`: any row of the table in `docs/testing.md`, at any scale. See the library beside this file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kami_tests::planted::{self, MISTAKES};
use kami_tests::report::{self, Setting};
use kami_tests::rows::{ROWS, Row};
use kami_tests::runner::{self, Scale};

/// Runs the tests of this repository at the scale of a campaign.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Lists the rows and the known mistakes
    List,
    /// Runs rows, one after the other, and stops at the first failure
    Run {
        /// Which rows; all if none is named
        rows: Vec<String>,
        /// How many seeds, rounds, peers or runs of each row
        #[arg(long)]
        seeds: Option<u64>,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How long each row is run at most, in minutes; without --seeds it is run that long
        #[arg(long)]
        minutes: Option<f64>,
        /// Processes side by side [default: as many as there are cores]
        #[arg(long)]
        jobs: Option<usize>,
        /// Run optimised tests, without debug assertions
        #[arg(long)]
        release: bool,
        /// Write campaign.md and campaign.json into this directory
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Makes known mistakes and demands that the tests notice
    Planted {
        /// Which mistakes; all if none is named
        mistakes: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let well = match Arguments::parse().what {
        What::List => {
            ROWS.iter().for_each(|row| println!("{:20} {}", row.name, row.what));
            println!("\nMistakes that can be planted:");
            MISTAKES.iter().for_each(|mistake| println!("{:28} {}", mistake.name, mistake.what));
            true
        }
        What::Planted { mistakes } => planted::plant(&mistakes)?,
        What::Run { rows, seeds, from, minutes, jobs, release, report } => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let time = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
            let scale = Scale { from, seeds, time, jobs: jobs.unwrap_or(cores), release };
            campaign(&chosen(&rows)?, scale, report)?
        }
    };
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        let row = ROWS.iter().find(|row| row.name == name);
        row.ok_or_else(|| {
            anyhow::anyhow!("there is no row of this name: `campaign list` names them; row=`{name}`")
        })
    };
    names.iter().map(find).collect()
}

fn campaign(rows: &[&'static Row], scale: Scale, report: Option<PathBuf>) -> anyhow::Result<bool> {
    let setting = Setting::here(scale.release, scale.jobs);
    let mut outcomes = Vec::new();
    let mut well = true;
    for row in rows {
        let outcome = runner::run(row, scale)?;
        let (seconds, done, unit) = (outcome.elapsed.as_secs(), outcome.done, outcome.unit);
        outcome.results.iter().for_each(|line| println!("        {line}"));
        match &outcome.failure {
            None => println!("clean   {:20} {done} {unit} in {seconds} s", row.name),
            Some(failed) => {
                println!("FAILED  {:20} after {done} {unit} in {seconds} s", row.name);
                println!("{}\n\nrepeat: {}", failed.output, failed.repeat);
                well = false;
            }
        }
        outcomes.push(outcome);
        // After each row: a campaign of hours that is cut short has been one of some rows.
        if let Some(directory) = &report {
            report::write(directory, &setting, &outcomes)?;
        }
        if !well {
            break;
        }
    }
    Ok(well)
}
