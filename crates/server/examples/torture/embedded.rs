//! The faults of the embedded profile: one process, one folder, and whatever can happen to either.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use flashsale_loadtest::history::{Losses, Told};
use rand::{RngExt, rngs::StdRng};

use crate::{
    Args, Deck, Plan,
    crowd::{Attempt, Counter, Crowd, Sale},
    program::{Program, Start, get, run, signal, wait},
    promises::{self, Terms},
    tally::{Broken, Counts, Tally},
};

/// Rounds on one data folder.
const CHAPTER: u64 = 20;
/// Calls to the disk are refused from one of the next so many on.
const SOON: u32 = 12;
/// What the process may always write: its log must not be what meets the limit of file size.
const LEAST_FILE: u64 = 32 * 1_024;
/// What sets the clock of a process, to be compiled.
const CLOCK: &str = include_str!("clock.c");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Kill,
    KillAtWrite,
    KillAtSync,
    KillAgainAtStart,
    KillStopped,
    Stop,
    Terminate,
    FilesFull,
    DiskFull,
    ReadOnlyFolder,
    SyncFails,
    WriteFails,
    WriteFull,
    WriteReadOnly,
    SlowDisk,
    ClockForward,
    ClockBack,
}

use Fault::*;

const FAULTS: &[Fault] = &[
    Kill,
    KillAtWrite,
    KillAtSync,
    KillAgainAtStart,
    KillStopped,
    Stop,
    Terminate,
    FilesFull,
    DiskFull,
    ReadOnlyFolder,
    SyncFails,
    WriteFails,
    WriteFull,
    WriteReadOnly,
    SlowDisk,
    ClockForward,
    ClockBack,
];
/// Those that a process survives: they come alone, or before another one.
const SOFT: &[Fault] = &[Stop, SlowDisk, ClockForward, ClockBack];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Kill => "kill -9",
            KillAtWrite => "kill -9 at a write",
            KillAtSync => "kill -9 at an fsync",
            KillAgainAtStart => "kill -9, and again while it starts",
            KillStopped => "kill -9 while stopped",
            Stop => "SIGSTOP, SIGCONT",
            Terminate => "SIGTERM",
            FilesFull => "files cannot grow (EFBIG)",
            DiskFull => "disk full (ENOSPC, a small file system)",
            ReadOnlyFolder => "kill -9, start on a read-only file system",
            SyncFails => "fsync fails (EIO)",
            WriteFails => "write fails (EIO)",
            WriteFull => "write fails (ENOSPC)",
            WriteReadOnly => "write fails (EROFS)",
            SlowDisk => "fsync takes 30 ms",
            ClockForward => "clock an hour forward",
            ClockBack => "clock an hour back",
        }
    }

    /// Whether it wants a file system of its own.
    fn wants_mount(self) -> bool {
        matches!(self, DiskFull | ReadOnlyFolder)
    }

    /// What strace does to which calls, and when.
    fn injection(self, when: u32) -> Option<(&'static str, String)> {
        let (calls, what) = match self {
            KillAtWrite => ("pwrite64", format!("signal=KILL:when={when}")),
            KillAtSync => ("fsync,fdatasync", format!("signal=KILL:when={when}")),
            SyncFails => ("fsync,fdatasync", format!("error=EIO:when={when}+")),
            WriteFails => ("pwrite64", format!("error=EIO:when={when}+")),
            WriteFull => ("pwrite64", format!("error=ENOSPC:when={when}+")),
            WriteReadOnly => ("pwrite64", format!("error=EROFS:when={when}+")),
            SlowDisk => ("fsync,fdatasync", "delay_enter=30000".to_owned()),
            _ => return None,
        };
        Some((calls, what))
    }
}

