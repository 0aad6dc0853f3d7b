//! What the command line says of itself, for shells and for `man`: made from the definitions that parse it,
//! so that it cannot say anything else.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Print completions for a shell.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami completions bash > ~/.local/share/bash-completion/completions/kami\n  kami completions zsh > ~/.zfunc/_kami"
)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// Write the manual pages, one for each command.
#[derive(Args)]
#[command(after_help = "Example:\n  kami man --out ~/.local/share/man/man1 && man kami-redeem")]
pub struct Man {
    /// The directory they go to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn completions(options: &Completions, mut command: Command, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "kami", &mut script);
    let script = String::from_utf8_lossy(&script);
    let value = json!({ "shell": options.shell.to_string(), "script": script });
    // As it is: no name of another is in it, and shells want each character.
    output.exactly(&value, &script)?;
    Ok(Exit::Done)
}

pub fn man(options: &Man, command: Command, output: &Output) -> Result<Exit, Failure> {
    let failed = |error| {
        let directory = options.out.display();
        Failure::environment(format!("the manual cannot be written: {error} directory=`{directory}`"))
    };
    std::fs::create_dir_all(&options.out).map_err(failed)?;
    let pages = pages(&command);
    clap_mangen::generate_to(command, &options.out).map_err(failed)?;
    let value = json!({ "directory": options.out.display().to_string(), "pages": pages });
    output.result(&value, || format!("{pages} pages in {}", options.out.display()))?;
    Ok(Exit::Done)
}

/// One for the program and one for each command and what is below it.
fn pages(command: &Command) -> usize {
    1 + command.get_subcommands().map(pages).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    /// The help of every command, groups included, says what it does and shows how it is called.
    #[test]
    fn every_command_has_an_example() {
        fn look(command: &Command, path: &str, missing: &mut Vec<String>) {
            let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let called = |line: &str| line.trim() == path || line.contains(&format!("{path} "));
            if !own.contains("Example") || !own.lines().any(called) {
                missing.push(path.to_owned());
            }
            assert!(command.get_about().is_some(), "{path} does not say what it does");
            for inner in command.get_subcommands() {
                look(inner, &format!("{path} {}", inner.get_name()), missing);
            }
        }
        let command = crate::Cli::command();
        command.clone().debug_assert();
        let mut missing = Vec::new();
        look(&command, "kami", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    /// What an example shows is understood.
    #[test]
    fn examples_are_calls_that_can_be_made() {
        fn look(command: &Command, wrong: &mut Vec<String>, seen: &mut usize) {
            let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in own.lines().filter_map(|line| line.trim().strip_prefix("kami ")) {
                // As a shell reads them, as far as the examples go.
                let quoted = |(n, part): (usize, &'static str)| match n % 2 {
                    0 => part.split_whitespace().collect(),
                    _ => vec![part],
                };
                let line: &'static str = line.to_owned().leak();
                let words = line.split('"').enumerate().flat_map(quoted);
                let words = words.take_while(|word| !["&", "&&", "<", ">"].contains(word));
                let call = std::iter::once("kami").chain(words);
                *seen += 1;
                if let Err(error) = crate::Cli::command().try_get_matches_from(call) {
                    wrong.push(format!("{line}: {error}"));
                }
            }
            command.get_subcommands().for_each(|inner| look(inner, wrong, seen));
        }
        let (mut wrong, mut seen) = (Vec::new(), 0);
        look(&crate::Cli::command(), &mut wrong, &mut seen);
        assert_eq!(wrong, Vec::<String>::new());
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn completions_and_pages_name_every_command() {
        let names = || {
            let command = crate::Cli::command();
            command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect::<Vec<_>>()
        };
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::Cli::command(), "kami", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(names().iter().all(|name| script.contains(name)), "{shell}");
        }
        let directory = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(crate::Cli::command(), directory.path()).unwrap();
        for name in names() {
            assert!(directory.path().join(format!("kami-{name}.1")).exists(), "{name}");
        }
        let pages = super::pages(&crate::Cli::command());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), pages);
        // As many as the document shows.
        let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
        let text = std::fs::read_to_string(&document).unwrap();
        let shown = text.lines().find(|line| line.contains(" pages in /")).unwrap();
        let right = format!("{pages} pages in /usr/local/share/man/man1");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&document, text.replace(shown, &right)).unwrap();
        } else {
            assert_eq!(shown, right, "run UPDATE_GOLDEN=1 cargo test -p kami-server --bin kami manual");
        }
    }
}
