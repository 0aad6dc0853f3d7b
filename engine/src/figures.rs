//! Figures for whoever watches the engine: read now and then, never on the way of a command.

use kami_wal::Distribution;

use crate::engine::Engine;
use crate::product::Product;
use crate::reply::Stats;
use crate::sequencer::Sequencer;
use crate::state::State;
use crate::word::Lifecycle;

/// What an engine has done since it was opened, and what its store holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Figures {
    /// What STATS answers.
    pub stats: Stats,
    /// The stock of every product, by product number.
    pub stock: Vec<ProductStock>,
    /// Bytes by commit of the log.
    pub commit_bytes: Distribution,
    /// Microseconds by commit: one write and its sync.
    pub commit_us: Distribution,
    /// Log segments that lie ready for use.
    pub segments_ready: u64,
    /// Bytes of memory that look-up by digest takes.
    pub index_bytes: u64,
    /// Bytes of memory that the cards' words take once all of them have moved; pages of cards that never
    /// moved take none.
    pub words_bytes: u64,
    /// Bytes of memory of PINs, face values and ends of validity that cards have of their own.
    pub columns_bytes: u64,
    /// Whether changes find room in the log. Without it they are answered BUSY or DISK_FULL.
    pub has_space: bool,
    /// Bytes of log that the next start replays.
    pub replay_bytes: u64,
}

/// A product and all its cards.
#[derive(Clone, Debug)]
pub struct ProductStock {
    /// The product.
    pub product: Product,
    /// How many an order could take right now.
    pub sellable: u64,
    /// The cards by logged lifecycle.
    pub counts: [u64; Lifecycle::COUNT],
}

impl Engine {
    /// Reads the figures. Holds up commands for a look at each product and batch: some 50 ns each.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let sequencer = self.sequencer();
        let wal = sequencer.wal.stats();
        let (mut words_bytes, mut columns_bytes) = (0, 0);
        let mut state = sequencer.state();
        let with_product = |product: &crate::state::ProductState| ProductStock {
            product: product.product.clone(),
            sellable: 0,
            counts: Default::default(),
        };
        let mut stock: Vec<ProductStock> = state.products.iter().map(with_product).collect();
        for batch in sequencer.table.batches() {
            words_bytes += batch.rows() * size_of::<u64>() as u64;
            columns_bytes += batch.columns.bytes();
            let line = state.stock_line(batch);
            let of = &mut stock[line.product.0 as usize - 1];
            of.sellable += line.sellable;
            of.counts.iter_mut().zip(line.counts).for_each(|(sum, count)| *sum += count);
        }
        let stats = stats(sequencer, &state);
        drop(state);
        Figures {
            stats,
            stock,
            commit_bytes: wal.commit_bytes,
            commit_us: wal.commit_us,
            segments_ready: wal.ready_segments as u64,
            index_bytes: sequencer.index.bytes(),
            words_bytes,
            columns_bytes,
            has_space: self.has_space(),
            replay_bytes: self.replay_bytes(),
        }
    }
}

/// What STATS answers.
pub(crate) fn stats(sequencer: &Sequencer, state: &State) -> Stats {
    let (commands, refused, misses) = sequencer.counts();
    let mut stats = Stats {
        products: state.products.len() as u64,
        orders: state.orders.count(),
        commands,
        refused,
        misses,
        tail: sequencer.wal.tail().bytes(),
        durable_end: sequencer.wal.durable_end().bytes(),
        commits: sequencer.wal.stats().commits,
        time_ms: state.now_ms,
        ..Stats::default()
    };
    for batch in sequencer.table.batches() {
        stats.batches += 1;
        stats.cards += batch.rows();
        let counts = &state.stock(batch.id).counts;
        stats.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    stats
}
