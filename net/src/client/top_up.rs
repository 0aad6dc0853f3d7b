//! Direct top-up (直充): what a card is worth goes to somebody's account elsewhere, a phone number or a player, and
//! the card is used up for it.
//!
//! Two systems must agree that cannot commit together, so neither is asked to be quick or lucky:
//! ```text
//! HOLD      the card's value is kept for this top-up; nobody else can spend it
//! fulfil    whoever tops up does it, under the same id                        Fulfiller
//! CAPTURE   done: what was held is redeemed                RELEASE  refused: the card is free again
//! ```
//! Every step has an id that follows from the top-up's own, so the same call after a crash, at whatever point, goes on
//! where the first one ended: [`Client::top_up`] is to be called with the same id until it says what came of it. A top-up
//! that nobody asks about again is no loss to the card's owner, because a hold ends by itself. That is why one thing
//! is never done here: to release a card because no answer came.
//!
//! | It stopped | The same call again |
//! |---|---|
//! | before HOLD | begins |
//! | between HOLD and fulfil | the hold stands: fulfils. It is over: asks for the outcome, and nothing happened |
//! | between fulfil and CAPTURE | the fulfiller gives its first answer again; captures. The hold is over: redeems as much |
//! | after CAPTURE | the fulfiller gives its first answer again; the capture has its first effect |
//!
//! What is left is [`ToppedUp::Unpaid`]: done, and between the hold's end and now the card was spent elsewhere or
//! stopped. A person has to see those. They need a fulfiller that took longer than a hold stands and somebody who
//! waited for that; the longer the product's hold (`kami product set --hold`), the rarer.

use std::future::Future;
use std::time::Duration;

use aws_lc_rs::digest;
use kami_engine::{Class, Money, ProductId, ReplyFlags, RequestId, Status, ValueReport};

use super::Client;
use super::cards::{HoldOptions, RedeemOptions};
use super::receipt::Receipt;
use crate::error::ClientError;

/// One top-up. Whoever asks for it keeps it, and a way to the code, until its outcome is known.
#[derive(Clone, Debug)]
pub struct TopUp<'a> {
    /// Its id: new for every top-up, the same for every attempt at it. It names the hold.
    pub id: RequestId,
    /// Whose account is topped up, as the fulfiller knows it: a phone number, a player.
    pub to: &'a str,
    /// How much of the card, in minor units; 0 is all of it, and one use of a MULTI_USE card.
    pub amount: Money,
    /// The card's PIN, if it has one.
    pub pin: Option<&'a [u8]>,
    /// The longest that one answer of the fulfiller is waited for. It is asked to top up only while the hold stands for
    /// twice as long, so that the capture comes in time. Default 60 s, against a hold of 300 s.
    pub patience: Duration,
}

impl<'a> TopUp<'a> {
    /// All of a card without a PIN.
    #[must_use]
    pub const fn new(id: RequestId, to: &'a str) -> TopUp<'a> {
        TopUp { id, to, amount: 0, pin: None, patience: Duration::from_secs(60) }
    }
}

/// What a fulfiller is asked to do. The code is not in it: who tops up need not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job<'a> {
    /// The top-up's id; what was done under it is never done again.
    pub id: RequestId,
    /// Whose account.
    pub to: &'a str,
    /// The product of the card, which says what is topped up.
    pub product: ProductId,
    /// How much: minor units of the product's currency, or uses.
    pub amount: Money,
    /// How long the answer is waited for.
    pub patience: Duration,
}

/// What a fulfiller says of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fulfilment {
    /// It was done, now or at an earlier attempt.
    Done {
        /// What it is called there.
        reference: String,
    },
    /// It was not done and never will be.
    Refused {
        /// Why not, for people.
        reason: String,
    },
    /// Nobody can say yet. The card stays held, and the same is asked again later.
    Unknown {
        /// Why not, for people.
        reason: String,
    },
}