pub(crate) fn campaign(args: &Args, bin: &Path, work: &Path, dice: StdRng, tally: &mut Tally) -> Result<()> {
    fs::write(work.join("clock.c"), CLOCK)?;
    let (source, clock) = (work.join("clock.c"), work.join("clock.so"));
    run(
        "cc",
        &["-shared", "-fPIC", "-O1", "-o", &clock.display().to_string(), &source.display().to_string()],
    )?;
    let root = run("id", &["-u"])? == "0";
    let known = |fault: &Fault| fault.name().contains(&args.only) && (root || !fault.wants_mount());
    let faults: Vec<_> = FAULTS.iter().copied().filter(known).collect();
    ensure!(!faults.is_empty(), "no fault is called {:?}", args.only);
    if !root {
        println!(
            "not root, so without a file system of its own: not {}, not {}",
            DiskFull.name(),
            ReadOnlyFolder.name()
        );
    }
    let plan = Plan::of(args, faults.len());
    let mut deck = Deck::new(faults);
    let mut stand = Stand {
        bin,
        work,
        dice,
        folder: None,
        server: None,
        sale: None,
        sales: 0,
        counted: Counts::default(),
        process: 0,
        orderly: HashSet::new(),
        alone: args.short,
    };
    let ended = stand.rounds(&plan, &mut deck, tally);
    drop(stand.server.take());
    match &ended {
        Ok(()) => stand.leave_folder(),
        Err(_) => stand.keep_folder()?,
    }
    ended
}

/// A data folder, and how often it was used.
struct Folder {
    path: PathBuf,
    mounted: bool,
    rounds: u64,
}

/// Where a round takes place.
struct Stand<'a> {
    bin: &'a Path,
    work: &'a Path,
    dice: StdRng,
    folder: Option<Folder>,
    server: Option<Program>,
    sale: Option<Arc<Sale>>,
    sales: u64,
    /// What earlier rounds have counted of the sale.
    counted: Counts,
    /// Counts processes, so that what was told can be told apart by who told it.
    process: u64,
    /// Processes that ended as they were asked to, so that all that they answered is on record.
    orderly: HashSet<u64>,
    /// One fault at a time.
    alone: bool,
}

/// What is under way beside the server.
#[derive(Default)]
struct Tools {
    tracer: Option<Child>,
    ballast: bool,
}

impl Drop for Tools {
    /// The tracer lets go of the process, which goes on, if it is still there.
    fn drop(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            let _ = signal(tracer.id(), "INT");
            let _ = tracer.wait();
        }
    }
}

