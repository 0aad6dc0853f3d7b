//! The server of a network run, started here or running elsewhere, and the connections to it.
//!
//! A server of our own is a child on core 0 with cards imported in its process; this process with all
//! connections stays on core 1. A server elsewhere gets a product, cards and sales over the wire first,
//! before the clock starts: a run needs nothing there and disturbs no stock but its own.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kami_engine::{BatchId, ImportRow, ImportSpec, Lifecycle, OrderId, ProductId, ProductSpec, RequestId};
use kami_net::client::{Rows, SellOptions};
use kami_net::frame::request::ChunkRows;
use kami_net::{Client, ClientOptions, Identity};

use crate::args::{Args, Shape as Like, Workload};
use crate::child::{Child, pin};
use crate::codes::{CODE_BYTES, Codes};
use crate::lines::{Drive, Line, Turn, allow_files, together};
use crate::machine::ProcessUse;
use crate::pace::Pace;
use crate::redeem::Done;
use crate::report::{Report, rounded};
use crate::serve::CLIENT;
use crate::store::Scratch;
use crate::traffic::Shape;
use crate::watch::Watch;

/// The core the client is kept on.
const CORE: usize = 1;
/// Cards an order, where cards are sold ahead.
const ORDER_CARDS: u64 = 10_000;

/// A server with cards of this run, and how to reach it.
pub struct Network {
    options: ClientOptions,
    /// What the run's cards belong to.
    pub shop: Shop,
    own: Option<(Child, Scratch)>,
}

/// Where the run's cards are, and which numbers the server gave them.
#[derive(Clone, Copy, Debug)]
pub struct Shop {
    seed: u64,
    /// The product of all cards.
    pub product: ProductId,
    sold: Batch,
    stock: Batch,
}

/// Cards `first ..` of the run, imported as one batch.
#[derive(Clone, Copy, Debug)]
struct Batch {
    id: BatchId,
    first: u64,
}

impl Shop {
    /// The run's order `number`. Orders of other runs, which have other seeds, have other ids.
    pub fn order(&self, number: u64) -> OrderId {
        OrderId(u128::from(self.seed) << 64 | u128::from(number + 1))
    }

    /// The number of the card at `row` of `batch`, if it is one of the run's.
    pub fn number(&self, batch: BatchId, row: u64) -> Option<u64> {
        [self.sold, self.stock].into_iter().find(|own| own.id == batch).map(|own| own.first + row)
    }
}

impl Network {
    /// Connections and shape: the acceptance configuration, or what the flags say.
    pub fn shape(args: &Args) -> (u32, Shape) {
        let (connections, window, batch) = match (args.workload, args.like) {
            (Workload::QuicTerminals | Workload::Soak, _) | (Workload::Echo, Like::Terminals) => (64, 16, 1),
            (Workload::QuicLatency, _) if args.rate.is_some() => (16, 1, 1),
            (Workload::QuicLatency, _) | (Workload::Echo, Like::Latency) => (1, 1, 1),
            (Workload::QuicSell, _) => (4, 1, 1),
            _ => (16, 1024, 64),
        };
        let batch = u64::from(args.batch.unwrap_or(batch));
        let window = u64::from(args.window.unwrap_or(window)).max(batch);
        let warm_up = args.ramp + args.warm_up;
        (args.connections.unwrap_or(connections), Shape { batch, window, limit: args.seconds, warm_up })
    }

    /// How many commands: the flag's, what an open loop sends, or all that the cards allow, which is `most`.
    pub fn count(args: &Args, most: u64) -> Result<u64> {
        let latency = args.workload == Workload::QuicLatency || args.like == Like::Latency;
        let Some(rate) = args.rate else {
            return Ok(args.count.unwrap_or(if latency { 20_000 } else { most }).min(most));
        };
        let time = args.seconds.unwrap_or(Duration::from_secs(5)) + args.ramp + args.warm_up;
        let due = (f64::from(rate) * time.as_secs_f64()) as u64;
        let count = args.count.map_or(due, |count| count.min(due));
        ensure!(
            count <= most,
            "{} cards allow {most} commands, but {count} are due in {:.1} s at this rate: more --cards, fewer \
             --seconds or a lower --rate",
            args.cards,
            time.as_secs_f64()
        );
        Ok(count)
    }

