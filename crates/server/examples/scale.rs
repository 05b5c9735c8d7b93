//! What it costs as work grows, where no HTTP is needed to see it, for `scripts/scale`.
//!
//! `scale WHAT FOLDER STEP…` prints lines of panel, series, x and y with tabs between. WHAT is
//! - `units`: purchases of one sale, up to each step; time of a processor for one, memory and bytes of the file that one
//!   takes, and how long a start takes with all of them;
//! - `users`: rejected users of a sold-out sale; time of a processor for one, and the memory that is taken;
//! - `trail`: rows of a trail (inserted by SQL); how long pages of it take at its begin, middle and end, and searches.

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use flashsale_core::{
    clock::Timestamp,
    ids::{SaleId, UserId},
    ports::{FindEvents, OrderStore},
    product::Product,
    service::SaleRequest,
};
use flashsale_server::bench::{self, ByHand, Folder, Shop};
use rusqlite::{Connection, params};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Purchases that share a commit.
const GROUP: u64 = 64;
/// The most that are measured at a step, of the last before it.
const MEASURED: u64 = 16_384;
/// Rejections that are recorded together.
const RECORDED: u64 = 4_096;
/// How often a page is read.
const READS: u32 = 50;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, folder, steps @ ..] = &arguments[..] else { bail!("usage: scale WHAT FOLDER STEP…") };
    let steps: Vec<u64> = steps
        .iter()
        .map(|step| step.parse().with_context(|| format!("{step} is no step")))
        .collect::<Result<_>>()?;
    ensure!(steps.is_sorted() && steps.first().is_some_and(|step| *step > 0), "steps grow");
    let folder = Path::new(folder);
    match what.as_str() {
        "units" => units(folder, &steps),
        "users" => users(folder, &steps),
        "trail" => trail(folder, &steps),
        _ => bail!("there is no {what}"),
    }
}

fn point(panel: &str, series: &str, x: u64, y: f64) {
    println!("{panel}\t{series}\t{x}\t{y}");
}

/// Time that this thread has had of a processor.
fn on_processor() -> Result<Duration> {
    let figures = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = figures.split(' ').next().context("no figures")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory, in bytes.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

fn sale() -> SaleId {
    "sale_1".parse().expect("a sale's id")
}

/// Users in no order, as people come.
fn user(number: u64) -> UserId {
    format!("user-{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).parse().expect("a user's id")
}

/// Makes the sale.
fn prepare(folder: &Path, stock: u64) -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let shop = Shop::open(folder)?;
        let now = shop.sales().now();
        let request = SaleRequest {
            sale_id: Some("sale_1".to_owned()),
            name: "Sale".to_owned(),
            total_stock: u32::try_from(stock)?,
            starts_at: Timestamp::from_millis(now.as_millis() - 60_000),
            ends_at: Timestamp::from_millis(now.as_millis() + 86_400_000),
            product: Product::default(),
        };
        shop.sales().create(request).await?;
        shop.close().await;
        Ok(())
    })
}

fn open(folder: &Path) -> Result<ByHand> {
    Ok(ByHand::open(&Folder::open(folder)?, bench::clock(), bench::ids())?)
}

/// Sells up to `to`.
fn sell(engine: &mut ByHand, from: u64, to: u64) {
    let sale = sale();
    let mut next = from;
    while next < to {
        let group: Vec<UserId> = (next..to.min(next + GROUP)).map(user).collect();
        next += group.len() as u64;
        let reservations = engine.buy(&sale, &group);
        engine.confirm(&reservations);
        if next % (256 * GROUP) < GROUP {
            engine.checkpoint();
        }
    }
}

