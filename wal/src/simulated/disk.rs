//! The simulated disk as a whole: its files and names, how much it holds, and when it is cut off or fails.
//!
//! # Invariants
//! * Every operation that could reach the disk is counted, so a test can cut the power at each of them.
//! * After the cut nothing works any more, and nothing more becomes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::file::{FileState, NameChange, PAGE, directory_of};
use super::{Random, SimMode};
use crate::memory::SegmentMemory;

/// The disk, under the medium's lock.
pub(super) struct State {
    pub(super) mode: SimMode,
    pub(super) random: Random,
    pub(super) files: Vec<FileState>,
    pub(super) live: BTreeMap<String, usize>,
    pub(super) durable: BTreeMap<String, usize>,
    /// Changes of names since the last sync of their directory, in order.
    pub(super) pending: Vec<NameChange>,
    pub(super) directories: BTreeSet<String>,
    pub(super) operations: u64,
    pub(super) syncs: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) fail_sync_at: Option<u64>,
    pub(super) capacity: Option<u64>,
    pub(super) is_cut: bool,
    /// After a failed sync: syncs succeed and do nothing.
    pub(super) is_lying: bool,
    /// Whether a sync that fails is that of one file, and other files know nothing of it.
    pub(super) fails_alone: bool,
    /// The file whose syncs succeed and do nothing.
    pub(super) lying: Option<usize>,
}

impl State {
    /// Counts an operation; fails if the power is off. Returns whether it is cut just now.
    pub(super) fn operate(&mut self) -> io::Result<bool> {
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
    pub(super) fn sync_honestly(&mut self, file: Option<usize>) -> io::Result<bool> {
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

    pub(super) fn readable(&self) -> io::Result<()> {
        if self.is_cut { Err(power_cut()) } else { Ok(()) }
    }

    pub(super) fn used(&self) -> u64 {
        self.live.values().map(|id| self.files[*id].live.len() as u64).sum()
    }

    pub(super) fn find(&self, path: &str) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<usize> {
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

    pub(super) fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    pub(super) fn write_at(&mut self, id: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let cut = self.operate()?;
        let grows = (offset + bytes.len() as u64).saturating_sub(self.files[id].live.len() as u64);
        if self.capacity.is_some_and(|capacity| grows != 0 && capacity < self.used() + grows) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files[id].write(offset as usize, bytes);
        if cut { Err(power_cut()) } else { Ok(()) }
    }

    pub(super) fn sync_file(&mut self, id: usize) -> io::Result<()> {
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

    pub(super) fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
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
    pub(super) fn commit(
        &mut self,
        id: usize,
        memory: &SegmentMemory,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
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
    pub(super) fn write_back_at_random(&mut self) {
        if self.mode != SimMode::Mapped || self.is_lying || self.is_cut || !self.random.percent(20) {
            return;
        }
        let Some(id) = (!self.files.is_empty()).then(|| self.random.below(self.files.len() as u64) as usize)
        else {
            return;
        };
        let random = &mut self.random;
        let file = &mut self.files[id];
        // What is written back of a file that lies does not arrive.
        if self.lying != Some(id)
            && let Some(image) = file.memory_image()
        {
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

pub(super) fn power_cut() -> io::Error {
    io::Error::other("the power was cut")
}
