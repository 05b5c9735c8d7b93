//! The faults of the cluster profile: each service, replica and worker, one at a time or several at once.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use flashsale_loadtest::history::Losses;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Args, Deck, Plan,
    crowd::{Attempt, Counter, Crowd, Sale},
    program::{PATIENCE, Program, Start, get, run, wait},
    promises::{self, Terms},
    services::{Postgres, RabbitMq, Redis, Service},
    tally::{Counts, Tally},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Redis,
    Broker,
    Database,
    Replicas,
    Workers,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    RedisKilled,
    RedisReplaced,
    RedisEmptied,
    RedisForgetsFunctions,
    RedisLosesKey,
    RedisStopped,
    RedisCut,
    BrokerKilled,
    BrokerStopped,
    BrokerCut,
    QueueDeleted,
    DatabaseKilled,
    DatabaseStopped,
    DatabaseCut,
    ReplicaKilled,
    ReplicaStopped,
    ReplicaTerminated,
    ReplicasKilled,
    WorkerKilled,
    WorkerStopped,
    WorkerTerminated,
    WorkersKilled,
}

use Fault::*;

const FAULTS: &[Fault] = &[
    RedisKilled,
    RedisReplaced,
    RedisEmptied,
    RedisForgetsFunctions,
    RedisLosesKey,
    RedisStopped,
    RedisCut,
    BrokerKilled,
    BrokerStopped,
    BrokerCut,
    QueueDeleted,
    DatabaseKilled,
    DatabaseStopped,
    DatabaseCut,
    ReplicaKilled,
    ReplicaStopped,
    ReplicaTerminated,
    ReplicasKilled,
    WorkerKilled,
    WorkerStopped,
    WorkerTerminated,
    WorkersKilled,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            RedisKilled => "Redis killed, with its AOF",
            RedisReplaced => "Redis replaced by an empty one",
            RedisEmptied => "Redis emptied (FLUSHALL)",
            RedisForgetsFunctions => "Redis without its functions",
            RedisLosesKey => "Redis loses a key",
            RedisStopped => "Redis stopped",
            RedisCut => "connections to Redis cut",
            BrokerKilled => "RabbitMQ killed",
            BrokerStopped => "RabbitMQ stopped",
            BrokerCut => "connections to RabbitMQ cut",
            QueueDeleted => "order queue deleted",
            DatabaseKilled => "PostgreSQL killed",
            DatabaseStopped => "PostgreSQL stopped",
            DatabaseCut => "connections to PostgreSQL cut",
            ReplicaKilled => "replica killed",
            ReplicaStopped => "replica stopped",
            ReplicaTerminated => "replica asked to stop",
            ReplicasKilled => "all replicas killed",
            WorkerKilled => "worker killed",
            WorkerStopped => "worker stopped",
            WorkerTerminated => "worker asked to stop",
            WorkersKilled => "all workers killed",
        }
    }

    fn part(self) -> Part {
        match self {
            RedisKilled
            | RedisReplaced
            | RedisEmptied
            | RedisForgetsFunctions
            | RedisLosesKey
            | RedisStopped
            | RedisCut => Part::Redis,
            BrokerKilled | BrokerStopped | BrokerCut | QueueDeleted => Part::Broker,
            DatabaseKilled | DatabaseStopped | DatabaseCut => Part::Database,
            ReplicaKilled | ReplicaStopped | ReplicaTerminated | ReplicasKilled => Part::Replicas,
            WorkerKilled | WorkerStopped | WorkerTerminated | WorkersKilled => Part::Workers,
        }
    }

    /// Whether Redis forgets what it has decided.
    fn loses_redis(self) -> bool {
        matches!(self, RedisReplaced | RedisEmptied | RedisLosesKey)
    }

    /// Whether Redis is rebuilt, and so what nobody was told may be undone.
    fn rebuilds(self) -> bool {
        self.loses_redis() || matches!(self, RedisKilled | RedisForgetsFunctions | QueueDeleted)
    }

    /// Whether both may happen at once: to different parts, and not to both copies of what waits for PostgreSQL, after
    /// which nobody could know of it.
    fn goes_with(self, other: Self) -> bool {
        let both_copies = |one: Self, other: Self| one.loses_redis() && other == QueueDeleted;
        self.part() != other.part() && !both_copies(self, other) && !both_copies(other, self)
    }
}

