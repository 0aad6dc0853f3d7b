//! What goes to standard output: one JSON object, or text for people.
//!
//! Names, labels and headers were typed by others. Whatever in them would steer a terminal rather than be
//! seen (escape sequences, changes of direction) is shown by its number, on both outputs.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::exit::Failure;

/// How results are printed.
#[derive(Clone, Copy)]
pub struct Output {
    /// As one JSON object.
    pub json: bool,
}

impl Output {
    /// Prints a result: `value` with `--json`, otherwise `text`.
    pub fn result(&self, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        self.print("", value, text)
    }

    /// The same in the place of everything shown before, or below it where there is no terminal.
    pub fn instead(&self, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let home_and_clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
        self.print(if self.json { "" } else { home_and_clear }, value, text)
    }

    /// A result whose text is for a program, and goes out as it is.
    pub fn exactly(&self, value: &Value, text: &str) -> Result<(), Failure> {
        if self.json { self.result(value, String::new) } else { write(text) }
    }

    fn print(&self, before: &str, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let line = if self.json { json_line(value) } else { printable(&text()).into_owned() };
        let end = if line.ends_with('\n') { "" } else { "\n" };
        write(&[before, &line, end].concat())
    }

    /// Prints a failure as JSON; its sentence goes to standard error anyway.
    pub fn failure(&self, failure: &Failure) {
        let value = json!({
            "error": failure.message,
            "exit": failure.exit as u8,
            "status": failure.status.map(kami_engine::Status::code),
        });
        // If nobody listens, the exit code still says it.
        let _ = self.result(&value, String::new);
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        Failure::environment(format!("the result cannot be written to standard output: {error}"))
    })
}

/// One line for the person on standard error.
pub fn note(text: &str) {
    eprintln!("{}", printable(text));
}

/// Text whose every character is to be seen; what is not stands as its number, such as `\u{1b}`. Lines stay
/// lines.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && steers(character), |c| c.escape_unicode().to_string())
}

/// JSON on one line. The format itself lets some characters through that a terminal obeys.
fn json_line(value: &Value) -> String {
    // None of them stands outside of a string, and all fit into four digits.
    escaped(&value.to_string(), steers, |c| format!("\\u{:04x}", u32::from(c))).into_owned()
}

fn escaped(text: &str, is_meant: impl Fn(char) -> bool, shown: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&is_meant) {
        return text.into();
    }
    text.chars().map(|c| if is_meant(c) { shown(c) } else { c.to_string() }).collect()
}

/// Whether a character acts on the terminal, or on the order of those around it, rather than being seen.
fn steers(character: char) -> bool {
    let directs = matches!(character,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || directs
}

/// Rows under a header, columns in `right` aligned as numbers. A cell is one line, whatever is in it.
pub fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        let cells = row.iter().map(|cell| escaped(cell, steers, |c| c.escape_unicode().to_string()));
        table.add_row(cells);
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A number with thousands apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub mod tests {
    use std::fs;
    use std::path::Path;

    /// Several tests keep a table in the one document.
    static DOCUMENT: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// Checks that `docs/operating.md` has this table between its marks, or puts it there under
    /// `UPDATE_GOLDEN`.
    pub fn check_document(name: &str, table: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
        let _one_at_a_time = DOCUMENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = fs::read_to_string(&path).unwrap();
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = text.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = from + text[from..].find(&end).unwrap_or_else(|| panic!("no {end}"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, format!("{}\n{table}\n{}", &text[..from], &text[to..])).unwrap();
        } else {
            assert_eq!(text[from..to].trim(), table.trim(), "run UPDATE_GOLDEN=1 cargo test -p kami-server");
        }
    }

    /// A label with escape sequences once renamed the window of whoever listed the batches.
    #[test]
    fn nothing_that_is_shown_steers_the_terminal() {
        let name = "a\u{1b}]0;owned\u{7}\rb\u{9b}2J\u{7f}\u{202e}c\n茶";
        let shown = super::printable(name);
        assert_eq!(shown, "a\\u{1b}]0;owned\\u{7}\\u{d}b\\u{9b}2J\\u{7f}\\u{202e}c\n茶");
        let cells = super::table(&["NAME", "N"], &[1], [vec![name.to_owned(), "1".to_owned()]]);
        assert_eq!(cells.lines().count(), 2, "{cells}");
        assert!(cells.contains("c\\u{a}茶") && !cells.contains(|c| c != '\n' && super::steers(c)), "{cells}");
        let value = serde_json::json!({ "name": name });
        let line = super::json_line(&value);
        assert!(!line.contains(super::steers), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }

    #[test]
    fn thousands_are_apart() {
        let shown = [0, 999, 1000, 1_234_567].map(super::count);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
