//! What a campaign leaves behind: which machine, which commit, what was run, what came of it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::json;

use crate::binaries::root;
use crate::runner::Outcome;

/// Where and of what a campaign was run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// When it began, UTC.
    pub begun: String,
    /// The commit; with `+` if files were changed since.
    pub commit: String,
    /// Processor and how many cores.
    pub machine: String,
    /// Kernel.
    pub system: String,
    /// Whether tests were optimised and without debug assertions.
    pub release: bool,
    /// Processes side by side.
    pub jobs: usize,
}

impl Setting {
    /// As it is here and now.
    #[must_use]
    pub fn here(release: bool, jobs: usize) -> Setting {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).current_dir(root()).output();
            output.map_or_else(|_| String::new(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
        };
        let changed = if said("git", &["status", "--porcelain", "-uno"]).is_empty() { "" } else { "+" };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Setting {
            begun: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: said("git", &["rev-parse", "--short", "HEAD"]) + changed,
            machine: format!("{cores} cores, {}", model.unwrap_or("unknown processor")),
            system: said("uname", &["-sr"]),
            release,
            jobs,
        }
    }
}

/// Writes `campaign.md` and `campaign.json` into a directory.
///
/// # Errors
/// If they cannot be written.
pub fn write(directory: &Path, setting: &Setting, outcomes: &[Outcome]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).context("the report's directory cannot be made")?;
    let put = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).with_context(|| format!("{name} cannot be written"))
    };
    put("campaign.md", markdown(setting, outcomes))?;
    put("campaign.json", format!("{:#}\n", json_of(setting, outcomes)))
}

/// For people.
#[must_use]
pub fn markdown(setting: &Setting, outcomes: &[Outcome]) -> String {
    let Setting { begun, commit, machine, system, release, jobs } = setting;
    let build = if *release { "release build" } else { "debug build" };
    let mut text = format!(
        "# Campaign of {begun}\n\nCommit {commit}; {machine}; {system}; {build}; {jobs} processes.\n\n\
         | Row | Size | Minutes | Result |\n|---|---|---|---|\n"
    );
    for outcome in outcomes {
        let Outcome { row, from, done, unit, elapsed, failure, operations, .. } = outcome;
        let first = if *unit == "seeds" { format!(" from {from} on") } else { String::new() };
        let of = if *operations > 0 { format!(", {operations} operations") } else { String::new() };
        let result = if failure.is_some() { "**FAILED**" } else { "clean" };
        let minutes = elapsed.as_secs_f64() / 60.0;
        writeln!(text, "| `{row}` | {done} {unit}{first}{of} | {minutes:.1} | {result} |")
            .expect("text can be written");
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.results.is_empty()) {
        writeln!(text, "\n## {}\n", outcome.row).expect("text can be written");
        for line in &outcome.results {
            writeln!(text, "* {line}").expect("text can be written");
        }
    }
    for outcome in outcomes {
        if let Some(failed) = &outcome.failure {
            write!(
                text,
                "\n## {}\n\nRepeat:\n\n```sh\n{}\n```\n\n```text\n{}\n```\n",
                outcome.row, failed.repeat, failed.output
            )
            .expect("text can be written");
        }
    }
    text
}

/// For programs.
#[must_use]
pub fn json_of(setting: &Setting, outcomes: &[Outcome]) -> serde_json::Value {
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "row": outcome.row,
                "what": outcome.what,
                "from": outcome.from,
                "done": outcome.done,
                "unit": outcome.unit,
                "operations": outcome.operations,
                "results": outcome.results,
                "seconds": outcome.elapsed.as_secs_f64(),
                "repeat": outcome.failure.as_ref().map(|failed| &failed.repeat),
                "output": outcome.failure.as_ref().map(|failed| &failed.output),
            })
        })
        .collect();
    json!({
        "begun": setting.begun,
        "commit": setting.commit,
        "machine": setting.machine,
        "system": setting.system,
        "release": setting.release,
        "jobs": setting.jobs,
        "rows": rows,
    })
}
