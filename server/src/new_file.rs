//! A file that a command hands out: new, whole and on disk under its name, or not there.
//!
//! # Invariants
//! * **What is there stays as it is**, also if it comes while the file is written, and be it a link that leads nowhere.
//! * Until it is whole its content lies beside it as `.NAME.partial`, which is made anew, so that no link is followed. It
//!   goes when the command fails. Killed, it stays and stands in the way until somebody has looked at it.
//! * When [`NewFile::finish`] returned, content and name are on disk: what is sent to a printer or kept as evidence is not
//!   lost to a power cut behind it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::exit::Failure;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: it holds codes, or what somebody bought and has.
    Owner,
    /// Whoever the umask lets.
    AsUsual,
}

/// A file that is being written.
pub struct NewFile {
    /// What it is, for errors: `the codes`.
    what: &'static str,
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
}

impl NewFile {
    /// Whether a file can be begun at `path`, as far as it is known before there is anything to write.
    ///
    /// # Errors
    /// If something is there already.
    pub fn check(path: &Path) -> Result<(), Failure> {
        if path.symlink_metadata().is_ok() { Err(is_there(path)) } else { Ok(()) }
    }

    /// Begins a file at `path`.
    ///
    /// # Errors
    /// If something is there already or it cannot be written.
    pub fn create(what: &'static str, path: &Path, readers: Readers) -> Result<NewFile, Failure> {
        let name = path.file_name();
        let name = name.ok_or_else(|| {
            Failure::usage(format!("this names no file for {what} path=`{}`", path.display()))
        })?;
        NewFile::check(path)?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".partial");
        let partial = path.with_file_name(beside);
        let mode = if readers == Readers::Owner { 0o600 } else { 0o666 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::environment(format!(
                "an earlier run left part of {what}: look at it and remove it path=`{}`",
                partial.display()
            )),
            _ => failure(what, path, &error),
        })?;
        let out = BufWriter::with_capacity(256 << 10, file);
        Ok(NewFile { what, path: path.to_owned(), partial, out })
    }

    /// Writes a file of one text.
    ///
    /// # Errors
    /// As [`NewFile::create`] and [`NewFile::finish`].
    pub fn write_text(what: &'static str, path: &Path, readers: Readers, text: &str) -> Result<(), Failure> {
        let mut file = NewFile::create(what, path, readers)?;
        file.write_all(text.as_bytes()).map_err(|error| failure(what, path, &error))?;
        file.finish()
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// If the disk is full, or something is there meanwhile; then nothing of it is.
    pub fn finish(mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => is_there(&self.path),
            _ => failure(self.what, &self.path, &error),
        };
        self.out.flush().and_then(|()| self.out.get_ref().sync_all()).map_err(failed)?;
        name(&self.partial, &self.path).map_err(failed)?;
        sync_directory_of(&self.path).map_err(|error| {
            Failure::environment(format!(
                "{} cannot be made to last: run `sync` before the power may fail path=`{}`: {error}",
                self.what,
                self.path.display()
            ))
        })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // With a name of its own there is none of this one any more.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Gives a file another name, which nothing has.
fn name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that know no such renaming know links, which do not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::hard_link(from, to),
        renamed => Ok(renamed?),
    }
}

/// Makes the name of a file durable.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    // A name alone has an empty parent.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn is_there(path: &Path) -> Failure {
    let path = path.display();
    Failure::usage(format!("the file is there already: choose another name or remove it path=`{path}`"))
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("{what} cannot be written path=`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.proof");
        let mut file = NewFile::create("the proof", &path, Readers::Owner).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(directory.path()), [".a.proof.partial"]);
        drop(file);
        assert_eq!(names(directory.path()), Vec::<String>::new(), "given up");
        NewFile::write_text("the proof", &path, Readers::Owner, "whole").unwrap();
        assert_eq!(names(directory.path()), ["a.proof"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |name: &str| NewFile::write_text("the proof", &at(name), Readers::Owner, "new");
        fs::write(at("kept"), "old").unwrap();
        symlink(at("nowhere"), at("link")).unwrap();
        for name in ["kept", "link"] {
            assert!(write(name).unwrap_err().message.contains("is there already"), "{name}");
        }
        // It comes while the other is written.
        let file = NewFile::create("the proof", &at("late"), Readers::Owner).unwrap();
        fs::write(at("late"), "mine").unwrap();
        assert!(file.finish().unwrap_err().message.contains("is there already"));
        // A link that lies in wait is not followed.
        symlink(at("victim"), at(".trap.partial")).unwrap();
        assert!(write("trap").unwrap_err().message.contains("an earlier run left part"));
        assert_eq!(fs::read_to_string(at("kept")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("late")).unwrap(), "mine");
        assert_eq!(names(directory.path()), [".trap.partial", "kept", "late", "link"]);
    }
}
