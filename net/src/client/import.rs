//! Importing: BEGIN, chunks of rows with several under way, COMMIT.
//!
//! Chunks that have no reply yet are kept, so that a lost connection costs nothing: the server is asked
//! how far it got, and goes on from there. A server that was restarted has forgotten an import that was
//! not committed; that is reported, and the import begins anew with nothing left behind.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use kami_engine::{BatchReport, ImportReport, ImportRow, ImportSpec, Money, RequestId};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Client;
use super::calls::{Receipt, batches, receipt};
use crate::error::ClientError;
use crate::frame::request::{Chunk, ChunkRows, Columns, OneImport};
use crate::frame::{Answer, Body, Request, RequestHead};

/// Bytes of rows in a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks without a reply.
const WINDOW: usize = 4;

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
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row(…)")
    }
}

struct Sent {
    first_row: u64,
    rows: ChunkRows,
}

impl Client {
    /// Imports rows as one batch: all of them, or none. `progress` is told how many rows the server has.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the duplicates if a card is there already; [`ClientError::Rows`] if
    /// `rows` fails, and then the import is given up.
    pub async fn import(
        &self,
        spec: ImportSpec,
        rows: impl Iterator<Item = io::Result<Row>>,
        mut progress: impl FnMut(ImportReport),
    ) -> Result<Receipt<BatchReport>, ClientError> {
        let import = RequestId::random();
        let columns = Columns::of(&spec);
        let begun = self.send_as(import, &Request::ImportBegin(spec)).await?;
        progress(receipt(begun, report)?.value);
        match self.send_rows(import, columns, rows, &mut progress).await {
            Ok(()) => {}
            Err(error) => {
                // Best effort: an import that is never committed leaves nothing behind anyway.
                let _ = self.send(&Request::ImportAbort(OneImport { import })).await;
                return Err(error);
            }
        }
        let commit = Request::ImportCommit(OneImport { import });
        let head = RequestHead::new(commit.opcode(), RequestId::random());
        let done = self.send_within(&head, &commit, self.inner.options.import_timeout).await?;
        receipt(done, batches)?.one()
    }

    async fn send_rows(
        &self,
        import: RequestId,
        columns: Columns,
        mut rows: impl Iterator<Item = io::Result<Row>>,
        progress: &mut impl FnMut(ImportReport),
    ) -> Result<(), ClientError> {
        let mut next_row = 0;
        let mut left_over = None;
        let mut more = true;
        let mut sent: VecDeque<Sent> = VecDeque::new();
        let mut deadline = Instant::now() + self.inner.options.timeout;
        // One turn per connection.
        'connection: loop {
            let (mut sender, mut receiver) = self.channel().await?;
            // What has no reply goes first, again; the server skips the rows it has.
            let mut unsent = 0;
            loop {
                while more && sent.len() < WINDOW {
                    let chunk = gather(columns, &mut rows, &mut left_over).map_err(ClientError::Rows)?;
                    more = chunk.count() > 0;
                    if more {
                        let first_row = next_row;
                        next_row += u64::from(chunk.count());
                        sent.push_back(Sent { first_row, rows: chunk });
                    }
                }
                if sent.is_empty() {
                    return Ok(());
                }
                for chunk in sent.iter().skip(unsent) {
                    let body = Chunk::new(import, chunk.first_row, &chunk.rows);
                    let request = Request::ImportChunk(body);
                    sender.push(&RequestHead::new(request.opcode(), RequestId::random()), &request)?;
                }
                unsent = sent.len();
                let mut answers = Vec::new();
                let exchange = async {
                    sender.flush().await?;
                    receiver.receive(|reply| answers.push(reply.answer())).await
                };
                let lost = match tokio::time::timeout_at(deadline, exchange).await {
                    Err(_) => return Err(ClientError::Unknown { request: import }),
                    Ok(received) => !matches!(received, Ok(super::channel::Received::Replies(_))),
                };
                for answer in answers {
                    let answer = answer.map_err(|_| ClientError::BadReply)?;
                    progress(self.chunk_done(answer)?);
                    sent.pop_front();
                    unsent -= 1;
                    deadline = Instant::now() + self.inner.options.timeout;
                }
                if lost {
                    // Asked over a new connection; fails if the server has forgotten the import.
                    let status = self.send(&Request::ImportStatus(OneImport { import })).await?;
                    let received = receipt(status, report)?.value.rows;
                    sent.retain(|chunk| received < chunk.first_row + u64::from(chunk.rows.count()));
                    continue 'connection;
                }
            }
        }
    }

    fn chunk_done(&self, answer: Answer) -> Result<ImportReport, ClientError> {
        receipt(answer, report).map(|receipt| receipt.value)
    }
}

/// As many rows as a chunk holds; `left_over` is the one that no longer fitted.
fn gather(
    columns: Columns,
    rows: &mut impl Iterator<Item = io::Result<Row>>,
    left_over: &mut Option<Row>,
) -> io::Result<ChunkRows> {
    let mut chunk = ChunkRows::new(columns, CHUNK_BYTES);
    let mut scratch = BytesMut::with_capacity(1024);
    loop {
        let row = match left_over.take() {
            Some(row) => row,
            None => match rows.next() {
                None => return Ok(chunk),
                Some(row) => row?,
            },
        };
        let too_long = row.code.len() > 255 || row.pin.as_ref().is_some_and(|pin| pin.len() > 255);
        if too_long {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a code or PIN is longer than 255 bytes"));
        }
        let fits = chunk.push(
            &ImportRow {
                code: &row.code,
                pin: row.pin.as_ref().map(|pin| pin.as_slice()),
                face: row.face,
                expires_ms: row.expires_ms,
            },
            &mut scratch,
        );
        if !fits {
            *left_over = Some(row);
            return Ok(chunk);
        }
    }
}

fn report(body: Body) -> Option<ImportReport> {
    match body {
        Body::Import(report) => Some(report),
        _ => None,
    }
}
