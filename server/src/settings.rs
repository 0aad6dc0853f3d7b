//! Where the server's settings come from: flag, variable, file, default, in this order.
//!
//! There is one list of settings: the options of `kami serve`. Each has a flag `--some-name`, a variable
//! `KAMI_SOME_NAME` and a key `some-name` in the file that `--config` names; nothing else declares them.
//! What the file says becomes the default of the option, so that all three ways go through the same
//! parser and the same checks, and a key that is no option is refused by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches};
use serde_json::{Value, json};
use toml::Value as FileValue;

use crate::Cli;
use crate::exit::Failure;

/// The command whose options these are.
const COMMAND: &str = "serve";
/// Options that say what to do this time, and so have no place in a file.
const NOT_IN_FILE: [&str; 3] = ["config", "print_config", "sandbox"];

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This variable.
    Variable(String),
    /// This file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

/// One setting as it is in effect. Without values it is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag's name without its dashes, which is also the file's key.
    pub name: String,
    /// What it is; more than one for a list.
    pub values: Vec<String>,
    /// Whether it may be given more than once.
    pub list: bool,
    /// Who said so.
    pub origin: Origin,
}

/// Why there is no command to run.
pub enum Stop {
    /// The command line is wrong, or asked for help.
    Usage(Box<clap::Error>),
    /// The file is wrong.
    File(Failure),
}

/// Reads the command line, the variables and the configuration file. For other commands than `serve`
/// there are no settings.
pub fn parse(arguments: &[OsString]) -> Result<(Cli, Vec<Setting>), Stop> {
    let usage = |error| Stop::Usage(Box::new(error));
    // For asking what was declared. A command that was built once must not be changed any more.
    let mut declared = Cli::command();
    declared.build();
    let file = match config_path(&declared, arguments) {
        Some(path) => Some((read(&declared, &path).map_err(Stop::File)?, path)),
        None => None,
    };
    let mut command = Cli::command();
    if let Some((values, _)) = &file {
        command = command.mut_subcommand(COMMAND, |mut serve| {
            for (id, values) in values {
                serve = serve.mut_arg(id, |arg| arg.default_values(values).required(false));
            }
            serve
        });
    }
    let mut matches = command.clone().try_get_matches_from(arguments).map_err(usage)?;
    let settings = match matches.subcommand_matches(COMMAND) {
        Some(serve) => settings(&declared, serve, file.as_ref()),
        None => Vec::new(),
    };
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| usage(error.format(&mut command)))?;
    Ok((cli, settings))
}

/// The file that is named by `--config` or `KAMI_CONFIG`, whatever else is right or wrong so far.
fn config_path(command: &clap::Command, arguments: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    matches.subcommand_matches(COMMAND)?.get_one::<PathBuf>("config").cloned()
}

/// The options of the server that a file may set.
fn options(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    let serve = command.find_subcommand(COMMAND).expect("the command is there");
    serve.get_arguments().filter(|arg| {
        let own = !arg.is_global_set() && arg.get_long().is_some() && arg.get_id() != "help";
        own && !arg.is_hide_set() && !NOT_IN_FILE.contains(&arg.get_id().as_str())
    })
}

/// What a file says, by option, checked as the command line would be.
fn read(command: &clap::Command, path: &Path) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let file_failure = |what: String| {
        Failure::usage(format!("the configuration file cannot be used path=`{}`: {what}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::environment(format!(
            "the configuration file cannot be read; check --config path=`{}`: {error}",
            path.display()
        ))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
        file_failure(format!("line {line}: {}", one_line(error.message())))
    })?;
    let known: Vec<&str> = options(command).filter_map(Arg::get_long).collect();
    let mut found = BTreeMap::new();
    let mut as_flags = vec![OsString::from("kami")];
    for (key, value) in table {
        let Some(option) = options(command).find(|arg| arg.get_long() == Some(&key)) else {
            let known = known.join(", ");
            return Err(file_failure(format!("there is no setting `{key}`; the settings are {known}")));
        };
        let values = match value {
            FileValue::Array(values) if is_list(option) => values.into_iter().map(plain).collect(),
            value => plain(value).map(|value| vec![value]),
        };
        let values: Vec<String> = values.ok_or_else(|| {
            let lists = if is_list(option) { ", or a list of them" } else { "" };
            file_failure(format!("`{key}` must be a string, a whole number, true or false{lists}"))
        })?;
        as_flags.extend(values.iter().map(|value| format!("--{key}={value}").into()));
        found.insert(option.get_id().to_string(), values);
    }
    // Alone, so that the sentence names the file and not the command line.
    let command = Cli::command();
    let serve = command.find_subcommand(COMMAND).expect("the command is there").clone();
    let alone = serve.mut_args(|arg| arg.required(false).env(None::<&'static str>));
    alone
        .try_get_matches_from(as_flags)
        .map_err(|error| file_failure(one_line(error.to_string().trim_start_matches("error: "))))?;
    Ok(found)
}

/// A value as it would stand on the command line.
fn plain(value: FileValue) -> Option<String> {
    match value {
        FileValue::String(text) => Some(text),
        FileValue::Integer(number) => Some(number.to_string()),
        FileValue::Boolean(set) => Some(set.to_string()),
        _ => None,
    }
}

fn is_list(option: &Arg) -> bool {
    matches!(option.get_action(), clap::ArgAction::Append)
}

/// The sentence of an error whose text goes on with hints.
pub fn one_line(text: &str) -> String {
    let sentence: Vec<&str> =
        text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    sentence.join(" ")
}

type FromFile = (BTreeMap<String, Vec<String>>, PathBuf);

fn settings(command: &clap::Command, serve: &ArgMatches, file: Option<&FromFile>) -> Vec<Setting> {
    let setting = |option: &Arg| {
        let id = option.get_id().as_str();
        let values = serve.get_raw(id).into_iter().flatten();
        let origin = match serve.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Variable(variable(option)),
            _ => match file {
                Some((values, path)) if values.contains_key(id) => Origin::File(path.clone()),
                _ => Origin::Default,
            },
        };
        Setting {
            name: option.get_long().unwrap_or(id).to_owned(),
            values: values.map(|value| value.to_string_lossy().into_owned()).collect(),
            list: is_list(option),
            origin,
        }
    };
    options(command).map(setting).collect()
}

