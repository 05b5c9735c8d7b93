//! An installation of a test's own: replicas and workers on services, some of them shared.

use std::{
    env,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use super::services::output;
use crate::server::{Ended, Server, TOKEN, flashsale, run};

/// How long a test waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// Where the services are.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub(super) database: String,
    pub(super) redis: String,
    pub(super) amqp: String,
}

impl Addresses {
    /// Of those that are shared.
    pub(super) fn shared() -> Self {
        let address = |name: &str, usual: &str| env::var(name).unwrap_or_else(|_| usual.to_owned());
        Self {
            database: address("FLASHSALE_TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres"),
            redis: address("FLASHSALE_TEST_REDIS_URL", "redis://127.0.0.1:6379"),
            amqp: address("FLASHSALE_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
        }
    }
}

/// A worker process. Dropping it kills it.
pub(super) struct Worker(Child);

impl Worker {
    pub(super) fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }

    pub(super) fn signal(&self, name: &str) {
        output(Command::new("kill").args(["-s", name, &self.0.id().to_string()]));
    }

    /// Asks it to stop, and waits until it has; whether it went well.
    pub(super) fn terminate(mut self) -> bool {
        self.signal("TERM");
        self.0.wait().expect("it ends").success()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The installation.
pub(super) struct Stage {
    pub(super) addresses: Addresses,
    pub(super) namespace: String,
    pub(super) replicas: Vec<Server>,
    pub(super) workers: Vec<Worker>,
    /// What else the program finds in its environment.
    pub(super) environment: Vec<(String, String)>,
    /// The database server, where this has a database.
    admin: String,
}

impl Stage {
    /// Two replicas and two workers.
    pub(super) fn new(addresses: Addresses) -> Self {
        let mut stage = Self::empty(addresses);
        stage.replicas = (0..2).map(|_| stage.replica(&[])).collect();
        stage.workers = (0..2).map(|_| stage.worker()).collect();
        stage
    }

    /// A database and a namespace, and nobody there.
    pub(super) fn empty(mut addresses: Addresses) -> Self {
        let name = format!("fs_test_{}", uuid::Uuid::now_v7().simple());
        let admin = addresses.database.clone();
        output(Command::new("psql").args([&admin, "-qc", &format!("CREATE DATABASE {name}")]));
        let (server, _) = admin.rsplit_once('/').expect("an address with a database");
        addresses.database = format!("{server}/{name}");
        let namespace = format!("{name}:");
        Self {
            addresses,
            namespace,
            replicas: Vec::new(),
            workers: Vec::new(),
            environment: Vec::new(),
            admin,
        }
    }

    /// A command of the program on this installation.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = flashsale();
        command
            .args(arguments)
            .env("FLASHSALE_DATABASE_URL", &self.addresses.database)
            .env("FLASHSALE_REDIS_URL", &self.addresses.redis)
            .env("FLASHSALE_AMQP_URL", &self.addresses.amqp)
            .env("FLASHSALE_NAMESPACE", &self.namespace)
            .env("FLASHSALE_ALLOW_VOLATILE_REDIS", "true")
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs a command that stands on the stores themselves.
    pub(super) fn tell(&self, arguments: &[&str]) -> Ended {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = self.command(arguments);
        command.env("FLASHSALE_PROFILE", "cluster").env("FLASHSALE_DATA_DIR", dir.path());
        run(command)
    }

    /// One more replica, ready.
    pub(super) fn replica(&self, arguments: &[&str]) -> Server {
        self.replica_on(Arc::new(tempfile::tempdir().expect("a folder")), arguments)
    }

    pub(super) fn replica_on(&self, dir: Arc<TempDir>, arguments: &[&str]) -> Server {
        let mut command =
            self.command(&["api", "--listen", "127.0.0.1:0", "--admin-token", TOKEN, "--data-dir"]);
        command.arg(dir.path()).args(arguments);
        let server = Server::spawn(command, dir);
        wait("a replica is ready", || server.get("/health/ready").status == 200, || server.log());
        server
    }

    /// One more worker.
    pub(super) fn worker(&self) -> Worker {
        let mut command = self.command(&["worker", "--log", "warn"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Worker(command.spawn().expect("the binary starts"))
    }

    /// A process that may not get far yet, and what it says meanwhile.
    pub(super) fn starting(&self, arguments: &[&str]) -> (Worker, NamedTempFile) {
        let log = NamedTempFile::new().expect("a file");
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen().expect("the file"));
        (Worker(command.spawn().expect("the binary starts")), log)
    }

    /// Makes a sale that is open.
    pub(super) fn sale(&self, id: &str, stock: u64) {
        let sale = json!({
            "saleId": id, "name": id, "totalStock": stock,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
        });
        let made = self.replicas[0].admin("POST", "/api/v1/admin/sales", &sale);
        assert_eq!(made.status, 201, "{made:?}");
    }

    /// The answer of the records to a question.
    pub(super) fn sql(&self, question: &str) -> String {
        output(Command::new("psql").args([&self.addresses.database, "-Atqc", question]))
    }

    /// Whether the database takes nothing any more. Connections that there are learn of it by being ended.
    pub(super) fn set_read_only(&self, read_only: bool) {
        let (_, name) = self.addresses.database.rsplit_once('/').expect("an address with a database");
        for statement in [
            format!("ALTER DATABASE {name} SET default_transaction_read_only = {read_only}"),
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
        ] {
            output(Command::new("psql").args([&self.admin, "-qc", &statement]));
        }
    }

    /// Waits until every reservation of a sale has its order.
    pub(super) fn drained(&self, sale: &str) {
        let server = &self.replicas[0];
        let done = || {
            let reply = server.get(&format!("/api/v1/sale/{sale}/status"));
            reply.status == 200 && reply.json()["reserved"] == 0
        };
        wait("all reservations have their orders", done, || {
            format!("{}\n{}", server.get(&format!("/api/v1/sale/{sale}/status")).text, server.log())
        });
    }

    /// All that is recorded of a sale, line by line.
    pub(super) fn lines(&self, sale: &str, what: &str) -> Vec<Value> {
        let path = format!("/api/v1/admin/sales/{sale}/{what}");
        let export = self.replicas[0].admin("GET", &path, &Value::Null);
        assert_eq!(export.status, 200, "{export:?}");
        export.text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Redis was rebuilt so often.
    pub(super) fn generation(&self) -> u64 {
        self.sql("SELECT generation FROM installation").parse().expect("a number")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.replicas.clear();
        self.workers.clear();
        let name = self.namespace.trim_end_matches(':');
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let _ = Command::new("psql").args([&self.admin, "-qc", &drop]).output();
        let script = format!(
            "for _, key in ipairs(redis.call('KEYS', '{}*')) do redis.call('UNLINK', key) end",
            self.namespace
        );
        let _ = Command::new("redis-cli").args(["-u", &self.addresses.redis, "EVAL", &script, "0"]).output();
        clean_broker(&self.addresses.amqp, &self.namespace);
    }
}

/// Queues and exchanges of the namespace go.
fn clean_broker(url: &str, namespace: &str) {
    let (url, namespace) = (url.to_owned(), namespace.to_owned());
    let clean = async move {
        let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for queue in ["purchase_queue", "purchase_dlq"] {
            channel.queue_delete(format!("{namespace}{queue}").into(), Default::default()).await?;
        }
        // No test recovers more often.
        let purchases = (1..=16).map(|generation| format!("purchases.{generation}"));
        for exchange in purchases.chain(["dead".to_owned(), "events".to_owned()]) {
            channel
                .exchange_delete(format!("{namespace}flashsale.{exchange}").into(), Default::default())
                .await?;
        }
        connection.close(200, "done".into()).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // The test's own broker may be gone already.
    let _: Result<Result<(), lapin::Error>, _> =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), clean).await });
}

/// Waits for what must come; if it does not, says what was instead.
pub(super) fn wait(what: &str, holds: impl Fn() -> bool, instead: impl FnOnce() -> String) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never came: {what}\n{}", instead());
        thread::sleep(Duration::from_millis(20));
    }
}
