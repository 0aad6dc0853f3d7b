//! What goes to standard output: one JSON object, or text for people.

use std::io::Write;

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
        let mut line = if self.json { value.to_string() } else { text() };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
            Failure::environment(format!("the result cannot be written to standard output: {error}"))
        })
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

/// Rows under a header, columns in `right` aligned as numbers.
pub fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        table.add_row(row);
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

    /// Checks that `docs/operating.md` has this table between its marks, or puts it there under
    /// `UPDATE_GOLDEN`.
    pub fn check_document(name: &str, table: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
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

    #[test]
    fn thousands_are_apart() {
        let shown = [0, 999, 1000, 1_234_567].map(super::count);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