fn variable(option: &Arg) -> String {
    option.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The settings as a file that would set them, each with where it comes from.
pub fn show(settings: &[Setting]) -> String {
    let line = |setting: &Setting| {
        let quoted: Vec<String> = setting.values.iter().map(|value| literal(value)).collect();
        let text = match (setting.list, quoted.as_slice()) {
            (true, values) => format!("{} = [{}]", setting.name, values.join(", ")),
            (false, [value]) => format!("{} = {value}", setting.name),
            (false, _) => format!("# {} is not set", setting.name),
        };
        (text, setting.origin.to_string())
    };
    let lines: Vec<_> = settings.iter().map(line).collect();
    let width = lines.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    lines.into_iter().map(|(text, origin)| format!("{text:<width$}  # {origin}\n")).collect()
}

/// A value as TOML writes it.
fn literal(value: &str) -> String {
    // Only what is a number to TOML too, and the same one: not 007, +7 or what is beyond its range.
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if is_number || matches!(value, "true" | "false") {
        return value.to_owned();
    }
    // TOML took its strings and their escapes from JSON, but for one character it wants escaped.
    json!(value).to_string().replace('\u{7f}', "\\u007f")
}

/// The same as JSON.
pub fn value(settings: &[Setting]) -> Value {
    let one = |setting: &Setting| {
        let value = if setting.list { json!(setting.values) } else { json!(setting.values.first()) };
        let origin = setting.origin.to_string();
        (setting.name.clone(), json!({ "value": value, "from": origin }))
    };
    Value::Object(settings.iter().map(one).collect())
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<(Cli, Vec<Setting>), String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        parse(&words).map_err(|stop| match stop {
            Stop::Usage(error) => error.to_string(),
            Stop::File(failure) => failure.message,
        })
    }

    fn written(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kami.toml");
        fs::write(&path, text).unwrap();
        (dir, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_option_has_a_flag_a_variable_and_a_key_of_one_name() {
        let mut command = Cli::command();
        command.build();
        for option in options(&command) {
            let name = option.get_long().unwrap();
            assert_eq!(variable(option), format!("KAMI_{}", name.to_uppercase().replace('-', "_")));
            assert!(option.get_help().is_some(), "{name} says nothing");
        }
    }

    #[test]
    fn what_is_shown_is_a_file_that_sets_the_same() {
        // Directories may be called anything, numbers that TOML refuses or reads as another among them.
        for data in
            ["d", "007", "7", "+7", "-7", "18446744073709551615", "true", "1.5", "a\\u007f\\u001b茶\\n\\\""]
        {
            let text = format!("data = \"{data}\"\nname = ['a', '010']\nunsafe-filesystem = true\n");
            let (_dir, path) = written(&text);
            let (_, first) = parse_words(&["kami", "serve", "--config", &path]).unwrap();
            let (_dir, again) = written(&show(&first));
            let (_, second) = parse_words(&["kami", "serve", "--config", &again])
                .unwrap_or_else(|error| panic!("{data}: {error}"));
            let values = |settings: &[Setting]| -> Vec<_> {
                settings.iter().map(|setting| (setting.name.clone(), setting.values.clone())).collect()
            };
            assert_eq!(values(&first), values(&second));
        }
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        for (text, because) in [
            ("data = 'd'\nlisten-on = 'x'\n", "there is no setting `listen-on`; the settings are data, "),
            ("data = 'd'\nlisten = 'nowhere'\n", "invalid value 'nowhere' for '--listen <ADDR>'"),
            ("data = 'd'\ncheckpoint-mib = 0\n", "'--checkpoint-mib"),
            ("data = 'd'\nlisten = 1.5\n", "`listen` must be a string"),
            ("data = ['d', 'e']\n", "`data` must be a string"),
            ("[serve]\ndata = 'd'\n", "there is no setting `serve`"),
            ("data = \n", "path=`"),
            ("print-config = true\n", "there is no setting `print-config`"),
        ] {
            let (_dir, path) = written(text);
            let said = parse_words(&["kami", "serve", "--config", &path]).err().unwrap();
            assert!(said.contains(because), "{text}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
        let said = parse_words(&["kami", "serve", "--config", "/nowhere/kami.toml"]).err().unwrap();
        assert!(said.contains("check --config"), "{said}");
    }

    /// The table of settings in `docs/operating.md`.
    #[test]
    fn the_document_lists_the_settings() {
        let mut command = Cli::command();
        command.build();
        let mut table = String::from("| Key and flag | Variable | Default | What |\n|---|---|---|---|\n");
        for option in options(&command) {
            let name = option.get_long().unwrap();
            let default: Vec<_> =
                option.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
            let help = option.get_help().unwrap().to_string();
            let (help, follows) = help.split_once(" [default: ").unwrap_or((&help, ""));
            let help = help.trim_end_matches('.');
            let default = match follows {
                "" => default,
                follows => vec![follows.trim_end_matches(['.', ']']).to_owned()],
            };
            table += &format!("| `{name}` | `{}` | {} | {help} |\n", variable(option), default.join(", "));
        }
        crate::output::tests::check_document("settings", &table);
    }
}
