//! The connections of a run: one client each, one stream each, all on one thread, driven as fast as their windows allow
//! or at the pace of an open loop.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kami_net::client::{ChannelReceiver, ChannelSender};
use kami_net::{Client, ClientOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::pace::Pace;
use crate::redeem::Done;
use crate::traffic::{Shape, Source, closed_loop, open_loop};

/// The drive of one connection. It hands the connection back: closing a thousand takes a server as long as a thousand
/// commands, and those whose answers are still to come would wait for it.
pub type Drive = Pin<Box<dyn Future<Output = Result<(Done, Open)>>>>;

/// Keeps a connection open.
pub type Open = Box<dyn Any>;

/// One connection and its one stream.
pub struct Line {
    /// Towards the server.
    send: ChannelSender,
    /// From the server.
    receive: ChannelReceiver,
    /// The connection lives as long as this.
    _client: Client,
}

impl Line {
    /// Connects.
    pub async fn connect(options: ClientOptions) -> Result<Line> {
        let client = Client::connect(options).await?;
        let (send, receive) = client.channel().await?;
        Ok(Line { send, receive, _client: client })
    }

    /// Runs the commands of `source`: all with the window full, or `count` of them when it is their turn.
    pub async fn drive(
        mut self,
        mut source: impl Source + Clone,
        turn: Option<Turn>,
        count: u64,
        shape: Shape,
        begun: Instant,
    ) -> Result<(Done, Open)> {
        let Line { send, receive, .. } = &mut self;
        let done = match turn {
            Some(Turn { pace, part }) => {
                open_loop(send, receive, &mut source, (&pace, part), count, begun + shape.warm_up).await?
            }
            None => closed_loop(send, receive, &mut source, shape, begun).await?,
        };
        Ok((done, Box::new(self)))
    }
}

/// A connection's place in an open loop.
pub struct Turn {
    /// When commands are due.
    pub pace: Rc<Pace>,
    /// Which connection it is.
    pub part: u64,
}

/// Runs all connections on this thread and adds up what they did.
pub async fn together(drives: Vec<Drive>) -> Result<Done> {
    let tasks: Vec<_> = drives.into_iter().map(tokio::task::spawn_local).collect();
    let mut total = Done::default();
    let mut open = Vec::new();
    for task in tasks {
        let (done, connection) = task.await??;
        total.add(&done);
        open.push(connection);
    }
    ensure!(total.done + total.errors != 0, "the run ended before its warm-up was over");
    Ok(total)
}

/// Every connection has a socket of its own: lets this process open as many.
pub fn allow_files(connections: u32) -> Result<()> {
    let needed = u64::from(connections) + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = limit.maximum.is_none_or(|most| needed <= most)
            && setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit }).is_ok();
        ensure!(raised, "{connections} connections need {needed} open files, and `ulimit -n` allows fewer");
    }
    Ok(())
}
