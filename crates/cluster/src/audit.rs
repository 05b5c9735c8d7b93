//! Rejections on their way to the trail: gathered, and written in batches, off the purchase's way.
//!
//! Each process numbers the rejections of each sale, its run. A batch and the run's last numbers are one transaction, so a
//! batch whose COMMIT was cut off is written once however often it is tried (ADR 0010). With PostgreSQL away, batches go to
//! a file, and from there to PostgreSQL when it is back, or at the next start.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale_core::{
    Error, Result,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, Unit, UserId},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row as _};
use tokio::{sync::Notify, time::timeout};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::store::{database, signed};

/// As soon as so many wait, they are written.
const ENOUGH: usize = 4_096;
/// However few wait, they are written after this long.
const LINGER: Duration = Duration::from_secs(1);
/// So many rows may wait in memory; at the bound nothing is decided.
const CAPACITY: usize = 262_144;
/// Rows in one transaction.
const BATCH: usize = 8_192;
/// How long a batch may take before PostgreSQL counts as away.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long what is in files may be written before what came meanwhile is put behind it.
const DRAIN_TIME: Duration = Duration::from_secs(1);

const INSERT: &str = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id) \
     SELECT no, kind, epoch, place, 'epoch'::timestamptz + at * interval '1 millisecond', user_id, unit, order_id \
     FROM unnest($1::int[], $2::smallint[], $3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::int[], $8::uuid[]) \
     AS one (no, kind, epoch, place, at, user_id, unit, order_id)";
// A row for each sale of the batch, to be locked: two tries at the same batch must not both find nothing.
const BEGIN: &str = "INSERT INTO runs (run, sale_no, last) SELECT $1, no, 0 FROM unnest($2::int[]) AS one (no) \
     ORDER BY no ON CONFLICT DO NOTHING";
const RAISE: &str = "INSERT INTO runs (run, sale_no, last) SELECT $1, no, last FROM unnest($2::int[], $3::bigint[]) \
     AS one (no, last) ORDER BY no ON CONFLICT (run, sale_no) DO UPDATE \
     SET last = greatest(runs.last, excluded.last), updated_at = now()";

/// A rejection, as it is recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) sale_no: i32,
    pub(crate) kind: i16,
    pub(crate) epoch: Epoch,
    /// The place that it rests on.
    pub(crate) place: Place,
    pub(crate) at: Timestamp,
    pub(crate) user_id: UserId,
    pub(crate) held: Option<(Unit, OrderId)>,
    /// Its number in the run, of its sale.
    #[serde(default)]
    pub(crate) number: u64,
}

#[derive(Default)]
struct Gathered {
    rows: Vec<Rejection>,
    /// The last number of each sale.
    last: HashMap<i32, u64>,
}

/// The way to the trail.
pub(crate) struct Audit {
    pool: PgPool,
    run: Uuid,
    gathered: Mutex<Gathered>,
    enough: Notify,
    /// Whoever writes.
    writing: tokio::sync::Mutex<Spool>,
    spooled: AtomicU64,
    full: AtomicBool,
}

impl Audit {
    /// An empty run, which takes over what earlier runs left in files in `dir`.
    pub(crate) fn open(pool: PgPool, dir: &Path, bound: u64) -> io::Result<Self> {
        let run = Uuid::now_v7();
        let spool = Spool::open(dir, run, bound)?;
        Ok(Self {
            pool,
            run,
            gathered: Mutex::default(),
            enough: Notify::new(),
            spooled: AtomicU64::new(spool.waiting()),
            writing: tokio::sync::Mutex::new(spool),
            full: AtomicBool::new(false),
        })
    }

    /// Whether there is room for what is about to be decided.
    pub(crate) fn room(&self) -> Result<()> {
        if self.full.load(Ordering::Relaxed) || self.gathered.lock().rows.len() >= CAPACITY {
            return Err(Error::Busy { retry_after: Duration::from_secs(2) });
        }
        Ok(())
    }

    /// Takes rejections.
    pub(crate) fn take(&self, rejections: impl IntoIterator<Item = Rejection>) {
        let mut gathered = self.gathered.lock();
        for mut rejection in rejections {
            let last = gathered.last.entry(rejection.sale_no).or_default();
            *last += 1;
            rejection.number = *last;
            gathered.rows.push(rejection);
        }
        let enough = gathered.rows.len() >= ENOUGH;
        drop(gathered);
        if enough {
            self.enough.notify_one();
        }
    }

    /// Rows that are not in PostgreSQL yet: in memory, and bytes of them in files.
    pub(crate) fn backlog(&self) -> (usize, u64) {
        (self.gathered.lock().rows.len(), self.spooled.load(Ordering::Relaxed))
    }

