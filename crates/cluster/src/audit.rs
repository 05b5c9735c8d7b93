//! Rejections on their way to the trail: gathered, and written in batches, off the purchase's way.
//!
//! Each process numbers the rejections of each sale, its run. A batch and the run's last numbers are one transaction, so a
//! batch whose COMMIT was cut off is written once however often it is tried (ADR 0010). With PostgreSQL away, batches go to
//! files, and from there to PostgreSQL when it is back, or at the next start.

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
use tokio::{
    sync::{Notify, OwnedMutexGuard},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::store::{database, mute, signed};

/// As soon as so many wait, they are written.
const ENOUGH: usize = 4_096;
/// However few wait, they are written after this long.
const LINGER: Duration = Duration::from_secs(1);
/// So many rows may wait in memory; at the bound nothing is decided.
const CAPACITY: usize = 262_144;
/// Rows in one transaction.
const BATCH: usize = 8_192;
/// Rows in the smallest transaction, of what is in files.
const LEAST_BATCH: usize = 64;
/// How long a batch may take before PostgreSQL counts as away.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long PostgreSQL has to say that it is back.
const PROBE: Duration = Duration::from_millis(300);
/// How long what is in files may be written before what came meanwhile is put behind it.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// The most bytes of a file; what comes then goes into the next one, so that what is on record gives its room back.
const SEGMENT: u64 = 16 << 20;

const INSERT: &str = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id) \
     SELECT no, kind, epoch, place, 'epoch'::timestamptz + at * interval '1 millisecond', user_id, unit, order_id \
     FROM unnest($1::int[], $2::smallint[], $3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::int[], $8::uuid[]) \
     AS one (no, kind, epoch, place, at, user_id, unit, order_id)";
// A row for each sale of the batch, and locked: two tries at the same batch must not both find nothing.
const LAST: &str = "INSERT INTO runs (run, sale_no, last) SELECT $1, no, 0 FROM unnest($2::int[]) AS one (no) ORDER BY no \
     ON CONFLICT (run, sale_no) DO UPDATE SET updated_at = now() RETURNING sale_no, last";
