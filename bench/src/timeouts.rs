//! `engine-timeouts`: reservations of one card each that all time out at once. Counted are reservations that were
//! ended; the clock runs while [`Engine::run_due`](kami_engine::Engine::run_due) ends them, and until that is
//! durable.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kami_engine::{Command, Lifecycle, OrderId, Purchase, Work};

use crate::args::Args;
use crate::report::Report;
use crate::store::{Purpose, Store, request, request_id, wait_space};

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let count = args.count.unwrap_or(100_000).min(args.cards);
    let mut store = Store::fresh(args)?;
    eprintln!("importing {count} cards and reserving each");
    store.import(count)?;
    let mut work = Work::default();
    for from in (0..count).step_by(Work::REQUESTS_MAX) {
        wait_space(&store.engine);
        work.requests.clear();
        for order in from..count.min(from + Work::REQUESTS_MAX as u64) {
            let purchase =
                Purchase { reserve_s: 1, ..Purchase::of(OrderId(u128::from(order) + 1), store.product, 1) };
            let id = request_id(Purpose::Reserve, order);
            work.requests.push(request(id, Command::Reserve(Box::new(purchase))));
        }
        store.engine.execute(&mut work);
        let refused = work.replies.iter().find(|reply| !reply.status.is_done());
        ensure!(refused.is_none(), "a reservation was refused: {refused:?}");
    }
    // The last of them is over, and engine time has moved on.
    std::thread::sleep(Duration::from_millis(1_200));

    eprintln!("ending {count} reservations");
    let (begun, mut ended) = (Instant::now(), 0);
    loop {
        let now = store.engine.run_due(&mut work) as u64;
        ended += now;
        if ended == count || now == 0 && store.engine.has_space() {
            break;
        }
        wait_space(&store.engine);
    }
    let called = begun.elapsed();
    if let Some(tail) = work.durable_at() {
        store.engine.wait_durable(tail)?;
    }
    report.measured(ended, begun.elapsed());
    report.add("run_due_seconds", crate::report::rounded(called.as_secs_f64()));
    let counts = store.stats()?.counts;
    let free = counts[Lifecycle::Available as usize];
    if (ended, free) != (count, count) {
        eprintln!("kami-bench: {ended} of {count} reservations ended, {free} cards are free");
        report.errors += 1;
    }
    store.describe(report);
    Ok(())
}
