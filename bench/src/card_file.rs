//! `card-file`: the codes of a run as a file, for tools that bring their own load.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};

use crate::args::Args;
use crate::codes::Codes;

/// Writes `--cards` codes of `--seed` to `--out`, one a line under the header `code`. They are made for
/// load, not for trade: whoever knows the seed knows them all. An existing file is not overwritten.
pub fn write(args: &Args) -> Result<()> {
    let path = &args.out;
    let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let codes = Codes::new(args.seed);
    out.write_all(b"code\n")?;
    for number in 0..args.cards {
        out.write_all(&codes.code(number))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    eprintln!("{} codes of seed {} in {}", args.cards, args.seed, path.display());
    Ok(())
}