/// The adapter to whoever tops up: one for each of their interfaces.
///
/// A job's first final answer (done or refused) is its answer for ever. Most such interfaces take an order number of
/// the caller's and refuse it the second time; then `fulfil` sends the job's id as that number, and asks for the
/// order when it is told that it is there. When in doubt the answer is [`Fulfilment::Unknown`]: it costs a little
/// time, and the other two cost money if they are wrong.
///
/// ```
/// use kami_net::client::{Fulfilment, Fulfiller, Job};
///
/// # struct Supplier;
/// # enum SupplierError { OrderExists, NoSuchPhone, Network }
/// # impl Supplier {
/// #     async fn submit(&self, _: &str, _: &str, _: i64) -> Result<String, SupplierError> { Err(SupplierError::Network) }
/// #     async fn look_up(&self, _: &str) -> Result<Option<String>, SupplierError> { Err(SupplierError::Network) }
/// # }
/// /// Airtime from a supplier, through the supplier's own library.
/// struct Airtime(Supplier);
///
/// impl Fulfiller for Airtime {
///     async fn fulfil(&self, job: &Job<'_>) -> Fulfilment {
///         match self.0.submit(&job.id.to_string(), job.to, job.amount).await {
///             Ok(reference) => Fulfilment::Done { reference },
///             Err(SupplierError::NoSuchPhone) => Fulfilment::Refused { reason: "no such phone".into() },
///             // An earlier attempt came through.
///             Err(SupplierError::OrderExists) => self.outcome(job).await,
///             Err(SupplierError::Network) => Fulfilment::Unknown { reason: "no answer".into() },
///         }
///     }
///
///     async fn outcome(&self, job: &Job<'_>) -> Fulfilment {
///         match self.0.look_up(&job.id.to_string()).await {
///             Ok(Some(reference)) => Fulfilment::Done { reference },
///             // This supplier's gateway forgets what it could not place at once, so it will not come later.
///             Ok(None) => Fulfilment::Refused { reason: "never placed".into() },
///             Err(_) => Fulfilment::Unknown { reason: "no answer".into() },
///         }
///     }
/// }
/// ```
pub trait Fulfiller {
    /// Tops up, once for each id however often it is asked. What is still on its way when the job's time is over may be
    /// dropped and is asked for again.
    fn fulfil(&self, job: &Job<'_>) -> impl Future<Output = Fulfilment> + Send;

    /// Says what came of a job, without doing it: the card is no longer kept for it. `Refused` also makes sure that no
    /// earlier attempt is still on its way.
    fn outcome(&self, job: &Job<'_>) -> impl Future<Output = Fulfilment> + Send;
}

/// What came of a top-up.
#[derive(Clone, Debug)]
pub enum ToppedUp {
    /// It was done and the card paid for it.
    Done {
        /// What the fulfiller calls it.
        reference: String,
        /// The capture, or if the hold was over the redemption.
        receipt: Receipt<ValueReport>,
        /// Whether the hold was over and the card was redeemed instead.
        late: bool,
    },
    /// It was not done and never will be; the card is as it was.
    Refused {
        /// What the fulfiller said.
        reason: String,
    },
    /// The hold was over before the fulfiller was asked, or stands for too short a time to ask; the card is as it was. Another
    /// try is another top-up, with a new id.
    Expired,
    /// The fulfiller cannot say yet. Call again with the same id.
    Pending {
        /// What the fulfiller said.
        reason: String,
    },
    /// It was done and the card could not pay for it: somebody has to look after that. The same call tries again.
    Unpaid {
        /// What the fulfiller calls it.
        reference: String,
        /// What was said of the card.
        status: Status,
    },
}

/// The steps after the hold, whose id is the top-up's own.
#[derive(Clone, Copy)]
enum Step {
    Capture = 1,
    Release = 2,
    Redeem = 3,
}

/// The request id of a step: it follows from the top-up's, so an attempt that starts with nothing else finds it.
fn step_id(id: RequestId, step: Step) -> RequestId {
    let mut text = b"kami 2026-11 request id of a step of a top-up ".to_vec();
    text.extend_from_slice(&id.0.to_le_bytes());
    text.push(step as u8);
    let sum = digest::digest(&digest::SHA256, &text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sum.as_ref()[..16]);
    RequestId(u128::from_le_bytes(bytes).max(1))
}

impl Client {
    /// Tops up somebody's account with what a card is worth, once for each [`TopUp::id`], whatever stopped the calls
    /// before this one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the card cannot be held: nothing happened. After any other error, as after
    /// [`ToppedUp::Pending`], the same call finds out what became of it.
    pub async fn top_up(
        &self,
        code: &[u8],
        top_up: &TopUp<'_>,
        fulfiller: &impl Fulfiller,
    ) -> Result<ToppedUp, ClientError> {
        let TopUp { id, to, amount, pin, patience } = *top_up;
        let options = HoldOptions { amount, pin, request: Some(id), ..HoldOptions::default() };
        let held = self.hold(code, options).await?;
        let job = Job { id, to, product: held.value.product, amount: held.value.amount, patience };

        // Of a hold that an earlier attempt made, its time is told: only the card can say what time it is now.
        let now_ms = if held.flags.contains(ReplyFlags::REPLAYED) {
            self.query(code).await?.time_ms
        } else {
            held.time_ms
        };
        let left = Duration::from_millis(held.value.deadline_ms.saturating_sub(now_ms));
        let stands = left >= patience * 2 && !held.flags.contains(ReplyFlags::REVERSED);
        let answer =
            async { if stands { fulfiller.fulfil(&job).await } else { fulfiller.outcome(&job).await } };
        match tokio::time::timeout(patience, answer).await {
            Ok(Fulfilment::Done { reference }) => self.charge(code, top_up, &job, reference).await,
            Ok(Fulfilment::Refused { reason }) => {
                match self.release(code, id, step_id(id, Step::Release)).await {
                    Ok(_) => {}
                    // Over already: there is nothing to give back.
                    Err(error) if decided(&error).is_some() => {}
                    Err(error) => return Err(error),
                }
                Ok(if stands { ToppedUp::Refused { reason } } else { ToppedUp::Expired })
            }
            Ok(Fulfilment::Unknown { reason }) => Ok(ToppedUp::Pending { reason }),
            Err(_) => {
                let reason = format!("no answer within {} ms", patience.as_millis());
                Ok(ToppedUp::Pending { reason })
            }
        }
    }

    /// Takes what was given out from the card.
    async fn charge(
        &self,
        code: &[u8],
        top_up: &TopUp<'_>,
        job: &Job<'_>,
        reference: String,
    ) -> Result<ToppedUp, ClientError> {
        let TopUp { id, pin, .. } = *top_up;
        match self.capture(code, id, job.amount, step_id(id, Step::Capture)).await {
            Ok(receipt) => return Ok(ToppedUp::Done { reference, receipt, late: false }),
            Err(error) => match decided(&error) {
                // Only what is over for good may be paid in another way: the next attempt must not capture as well.
                Some(Status::HoldExpired | Status::HoldResolved) => {}
                Some(status) => return Ok(ToppedUp::Unpaid { reference, status }),
                None => return Err(error),
            },
        }
        let request = Some(step_id(id, Step::Redeem));
        let options = RedeemOptions { amount: job.amount, pin, request, ..RedeemOptions::default() };
        match self.redeem(code, options).await {
            Ok(receipt) => Ok(ToppedUp::Done { reference, receipt, late: true }),
            Err(error) => match decided(&error) {
                Some(status) => Ok(ToppedUp::Unpaid { reference, status }),
                None => Err(error),
            },
        }
    }
}

/// The status of a refusal that was decided on, rather than put off or not understood.
fn decided(error: &ClientError) -> Option<Status> {
    match error {
        ClientError::Refused { status, .. } if status.class() == Class::Refused => Some(*status),
        _ => None,
    }
}
