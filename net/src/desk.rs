//! From a frame to the engine and back to a reply.
//!
//! A desk gathers the requests of one stream until a batch is full, one may be answered at length or nothing more has
//! arrived, has the engine decide them together, and puts the replies into the stream's [`Outbox`] in the order of
//! the frames. What the engine need not be asked (unknown, forbidden or malformed requests) takes its
//! place in the same line. Codes and PINs end here (`desk/code.rs`): only their digests go on.

mod blocking;
mod code;
mod command;

pub(crate) use blocking::{Blocking, run_blocking};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kami_engine::{
    CodeGroup, CodeSet, Command, Grounds, Reply, ReplyBody, Request as EngineRequest, RequestId, Status, Work,
};
use zeroize::Zeroizing;

use self::command::Translated;
use crate::frame::opcode::SMALL_FRAME_BYTES_MAX;
use crate::frame::request::{BATCH_ITEMS_MAX, Items, Redeem};
use crate::frame::{
    BadFrame, Body, FRAME_BYTES_MAX, FeedOpen, ItemReport, Listing, Malformed, Opcode, REQUEST_HEAD_BYTES,
    ReplyHead, Request, RequestFlags, RequestHead, VERSION, Wait, Welcome,
};
use crate::outbox::{Leave, Outbox};
use crate::registry::Peer;
use crate::server::Shared;

/// Replies to wrong codes leave so long after their receipt, and up to a random millisecond later; what follows them in their
/// stream leaves after them. Deciding takes a hundredth of that and differs by a microsecond between a code that nobody has, a
/// card that is not sold and a wrong PIN; whoever may ask often enough would see it. The random part is needed because
/// timers count in milliseconds from when they are set, which is after the decision.
const MISS_TIME: Duration = Duration::from_millis(2);

pub(crate) struct Desk {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    work: Work,
    /// The codes of the requests in it: a batch holds each once, so that what came of the first is counted
    /// before the next is let in, and no batch guesses at one PIN more often than its budget allows.
    codes: CodeSet,
    /// Codes of requests that come next.
    ahead: CodeGroup,
    /// One entry per frame taken in, in order.
    line: Vec<Place>,
    /// How many requests the batch being gathered may hold.
    batch_max: usize,
    /// Its last request may be answered at length. None is taken in behind it: beyond what the stream may keep it gets one
    /// such reply, not one for each request of a batch.
    long: bool,
    /// Whether the batch holds a command whose outcome concerns the server itself.
    administers: bool,
    /// When the bytes being decoded were received.
    pub(crate) received: Instant,
    /// When bytes that had waited here, behind replies that their peer did not take, came to be decoded.
    pub(crate) resumed: Option<Instant>,
}