pub(crate) fn campaign(args: &Args, bin: &Path, work: &Path, dice: StdRng, tally: &mut Tally) -> Result<()> {
    let faults: Vec<_> = FAULTS.iter().copied().filter(|fault| fault.name().contains(&args.only)).collect();
    ensure!(!faults.is_empty(), "no fault is called {:?}", args.only);
    let count = faults.len();
    let mut deck = Deck::new(faults);
    println!("starting PostgreSQL, Redis and RabbitMQ");
    let mut stand = Stand::new(bin, work)?;
    let plan = Plan::of(args, count);
    let ended = stand.rounds(args, &plan, &mut deck, dice, tally);
    if ended.is_err() {
        stand.keep();
    }
    ended
}

/// A process, and which number it has.
struct Member {
    program: Program,
    process: u64,
    /// Started in this round: where a service is away it ends again, and is started again, as by any supervisor.
    is_new: bool,
}

/// Replicas and workers of an installation, and how to start them.
struct Members<'a> {
    bin: &'a Path,
    work: &'a Path,
    environment: Vec<(String, String)>,
    replicas: Vec<Member>,
    workers: Vec<Member>,
    process: u64,
}

impl Members<'_> {
    fn start(&self, arguments: &[&str], name: &str) -> Start<'_> {
        let mut all: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let data = self.work.join(name);
        all.extend(["--data-dir".to_owned(), data.display().to_string()]);
        Start {
            bin: self.bin,
            arguments: all,
            environment: self.environment.clone(),
            log: self.work.join(format!("{name}.log")),
        }
    }

    fn replica(&mut self, seat: usize) -> Result<Member> {
        self.process += 1;
        let start = self.start(&["api", "--listen", "127.0.0.1:0"], &format!("replica-{seat}"));
        Ok(Member { program: start.spawn()?, process: self.process, is_new: true })
    }

    fn worker(&mut self, seat: usize) -> Result<Member> {
        self.process += 1;
        let start = self.start(&["worker"], &format!("worker-{seat}"));
        Ok(Member { program: start.spawn()?, process: self.process, is_new: true })
    }

    /// Until all that were started anew are there. Others have no reason to end.
    fn revive(&mut self) -> Result<()> {
        let began = Instant::now();
        for seat in 0..self.replicas.len() {
            while let Err(error) = self.replicas[seat].program.await_url() {
                ensure!(
                    self.replicas[seat].is_new && began.elapsed() < PATIENCE,
                    "replica {seat}: {error:#}"
                );
                thread::sleep(Duration::from_millis(100));
                self.replicas[seat] = self.replica(seat)?;
            }
            while self.workers[seat].program.has_ended()?.is_some() {
                let log = self.workers[seat].program.log();
                ensure!(
                    self.workers[seat].is_new && began.elapsed() < PATIENCE,
                    "worker {seat} ended: {log}"
                );
                thread::sleep(Duration::from_millis(100));
                self.workers[seat] = self.worker(seat)?;
            }
        }
        self.replicas.iter_mut().chain(&mut self.workers).for_each(|member| member.is_new = false);
        Ok(())
    }

    fn counters(&self) -> Vec<Counter> {
        let counter = |member: &Member| Counter { url: member.program.url.clone(), process: member.process };
        self.replicas.iter().map(counter).collect()
    }
}

struct Stand<'a> {
    postgres: Postgres,
    redis: Redis,
    broker: RabbitMq,
    members: Members<'a>,
}