    /// Writes as long as the process lives.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let _ = timeout(LINGER, self.enough.notified()).await;
            self.flush().await;
        }
    }

    /// Writes all that waits: to PostgreSQL, or to the file. Goes on when whoever asked for it goes away.
    pub(crate) async fn flush(self: &Arc<Self>) {
        let audit = self.clone();
        if let Err(failed) = tokio::spawn(async move { audit.write_all().await }).await {
            error!(%failed, "the audit trail was not flushed");
        }
    }

    async fn write_all(&self) {
        let mut spool = self.writing.lock().await;
        self.drain(&mut spool).await;
        let mut stuck = false;
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                break;
            }
            // Numbers rise, so what is in the file has to go first.
            if spool.waiting() == 0 && self.write(self.run, &batch).await.is_ok() {
                continue;
            }
            if let Err(problem) = spool.append(&batch) {
                error!(%problem, "audit rows can neither be written nor put into a file; nothing is decided until they can");
                self.put_back(batch);
                stuck = true;
                break;
            }
        }
        self.spooled.store(spool.waiting(), Ordering::Relaxed);
        self.full.store(stuck, Ordering::Relaxed);
    }

    fn next_batch(&self) -> Vec<Rejection> {
        let mut gathered = self.gathered.lock();
        let length = gathered.rows.len().min(BATCH);
        let rest = gathered.rows.split_off(length);
        mem::replace(&mut gathered.rows, rest)
    }

    fn put_back(&self, mut batch: Vec<Rejection>) {
        let mut gathered = self.gathered.lock();
        batch.append(&mut gathered.rows);
        gathered.rows = batch;
    }

    /// Brings what is in files to PostgreSQL, as far as that goes within its time.
    async fn drain(&self, spool: &mut Spool) {
        let began = Instant::now();
        while let Some(waiting) = spool.files.first_mut() {
            let rows = match waiting.next(BATCH) {
                Ok(rows) => rows,
                Err(problem) => {
                    error!(%problem, file = %waiting.path.display(), "audit rows cannot be read back");
                    return;
                }
            };
            if rows.is_empty() {
                spool.done();
                continue;
            }
            let run = waiting.run;
            if self.write(run, &rows).await.is_err() {
                return;
            }
            waiting.taken();
            if began.elapsed() > DRAIN_TIME {
                return;
            }
        }
    }

    /// One transaction: rows that are not on record yet, and the last numbers.
    async fn write(&self, run: Uuid, batch: &[Rejection]) -> Result<()> {
        let written = timeout(PATIENCE, self.try_write(run, batch)).await;
        let written = written.unwrap_or_else(|_| Err(Error::unavailable("PostgreSQL does not answer")));
        if let Err(error) = &written {
            warn!(%error, rows = batch.len(), "audit rows cannot be written yet");
        }
        written
    }

    async fn try_write(&self, run: Uuid, batch: &[Rejection]) -> Result<()> {
        let mut last: HashMap<i32, i64> = HashMap::new();
        for row in batch {
            let last = last.entry(row.sale_no).or_default();
            *last = row.number.cast_signed().max(*last);
        }
        let (sales, numbers): (Vec<i32>, Vec<i64>) = last.into_iter().unzip();
        let mut transaction = self.pool.begin().await.map_err(database)?;
        let begin = sqlx::query(BEGIN).bind(run).bind(&sales);
        begin.execute(&mut *transaction).await.map_err(database)?;
        let known =
            sqlx::query("SELECT sale_no, last FROM runs WHERE run = $1 AND sale_no = ANY($2) FOR UPDATE");
        let known = known.bind(run).bind(&sales).fetch_all(&mut *transaction).await.map_err(database)?;
        let mut known: HashMap<i32, i64> =
            known.iter().map(|row| (row.get("sale_no"), row.get("last"))).collect();
        // Numbers rise, so what is not beyond the last one is there already, or stands twice in a file.
        let new: Vec<&Rejection> = batch
            .iter()
            .filter(|row| {
                let last = known.entry(row.sale_no).or_default();
                let is_new = row.number.cast_signed() > *last;
                *last = row.number.cast_signed().max(*last);
                is_new
            })
            .collect();
        let insert = sqlx::query(INSERT)
            .bind(new.iter().map(|row| row.sale_no).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.kind).collect::<Vec<_>>())
            .bind(new.iter().map(|row| signed(row.epoch.0)).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.place.0.cast_signed()).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.at.as_millis()).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.user_id.as_str()).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.held.map(|(unit, _)| signed(unit.0))).collect::<Vec<_>>())
            .bind(new.iter().map(|row| row.held.map(|(_, order)| order.0)).collect::<Vec<_>>());
        insert.execute(&mut *transaction).await.map_err(database)?;
        let raise = sqlx::query(RAISE).bind(run).bind(&sales).bind(&numbers);
        raise.execute(&mut *transaction).await.map_err(database)?;
        transaction.commit().await.map_err(database)
    }
}