enum Place {
    /// The next reply of the engine, to a request with this opcode; the rest of the head is in the reply.
    Engine(u16),
    /// An answer that needed no engine, and no body.
    Status(ReplyHead),
    /// This field is wrong.
    Malformed(ReplyHead, &'static str),
    /// The answer to HELLO.
    Welcome(ReplyHead),
    /// Too many wrong codes came before.
    Limited(ReplyHead, Wait),
}

/// Why a request does not reach the engine.
enum Refusal {
    /// Its code came before in the same batch, which must be decided first.
    Again,
    Status(Status),
    Limited(Wait),
}

impl Refusal {
    const fn status(&self) -> Status {
        match self {
            Refusal::Status(status) => *status,
            Refusal::Limited(_) => Status::RateLimited,
            Refusal::Again => Status::Busy,
        }
    }
}

/// What to do after a frame was taken in.
pub(crate) enum Admitted<'a> {
    /// Go on.
    Placed,
    /// Not taken in: it is to come again after [`Desk::run`], and will be taken in then.
    Again,
    /// Items to be decided by [`Desk::run_items`], after what was gathered.
    Items(RequestHead, Items<'a>),
    /// The stream is to become a feed, once what was gathered is answered.
    Feed(RequestHead, FeedOpen),
    /// Work for a thread that may block, after what was gathered and before what follows.
    Blocking(RequestHead, Blocking),
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Desk {
        Desk {
            shared,
            peer,
            work: Work::default(),
            codes: CodeSet::default(),
            ahead: CodeGroup::default(),
            line: Vec::new(),
            batch_max: 1,
            long: false,
            administers: false,
            received: Instant::now(),
            resumed: None,
        }
    }

    /// Begins a batch. A principal that may miss only a few more times is decided in as small ones.
    pub(crate) fn begin(&mut self) {
        self.batch_max = self.shared.guesses.batch_max(&self.peer.guesser, self.received);
    }

    /// Whether no more frames should be taken in before [`Desk::run`].
    pub(crate) fn is_full(&self) -> bool {
        self.line.len() >= self.batch_max || self.long
    }

    /// How long a frame with this head may be: short unless the caller may send long ones.
    pub(crate) fn frame_bytes_max(&self, head: &[u8]) -> usize {
        let opcode = Opcode::from_number(u16::from_le_bytes([head[6], head[7]]));
        match opcode {
            Some(opcode) if opcode.allows(self.peer.caller.role) => opcode.frame_bytes_max(),
            _ => SMALL_FRAME_BYTES_MAX,
        }
    }

    /// Takes a frame in.
    pub(crate) fn admit<'a>(&mut self, frame: &'a [u8]) -> Admitted<'a> {
        let head = match RequestHead::decode(frame) {
            Ok(head) => head,
            Err(malformed) => {
                self.line.push(Place::malformed(&lenient(frame), malformed));
                return Admitted::Placed;
            }
        };
        let opcode = match self.allowed(&head) {
            Ok(opcode) => opcode,
            Err(bad) => {
                self.line.push(bad.place(&head));
                return Admitted::Placed;
            }
        };
        let body = &frame[REQUEST_HEAD_BYTES..];
        if opcode == Opcode::Redeem {
            return self.admit_redeem(&head, body);
        }
        let decoded = if head.flags == RequestFlags::GROUNDS {
            Request::decode_on(opcode, body).map(|(grounds, request)| (Some(grounds), request))
        } else {
            Request::decode(opcode, body).map(|request| (None, request))
        };
        match decoded {
            Ok((grounds, request)) => self.admit_request(head, grounds, request, frame),
            Err(malformed) => {
                self.line.push(Place::malformed(&head, malformed));
                Admitted::Placed
            }
        }
    }

    /// What most frames are: without the detour over the enum of all requests, which is large.
    #[inline]
    fn admit_redeem<'a>(&mut self, head: &RequestHead, body: &[u8]) -> Admitted<'a> {
        let partial = head.flags == RequestFlags::PARTIAL;
        match Redeem::decode(body) {
            Ok(Redeem { amount, code, pin }) => match self.card_and_pin(code, pin) {
                Ok((card, pin)) => {
                    self.place(head, head.request, Command::Redeem { card, pin, amount, partial }, None);
                    self.line.push(Place::Engine(head.opcode));
                }
                Err(refusal) => return self.refuse(head, refusal),
            },
            Err(malformed) => self.line.push(Place::malformed(head, malformed)),
        }
        Admitted::Placed
    }

    fn refuse<'a>(&mut self, head: &RequestHead, refusal: Refusal) -> Admitted<'a> {
        self.line.push(match refusal {
            Refusal::Again => return Admitted::Again,
            Refusal::Status(status) => Place::status(head, status),
            Refusal::Limited(wait) => Place::Limited(ReplyHead::local(head, Status::RateLimited), wait),
        });
        Admitted::Placed
    }

    /// Answers a frame that is longer than its opcode or the caller's role allows.
    pub(crate) fn refuse_long(&mut self, head: &[u8]) {
        let place = match RequestHead::decode(head) {
            Ok(head) => match self.allowed(&head) {
                Ok(_) => Place::status(&head, Status::TooLarge),
                Err(bad) => bad.place(&head),
            },
            Err(malformed) => Place::malformed(&lenient(head), malformed),
        };
        self.line.push(place);
    }

    /// Answers a request that the stream itself refuses.
    pub(crate) fn refuse_request(&mut self, head: &RequestHead, status: Status) {
        self.line.push(Place::status(head, status));
    }

    /// Answers the frame that ends the stream, as far as it can be.
    pub(crate) fn refuse_stream(&mut self, head: Option<&[u8]>, status: Status) {
        let head = lenient(head.unwrap_or_default());
        self.line.push(Place::status(&head, status));
    }

    /// The opcode, if the caller may send it with these flags and this version serves it.
    #[inline]
    fn allowed(&self, head: &RequestHead) -> Result<Opcode, BadHead> {
        let opcode = Opcode::from_number(head.opcode).ok_or(BadHead::Status(Status::Unsupported))?;
        if !opcode.allows(self.peer.caller.role) {
            return Err(BadHead::Status(Status::Forbidden));
        }
        // ATOMIC is assigned for batch frames and is not served yet; anywhere else it means nothing.
        if !opcode.is_served() || head.flags == RequestFlags::ATOMIC && opcode == Opcode::RedeemBatch {
            return Err(BadHead::Status(Status::Unsupported));
        }
        let takes_part = matches!(opcode, Opcode::Redeem | Opcode::Hold | Opcode::RedeemBatch)
            && head.flags == RequestFlags::PARTIAL;
        let says_why = head.flags == RequestFlags::GROUNDS && opcode.takes_grounds();
        if head.flags != RequestFlags::NONE && !takes_part && !says_why {
            return Err(BadHead::Malformed(Malformed { field: "flags" }));
        }
        Ok(opcode)
    }

    #[inline]
    fn admit_request<'a>(
        &mut self,
        head: RequestHead,
        grounds: Option<Box<Grounds>>,
        request: Request<'a>,
        frame: &[u8],
    ) -> Admitted<'a> {
        let partial = head.flags == RequestFlags::PARTIAL;
        let command = match self.command(request, partial) {
            Ok(Translated::Command(command)) => command,
            Ok(Translated::Ping) => {
                self.line.push(Place::status(&head, Status::Ok));
                return Admitted::Placed;
            }
            Ok(Translated::Hello) => {
                self.line.push(Place::Welcome(ReplyHead::local(&head, Status::Ok)));
                return Admitted::Placed;
            }
            Ok(Translated::Items(items)) => return Admitted::Items(head, items),
            Ok(Translated::Feed(open)) => return Admitted::Feed(head, open),
            Ok(Translated::Blocking(blocking)) => {
                return Admitted::Blocking(head, blocking.on_grounds(grounds));
            }
            Ok(Translated::Chunk) => {
                return Admitted::Blocking(head, Blocking::Chunk(Zeroizing::new(frame.to_vec())));
            }
            Err(refusal) => return self.refuse(&head, refusal),
        };
        // A reason that the wire takes and the engine does not is refused; one that only the engine takes never comes.
        debug_assert_eq!(
            Opcode::from_number(head.opcode).is_some_and(Opcode::takes_grounds),
            command.takes_grounds(),
            "opcode {:#06x} and its command differ in whether they say why",
            head.opcode
        );
        self.long = command::is_answered_at_length(&command);
        self.place(&head, head.request, command, grounds);
        self.line.push(Place::Engine(head.opcode));
        Admitted::Placed
    }

    /// By when a request is to be decided, if it says so.
    pub(crate) fn deadline(&self, head: &RequestHead) -> Option<Instant> {
        match head.deadline_ms {
            0 => None,
            ms => Some(self.received + Duration::from_millis(ms.into())),
        }
    }

    /// Whether that is over.
    pub(crate) fn is_late(&self, head: &RequestHead) -> bool {
        self.deadline(head).is_some_and(|deadline| deadline <= Instant::now())
    }

    // Inlined, so that the command is put together where it is to stand. What is written in small pieces and moved in
    // large ones right after has to wait for the small ones.
    #[inline(always)]
    fn place(&mut self, head: &RequestHead, id: RequestId, command: Command, grounds: Option<Box<Grounds>>) {
        let deadline = self.deadline(head);
        self.administers |= matches!(
            command,
            Command::PrincipalRevoke(_)
                | Command::PrincipalRenew(_)
                | Command::PinUnlock { .. }
                | Command::Stats
        );
        self.work.requests.push(EngineRequest {
            id,
            caller: self.peer.caller,
            terminal: head.terminal,
            channel: head.channel,
            deadline,
            command,
            grounds,
        });
    }

    fn welcome(&self) -> Welcome {
        let caller = self.peer.caller;
        Welcome {
            principal: caller.principal,
            merchant: caller.merchant,
            tenant: caller.tenant,
            role: caller.role,
            version_max: VERSION,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            streams_max: self.peer.streams_max.load(Ordering::Relaxed).min(self.shared.options.streams_max),
            items_max: BATCH_ITEMS_MAX as u32,
        }
    }

    /// Has what was gathered decided, and puts the replies into the outbox.
    pub(crate) fn run(&mut self, outbox: &mut Outbox) -> Result<(), EngineFault> {
        // Also where there is nothing to decide: what waits for the disk named its card and took no place.
        self.codes.clear();
        self.ahead.clear();
        self.long = false;
        if self.line.is_empty() {
            return Ok(());
        }
        let leave = self.execute()?;
        let (welcome, received) = (self.welcome(), self.received);
        let mut replies = self.work.replies.iter_mut();
        let mut line = self.line.iter();
        while !line.as_slice().is_empty() {
            // Replies with codes part the line; all others go into one buffer in one go.
            let mut codes = None;
            outbox.push(leave, received, |tray| {
                for place in line.by_ref() {
                    match place {
                        Place::Status(head) => tray.put(head, &Body::None),
                        Place::Malformed(head, field) => tray.put(head, &Body::Reason((*field).to_owned())),
                        Place::Welcome(head) => tray.put(head, &Body::Welcome(welcome)),
                        Place::Limited(head, wait) => tray.put(head, &Body::Wait(*wait)),
                        Place::Engine(opcode) => {
                            let Some(reply) = replies.next() else { continue };
                            let head = engine_head(*opcode, reply.request, reply);
                            if !matches!(reply.body, ReplyBody::Cards(_)) {
                                tray.put_told(&head, &mut reply.body);
                            } else if let ReplyBody::Cards(list) = reply.body.take() {
                                codes = Some((head, list));
                                return;
                            }
                        }
                    }
                }
            });
            if let Some((head, list)) = codes {
                outbox.push_codes(leave, received, head, list);
            }
        }
        self.line.clear();
        self.work.replies.clear();
        self.work.requests.clear();
        Ok(())
    }

    /// Decides the items of a REDEEM_BATCH one by one, as if each had come in a frame of its own, and
    /// answers them in one frame.
    pub(crate) fn run_items(
        &mut self,
        head: &RequestHead,
        items: &Items<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), EngineFault> {
        let mut reports: Vec<ItemReport> = Vec::with_capacity(items.len());
        let mut asked = Vec::with_capacity(Work::REQUESTS_MAX);
        let (mut leave, mut time_ms) = (Leave::default(), 0);
        let mut items = items.iter().peekable();
        while items.peek().is_some() {
            self.begin();
            self.codes.clear();
            for _ in 0..self.batch_max {
                if self.ahead.is_spent() {
                    self.digest_ahead(items.clone().take(self.batch_max).map(|item| item.code));
                }
                let Some(item) = items.peek() else { break };
                let mut report = ItemReport::nothing(item.request);
                match self.redeem(item.code, item.pin, item.amount, head.flags == RequestFlags::PARTIAL) {
                    Ok(command) => {
                        self.place(head, item.request, command, None);
                        asked.push(reports.len());
                    }
                    Err(Refusal::Again) => break,
                    Err(refusal) => report.status = refusal.status(),
                }
                reports.push(report);
                items.next();
            }
            self.ahead.clear();
            leave = self.execute()?.and(leave);
            for (at, reply) in asked.drain(..).zip(self.work.replies.drain(..)) {
                let report = &mut reports[at];
                (report.status, report.flags, report.lsn) = (reply.status, reply.flags, reply.lsn);
                if let ReplyBody::Value(value) = reply.body {
                    report.value = value;
                }
                time_ms = reply.time_ms;
            }
            self.work.requests.clear();
        }
        let done = reports.iter().filter(|report| report.status.is_done()).count();
        let status = if done == reports.len() { Status::Ok } else { Status::OkPartial };
        let head = ReplyHead { time_ms, ..ReplyHead::local(head, status) };
        outbox.push(leave, self.received, |tray| {
            let body = Body::Items(Listing::of(reports));
            tray.put(&head, &body);
            if let Body::Items(listing) = &body {
                listing.rows.iter().for_each(|report| tray.count_item(report.status));
            }
        });
        Ok(())
    }

    /// Has the gathered requests decided. Returns when the replies may leave.
    fn execute(&mut self) -> Result<Leave, EngineFault> {
        if self.work.requests.is_empty() {
            return Ok(Leave::default());
        }
        self.shared.engine.decide(&mut self.work);
        if let Some(end) = self.work.durable_at() {
            self.shared.gather.add(&self.shared.engine, end);
        }
        if self.work.replies.len() != self.work.requests.len() {
            return Err(EngineFault);
        }
        debug_assert!(
            self.work
                .requests
                .iter()
                .zip(&self.work.replies)
                .all(|(request, reply)| request.id == reply.request),
            "a reply to another request"
        );
        if self.work.misses() > 0 {
            for (request, reply) in self.work.requests.iter().zip(&self.work.replies) {
                let command = match &request.command {
                    Command::Propose(command) => command,
                    command => command,
                };
                if reply.miss
                    && let Some(card) = command.named_card()
                {
                    self.shared.guesses.miss(&self.peer.guesser, card.spread(), self.received);
                }
            }
        }
        if std::mem::take(&mut self.administers) {
            self.administer();
        }
        let not_before = (self.work.misses() > 0).then(|| {
            let random = RequestId::random().0 as u64 % 1_000_000;
            // From when it could have been decided: a peer that lets its own bytes wait gets no earlier answer.
            self.resumed.unwrap_or(self.received) + MISS_TIME + Duration::from_nanos(random)
        });
        Ok(Leave { durable_at: self.work.durable_at(), not_before })
    }

    /// What the server itself does about commands that were decided.
    fn administer(&mut self) {
        let Shared { engine, registry, guesses, .. } = &*self.shared;
        for (request, reply) in self.work.requests.iter().zip(&mut self.work.replies) {
            let principal = match (&request.command, &mut reply.body) {
                (Command::PrincipalRevoke(principal), _) => *principal,
                (Command::PrincipalRenew(renewal), _) => renewal.principal,
                // Whoever tried need not wait for the budget of wrong codes either, which may be spent where
                // nothing is locked yet.
                (Command::PinUnlock { card }, _) => {
                    if reply.status.is_done() || reply.status == Status::IllegalTransition {
                        guesses.forgive(card.spread(), self.received);
                    }
                    continue;
                }
                (Command::Stats, ReplyBody::Stats(stats)) => {
                    (stats.rate_limited, stats.budgets_spent) = guesses.counts();
                    continue;
                }
                _ => continue,
            };
            if reply.status.is_done() {
                // Which keys are good is the engine's to say: the request may be an old one that came again.
                registry.close_strangers(principal, |key| {
                    engine.principal_by_key(key).is_some_and(|owner| owner.id == principal)
                });
            }
        }
    }
}

