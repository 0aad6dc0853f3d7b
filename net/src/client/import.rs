//! Importing: BEGIN, chunks of rows with several under way, COMMIT.
//!
//! An import has a name, its request id, and whoever has the name goes on where the server's staged rows
//! end: after a lost connection, after a crash of the client, in another process. So nothing that was
//! sent is kept here; if a reply does not come, BEGIN is sent again, its reply says how far the server
//! got, and the rows are read again from there. A server that was restarted has forgotten what was not
//! committed: then that is row 0.

use std::collections::VecDeque;
use std::io;

use kami_engine::{
    BatchReport, Duplicate, ImportReport, ImportRow, ImportSpec, Money, Origin, RequestId, Status,
};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Client;
use super::channel::Received;
use super::receipt::{Receipt, receipt};
use super::stock::batches;
use crate::error::ClientError;
use crate::frame::request::{Chunk, ChunkRows, Columns, DuplicatesOf, OneImport};
use crate::frame::{Body, Listing, Request, RequestHead};

/// Bytes of rows in a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks without a reply.
const WINDOW: usize = 4;
/// How often an import is begun again without a single chunk that was taken in between.
const ATTEMPTS_MAX: u32 = 20;

/// Where the rows of an import come from. They are read again from some row on after an interruption, and
/// are the same each time.
pub trait Rows {
    /// Goes to a row, counted from 0.
    ///
    /// # Errors
    /// If it cannot be read; the import stays as it is.
    fn seek(&mut self, row: u64) -> io::Result<()>;

    /// Adds the next rows to an empty chunk until it is full. It stays empty when there are no more.
    ///
    /// # Errors
    /// If they cannot be read; the import stays as it is.
    fn fill(&mut self, chunk: &mut ChunkRows) -> io::Result<()>;
}

/// One row to import. The code is wiped when this is dropped.
#[derive(Clone, Default)]
pub struct Row {
    /// The code as the merchant wrote it.
    pub code: Zeroizing<Vec<u8>>,
    /// The PIN; only if the batch has PINs.
    pub pin: Option<Zeroizing<Vec<u8>>>,
    /// The face value; only if the batch has faces.
    pub face: Option<Money>,
    /// The end of validity, in milliseconds since 1970; only if the batch has expiries. 0 is the batch's.
    pub expires_ms: u64,
    /// What it was in the system it comes from; only if the batch says that of its rows.
    pub origin: Option<Origin>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row(…)")
    }
}

/// Rows that are in memory.
#[derive(Debug)]
pub struct RowList<'a> {
    rows: &'a [Row],
    next: usize,
}

impl<'a> RowList<'a> {
    /// These rows.
    #[must_use]
    pub const fn new(rows: &'a [Row]) -> RowList<'a> {
        RowList { rows, next: 0 }
    }
}

impl Rows for RowList<'_> {
    fn seek(&mut self, row: u64) -> io::Result<()> {
        self.next = usize::try_from(row).unwrap_or(usize::MAX);
        Ok(())
    }