impl<'a> Stand<'a> {
    /// Services of its own, two replicas and two workers.
    fn new(bin: &'a Path, work: &'a Path) -> Result<Self> {
        let (postgres, redis, broker) = thread::scope(|scope| {
            let (postgres, redis) = (scope.spawn(Postgres::new), scope.spawn(Redis::new));
            let broker = RabbitMq::new();
            (postgres.join(), redis.join(), broker)
        });
        let started = |_| anyhow!("a service does not start");
        let (postgres, redis) = (postgres.map_err(started)?, redis.map_err(started)?);
        let environment = [
            ("FLASHSALE_PROFILE", "cluster".to_owned()),
            ("FLASHSALE_DATABASE_URL", postgres.url()),
            ("FLASHSALE_REDIS_URL", redis.url()),
            ("FLASHSALE_AMQP_URL", broker.url()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let members = Members { bin, work, environment, replicas: vec![], workers: vec![], process: 0 };
        let mut stand = Self { postgres, redis, broker, members };
        for seat in 0..2 {
            let mut replica = stand.members.replica(seat)?;
            replica.program.await_url()?;
            replica.program.await_ready()?;
            stand.members.replicas.push(replica);
            let worker = stand.members.worker(seat)?;
            stand.members.workers.push(worker);
        }
        // A broker that is killed right after a queue was made forgets it, whatever we do.
        stand.broker.settle();
        stand.await_up()?;
        Ok(stand)
    }

    fn rounds(
        &mut self,
        args: &Args,
        plan: &Plan,
        deck: &mut Deck<Fault>,
        mut dice: StdRng,
        tally: &mut Tally,
    ) -> Result<()> {
        while plan.goes_on(tally.rounds()) {
            let mut faults = vec![deck.draw(&mut dice)];
            let more = if args.short { 0 } else { dice.random_range(0..3) };
            for _ in 0..more {
                let another = FAULTS[dice.random_range(0..FAULTS.len())];
                if faults.iter().all(|fault| fault.goes_with(another)) {
                    faults.push(another);
                }
            }
            tally.begin(&faults.iter().map(|fault| fault.name().to_owned()).collect::<Vec<_>>());
            let counts = self.round(&faults, tally.rounds(), &mut dice);
            let counts = counts.with_context(|| format!("in round {}, {faults:?}", tally.rounds()))?;
            tally.end(&vec![true; faults.len()], counts);
            if tally.rounds().is_multiple_of(10) {
                println!("{} rounds, {} acknowledged", tally.rounds(), tally.acknowledged());
            }
        }
        Ok(())
    }

    /// Until every replica decides, and is connected to all services.
    fn await_up(&self) -> Result<()> {
        for replica in &self.members.replicas {
            let up = || get(&format!("{}/health", replica.program.url)).is_ok_and(|(_, body)| is_up(&body));
            replica.program.await_ready()?;
            wait("a replica is connected to all services", up).with_context(|| replica.program.log())?;
        }
        Ok(())
    }

    fn round(&mut self, faults: &[Fault], round: u64, dice: &mut StdRng) -> Result<Counts> {
        let sales = [
            Sale::new(format!("tight-{round}"), dice.random_range(30..400)),
            Sale::new(format!("rush-{round}"), 100_000),
        ];
        let counters = self.members.counters();
        sales.iter().try_for_each(|sale| promises::make(&counters[0].url, sale))?;
        let crowd = Crowd::come(&sales, counters, round, false, dice);
        crowd.await_answers(dice.random_range(20..120))?;
        self.strike(faults, &sales, dice)?;
        self.members.revive()?;
        crowd.go_to(self.members.counters());
        self.await_up()?;
        crowd.await_answers(20)?;
        crowd.leave()?;
        let mut counts = Counts::default();
        for sale in &sales {
            let counter = self.members.counters()[dice.random_range(0..2)].clone();
            sale.ask_again(&counter, 10)?;
            let more = self.compare(sale, faults)?;
            counts.acknowledged += more.acknowledged;
            counts.unanswered += more.unanswered;
            counts.rejected += more.rejected;
        }
        Ok(counts)
    }

    /// All faults at once, each begun and mended at moments of its own.
    fn strike(&mut self, faults: &[Fault], sales: &[Arc<Sale>], dice: &mut StdRng) -> Result<()> {
        let Self { postgres, redis, broker, members } = self;
        let (database, mut redis, mut broker, mut postgres, mut members) =
            (postgres.url(), Some(redis), Some(broker), Some(postgres), Some(members));
        thread::scope(|scope| {
            let mut under_way = Vec::new();
            for &fault in faults {
                let (database, mut dice) = (database.clone(), StdRng::seed_from_u64(dice.random()));
                // One fault for each part, so that each part is borrowed once.
                let twice = "one fault a part";
                under_way.push(match fault.part() {
                    Part::Redis => {
                        let redis = redis.take().expect(twice);
                        scope.spawn(move || strike_redis(redis, fault, sales, &mut dice))
                    }
                    Part::Broker => {
                        let broker = broker.take().expect(twice);
                        scope.spawn(move || strike_broker(broker, fault, &mut dice))
                    }
                    Part::Database => {
                        let postgres = postgres.take().expect(twice);
                        scope.spawn(move || strike_database(postgres, &database, fault, &mut dice))
                    }
                    Part::Replicas | Part::Workers => {
                        let members = members.as_mut().expect(twice);
                        // They share the counter of processes, so these two are done here, one after the other.
                        strike_members(members, fault, &mut dice)?;
                        continue;
                    }
                });
            }
            for fault in under_way {
                fault.join().map_err(|_| anyhow!("a service does not come back"))??;
            }
            Ok(())
        })
    }

    /// All promises. The rejections of replicas that are still there have to be on record.
    fn compare(&self, sale: &Sale, faults: &[Fault]) -> Result<Counts> {
        let alive: Vec<_> = self.members.replicas.iter().map(|replica| replica.process).collect();
        let on_record = |attempt: &Attempt| alive.contains(&attempt.process);
        let rebuilt = faults.iter().any(|fault| fault.rebuilds());
        let terms = Terms {
            losses: if rebuilt { Losses::Unanswered } else { Losses::None },
            redis_lost: faults.iter().any(|fault| fault.loses_redis()),
            on_record: &on_record,
            verify: self.members.start(&["verify"], "verify"),
            folder: self.members.work,
        };
        promises::compare(&self.members.counters()[0].url, sale, &terms)
    }

    /// Leaves what PostgreSQL has.
    fn keep(&self) {
        for table in ["orders", "trail", "sales", "installation"] {
            let question = format!("COPY {table} TO STDOUT WITH CSV HEADER");
            if let Ok(rows) = run("psql", &[&self.postgres.url(), "-qc", &question]) {
                // The folder is all that there is to say it in.
                let _ = std::fs::write(self.members.work.join(format!("{table}.csv")), rows);
            }
        }
    }
}

fn is_up(health: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(health).is_ok_and(|health| health["status"] == "up")
}

fn moment(dice: &mut StdRng, most_ms: u64) -> Duration {
    Duration::from_millis(dice.random_range(0..most_ms))
}

fn nap(dice: &mut StdRng, most_ms: u64) {
    thread::sleep(moment(dice, most_ms));
}

fn strike_redis(redis: &mut Redis, fault: Fault, sales: &[Arc<Sale>], dice: &mut StdRng) -> Result<()> {
    nap(dice, 200);
    match fault {
        RedisKilled | RedisReplaced => {
            redis.kill();
            if fault == RedisReplaced {
                redis.wipe();
            }
            nap(dice, 800);
            redis.start();
        }
        RedisEmptied => drop(redis.say(&["FLUSHALL"])),
        RedisForgetsFunctions => drop(redis.say(&["FUNCTION", "FLUSH"])),
        RedisLosesKey => {
            let (sale, keys) =
                (&sales[dice.random_range(0..sales.len())].id, ["stock", "users", "orders", "meta"]);
            redis.say(&["DEL", &format!("sale:{sale}:{}", keys[dice.random_range(0..keys.len())])]);
        }
        RedisStopped => redis.pause(moment(dice, 1_500)),
        _ => {
            for _ in 0..dice.random_range(1..6) {
                redis.say(&["CLIENT", "KILL", "TYPE", "normal"]);
                nap(dice, 100);
            }
        }
    }
    Ok(())
}

fn strike_broker(broker: &mut RabbitMq, fault: Fault, dice: &mut StdRng) -> Result<()> {
    nap(dice, 200);
    match fault {
        BrokerKilled => {
            broker.kill();
            nap(dice, 800);
            broker.start();
        }
        BrokerStopped => broker.pause(moment(dice, 2_500)),
        QueueDeleted => drop(broker.ctl(&["delete_queue", "purchase_queue"])),
        _ => drop(broker.ctl(&["close_all_connections", "torture"])),
    }
    Ok(())
}

fn strike_database(postgres: &mut Postgres, url: &str, fault: Fault, dice: &mut StdRng) -> Result<()> {
    nap(dice, 200);
    match fault {
        DatabaseKilled => {
            postgres.kill();
            nap(dice, 800);
            postgres.start();
        }
        DatabaseStopped => postgres.pause(moment(dice, 2_000)),
        _ => {
            for _ in 0..dice.random_range(1..8) {
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE datname = current_database() AND pid <> pg_backend_pid()";
                // The one that cuts may be cut by nobody; it may come while the server starts, though.
                let _ = Command::new("psql").args([url, "-Atqc", cut]).output();
                nap(dice, 100);
            }
        }
    }
    Ok(())
}

fn strike_members(members: &mut Members<'_>, fault: Fault, dice: &mut StdRng) -> Result<()> {
    nap(dice, 200);
    let of_replicas = fault.part() == Part::Replicas;
    let seats = if of_replicas { members.replicas.len() } else { members.workers.len() };
    let seat = dice.random_range(0..seats);
    let victims = if matches!(fault, ReplicasKilled | WorkersKilled) { 0..seats } else { seat..seat + 1 };
    for seat in victims.clone() {
        let list = if of_replicas { &mut members.replicas } else { &mut members.workers };
        let program = &mut list[seat].program;
        match fault {
            ReplicaStopped | WorkerStopped => {
                program.signal("STOP")?;
                nap(dice, 1_500);
                program.signal("CONT")?;
            }
            ReplicaTerminated | WorkerTerminated => program.terminate()?,
            _ => program.kill()?,
        }
    }
    if matches!(fault, ReplicaStopped | WorkerStopped) {
        return Ok(());
    }
    nap(dice, 500);
    for seat in victims {
        if of_replicas {
            members.replicas[seat] = members.replica(seat)?;
        } else {
            members.workers[seat] = members.worker(seat)?;
        }
    }
    Ok(())
}
