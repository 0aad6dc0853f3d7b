//! Imports, as whoever embeds the engine asks for them: calls of their own beside the commands, since rows take room in
//! files and not in requests, and every one of them may wait for the disk.

use kami_wal::Poisoned;

use super::{Engine, Shared};
use crate::grounds::Grounds;
use crate::identity::{Caller, RequestId};
use crate::import::{ImportRow, ImportSpec};
use crate::reply::Reply;

impl Engine {
    /// Stages an import; `id` names it from here on. Blocking, as all imports are; done again it goes on
    /// where it was.
    ///
    /// # Errors
    /// If the log failed, as for the four calls below.
    pub fn import_begin(&self, caller: Caller, id: RequestId, spec: ImportSpec) -> Result<Reply, Poisoned> {
        let Shared { sequencer, vault, imports, .. } = &*self.shared;
        let reply = imports.begin(sequencer, vault, caller, id, spec);
        // It says that the product exists, and that no such import was committed.
        sequencer.wal.wait_durable(sequencer.wal.tail())?;
        Ok(reply)
    }

    /// Adds rows; `first_row` is the number of the first, and rows received before are skipped. A chunk is
    /// taken as a whole or not at all: after MALFORMED the reply names the bad row.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_chunk(
        &self,
        caller: Caller,
        id: RequestId,
        first_row: u64,
        rows: &mut dyn Iterator<Item = ImportRow<'_>>,
    ) -> Result<Reply, Poisoned> {
        let Shared { sequencer, vault, imports, .. } = &*self.shared;
        self.settled(imports.chunk(sequencer, vault, caller, id, first_row, rows))
    }

    /// How far a staged import is.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_status(&self, caller: Caller, id: RequestId) -> Result<Reply, Poisoned> {
        self.settled(self.shared.imports.status(&self.shared.sequencer, caller, id))
    }

    /// Lists the rows of a staged import whose cards are there already: up to
    /// [`DUPLICATES_MAX`](crate::DUPLICATES_MAX) from the `from`-th on, counted from 0. PARTIAL says that
    /// there are more.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_duplicates(&self, caller: Caller, id: RequestId, from: u64) -> Result<Reply, Poisoned> {
        let Shared { sequencer, imports, .. } = &*self.shared;
        self.settled(imports.duplicates(sequencer, caller, id, from))
    }

    /// Commits a staged import as one batch. If cards of it are there already, the reply says which, and
    /// what was staged is given up, unless the import was begun to skip them.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_commit(&self, caller: Caller, id: RequestId) -> Result<Reply, Poisoned> {
        self.import_commit_on(caller, id, None)
    }

    /// The same, on grounds that are kept with the batch. Cards that come with what they were in another system are
    /// committed on grounds only: REASON_MISSING without.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_commit_on(
        &self,
        caller: Caller,
        id: RequestId,
        grounds: Option<&Grounds>,
    ) -> Result<Reply, Poisoned> {
        let sequencer = &self.shared.sequencer;
        sequencer.wait_space();
        self.settled(self.shared.imports.commit(sequencer, &self.shared.vault, caller, id, grounds))
    }

    /// Gives a staged import up.
    ///
    /// # Errors
    /// See [`Engine::import_begin`].
    pub fn import_abort(&self, caller: Caller, id: RequestId) -> Result<Reply, Poisoned> {
        let Shared { sequencer, vault, imports, .. } = &*self.shared;
        self.settled(imports.abort(sequencer, vault, caller, id))
    }

    /// Gives up the staged imports that nobody has touched for a day, and returns how many: their files take up
    /// room on the disk. It may remove large files, so it is called on a thread that may block, now and then.
    pub fn give_up_imports(&self) -> usize {
        let Shared { sequencer, vault, imports, .. } = &*self.shared;
        imports.give_up_abandoned(sequencer, vault)
    }
}