const RAISE: &str = "UPDATE runs SET last = one.last FROM unnest($2::int[], $3::bigint[]) AS one (no, last) \
     WHERE run = $1 AND sale_no = no";

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
    writing: Arc<tokio::sync::Mutex<Spool>>,
    spooled: AtomicU64,
    full: AtomicBool,
    /// Whether PostgreSQL did not take the last batch.
    away: AtomicBool,
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
            writing: Arc::new(tokio::sync::Mutex::new(spool)),
            full: AtomicBool::new(false),
            away: AtomicBool::new(false),
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
        let mut spool = self.writing.clone().lock_owned().await;
        let mut stuck = false;
        // What has to go into a file is not kept in memory until PostgreSQL has been tried.
        if spool.waiting() > 0 {
            (spool, stuck) = self.write_gathered(spool).await;
        }
        spool = self.drain(spool).await;
        if !stuck {
            (spool, stuck) = self.write_gathered(spool).await;
        }
        self.spooled.store(spool.waiting(), Ordering::Relaxed);
        self.full.store(stuck, Ordering::Relaxed);
    }

    /// Writes what is in memory now, and whether it can be written nowhere. What comes meanwhile is for the next time.
    async fn write_gathered(&self, mut spool: OwnedMutexGuard<Spool>) -> (OwnedMutexGuard<Spool>, bool) {
        let mut left = self.gathered.lock().rows.len();
        while left > 0 {
            let batch = self.next_batch(left.min(BATCH));
            left -= batch.len();
            // Numbers rise, so what is in the file has to go first.
            if spool.waiting() == 0 && self.write(self.run, &batch).await.is_ok() {
                continue;
            }
            let tried: (Vec<Rejection>, io::Result<()>);
            (spool, tried) = on_disk(spool, move |spool| {
                let appended = spool.append(&batch);
                (batch, appended)
            })
            .await;
            if let (batch, Err(problem)) = tried {
                error!(%problem, "audit rows can neither be written nor put into a file; nothing is decided until they can");
                self.put_back(batch);
                return (spool, true);
            }
        }
        (spool, false)
    }

    fn next_batch(&self, length: usize) -> Vec<Rejection> {
        let mut gathered = self.gathered.lock();
        let rest = gathered.rows.split_off(length);
        mem::replace(&mut gathered.rows, rest)
    }

    fn put_back(&self, mut batch: Vec<Rejection>) {
        let mut gathered = self.gathered.lock();
        batch.append(&mut gathered.rows);
        gathered.rows = batch;
    }

    /// Brings what is in files to PostgreSQL, as far as that goes within its time.
    async fn drain(&self, mut spool: OwnedMutexGuard<Spool>) -> OwnedMutexGuard<Spool> {
        // While it is away, to try a batch takes as long as rejections would stay in memory.
        if self.away.load(Ordering::Relaxed)
            && !matches!(timeout(PROBE, self.pool.acquire()).await, Ok(Ok(_)))
        {
            return spool;
        }
        let began = Instant::now();
        while began.elapsed() < DRAIN_TIME && !spool.files.is_empty() {
            let next;
            (spool, next) = on_disk(spool, |spool| spool.next(spool.batch)).await;
            match next {
                Ok(Some((run, rows))) => match self.write(run, &rows).await {
                    Ok(()) => spool.taken(),
                    Err(_) => {
                        spool.left();
                        break;
                    }
                },
                Ok(None) => break,
                Err(problem) => {
                    error!(%problem, "audit rows cannot be read back");
                    break;
                }
            }
        }
        spool
    }

    /// One transaction: rows that are not on record yet, and the last numbers.
    async fn write(&self, run: Uuid, batch: &[Rejection]) -> Result<()> {
        let written = timeout(PATIENCE, self.try_write(run, batch)).await;
        let written = written.unwrap_or_else(|_| Err(mute()));
        self.away.store(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written {
            warn!(%error, rows = batch.len(), "audit rows cannot be written yet");
        }
        written
    }

    async fn try_write(&self, run: Uuid, batch: &[Rejection]) -> Result<()> {
        let mut sales: Vec<i32> = batch.iter().map(|row| row.sale_no).collect();
        sales.sort_unstable();
        sales.dedup();
        let mut transaction = self.pool.begin().await.map_err(database)?;
        let last = sqlx::query(LAST).bind(run).bind(&sales);
        let last = last.fetch_all(&mut *transaction).await.map_err(database)?;
        let mut last: HashMap<i32, i64> =
            last.iter().map(|row| (row.get("sale_no"), row.get("last"))).collect();
        // Numbers rise, so what is not beyond the last one is there already, or stands twice in a file.
        let new: Vec<&Rejection> = batch
            .iter()
            .filter(|row| {
                let (number, last) = (row.number.cast_signed(), last.entry(row.sale_no).or_default());
                let is_new = number > *last;
                *last = number.max(*last);
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
        let (sales, numbers): (Vec<i32>, Vec<i64>) = last.into_iter().unzip();
        let raise = sqlx::query(RAISE).bind(run).bind(&sales).bind(&numbers);
        raise.execute(&mut *transaction).await.map_err(database)?;
        transaction.commit().await.map_err(database)
    }
}

/// Works on files where nobody else has to wait for the disk.
async fn on_disk<T: Send + 'static>(
    mut spool: OwnedMutexGuard<Spool>,
    work: impl FnOnce(&mut Spool) -> T + Send + 'static,
) -> (OwnedMutexGuard<Spool>, T) {
    let working = spawn_blocking(move || {
        let done = work(&mut spool);
        (spool, done)
    });
    working.await.expect("work on files does not panic")
}

/// Files of rows that wait for PostgreSQL: a JSON object a line, the rows of a run in one file after the other.
struct Spool {
    dir: PathBuf,
    bound: u64,
    own: Uuid,
    /// Bytes from which on a file is long enough.
    segment: u64,
    /// Files of our own run that were begun.
    begun: u32,
    files: Vec<Waiting>,
    /// How many rows are tried next: as many as PostgreSQL takes in time, however slow it is.
    batch: usize,
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
}

impl Spool {
    fn open(dir: &Path, own: Uuid, bound: u64) -> io::Result<Self> {
        make_for_owner(dir)?;
        let (segment, begun, files) = (SEGMENT.min(bound / 4), 0, Vec::new());
        let mut spool = Self { dir: dir.to_owned(), bound, own, segment, begun, files, batch: BATCH };
        let _alone = spool.alone()?;
        let paths: io::Result<Vec<PathBuf>> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths?;
        // By run, and of a run the earlier ones first.
        paths.sort();
        for path in paths {
            let run = path.file_name().and_then(|name| name.to_str()).and_then(run_of);
            if let Some(run) = run {
                spool.adopt(run, path)?;
            }
        }
        Ok(spool)
    }

    /// Keeps other processes on this folder from looking at its files: those of a run belong to one of them.
    fn alone(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
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

    /// The next rows that are not on record, and whose they are; none when there is nothing left.
    fn next(&mut self, limit: usize) -> io::Result<Option<(Uuid, Vec<Rejection>)>> {
        while let Some(first) = self.files.first_mut() {
            let rows = first.next(limit)?;
            if !rows.is_empty() {
                return Ok(Some((first.run, rows)));
            }
            self.done();
        }
        Ok(None)
    }

    /// What was read last is on record.
    fn taken(&mut self) {
        if let Some(first) = self.files.first_mut() {
            first.done = first.read;
        }
        self.batch = (self.batch * 2).min(BATCH);
    }

    /// What was read last was not taken.
    fn left(&mut self) {
        self.batch = (self.batch / 2).max(LEAST_BATCH);
    }

    fn append(&mut self, batch: &[Rejection]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(batch.len() * 160);
        for row in batch {
            serde_json::to_writer(&mut bytes, row)?;
            bytes.push(b'\n');
        }
        let length = bytes.len() as u64;
        let room: u64 = self.files.iter().map(|file| file.bytes).sum();
        if room + length > self.bound {
            return Err(io::Error::other(format!("the bound of {} bytes is reached", self.bound)));
        }
        let waiting = self.last_file()?;
        // A try that failed may have left half of its rows.
        waiting.file.set_len(waiting.bytes)?;
        (&waiting.file).write_all(&bytes)?;
        waiting.file.sync_data()?;
        waiting.bytes += length;
        Ok(())
    }

    /// Where rows of our own run are put: its last file, or a new one where that is long enough.
    fn last_file(&mut self) -> io::Result<&mut Waiting> {
        let own = self.own;
        let has_room = |last: &Waiting| last.run == own && last.bytes < self.segment;
        if !self.files.last().is_some_and(has_room) {
            let _alone = self.alone()?;
            let path = self.dir.join(format!("audit-{own}-{:06}.spool", self.begun + 1));
            let file = OpenOptions::new().create_new(true).read(true).append(true).open(&path)?;
            file.try_lock().map_err(io::Error::other)?;
            self.begun += 1;
            warn!(file = %path.display(), "audit rows wait in a file until PostgreSQL is back");
            self.files.push(Waiting { run: own, path, file, bytes: 0, done: 0, read: 0 });
        }
        Ok(self.files.last_mut().expect("it is there, or was just added"))
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
    let (run, _) = name.strip_prefix("audit-")?.strip_suffix(".spool")?.rsplit_once('-')?;
    run.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: std::ops::Range<u64>) -> Vec<Rejection> {
        let row = |number| Rejection {
            sale_no: 1,
            kind: 2,
            epoch: Epoch(1),
            place: Place(7),
            at: Timestamp::from_millis(1_771_815_600_000),
            user_id: "ada".parse().unwrap(),
            held: None,
            number,
        };
        numbers.map(row).collect()
    }

    fn files(dir: &Path) -> usize {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| run_of(name).is_some()).count()
    }

    #[test]
    fn a_run_is_taken_over_whole_in_order_by_one_process_when_its_own_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        let mut dead = Spool::open(dir.path(), first, 60_000).unwrap();
        for part in 0..20 {
            dead.append(&rows(part * 20..(part + 1) * 20)).unwrap();
        }
        assert!(files(dir.path()) >= 3, "in several files");
        assert_eq!(
            Spool::open(dir.path(), second, 60_000).unwrap().waiting(),
            0,
            "while it lives, they are its own"
        );
        let waiting = dead.waiting();
        drop(dead);
        let mut heir = Spool::open(dir.path(), second, 60_000).unwrap();
        assert_eq!(heir.waiting(), waiting);
        assert_eq!(Spool::open(dir.path(), Uuid::now_v7(), 60_000).unwrap().waiting(), 0, "one takes all");
        let mut read = Vec::new();
        while let Some((run, rows)) = heir.next(15).unwrap() {
            assert_eq!(run, first);
            read.extend(rows);
            heir.taken();
        }
        assert_eq!(read, rows(0..400));
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn what_a_slow_database_did_not_take_is_tried_in_smaller_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Uuid::now_v7(), 1 << 20).unwrap();
        spool.append(&rows(0..400)).unwrap();
        let next = |spool: &mut Spool| spool.next(spool.batch).unwrap().map_or(0, |(_, rows)| rows.len());
        assert_eq!(next(&mut spool), 400);
        for _ in 0..20 {
            spool.left();
        }
        assert_eq!(next(&mut spool), LEAST_BATCH);
        spool.taken();
        assert_eq!(next(&mut spool), 2 * LEAST_BATCH, "and in larger ones as it takes them");
    }

    #[test]
    fn what_is_on_record_gives_its_room_back_and_no_more_than_the_bound_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Uuid::now_v7(), 20_000).unwrap();
        let mut put = 0;
        let mut fill = |spool: &mut Spool| {
            while spool.append(&rows(put..put + 10)).is_ok() {
                put += 10;
                let on_disk: u64 = spool.files.iter().map(|file| file.file.metadata().unwrap().len()).sum();
                assert!(on_disk <= 20_000);
            }
            put
        };
        let full = fill(&mut spool);
        let mut read = 0;
        while read < 80 {
            read += spool.next(20).unwrap().unwrap().1.len() as u64;
            spool.taken();
        }
        assert!(fill(&mut spool) > full, "there is room again");
        while let Some((_, rows)) = spool.next(1_000).unwrap() {
            assert_eq!(rows[0].number, read);
            read += rows.len() as u64;
            spool.taken();
        }
        assert_eq!(read, put);
    }
}
