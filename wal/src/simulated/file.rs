//! A file of the simulated disk: what a process sees of it, what a power cut leaves, and names likewise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Random;
use crate::format::HEAD_BYTES;
use crate::memory::SegmentMemory;

pub(super) const SECTOR: usize = 512;
pub(super) const PAGE: usize = 4096;

/// A file, live and durable.
#[derive(Clone, Default)]
pub(super) struct FileState {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Pages written and not synced.
    pub(super) dirty: BTreeSet<usize>,
    /// Pages that were being written when the power was cut.
    pub(super) in_flight: BTreeSet<usize>,
    /// Sectors that cannot be read.
    pub(super) unreadable: BTreeSet<usize>,
    /// The memory mapped over it.
    pub(super) memory: Option<Arc<SegmentMemory>>,
}

impl FileState {
    /// The memory as it would be written, if one is mapped over the file.
    pub(super) fn memory_image(&self) -> Option<Vec<u8>> {
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

    /// What a reader finds, and the pages of it that are not durable.
    fn newest(&self) -> (Vec<u8>, BTreeSet<usize>) {
        let mut dirty = self.dirty.clone();
        let Some(image) = self.memory_image() else { return (self.live.clone(), dirty) };
        for page in 0..image.len() / PAGE {
            let range = page * PAGE..(page + 1) * PAGE;
            // Where a sync lied, not even the file's length is durable.
            if self.durable.get(range.clone()) != Some(&image[range]) {
                dirty.insert(page);
            }
        }
        (image, dirty)
    }

    pub(super) fn after_power_cut(&self, random: &mut Random) -> Self {
        let (new, dirty) = self.newest();
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

    pub(super) fn after_kill(&self) -> Self {
        let (live, dirty) = self.newest();
        Self {
            live,
            durable: self.durable.clone(),
            dirty,
            in_flight: BTreeSet::new(),
            unreadable: self.unreadable.clone(),
            memory: None,
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
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
    pub(super) fn persist(&mut self, pages: impl IntoIterator<Item = usize>) {
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

/// A name that was made, changed or removed, and may not be durable yet.
#[derive(Clone)]
pub(super) enum NameChange {
    Add { path: String, file: usize },
    Rename { from: String, to: String, file: usize },
    Remove { path: String },
}

impl NameChange {
    pub(super) fn touches(&self, dir: &str) -> bool {
        match self {
            Self::Add { path, .. } | Self::Remove { path } => directory_of(path) == dir,
            Self::Rename { from, to, .. } => directory_of(from) == dir || directory_of(to) == dir,
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
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

pub(super) fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
