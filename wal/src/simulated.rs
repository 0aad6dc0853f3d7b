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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::format::HEAD_BYTES;
use crate::medium::{CommitPath, File, Medium, Segment};
use crate::memory::SegmentMemory;
use crate::sync::coarse::Mutex;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

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

struct State {
    mode: SimMode,
    random: Random,
    files: Vec<FileState>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Changes of names since the last sync of their directory, in order.
    pending: Vec<NameChange>,
    directories: BTreeSet<String>,
    operations: u64,
    syncs: u64,
    cut_at: Option<u64>,
    fail_sync_at: Option<u64>,
    capacity: Option<u64>,
    is_cut: bool,
    /// After a failed sync: syncs succeed and do nothing.
    is_lying: bool,
    /// Whether a sync that fails is that of one file, and other files know nothing of it.
    fails_alone: bool,
    /// The file whose syncs succeed and do nothing.
    lying: Option<usize>,
}

#[derive(Clone, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Pages written and not synced.
    dirty: BTreeSet<usize>,
    /// Pages that were being written when the power was cut.
    in_flight: BTreeSet<usize>,
    /// Sectors that cannot be read.
    unreadable: BTreeSet<usize>,
    /// The memory mapped over it.
    memory: Option<Arc<SegmentMemory>>,
}

#[derive(Clone)]
enum NameChange {
    Add { path: String, file: usize },
    Rename { from: String, to: String, file: usize },
    Remove { path: String },
}

