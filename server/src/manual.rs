//! What the command line says of itself, for shells and for `man`: made from the definitions that parse it,
//! so that it cannot say anything else.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::{Exit, Failure};

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

pub fn completions(options: &Completions, mut command: Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "kami", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::environment(format!("the completions cannot be written: {error}")))?;
    Ok(Exit::Done)
}

pub fn man(options: &Man, command: Command) -> Result<Exit, Failure> {
    let failed = |error| {
        let directory = options.out.display();
        Failure::environment(format!("the manual cannot be written: {error} directory=`{directory}`"))
    };
    std::fs::create_dir_all(&options.out).map_err(failed)?;
    clap_mangen::generate_to(command, &options.out).map_err(failed)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    /// Every command says what it does and shows how it is called; a group's example may stand for its
    /// members.
    #[test]
    fn every_command_has_an_example() {
        fn look(command: &Command, path: &str, shown: &str, missing: &mut Vec<String>) {
            let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = format!("{shown}\n{own}");
            let called = |line: &str| line.trim() == path || line.contains(&format!("{path} "));
            if !command.has_subcommands() && !shown.lines().any(called) {
                missing.push(path.to_owned());
            }
            assert!(command.get_about().is_some(), "{path} does not say what it does");
            for inner in command.get_subcommands() {
                look(inner, &format!("{path} {}", inner.get_name()), &shown, missing);
            }
        }
        let command = crate::Cli::command();
        command.clone().debug_assert();
        let mut missing = Vec::new();
        look(&command, "kami", "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
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
    }
}
