//! Files with codes: only their owner may read them, none is ever written over, and none is under its name before it is
//! complete and on disk. Killed before, what there is lies beside it as `.NAME.partial`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::exit::Failure;

/// Whether a file could be made there, before anything is done that cannot be undone.
pub fn is_free(out: &Path) -> Result<(), Failure> {
    partial(out)?;
    if out.symlink_metadata().is_ok() {
        return Err(failed(out, &io::ErrorKind::AlreadyExists.into()));
    }
    Ok(())
}

/// Makes a new file of what `write` puts into it.
pub fn write_new(out: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Failure> {
    let partial = partial(out)?;
    is_free(out)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(|error| {
            let failure = failed(out, &error);
            let message = format!("{} (as `{}`)", failure.message, partial.display());
            Failure { message, ..failure }
        })?;
    let written = write(&mut file).and_then(|()| file.sync_all()).and_then(|()| {
        // Never over a file that came to be meanwhile.
        Ok(renameat_with(CWD, &partial, CWD, out, RenameFlags::NOREPLACE)?)
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(failed(out, &error));
    }
    sync_directory_of(out).map_err(|error| {
        Failure::environment(format!(
            "the codes are written, and may be lost if the power fails now; run `sync` path=`{}`: {error}",
            out.display()
        ))
    })
}

fn failed(out: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("the codes cannot be written path=`{}`: {error}", out.display()))
}

/// Where the file is until it is complete.
fn partial(out: &Path) -> Result<PathBuf, Failure> {
    let name = out.file_name().ok_or_else(|| Failure::usage("--out names no file"))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(out.with_file_name(partial))
}

/// Makes the name of a file durable.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    // A name alone has an empty parent.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
