//! The medium of the tests: a small file system that can be cut off, lie, garble, forget and fill up.
//!
//! It keeps what a process sees (*live*) apart from what a power cut leaves (*durable*), page by page
//! and name by name, and is as unkind as the rules of [`Medium`] allow:
//! * Of a page that was not synced, every sector by itself keeps its old or its new content, or, if it
//!   was being written at that moment, comes out as garbage or unreadable, whatever it held before.
//! * Names made, changed or removed since the last directory sync are kept or lost, each by itself.
//! * In mapped mode the pages of a segment's memory may reach the disk at any time before they are
//!   committed, as the kernel writes back mapped pages when it likes.
//!
//! Everything is decided by seeds, so every run can be repeated.

mod disk;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use self::disk::{State, power_cut};
use self::file::{FileState, NameChange, PAGE, SECTOR, directory_of};
use crate::medium::{CommitPath, File, Medium, Segment};
use crate::memory::SegmentMemory;
use crate::sync::coarse::Mutex;

/// How segments of a [`SimMedium`] reach its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimMode {
    /// Only what was committed is written.
    Direct,
    /// Pages of the memory may be written at any time.
    Mapped,
}

/// A simulated disk. Clones share it.
#[derive(Clone)]
pub struct SimMedium {
    state: Arc<Mutex<State>>,
    mode: SimMode,
}

/// Small, fast and the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

impl SimMedium {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, mode: SimMode) -> Self {
        Self::over(State {
            mode,
            random: Random(seed),
            files: Vec::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            directories: BTreeSet::new(),
            operations: 0,
            syncs: 0,
            cut_at: None,
            fail_sync_at: None,
            capacity: None,
            is_cut: false,
            is_lying: false,
            fails_alone: false,
            lying: None,
        })
    }

    fn over(state: State) -> Self {
        Self { mode: state.mode, state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power at the `nth` operation from the disk's start: that one is under way, it and all
    /// later ones fail, and [`SimMedium::crash`] gives what is left.
    pub fn cut_power_at(&self, nth: u64) {
        self.state.lock().cut_at = Some(nth);
    }

    /// Makes the `nth` sync or commit from the disk's start fail. Later ones succeed and persist nothing,
    /// as Linux does after a failed write-back.
    pub fn fail_sync_at(&self, nth: u64) {
        self.state.lock().fail_sync_at = Some(nth);
    }

    /// The same of the one file whose sync or commit that is, as when a disk has a bad place: for logs whose threads use
    /// several files at a time. Others go on to succeed.
    pub fn fail_sync_of_a_file_at(&self, nth: u64) {
        let mut state = self.state.lock();
        (state.fail_sync_at, state.fails_alone) = (Some(nth), true);
    }

    /// Limits how many bytes all files may have together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Operations that change something, so far. Every sync is one.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Syncs and commits so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// The disk after a power cut now, decided by `seed`. This one goes on as it was, so that several
    /// outcomes of one moment can be tried.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut random = Random(seed);
        let files = state.files.iter().map(|file| file.after_power_cut(&mut random)).collect();
        let mut names = state.durable.clone();
        for change in &state.pending {
            if random.percent(50) {
                change.apply(&mut names);
            }
        }
        Self::over(State {
            mode: state.mode,
            random,
            files,
            live: names.clone(),
            durable: names,
            pending: Vec::new(),
            directories: state.directories.clone(),
            operations: 0,
            syncs: 0,
            cut_at: None,
            fail_sync_at: None,
            capacity: state.capacity,
            is_cut: false,
            is_lying: false,
            fails_alone: false,
            lying: None,
        })
    }

    /// The disk after the process was killed now and the machine went on: everything written is still
    /// seen, and what was not synced is still not durable.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let mut files: Vec<FileState> = state.files.iter().map(FileState::after_kill).collect();
        if state.is_lying {
            // What could not be written back is remembered as clean; what comes from now on is written.
            files.iter_mut().for_each(|file| file.dirty.clear());
        }
        if let Some(file) = state.lying {
            files[file].dirty.clear();
        }
        Self::over(State {
            mode: state.mode,
            random: state.random.clone(),
            files,
            live: state.live.clone(),
            durable: state.durable.clone(),
            pending: state.pending.clone(),
            directories: state.directories.clone(),
            operations: 0,
            syncs: 0,
            cut_at: None,
            fail_sync_at: None,
            capacity: state.capacity,
            is_cut: false,
            is_lying: false,
            fails_alone: false,
            lying: None,
        })
    }

    /// The bytes of a file as a process sees them.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.live[path]].live.clone()
    }

    /// Changes a file behind everybody's back: bit rot, a stale or misdirected sector, truncation.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let id = state.live[path];
        let file = &mut state.files[id];
        edit(&mut file.live);
        file.durable = file.live.clone();
    }

    /// Makes the sector that holds `offset` unreadable until it is written.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn make_unreadable(&self, path: &str, offset: u64) {
        let mut state = self.state.lock();
        let id = state.live[path];
        state.files[id].unreadable.insert(offset as usize / SECTOR);
    }

    /// Removes a file behind everybody's back.
    pub fn lose(&self, path: &str) {
        let mut state = self.state.lock();
        state.live.remove(path);
        state.durable.remove(path);
    }
}