impl NameChange {
    fn touches(&self, dir: &str) -> bool {
        match self {
            Self::Add { path, .. } | Self::Remove { path } => directory_of(path) == dir,
            Self::Rename { from, to, .. } => directory_of(from) == dir || directory_of(to) == dir,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
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

impl FileState {
    /// The memory as it would be written, if one is mapped over the file.
    fn memory_image(&self) -> Option<Vec<u8>> {
        let memory = self.memory.as_ref()?;
        let mut image = vec![0; memory.bytes() as usize];
        memory.with(0, HEAD_BYTES, |head| image[..HEAD_BYTES as usize].copy_from_slice(head));
        // What is above the published part is not looked at: another thread may be writing it.
        let published = memory.published();
        memory.with(HEAD_BYTES, published - HEAD_BYTES, |records| {
            image[HEAD_BYTES as usize..published as usize].copy_from_slice(records);
        });
        Some(image)
    }

    fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut dirty = self.dirty.clone();
        let new = match self.memory_image() {
            Some(image) => {
                for page in 0..image.len() / PAGE {
                    let range = page * PAGE..(page + 1) * PAGE;
                    // Where a sync lied, not even the file's length is durable.
                    if self.durable.get(range.clone()) != Some(&image[range]) {
                        dirty.insert(page);
                    }
                }
                image
            }
            None => self.live.clone(),
        };
        let mut left = self.durable.clone();
        if left.len() != new.len() && random.percent(50) {
            left.resize(new.len(), 0);
        }
        let mut unreadable = self.unreadable.clone();
        let pages: BTreeSet<usize> = dirty.union(&self.in_flight).copied().collect();
        for page in pages {
            let fate = if self.in_flight.contains(&page) { 30 + random.below(70) } else { random.below(100) };
            for sector in page * (PAGE / SECTOR)..(page + 1) * (PAGE / SECTOR) {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(left.len());
                if range.start >= range.end {
                    continue;
                }
                let newer = |left: &mut Vec<u8>| {
                    let end = range.end.min(new.len());
                    if range.start < end {
                        left[range.start..end].copy_from_slice(&new[range.start..end]);
                    }
                };
                match fate {
                    0..30 => {}
                    30..60 => newer(&mut left),
                    // Being written at that moment.
                    _ => match random.below(10) {
                        0..4 => {}
                        4..8 => newer(&mut left),
                        8 => left[range].fill_with(|| random.next() as u8),
                        _ => {
                            unreadable.insert(sector);
                        }
                    },
                }
            }
        }
        Self { live: left.clone(), durable: left, unreadable, ..Self::default() }
    }

    fn after_kill(&self) -> Self {
        let mut dirty = self.dirty.clone();
        let live = match self.memory_image() {
            Some(image) => {
                for page in 0..image.len() / PAGE {
                    let range = page * PAGE..(page + 1) * PAGE;
                    if image[range.clone()] != self.durable[range] {
                        dirty.insert(page);
                    }
                }
                image
            }
            None => self.live.clone(),
        };
        Self {
            live,
            durable: self.durable.clone(),
            dirty,
            in_flight: BTreeSet::new(),
            unreadable: self.unreadable.clone(),
            memory: None,
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / PAGE..end.div_ceil(PAGE));
        for sector in offset.div_ceil(SECTOR)..end / SECTOR {
            self.unreadable.remove(&sector);
        }
    }

    /// Makes the pages durable.
    fn persist(&mut self, pages: impl IntoIterator<Item = usize>) {
        if self.durable.len() != self.live.len() {
            self.durable.resize(self.live.len(), 0);
        }
        for page in pages {
            let range = page * PAGE..((page + 1) * PAGE).min(self.live.len());
            self.durable[range.clone()].copy_from_slice(&self.live[range]);
            self.dirty.remove(&page);
        }
    }
}

impl State {
    /// Counts an operation; fails if the power is off. Returns whether it is cut just now.
    fn operate(&mut self) -> io::Result<bool> {
        if self.is_cut {
            return Err(power_cut());
        }
        self.operations += 1;
        if self.cut_at == Some(self.operations) {
            self.is_cut = true;
        }
        Ok(self.is_cut)
    }

    /// Counts a sync, of a file or of a directory. Returns whether it may persist anything.
    fn sync_honestly(&mut self, file: Option<usize>) -> io::Result<bool> {
        self.syncs += 1;
        if self.fail_sync_at == Some(self.syncs) {
            match self.fails_alone {
                true => self.lying = file,
                false => self.is_lying = true,
            }
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        Ok(!self.is_lying && (file.is_none() || file != self.lying))
    }

    fn readable(&self) -> io::Result<()> {
        if self.is_cut { Err(power_cut()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.live.values().map(|id| self.files[*id].live.len() as u64).sum()
    }

    fn find(&self, path: &str) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: &str) -> io::Result<usize> {
        let cut = self.operate()?;
        if self.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !self.directories.contains(directory_of(path)) && !directory_of(path).is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = self.files.len();
        self.files.push(FileState::default());
        self.change_name(NameChange::Add { path: path.to_owned(), file: id });
        if cut { Err(power_cut()) } else { Ok(id) }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn write_at(&mut self, id: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let cut = self.operate()?;
        let grows = (offset + bytes.len() as u64).saturating_sub(self.files[id].live.len() as u64);
        if self.capacity.is_some_and(|capacity| grows != 0 && capacity < self.used() + grows) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files[id].write(offset as usize, bytes);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    fn sync_file(&mut self, id: usize) -> io::Result<()> {
        let cut = self.operate()?;
        if cut {
            self.files[id].in_flight = self.files[id].dirty.clone();
            return Err(power_cut());
        }
        if self.sync_honestly(Some(id))? {
            let dirty = std::mem::take(&mut self.files[id].dirty);
            self.files[id].persist(dirty);
        }
        Ok(())
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        if self.operate()? {
            return Err(power_cut());
        }
        if self.sync_honestly(None)? {
            let (synced, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.pending).into_iter().partition(|change| change.touches(dir));
            self.pending = rest;
            synced.iter().for_each(|change| change.apply(&mut self.durable));
        }
        Ok(())
    }

    /// Makes pages of a segment's memory durable.
    fn commit(&mut self, id: usize, memory: &SegmentMemory, offset: u64, len: u64) -> io::Result<()> {
        self.write_back_at_random();
        let cut = self.operate()?;
        memory.with(offset, len, |bytes| self.files[id].write(offset as usize, bytes));
        let pages = offset as usize / PAGE..(offset + len) as usize / PAGE;
        if cut {
            self.files[id].in_flight.extend(pages);
            return Err(power_cut());
        }
        let honest = self.sync_honestly(Some(id));
        if matches!(honest, Ok(true)) {
            self.files[id].persist(pages);
        } else if self.mode == SimMode::Direct {
            // A direct write that failed, or lies, left nothing in any cache.
            let file = &mut self.files[id];
            for page in pages {
                let range = page * PAGE..(page + 1) * PAGE;
                // A file made since the failure has nothing on the device at all.
                match file.durable.get(range.clone()) {
                    Some(durable) => file.live[range].copy_from_slice(durable),
                    None => file.live[range].fill(0),
                }
                file.dirty.remove(&page);
            }
        }
        honest.map(drop)
    }

    /// The kernel writes back mapped pages when it likes.
    fn write_back_at_random(&mut self) {
        if self.mode != SimMode::Mapped || self.is_lying || self.is_cut || !self.random.percent(20) {
            return;
        }
        let Some(id) = (!self.files.is_empty()).then(|| self.random.below(self.files.len() as u64) as usize)
        else {
            return;
        };
        let random = &mut self.random;
        let file = &mut self.files[id];
        if let Some(image) = file.memory_image() {
            for page in 0..image.len() / PAGE {
                let range = page * PAGE..(page + 1) * PAGE;
                if image[range.clone()] != file.durable[range.clone()] && random.percent(30) {
                    file.durable[range.clone()].copy_from_slice(&image[range.clone()]);
                    file.live[range.clone()].copy_from_slice(&image[range]);
                }
            }
        }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power was cut")
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
        let memory = Arc::new(SegmentMemory::anonymous(bytes)?);
        if self.mode == SimMode::Mapped {
            state.files[id].memory = Some(Arc::clone(&memory));
        }
        Ok(Box::new(SimSegment { state: Arc::clone(&self.state), id, memory }))
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