    fn fill(&mut self, chunk: &mut ChunkRows) -> io::Result<()> {
        for row in self.rows.get(self.next..).unwrap_or_default() {
            if row.code.len() > 255 || row.pin.as_ref().is_some_and(|pin| pin.len() > 255) {
                let wrong = "a code or PIN is longer than 255 bytes";
                return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
            }
            let pin = row.pin.as_ref().map(|pin| pin.as_slice());
            let Row { code, face, expires_ms, origin, .. } = row;
            let (face, expires_ms, origin) = (*face, *expires_ms, *origin);
            if !chunk.push(&ImportRow { code, pin, face, expires_ms, origin }) {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}

/// How far an import is.
#[derive(Clone, Debug)]
pub enum Staged {
    /// The server has all rows and waits for the commit; some may be there already.
    Complete(ImportReport),
    /// It was committed before; nothing was sent.
    Committed(Receipt<BatchReport>),
}

enum Sent {
    All(ImportReport),
    /// No reply came, or the server has forgotten the import. How many chunks were taken before.
    Lost {
        taken: u32,
    },
}

impl Client {
    /// Imports rows as one batch: all of them, or none. `import` names the import; the same again goes on
    /// where it was. `progress` is told how far the server is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the first duplicates if a card is there already; the import is given
    /// up then. [`ClientError::Rows`] if `rows` fails. After any other error the import can be gone on with.
    pub async fn import(
        &self,
        import: RequestId,
        spec: &ImportSpec,
        rows: &mut impl Rows,
        mut progress: impl FnMut(ImportReport),
    ) -> Result<Receipt<BatchReport>, ClientError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.import_stage(import, spec, rows, &mut progress).await? {
                Staged::Committed(receipt) => return Ok(receipt),
                Staged::Complete(_) => {}
            }
            match self.import_commit(import).await {
                // The server was restarted between the last row and the commit.
                Err(ClientError::Refused { status: Status::NotFound, .. }) => {}
                done => return done,
            }
        }
        self.import_commit(import).await
    }

    /// Sends the rows of an import and does not commit them.
    ///
    /// # Errors
    /// See [`Client::import`]. What the server has stays staged.
    pub async fn import_stage(
        &self,
        import: RequestId,
        spec: &ImportSpec,
        rows: &mut impl Rows,
        mut progress: impl FnMut(ImportReport),
    ) -> Result<Staged, ClientError> {
        let mut in_vain = 0;
        loop {
            let begun = self.send_as(import, &Request::ImportBegin(Box::new(spec.clone()))).await?;
            if matches!(begun.body, Body::Batches(_)) {
                return Ok(Staged::Committed(receipt(begun, batches)?.one()?));
            }
            let begun = receipt(begun, report)?.value;
            progress(begun);
            if begun.rows >= spec.rows {
                return Ok(Staged::Complete(begun));
            }
            rows.seek(begun.rows).map_err(ClientError::Rows)?;
            match self.send_rows(import, Columns::of(spec), begun, rows, &mut progress).await? {
                Sent::All(report) => return Ok(Staged::Complete(report)),
                Sent::Lost { taken: 0 } => in_vain += 1,
                Sent::Lost { .. } => in_vain = 0,
            }
            if in_vain >= ATTEMPTS_MAX {
                return Err(ClientError::Unknown { request: import });
            }
        }
    }

    async fn send_rows(
        &self,
        import: RequestId,
        columns: Columns,
        begun: ImportReport,
        rows: &mut impl Rows,
        progress: &mut impl FnMut(ImportReport),
    ) -> Result<Sent, ClientError> {
        let (mut next_row, mut last, mut taken) = (begun.rows, begun, 0);
        let (mut more, mut waiting) = (true, 0);
        let mut spare: Vec<ChunkRows> = Vec::new();
        let mut filled: VecDeque<ChunkRows> = VecDeque::new();
        let (mut sender, mut receiver) = self.channel().await?;
        let mut deadline = Instant::now() + self.inner.options.timeout;
        loop {
            while more && waiting + filled.len() < WINDOW {
                let mut chunk = spare.pop().unwrap_or_else(|| ChunkRows::new(columns, CHUNK_BYTES));
                chunk.clear();
                rows.fill(&mut chunk).map_err(ClientError::Rows)?;
                more = !chunk.is_empty();
                if more {
                    filled.push_back(chunk);
                }
            }
            for chunk in filled.drain(..) {
                let request = Request::ImportChunk(Chunk::new(import, next_row, &chunk));
                sender.push(&RequestHead::new(request.opcode(), RequestId::random()), &request)?;
                next_row += u64::from(chunk.count());
                waiting += 1;
                spare.push(chunk);
            }
            if waiting == 0 {
                return Ok(Sent::All(last));
            }
            let mut answers = Vec::new();
            let exchange = async {
                sender.flush().await?;
                receiver.receive(|reply| answers.push(reply.answer())).await
            };
            let lost = match tokio::time::timeout_at(deadline, exchange).await {
                Err(_) => return Err(ClientError::Unknown { request: import }),
                Ok(received) => !matches!(received, Ok(Received::Replies(_))),
            };
            for answer in answers {
                let answer = answer.map_err(|_| ClientError::BadReply)?;
                if answer.head.status == Status::NotFound {
                    return Ok(Sent::Lost { taken });
                }
                last = receipt(answer, report)?.value;
                progress(last);
                (waiting, taken) = (waiting - 1, taken + 1);
                deadline = Instant::now() + self.inner.options.timeout;
            }
            if lost {
                return Ok(Sent::Lost { taken });
            }
        }
    }

    /// Makes the staged cards of an import stock.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the first duplicates if a card is there already; the import is given
    /// up then. NOT_FOUND if the server was restarted since: stage it again.
    pub async fn import_commit(&self, import: RequestId) -> Result<Receipt<BatchReport>, ClientError> {
        let commit = Request::ImportCommit(OneImport { import });
        let head = RequestHead::new(commit.opcode(), RequestId::random());
        let done = self.send_within(&head, &commit, self.inner.options.import_timeout).await?;
        receipt(done, batches)?.one()
    }

    /// Gives a staged import up; one that is not there is as good.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if it was committed, or is not the caller's.
    pub async fn import_abort(&self, import: RequestId) -> Result<(), ClientError> {
        let answer = self.send(&Request::ImportAbort(OneImport { import })).await?;
        match answer.head.status {
            Status::NotFound => Ok(()),
            _ => receipt(answer, report).map(drop),
        }
    }

    /// Lists rows of a staged import whose cards are there already, from the `from`-th of them on, in order
    /// of row. The flag PARTIAL says that there are more.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn import_duplicates(
        &self,
        import: RequestId,
        from: u64,
    ) -> Result<Receipt<Listing<Duplicate>>, ClientError> {
        let answer = self.send(&Request::ImportDuplicates(DuplicatesOf { import, from })).await?;
        receipt(answer, |body| match body {
            Body::Duplicates(rows) => Some(rows),
            _ => None,
        })
    }
}

fn report(body: Body) -> Option<ImportReport> {
    match body {
        Body::Import(report) => Some(report),
        _ => None,
    }
}
