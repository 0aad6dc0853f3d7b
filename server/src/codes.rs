//! `kami codes`: codes of one's own, for whoever issues cards rather than buys them in.
//!
//! A code has 19 random characters of five bits each, 95 bits from the operating system's and the
//! library's generator, and a check character: see `codes/check.rs`. Nobody guesses one: with ten million
//! codes on sale, a guess hits one in 4·10²¹. They are unique within the file for certain, and beyond it
//! but for odds of that kind; an import finds any that were there before.
//!
//! Nothing is kept of them but the file, which only its owner may read, and which is there as a whole or not at all: see
//! `new_file.rs`.

mod check;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::exit::Failure;
use crate::new_file::{NewFile, Readers};
use crate::output::{Output, count};
use crate::progress::{Progress, Unit};
use check::{ALPHABET, check_value};

/// Random characters of a code; one more checks them.
const RANDOM_CHARACTERS: usize = 19;
const CHARACTERS: usize = RANDOM_CHARACTERS + 1;
/// The most codes of one file: what is remembered of them, to be unique, is some 20 bytes each.
const COUNT_MAX: u64 = 100_000_000;
/// The longest prefix.
const PREFIX_CHARACTERS_MAX: usize = 32;

/// Make codes.
#[derive(Args)]
#[command(after_help = "Example:\n  kami codes generate --count 10000 --out codes.csv")]
pub struct CodesCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Generate(Generate),
}

/// Generate random codes into a new file, which can then be imported.
///
/// 20 characters without I, L, O and U: 95 random bits and a check character that tells any single wrong
/// character and any two swapped ones.
#[derive(Args)]
#[command(after_help = "Examples:
  kami codes generate --count 10000 --out codes.csv
  kami codes generate --count 500 --prefix TEA- --groups --pin 6 --out tea.csv")]
struct Generate {
    /// How many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    count: u64,
    /// What all of them begin with, at most 32 letters, digits and hyphens; not covered by the check character.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = prefix)]
    prefix: String,
    /// Part the characters by hyphens into groups of so many, 4 unless said. The hyphens are part of the
    /// code.
    #[arg(long, value_name = "CHARACTERS", num_args = 0..=1, default_missing_value = "4", value_parser = clap::value_parser!(u8).range(2..=10))]
    groups: Option<u8>,
    /// A column with a PIN of so many random digits.
    #[arg(long, value_name = "DIGITS", value_parser = clap::value_parser!(u8).range(4..=12))]
    pin: Option<u8>,
    /// The new file: CSV with a header line, or, named .txt, one code a line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn prefix(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    // A spreadsheet takes a cell that begins with a hyphen for a formula.
    if text.len() <= PREFIX_CHARACTERS_MAX && text.bytes().all(is_plain) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a prefix is at most 32 letters, digits and hyphens, and begins with none".to_owned())
    }
}

pub fn run(command: CodesCommand, output: &Output) -> Result<(), Failure> {
    let Action::Generate(command) = command.action;
    let is_text = command.out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    if is_text && command.pin.is_some() {
        return Err(Failure::usage("a .txt file has no place for PINs; name it .csv"));
    }
    let mut file = NewFile::create("the codes", &command.out, Readers::Owner)?;
    write(&mut file, &command, is_text).map_err(|error| {
        Failure::environment(format!("the codes cannot be written path=`{}`: {error}", command.out.display()))
    })?;
    file.finish()?;
    let value = json!({
        "file": command.out.display().to_string(),
        "count": command.count,
        "random_bits": 5 * RANDOM_CHARACTERS,
        "pin_digits": command.pin,
    });
    output.result(&value, || {
        format!(
            "{} codes of {} random bits in {}",
            count(command.count),
            5 * RANDOM_CHARACTERS,
            command.out.display()
        )
    })
}

fn write(out: &mut NewFile, command: &Generate, is_text: bool) -> io::Result<()> {
    if !is_text {
        out.write_all(if command.pin.is_some() { b"code,pin\n" } else { b"code\n" })?;
    }
    let mut progress = Progress::new("generating", Unit::Cards, command.count);
    let mut codes = Codes::new();
    let mut line = Zeroizing::new(String::with_capacity(128));
    for number in 0..command.count {
        line.zeroize();
        line.push_str(&command.prefix);
        codes.add_code(command.groups.map_or(CHARACTERS, usize::from), &mut line)?;
        if let Some(digits) = command.pin {
            line.push(',');
            codes.random.digits(digits, &mut line)?;
        }
        line.push('\n');
        out.write_all(line.as_bytes())?;
        if number.is_multiple_of(8192) {
            progress.at(number);
        }
    }
    Ok(())
}