impl Medium for SimMedium {
    fn commit_path(&self) -> CommitPath {
        CommitPath::Simulated
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.readable()?;
        let names = state.live.keys().filter(|path| directory_of(path) == dir);
        Ok(names.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_cut {
            return Err(power_cut());
        }
        state.directories.insert(dir.to_owned());
        Ok(())
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn File>> {
        let id = self.state.lock().create(path)?;
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), id }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let state = self.state.lock();
        state.readable()?;
        let id = state.find(path)?;
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let cut = state.operate()?;
        let file = state.find(from)?;
        state.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let cut = state.operate()?;
        state.find(path)?;
        state.change_name(NameChange::Remove { path: path.to_owned() });
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.state.lock().sync_dir(dir)
    }

    fn create_segment(&self, path: &str, bytes: u64) -> io::Result<Box<dyn Segment>> {
        let mut state = self.state.lock();
        let id = state.create(path)?;
        let made = state
            .write_at(id, 0, &vec![0; bytes as usize])
            .and_then(|()| state.sync_file(id))
            .and_then(|()| state.sync_dir(directory_of(path)));
        if let Err(error) = made {
            if !state.is_cut {
                state.change_name(NameChange::Remove { path: path.to_owned() });
            }
            return Err(error);
        }
        Ok(Box::new(self.segment(&mut state, id, bytes)?))
    }

    fn reuse_segment(&self, path: &str, bytes: u64) -> io::Result<Option<Box<dyn Segment>>> {
        let mut state = self.state.lock();
        state.readable()?;
        let id = state.find(path)?;
        // As on a real disk, where only direct commits can vouch for it.
        match self.mode {
            SimMode::Direct => Ok(Some(Box::new(self.segment(&mut state, id, bytes)?))),
            SimMode::Mapped => Ok(None),
        }
    }
}

impl SimMedium {
    fn segment(&self, state: &mut State, id: usize, bytes: u64) -> io::Result<SimSegment> {
        let memory = Arc::new(SegmentMemory::anonymous(bytes)?);
        if self.mode == SimMode::Mapped {
            state.files[id].memory = Some(Arc::clone(&memory));
        }
        Ok(SimSegment { state: Arc::clone(&self.state), id, memory })
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    id: usize,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.readable()?;
        Ok(state.files[self.id].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        state.readable()?;
        let file = &state.files[self.id];
        let range = offset as usize..offset as usize + buffer.len();
        let bytes = file.live.get(range.clone()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if file.unreadable.range(range.start / SECTOR..range.end.div_ceil(SECTOR)).next().is_some() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state.lock().write_at(self.id, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.state.lock().sync_file(self.id)
    }

    fn settle(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.sync_file(self.id)?;
        let file = &mut state.files[self.id];
        for page in (0..file.live.len().div_ceil(PAGE)).filter(|page| !file.dirty.contains(page)) {
            let range = page * PAGE..((page + 1) * PAGE).min(file.live.len());
            match file.durable.get(range.clone()) {
                Some(durable) => file.live[range].copy_from_slice(durable),
                None => file.live[range].fill(0),
            }
        }
        Ok(())
    }
}

struct SimSegment {
    state: Arc<Mutex<State>>,
    id: usize,
    memory: Arc<SegmentMemory>,
}

impl Segment for SimSegment {
    fn memory(&self) -> &SegmentMemory {
        &self.memory
    }

    fn commit(&self, offset: u64, len: u64) -> io::Result<()> {
        self.state.lock().commit(self.id, &self.memory, offset, len)
    }
}