    /// A server with the run's cards, of which `sold` are sold ahead and the rest is stock.
    pub fn start(args: &Args, sold: u64, report: &mut Report) -> Result<Network> {
        report.cards = Some(args.cards);
        match (&args.server, &args.identity) {
            (Some(server), Some(identity)) => Network::attach(args, server, Identity::load(identity)?, sold),
            _ => Network::own(args, sold, report),
        }
    }

    fn own(args: &Args, sold: u64, report: &mut Report) -> Result<Network> {
        let scratch = Scratch::new(&args.dir)?;
        let (server, ready) = start(args, Workload::QuicServer, &scratch, sold)?;
        let words: Vec<&str> = ready.split(' ').collect();
        let [address, commit_path, filesystem, durable] = words[..] else {
            anyhow::bail!("the server says: {ready}");
        };
        // The words of a child that lives as long as the report: leaked once a run.
        report.commit_path = Some(commit_path.to_owned().leak());
        report.filesystem = Some(filesystem.to_owned().leak());
        report.durable = Some(durable == "true");
        let first = if sold == 0 { args.cards } else { sold };
        let sold = Batch { id: BatchId(1), first: 0 };
        let stock = Batch { id: BatchId(2), first };
        let shop = Shop { seed: 0, product: ProductId(1), sold, stock };
        let identity = Identity::load(&scratch.path().join(CLIENT))?;
        let options = ClientOptions::new(address.parse()?, identity);
        Ok(Network { options, shop, own: Some((server, scratch)) })
    }

    fn attach(args: &Args, server: &str, identity: Identity, sold: u64) -> Result<Network> {
        let (host, _) = server.rsplit_once(':').context("--server is HOST:PORT")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let addresses: Vec<SocketAddr> =
            server.to_socket_addrs().with_context(|| format!("{host} cannot be looked up"))?.collect();
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *address.with_context(|| format!("{host} has no address"))?;
        let options = ClientOptions { server_name: host, ..ClientOptions::new(address, identity) };
        let shop = on_client_core(args, async {
            let client = Client::connect(options.clone()).await?;
            let shop = stock_up(&client, args, sold).await;
            client.close().await;
            shop
        })?;
        Ok(Network { options, shop, own: None })
    }

    /// Connects all, then starts the clock and runs `drive` on each connection, one after the other over
    /// the time of the ramp.
    pub fn run(
        &self,
        args: &Args,
        connections: u32,
        report: &mut Report,
        drive: impl Fn(u64, Line, Instant, Option<Turn>) -> Drive,
    ) -> Result<Done> {
        let before = self.server_use(args)?;
        let look = self.memory_of_server(args);
        let (done, resident) = on_client_core(args, async {
            allow_files(connections)?;
            let mut lines = Vec::new();
            for _ in 0..connections {
                lines.push(Line::connect(self.options.clone()).await?);
            }
            eprintln!("{connections} connections");
            let begun = Instant::now();
            let watch = Watch::start(begun + args.ramp + args.warm_up, look);
            let ramp = |part: u64, drive: Drive| {
                let wait = args.ramp * part as u32 / connections;
                Box::pin(async move {
                    tokio::time::sleep_until((begun + wait).into()).await;
                    drive.await
                }) as Drive
            };
            let pace = args.rate.map(|rate| Rc::new(Pace::new(begun, rate, connections)));
            let keeping = pace.clone().map(|pace| tokio::task::spawn_local(async move { pace.keep().await }));
            let drives = (0..).zip(lines).map(|(part, line)| {
                let turn = pace.clone().map(|pace| Turn { pace, part });
                ramp(part, drive(part, line, begun, turn))
            });
            let done = together(drives.collect()).await;
            keeping.inspect(|keeping| keeping.abort());
            Ok((done?, watch.end()))
        })?;
        report.resident(resident);
        report.add("rate", args.rate);
        if let (Some(before), Some(after)) = (before, self.server_use(args)?) {
            report.add("server_cpu_seconds", rounded(after.cpu_seconds - before.cpu_seconds));
            report.add("server_resident_bytes", after.resident_bytes);
        }
        Ok(done)
    }

    /// What the server has used so far, if it can be known.
    fn server_use(&self, args: &Args) -> Result<Option<ProcessUse>> {
        match (&self.own, &args.metrics) {
            (Some((child, _)), _) => Ok(ProcessUse::of(child.id())),
            (None, Some(address)) => {
                let told = scrape(address).with_context(|| format!("no metrics at {address}"))?;
                let used = ProcessUse::told(&told);
                Ok(Some(used.with_context(|| format!("these are no metrics of Kami: {address}"))?))
            }
            (None, None) => Ok(None),
        }
    }

