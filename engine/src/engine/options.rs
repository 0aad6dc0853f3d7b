//! What an engine is opened with, and why it cannot be, or cannot reveal a code.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kami_wal::{DiskMedium, DiskOptions, Medium, WalOptions};

use super::EXIT_POISONED;
use crate::clock::{Clock, ClockStep, SystemClock};
use crate::identity::BatchId;
use crate::replay::ReplayError;
use crate::store::{Identity, IdentityError};
use crate::vault::KeyError;

/// Where a store lies and how it is kept.
pub struct EngineOptions {
    /// Where the data goes.
    pub data: Arc<dyn Medium>,
    /// Where the keys go: never inside the data, so that a backup of the data carries no key.
    pub keys: Arc<dyn Medium>,
    /// How the log is kept; `store_id` is filled in.
    pub wal: WalOptions,
    /// The clocks.
    pub clock: Box<dyn Clock>,
    /// Accept a step of the wall clock by more than 10 minutes. Default no.
    pub accept_clock: bool,
}

impl EngineOptions {
    /// A store in directory `data` with its keys in directory `keys`, made if they are not there. If the
    /// log ever fails, the process is ended, because nothing may be acknowledged after that.
    ///
    /// # Errors
    /// If a directory cannot be used: no permission, in use by another process, no real file system, no
    /// store and yet not empty; or if there is a store and no directory with its keys. Directories that were
    /// made for this are gone again.
    pub fn on_disk(data: &Path, keys: &Path, options: DiskOptions) -> Result<EngineOptions, OpenError> {
        let data = DiskMedium::open(data, options)?;
        let opened = Identity::read(&data).map_err(OpenError::from).and_then(|identity| {
            if identity.is_some() && !keys.exists() {
                return Err(KeyError::Missing { file: "lookup.key" }.into());
            }
            Ok(DiskMedium::open(keys, options)?)
        });
        let keys = match opened {
            Ok(keys) => keys,
            Err(error) => {
                data.discard();
                return Err(error);
            }
        };
        let wal = WalOptions {
            on_poison: Some(Box::new(|what| {
                eprintln!("kami: the log failed, nothing more will be acknowledged: {what}");
                std::process::exit(EXIT_POISONED);
            })),
            ..WalOptions::default()
        };
        Ok(EngineOptions {
            keys: Arc::new(keys),
            data: Arc::new(data),
            wal,
            clock: Box::new(SystemClock::new().map_err(OpenError::Clock)?),
            accept_clock: false,
        })
    }
}

/// Why a store cannot be opened. Nothing was changed that a second attempt would miss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] kami_wal::DiskError),
    /// The directory is no store, or not one of this version.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] kami_wal::OpenError),
    /// What the snapshot or the log says cannot be put in place.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The wall clock is not believed.
    #[error(transparent)]
    ClockStep(#[from] ClockStep),
    /// The kernel does not tell the time.
    #[error("the machine's clocks cannot be read")]
    Clock(#[source] io::Error),
    /// A file of the store cannot be read or written.
    #[error("a file of the store cannot be read or written: {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Two committed batches have the same card.
    #[error("the store holds a card twice: batch=`{batch}` row=`{row}`")]
    DuplicateCard {
        /// The later batch.
        batch: BatchId,
        /// Its row.
        row: u64,
    },
    /// There is no room to record the start.
    #[error("the disk is full: make room and start again")]
    DiskFull,
}

/// Why codes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevealError {
    /// The reply that lists them is not durable yet.
    #[error("codes are revealed only after their reply is durable")]
    NotDurable,
    /// The batch file cannot be read.
    #[error("a batch file cannot be read: batch=`{batch}`")]
    Io {
        /// The batch.
        batch: BatchId,
        /// Why.
        source: io::Error,
    },
    /// The ciphertext was altered.
    #[error("a code does not open: the batch file is damaged: batch=`{batch}` row=`{row}`")]
    Damaged {
        /// The batch.
        batch: BatchId,
        /// The row.
        row: u64,
    },
}