fn units(folder: &Path, steps: &[u64]) -> Result<()> {
    const PANEL: &str = "units sold of one sale";
    prepare(folder, *steps.last().expect("there are steps"))?;
    let (file, mut engine) = (folder.join("flashsale.db"), open(folder)?);
    let (base, mut sold) = (resident()?, 0);
    for &step in steps {
        let measured = (step / 2).clamp(1, MEASURED);
        sell(&mut engine, sold, step - measured);
        let before = on_processor()?;
        sell(&mut engine, step - measured, step);
        point(
            PANEL,
            "µs of a core a purchase",
            step,
            (on_processor()? - before).as_secs_f64() * 1e6 / measured as f64,
        );
        sold = step;
        if step >= 100_000 {
            point(PANEL, "bytes of memory a purchaser", step, (resident()? - base) / step as f64);
            engine.checkpoint();
            point(PANEL, "bytes on disk a purchase", step, fs::metadata(&file)?.len() as f64 / step as f64);
        }
        drop(engine);
        let started = Instant::now();
        engine = open(folder)?;
        point(PANEL, "ms to start", step, started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

fn users(folder: &Path, steps: &[u64]) -> Result<()> {
    const PANEL: &str = "users rejected, of a sold-out sale";
    prepare(folder, 100)?;
    let mut engine = open(folder)?;
    sell(&mut engine, 0, 100);
    let mut next = 100;
    // So that what is made once is there.
    reject(&mut engine, &mut next, RECORDED);
    let (base, mut done) = (resident()?, 0);
    for &step in steps {
        let before = on_processor()?;
        reject(&mut engine, &mut next, step - done);
        let each = (on_processor()? - before).as_secs_f64() * 1e6 / (step - done) as f64;
        point(PANEL, "µs of a core a rejection", step, each);
        point(PANEL, "MiB of memory that they added", step, ((resident()? - base) / 1_048_576.0).max(0.01));
        done = step;
    }
    Ok(())
}

fn reject(engine: &mut ByHand, next: &mut u64, count: u64) {
    let (sale, end) = (sale(), *next + count);
    while *next < end {
        let group: Vec<UserId> = (*next..end.min(*next + RECORDED)).map(user).collect();
        *next += group.len() as u64;
        engine.reject(&sale, &group);
        engine.record();
        if *next % (16 * RECORDED) < RECORDED {
            engine.checkpoint();
        }
    }
}

fn trail(folder: &Path, steps: &[u64]) -> Result<()> {
    const PANEL: &str = "rows of the audit trail";
    prepare(folder, 100)?;
    let file = folder.join("flashsale.db");
    let mut rows = 0;
    for &step in steps {
        insert(&file, rows, step)?;
        rows = step;
        let started = Instant::now();
        drop(open(folder)?);
        point(PANEL, "ms to start", step, started.elapsed().as_secs_f64() * 1e3);
        let store = flashsale_embedded::read_only(folder)?;
        Builder::new_current_thread().enable_all().build()?.block_on(pages(&*store, PANEL, step))?;
    }
    Ok(())
}

/// Fills the trail with rejections up to `to`, as the writer would leave them.
fn insert(file: &Path, from: u64, to: u64) -> Result<()> {
    let connection = Connection::open(file)?;
    // It is a scratch file, and made anew when the power goes.
    connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536")?;
    let (no, place): (i64, i64) =
        connection.query_row("SELECT no, last_place FROM sales", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    connection.execute(
        "INSERT INTO trail (key, kind, epoch, at, user_id)
         WITH RECURSIVE number (n) AS (SELECT ?3 UNION ALL SELECT n + 1 FROM number WHERE n < ?4)
         SELECT (?1 << 40) + ?2 + n - ?3 + 1, 2, 1, 1771815600000 + n, 'user-' || printf('%016x', n * 40503) FROM number",
        params![no, place, from.cast_signed() + 1, to.cast_signed()],
    )?;
    let last = place + (to - from).cast_signed();
    connection.execute("UPDATE sales SET last_place = ?1", [last])?;
    connection.execute_batch("PRAGMA journal_mode = WAL")?;
    Ok(())
}

/// Reads pages as exports and the console do.
async fn pages(store: &dyn OrderStore, panel: &str, rows: u64) -> Result<()> {
    let sale = sale();
    let first = store.audit(&sale, 0, 1).await?.next.context("the trail has more than one row")?;
    let rows_before_end = rows.saturating_sub(1_000).cast_signed();
    for (name, skipped) in [("begin", 0), ("middle", rows_before_end / 2), ("end", rows_before_end)] {
        // The keys of a sale's trail have no gap.
        let after = first + skipped;
        let started = Instant::now();
        for _ in 0..READS {
            let page = store.audit(&sale, after, 1_000).await?;
            ensure!(!page.rows.is_empty(), "a page at the {name} is empty");
            black_box(page);
        }
        let ms = started.elapsed().as_secs_f64() * 1e3 / f64::from(READS);
        point(panel, &format!("ms for 1,000 rows at its {name}"), rows, ms);
    }
    let find = FindEvents { limit: 50, ..FindEvents::default() };
    let started = Instant::now();
    for _ in 0..READS {
        ensure!(!store.find_events(&sale, &find).await?.rows.is_empty(), "nothing is newest");
    }
    point(panel, "ms for the newest 50", rows, started.elapsed().as_secs_f64() * 1e3 / f64::from(READS));
    // A user that nobody is: the search looks through as much as a page may.
    let find = FindEvents { user: Some("nobody".parse()?), ..find };
    let started = Instant::now();
    ensure!(store.find_events(&sale, &find).await?.rows.is_empty(), "nobody is somebody");
    point(panel, "ms to look for one user, a step", rows, started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