    /// How a client reaches it.
    pub fn options(&self) -> ClientOptions {
        self.options.clone()
    }

    /// Where the server's log ends, in bytes.
    pub fn log_end(&self, args: &Args) -> Result<u64> {
        on_client_core(args, async {
            let client = Client::connect(self.options.clone()).await?;
            let stats = client.stats().await?.value;
            client.close().await;
            Ok(stats.durable_end)
        })
    }

    /// Reads how much memory the server has, if that can be known.
    fn memory_of_server(&self, args: &Args) -> impl Fn() -> Option<u64> + Send + 'static {
        let (child, metrics) = (self.own.as_ref().map(|(child, _)| child.id()), args.metrics.clone());
        move || match (child, &metrics) {
            (Some(id), _) => ProcessUse::of(id).map(|used| used.resident_bytes),
            (None, Some(address)) => ProcessUse::told(&scrape(address).ok()?).map(|used| used.resident_bytes),
            (None, None) => None,
        }
    }

    /// How many of the run's cards the server has in a state.
    pub fn count_of(&self, args: &Args, lifecycle: Lifecycle) -> Result<u64> {
        on_client_core(args, async {
            let client = Client::connect(self.options.clone()).await?;
            let stock = client.stock(Some(self.shop.product)).await?.value.rows;
            client.close().await;
            Ok(stock.iter().map(|line| line.counts[lifecycle as usize]).sum())
        })
    }
}

/// Adds a product, imports its cards and sells the first `sold` of them.
async fn stock_up(client: &Client, args: &Args, sold: u64) -> Result<Shop> {
    let name = format!("bench-{}", args.seed);
    let product = client.product_add(ProductSpec::single(&name, *b"CNY", 2800)).await?.value.id;
    eprintln!("product {name}: importing {} cards and selling {sold} of them", args.cards);
    let mut shop = Shop {
        seed: args.seed,
        product,
        sold: Batch { id: BatchId(0), first: 0 },
        stock: Batch { id: BatchId(0), first: sold },
    };
    if sold != 0 {
        shop.sold.id = import(client, product, args, 0, sold).await?;
        let orders = sold.div_ceil(ORDER_CARDS);
        for order in 0..orders {
            let count = ORDER_CARDS.min(sold - order * ORDER_CARDS) as u32;
            client.sell(shop.order(order), product, count, SellOptions::default()).await?;
        }
    }
    if sold != args.cards {
        shop.stock.id = import(client, product, args, sold, args.cards - sold).await?;
    }
    Ok(shop)
}

async fn import(client: &Client, product: ProductId, args: &Args, first: u64, count: u64) -> Result<BatchId> {
    let mut rows = Generated { codes: Codes::new(args.seed), first, count, next: 0 };
    let spec = ImportSpec::of(product, count, CODE_BYTES as u8);
    let imported = client.import(RequestId::random(), &spec, &mut rows, |_| {}).await;
    Ok(imported.context("the cards were not imported; a seed can be used once on a server")?.value.id)
}

/// The cards of an import, made as they are sent.
struct Generated {
    codes: Codes,
    first: u64,
    count: u64,
    next: u64,
}

impl Rows for Generated {
    fn seek(&mut self, row: u64) -> std::io::Result<()> {
        self.next = row;
        Ok(())
    }

    fn fill(&mut self, chunk: &mut ChunkRows) -> std::io::Result<()> {
        while self.next < self.count {
            let code = self.codes.code(self.first + self.next);
            if !chunk.push(&ImportRow { code: &code, ..ImportRow::default() }) {
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}

/// Runs `work` on a runtime of one thread, on the client's core if the server has the other one.
pub fn on_client_core<T>(args: &Args, work: impl Future<Output = Result<T>>) -> Result<T> {
    if args.server.is_none() {
        pin(args, CORE)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// Starts a server and waits until it is ready; returns what it says of itself.
pub fn start(args: &Args, workload: Workload, scratch: &Scratch, sold: u64) -> Result<(Child, String)> {
    let (connections, _) = Network::shape(args);
    let mut flags = ["--connections", &connections.to_string()].map(str::to_owned).to_vec();
    flags.extend(["--sold".to_owned(), sold.to_string()]);
    flags.extend(args.no_pin.then(|| "--no-pin".to_owned()));
    let mut server = Child::start(args, workload, scratch.path(), &flags)?;
    let ready = server.line("ready")?;
    Ok((server, ready))
}

/// A server's metrics as they are now.
fn scrape(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