/// Files of rows that wait for PostgreSQL: a JSON object a line, a file a run.
struct Spool {
    dir: PathBuf,
    bound: u64,
    own: Uuid,
    files: Vec<Waiting>,
}

/// A file of a run, locked by us.
struct Waiting {
    run: Uuid,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Up to here its rows are on record.
    done: u64,
    /// Up to here they were read last.
    read: u64,
}

impl Waiting {
    /// The next rows that are not on record; none at the end. A line that was cut off by a crash is none.
    fn next(&mut self, limit: usize) -> io::Result<Vec<Rejection>> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        reader.seek(SeekFrom::Start(self.done))?;
        self.read = self.done;
        let (mut rows, mut line) = (Vec::new(), Vec::new());
        while rows.len() < limit && self.read < self.bytes {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if length == 0 {
                break;
            }
            self.read += length as u64;
            match serde_json::from_slice(&line) {
                Ok(row) => rows.push(row),
                Err(problem) => {
                    warn!(%problem, file = %self.path.display(), "a line of audit rows is cut off");
                }
            }
        }
        Ok(rows)
    }

    /// What was read last is on record.
    fn taken(&mut self) {
        self.done = self.read;
    }
}

impl Spool {
    fn open(dir: &Path, own: Uuid, bound: u64) -> io::Result<Self> {
        make_for_owner(dir)?;
        let mut spool = Self { dir: dir.to_owned(), bound, own, files: Vec::new() };
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let run = path.file_name().and_then(|name| name.to_str()).and_then(run_of);
            if let Some(run) = run {
                spool.adopt(run, path)?;
            }
        }
        Ok(spool)
    }

    /// Takes over a file, unless another process works on it or has just finished it.
    fn adopt(&mut self, run: Uuid, path: PathBuf) -> io::Result<()> {
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if file.try_lock().is_ok() && path.exists() {
            let bytes = file.metadata()?.len();
            self.files.push(Waiting { run, path, file, bytes, done: 0, read: 0 });
        }
        Ok(())
    }

    /// Bytes that wait.
    fn waiting(&self) -> u64 {
        self.files.iter().map(|file| file.bytes - file.done).sum()
    }

    fn append(&mut self, batch: &[Rejection]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(batch.len() * 160);
        for row in batch {
            serde_json::to_writer(&mut bytes, row)?;
            bytes.push(b'\n');
        }
        let length = bytes.len() as u64;
        if self.waiting() + length > self.bound {
            return Err(io::Error::other(format!("the bound of {} bytes is reached", self.bound)));
        }
        let waiting = self.own_file()?;
        // A try that failed may have left half of its rows.
        waiting.file.set_len(waiting.bytes)?;
        (&waiting.file).write_all(&bytes)?;
        waiting.file.sync_data()?;
        waiting.bytes += length;
        Ok(())
    }

    /// The file of our own run, the last one, made where there is none.
    fn own_file(&mut self) -> io::Result<&mut Waiting> {
        let own = self.own;
        if !self.files.iter().any(|file| file.run == own) {
            let path = self.dir.join(format!("audit-{own}.spool"));
            let file = OpenOptions::new().create_new(true).read(true).append(true).open(&path)?;
            file.try_lock().map_err(io::Error::other)?;
            warn!(file = %path.display(), "audit rows wait in a file until PostgreSQL is back");
            self.files.push(Waiting { run: own, path, file, bytes: 0, done: 0, read: 0 });
        }
        Ok(self.files.iter_mut().find(|file| file.run == own).expect("it is there, or was just added"))
    }

    /// The first file's rows are all on record.
    fn done(&mut self) {
        let waiting = self.files.remove(0);
        info!(file = %waiting.path.display(), "audit rows that waited in a file are on record now");
        if let Err(problem) = fs::remove_file(&waiting.path) {
            warn!(%problem, file = %waiting.path.display(), "a file whose rows are on record cannot be removed");
        }
    }
}

/// Who tried to buy is nobody else's business.
fn make_for_owner(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn run_of(name: &str) -> Option<Uuid> {
    name.strip_prefix("audit-")?.strip_suffix(".spool")?.parse().ok()
}