impl Stand<'_> {
    fn rounds(&mut self, plan: &Plan, deck: &mut Deck<Fault>, tally: &mut Tally) -> Result<()> {
        while plan.goes_on(tally.rounds()) {
            let fault = deck.draw(&mut self.dice);
            self.round(fault, tally).with_context(|| format!("in round {}", tally.rounds()))?;
            if tally.rounds().is_multiple_of(50) {
                println!("{} rounds, {} acknowledged", tally.rounds(), tally.acknowledged());
            }
        }
        Ok(())
    }

    fn round(&mut self, fault: Fault, tally: &mut Tally) -> Result<()> {
        let mut faults = vec![fault];
        if !self.alone && !SOFT.contains(&fault) && self.dice.random_range(0..3) == 0 {
            let soft = SOFT[self.dice.random_range(0..SOFT.len())];
            // Only one tracer can hold a process.
            if soft.injection(1).is_none() || fault.injection(1).is_none() {
                faults.insert(0, soft);
            }
        }
        tally.begin(&faults.iter().map(|fault| fault.name().to_owned()).collect::<Vec<_>>());
        self.enter_folder(fault)?;
        let clock = faults.iter().any(|fault| matches!(fault, ClockForward | ClockBack));
        self.open(clock)?;
        let sale = self.sale()?;
        let counter = self.counter();
        let crowd =
            Crowd::come(std::slice::from_ref(&sale), vec![counter], tally.rounds(), true, &mut self.dice);
        crowd.await_answers(self.dice.random_range(1..60))?;
        thread::sleep(Duration::from_millis(self.dice.random_range(0..25)));

        let mut tools = Tools::default();
        let mut fired = Vec::new();
        for fault in &faults {
            fired.push(self.fire(*fault, &crowd, &mut tools)?);
        }
        self.finish(fault)?;
        crowd.leave()?;
        self.clear(tools)?;
        if self.server.is_none() {
            self.start(false)?;
        }
        let asked = 1 + self.dice.random_range(0..12);
        sale.ask_again(&self.counter(), asked)?;
        let counts = self.compare(&sale)?;
        tally.end(&fired, counts.since(self.counted));
        self.counted = counts;
        if counts.acknowledged > 1_500 || (sale.is_sold_out() && self.dice.random_range(0..2) == 0) {
            self.sale = None;
        }
        Ok(())
    }

    /// The folder of the chapter; a new one when it was used often enough, or does not fit.
    fn enter_folder(&mut self, fault: Fault) -> Result<()> {
        let fits = |folder: &Folder| folder.rounds < CHAPTER && (folder.mounted || !fault.wants_mount());
        if !self.folder.as_ref().is_some_and(fits) {
            self.leave_folder();
            let (path, mounted) = (self.work.join(format!("data-{}", self.process)), fault.wants_mount());
            fs::create_dir_all(&path)?;
            if mounted {
                run(
                    "mount",
                    &["-t", "tmpfs", "-o", "size=48m,mode=700", "torture", &path.display().to_string()],
                )?;
            }
            self.folder = Some(Folder { path, mounted, rounds: 0 });
        }
        self.folder.as_mut().expect("just entered").rounds += 1;
        Ok(())
    }

    fn leave_folder(&mut self) {
        (self.server, self.sale) = (None, None);
        if let Some(folder) = self.folder.take() {
            if folder.mounted {
                let _ = Command::new("umount").arg(&folder.path).status();
            }
            let _ = fs::remove_dir_all(&folder.path);
        }
    }

    /// Keeps what is on a file system of its own, which goes.
    fn keep_folder(&mut self) -> Result<()> {
        if let Some(folder) = self.folder.take().filter(|folder| folder.mounted) {
            let (path, kept) =
                (folder.path.display().to_string(), self.work.join("data").display().to_string());
            run("cp", &["-a", &path, &kept])?;
            run("umount", &[&path])?;
        }
        Ok(())
    }

    fn data(&self) -> &Path {
        &self.folder.as_ref().expect("entered").path
    }

    fn start_with(&self, arguments: &[&str], clock: bool) -> Start<'_> {
        let mut all: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        all.extend(["--data-dir".to_owned(), self.data().display().to_string()]);
        let mut environment = Vec::new();
        if clock {
            for (name, file) in [("LD_PRELOAD", "clock.so"), ("TORTURE_CLOCK", "clock")] {
                environment.push((name.to_owned(), self.work.join(file).display().to_string()));
            }
        }
        Start {
            bin: self.bin,
            arguments: all,
            environment,
            log: self.work.join(format!("server-{}.log", self.process)),
        }
    }

    /// Sets the clock, so many seconds ahead of the machine's. Always as long as before: it may be read meanwhile.
    fn set_clock(&self, seconds: i32) -> Result<()> {
        let mut file =
            fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.work.join("clock"))?;
        Ok(file.write_all(format!("{seconds:<15}").as_bytes())?)
    }

    /// A server that is ready; with a clock that can be set, if so wanted.
    fn open(&mut self, clock: bool) -> Result<()> {
        if clock && let Some(mut server) = self.server.take() {
            server.terminate()?;
            self.orderly.insert(self.process);
        }
        if self.server.is_none() { self.start(clock) } else { Ok(()) }
    }

    fn start(&mut self, clock: bool) -> Result<()> {
        self.set_clock(0)?;
        self.process += 1;
        let server = self.start_with(&["serve", "--listen", "127.0.0.1:0"], clock).serve()?;
        server.await_ready()?;
        self.server = Some(server);
        Ok(())
    }

    fn server(&mut self) -> Result<&mut Program> {
        self.server.as_mut().context("no server")
    }

    fn counter(&self) -> Counter {
        let url = self.server.as_ref().map(|server| server.url.clone()).unwrap_or_default();
        Counter { url, process: self.process }
    }

    fn sale(&mut self) -> Result<Arc<Sale>> {
        if let Some(sale) = &self.sale {
            return Ok(sale.clone());
        }
        let stock = if self.dice.random_range(0..2) == 0 { self.dice.random_range(20..300) } else { 5_000 };
        let sale = Sale::new(format!("sale-{}", self.sales), stock);
        (self.sales, self.counted) = (self.sales + 1, Counts::default());
        promises::make(&self.counter().url, &sale)?;
        self.sale = Some(sale.clone());
        Ok(sale)
    }

    /// Does it; whether it came about.
    fn fire(&mut self, fault: Fault, crowd: &Crowd, tools: &mut Tools) -> Result<bool> {
        if fault.injection(1).is_some() {
            return self.inject(fault, crowd, tools);
        }
        match fault {
            Stop => {
                let nap = Duration::from_millis(self.dice.random_range(20..250));
                self.server()?.signal("STOP")?;
                thread::sleep(nap);
                self.server()?.signal("CONT")?;
                crowd.await_answers(3)?;
            }
            ClockForward | ClockBack => return self.jump(fault, crowd),
            KillStopped => self.server()?.signal("STOP")?,
            FilesFull => {
                // The log of the ledger grows beyond what the next moments write.
                let log = fs::metadata(self.data().join("flashsale.db-wal")).map_or(0, |log| log.len());
                let limit = (log + self.dice.random_range(1_000..60_000)).max(LEAST_FILE);
                let pid = self.server()?.pid().to_string();
                run("prlimit", &["--pid", &pid, &format!("--fsize={limit}:")])?;
                return self.await_refusal(crowd);
            }
            DiskFull => {
                self.fill()?;
                tools.ballast = true;
                return self.await_refusal(crowd);
            }
            // These are the end, and so done there.
            _ => {}
        }
        Ok(true)
    }

    /// The clock of the process jumps, and it sees that.
    fn jump(&mut self, fault: Fault, crowd: &Crowd) -> Result<bool> {
        let id = self.sale.as_ref().context("no sale")?.id.clone();
        let url = format!("{}/api/v1/sale/{id}/status", self.counter().url);
        let hour = |url: &str| -> Result<String> {
            let status: serde_json::Value = serde_json::from_str(&get(url)?.1)?;
            Ok(status["serverTime"].as_str().context("no time")?[..13].to_owned())
        };
        let before = hour(&url)?;
        self.set_clock(if fault == ClockForward { 3_600 } else { -3_600 })?;
        wait("the clock jumps", || hour(&url).is_ok_and(|now| now != before))?;
        crowd.await_answers(20)?;
        Ok(true)
    }

    /// Attaches strace, which meddles with a call to come; whether it did.
    fn inject(&mut self, fault: Fault, crowd: &Crowd, tools: &mut Tools) -> Result<bool> {
        let (calls, what) =
            fault.injection(self.dice.random_range(1..=SOON)).context("strace has no part in it")?;
        let pid = self.server()?.pid().to_string();
        let (out, err) = (self.work.join("strace.out"), self.work.join("strace.err"));
        let tracer = Command::new("strace")
            .args([
                "-f",
                "-qqq",
                "-p",
                &pid,
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={calls}:{what}"),
                "-o",
            ])
            .arg(&out)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&err)?)
            .spawn()
            .context("strace is missing: apt-get install strace")?;
        tools.tracer = Some(tracer);
        if fault == SlowDisk {
            crowd.await_answers(10)?;
            return Ok(fs::metadata(&out).is_ok_and(|seen| seen.len() > 0));
        }
        if matches!(fault, KillAtWrite | KillAtSync) {
            let ended = self.await_end(crowd, tools)?;
            return Ok(ended);
        }
        self.await_refusal(crowd)
    }

    /// Waits until a signal has ended the process; whether one has. A crowd that has stopped buying writes nothing more.
    fn await_end(&mut self, crowd: &Crowd, tools: &mut Tools) -> Result<bool> {
        for waited in 0..400 {
            if self.server()?.has_ended()?.is_some() {
                self.server = None;
                return Ok(true);
            }
            if tools
                .tracer
                .as_mut()
                .is_some_and(|tracer| tracer.try_wait().is_ok_and(|ended| ended.is_some()))
            {
                // It has ended with its tracee, whose end is seen in a moment, or could not attach.
                let err = fs::read_to_string(self.work.join("strace.err")).unwrap_or_default();
                ensure!(!err.contains("attach"), "strace: {err}");
            }
            thread::sleep(Duration::from_millis(5));
            if crowd.has_left() && waited > 60 {
                break;
            }
        }
        Ok(false)
    }

    /// Waits until the ledger could not be written; whether that came about. Then nothing may be sold.
    fn await_refusal(&mut self, crowd: &Crowd) -> Result<bool> {
        for waited in 0..400 {
            let server = self.server()?;
            ensure!(server.has_ended()?.is_none(), "it ended by itself:\n{}", server.log());
            if server.log().contains("the ledger cannot be written") {
                return self.sells_nothing();
            }
            thread::sleep(Duration::from_millis(5));
            if crowd.has_left() && waited > 60 {
                break;
            }
        }
        Ok(false)
    }

    fn sells_nothing(&mut self) -> Result<bool> {
        let (sale, counter) = (self.sale.clone().context("no sale")?, self.counter());
        let agent = crate::program::agent(Duration::from_secs(10));
        let told = sale.buy(&agent, &counter, &format!("late-{}", self.process));
        if told != Told::Nothing {
            return Err(Broken::new(
                "P3",
                format!("it goes on after its ledger could not be written: {told:?}"),
            )
            .into());
        }
        let (status, health) = get(&format!("{}/health/ready", counter.url))?;
        if status != 503 {
            return Err(Broken::new(
                "health",
                format!("ready after its ledger could not be written: {status} {health}"),
            )
            .into());
        }
        Ok(true)
    }

    /// Fills the file system up to a little.
    fn fill(&mut self) -> Result<()> {
        let left = self.dice.random_range(0..128_u64) * 1_024;
        let path = self.data().join("ballast");
        let mut ballast = fs::File::create(&path)?;
        let block = vec![0; 64 * 1_024];
        let mut size = 0_u64;
        while let Ok(written) = ballast.write(&block) {
            if written == 0 {
                break;
            }
            size += written as u64;
        }
        Ok(ballast.set_len(size.saturating_sub(left))?)
    }

    /// Ends the process as the fault has it, if at all.
    fn finish(&mut self, fault: Fault) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        match fault {
            Terminate => {
                server.terminate()?;
                self.orderly.insert(self.process);
                Ok(())
            }
            Stop | SlowDisk | ClockForward | ClockBack if self.dice.random_range(0..3) > 0 => {
                self.server = Some(server);
                Ok(())
            }
            KillAgainAtStart => {
                server.kill()?;
                for _ in 0..self.dice.random_range(1..4) {
                    let mut next = self.start_with(&["serve", "--listen", "127.0.0.1:0"], false).spawn()?;
                    thread::sleep(Duration::from_micros(self.dice.random_range(500..60_000)));
                    next.kill()?;
                }
                Ok(())
            }
            ReadOnlyFolder => {
                server.kill()?;
                self.start_read_only()
            }
            _ => server.kill(),
        }
    }

    /// On a file system that cannot be written it must not start, and must do no harm.
    fn start_read_only(&self) -> Result<()> {
        let data = self.data().display().to_string();
        run("mount", &["-o", "remount,ro", &data])?;
        let mut server = self.start_with(&["serve", "--listen", "127.0.0.1:0"], false).spawn()?;
        let ended = server.ended_within(Duration::from_secs(20))?;
        drop(server);
        run("mount", &["-o", "remount,rw", &data])?;
        match ended {
            Some(status) if !status.success() => Ok(()),
            other => bail!("on a read-only file system it should not start: {other:?}"),
        }
    }

    fn clear(&mut self, tools: Tools) -> Result<()> {
        let ballast = tools.ballast;
        drop(tools);
        if ballast {
            fs::remove_file(self.data().join("ballast"))?;
        }
        Ok(())
    }

    /// All promises. Of the rejections of a process that crashed, those have to be on record that were answered before a
    /// purchase was asked for that it acknowledged: what it decides is written in order.
    fn compare(&self, sale: &Sale) -> Result<Counts> {
        let mut last: HashMap<u64, u64> = HashMap::new();
        for attempt in sale.attempts.lock().expect("no panic").iter() {
            if matches!(attempt.told, Told::Bought { .. }) {
                let sent = last.entry(attempt.process).or_default();
                *sent = attempt.sent.max(*sent);
            }
        }
        let current = self.process;
        let on_record = |attempt: &Attempt| {
            let all = attempt.process == current || self.orderly.contains(&attempt.process);
            all || last.get(&attempt.process).is_some_and(|&sent| attempt.answered < sent)
        };
        let verify = self.start_with(&["verify"], false);
        let terms = Terms {
            losses: Losses::None,
            redis_lost: false,
            on_record: &on_record,
            verify,
            folder: self.work,
        };
        promises::compare(&self.counter().url, sale, &terms)
    }
}