/// Codes, each another one.
struct Codes {
    random: Random,
    /// 64 of the random bits of each. Two codes that have these in common are as good as one.
    made: HashSet<u64, BuildHasherDefault<Itself>>,
}

/// A random number is its own hash.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Codes {
    fn new() -> Codes {
        Codes { random: Random::new(), made: HashSet::default() }
    }

    fn add_code(&mut self, group: usize, out: &mut String) -> io::Result<()> {
        let mut values = Zeroizing::new([0; CHARACTERS]);
        loop {
            for value in &mut values[..RANDOM_CHARACTERS] {
                // 32 divides 256, so all characters are equally likely.
                *value = self.random.byte()? & 31;
            }
            // All 64 bits of it are random: 12 characters whole, and the rest mixed in.
            let bits = values[..RANDOM_CHARACTERS]
                .iter()
                .fold(0_u64, |bits, value| bits << 5 ^ u64::from(*value) ^ bits >> 59);
            if self.made.insert(bits) {
                break;
            }
        }
        values[RANDOM_CHARACTERS] = check_value(&values[..RANDOM_CHARACTERS]);
        for (at, value) in values.iter().enumerate() {
            if at > 0 && at.is_multiple_of(group) {
                out.push('-');
            }
            out.push(char::from(ALPHABET[usize::from(*value)]));
        }
        Ok(())
    }
}

/// Random bytes, fetched many at a time, each used once and wiped.
struct Random {
    bytes: Zeroizing<Vec<u8>>,
    next: usize,
}

impl Random {
    const BYTES: usize = 4096;

    fn new() -> Random {
        Random { bytes: Zeroizing::new(vec![0; Random::BYTES]), next: Random::BYTES }
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.next == self.bytes.len() {
            aws_lc_rs::rand::fill(&mut self.bytes).map_err(|_| io::Error::other("there is no randomness"))?;
            self.next = 0;
        }
        self.next += 1;
        Ok(std::mem::take(&mut self.bytes[self.next - 1]))
    }

    fn digits(&mut self, count: u8, out: &mut String) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let byte = self.byte()?;
            // What would make some digits likelier is drawn again.
            if byte < 250 {
                out.push(char::from(b'0' + byte % 10));
                left -= 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_equally_likely_in_every_place() {
        const COUNT: u32 = 32_000;
        let mut codes = Codes::new();
        let mut seen = vec![[0_u32; 128]; CHARACTERS];
        let mut all = HashSet::new();
        let mut code = String::new();
        for _ in 0..COUNT {
            code.clear();
            codes.add_code(CHARACTERS, &mut code).unwrap();
            assert_eq!(code.len(), CHARACTERS);
            for (place, character) in code.bytes().enumerate() {
                seen[place][usize::from(character)] += 1;
            }
            assert!(all.insert(code.clone()), "twice");
        }
        let expected = f64::from(COUNT) / 32.0;
        for (place, seen) in seen.iter().enumerate() {
            let chi: f64 = ALPHABET
                .iter()
                .map(|c| (f64::from(seen[usize::from(*c)]) - expected).powi(2) / expected)
                .sum();
            // 31 degrees of freedom: above 100 once in 10⁸ tries.
            assert!(chi < 100.0, "place {place}: {chi}");
            assert_eq!(ALPHABET.iter().map(|c| seen[usize::from(*c)]).sum::<u32>(), COUNT, "only these");
        }
    }

    #[test]
    fn a_code_that_was_made_is_made_no_second_time() {
        let mut codes = Codes::new();
        let fixed = |codes: &mut Codes| {
            // The same random bytes once more, and then others.
            codes.random.bytes[..RANDOM_CHARACTERS].fill(7);
            codes.random.bytes[RANDOM_CHARACTERS..].fill(9);
            codes.random.next = 0;
        };
        let (mut first, mut second) = (String::new(), String::new());
        fixed(&mut codes);
        codes.add_code(4, &mut first).unwrap();
        fixed(&mut codes);
        codes.add_code(4, &mut second).unwrap();
        assert!(first.starts_with("7777-7777-") && second.starts_with("9999-9999-"), "{first} {second}");
    }

    #[test]
    fn digits_are_equally_likely() {
        let mut digits = String::new();
        Random::new().digits(250, &mut digits).unwrap();
        for _ in 0..200 {
            Random::new().digits(200, &mut digits).unwrap();
        }
        let expected = digits.len() as f64 / 10.0;
        let chi: f64 = ('0'..='9')
            .map(|digit| (digits.matches(digit).count() as f64 - expected).powi(2) / expected)
            .sum();
        // 9 degrees of freedom.
        assert!(chi < 60.0, "{chi}");
    }
}