/// The engine answered fewer requests than it was asked: nothing of this batch may be sent.
#[derive(Debug)]
pub(crate) struct EngineFault;

/// What is wrong with a frame whose head can be read.
enum BadHead {
    Status(Status),
    Malformed(Malformed),
}

impl BadHead {
    fn place(self, head: &RequestHead) -> Place {
        match self {
            BadHead::Status(status) => Place::status(head, status),
            BadHead::Malformed(malformed) => Place::malformed(head, malformed),
        }
    }
}

/// As much of a head as there is, to answer a frame that is not in order.
fn lenient(frame: &[u8]) -> RequestHead {
    let nobody = RequestHead { opcode: 0, ..RequestHead::new(Opcode::Ping, RequestId(0)) };
    RequestHead::decode_lenient(frame).unwrap_or(nobody)
}

impl Place {
    fn status(head: &RequestHead, status: Status) -> Place {
        Place::Status(ReplyHead::local(head, status))
    }

    fn malformed(head: &RequestHead, malformed: Malformed) -> Place {
        Place::Malformed(ReplyHead::local(head, Status::Malformed), malformed.field)
    }
}

/// Which status a stream ends with.
pub(crate) const fn bad_frame_status(bad: BadFrame) -> Status {
    match bad {
        BadFrame::TooLong { .. } => Status::TooLarge,
        BadFrame::Version { .. } => Status::Unsupported,
        BadFrame::TooShort { .. } => Status::Malformed,
    }
}

#[inline]
fn engine_head(opcode: u16, request: RequestId, reply: &Reply) -> ReplyHead {
    ReplyHead {
        flags: reply.flags,
        opcode,
        request,
        status: reply.status,
        lsn: reply.lsn,
        time_ms: reply.time_ms,
    }
}
