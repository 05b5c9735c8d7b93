//! PostgreSQL, Redis and RabbitMQ of a test's own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a service may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port()
}

fn await_port(port: u16, what: &str) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < PATIENCE, "{what} does not start");
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "{name} to {pid}");
}

/// Runs a command to its end; what it printed.
pub(super) fn output(command: &mut Command) -> String {
    let ended = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).expect("text").trim().to_owned()
}

/// A service that can be pulled from under its users.
pub(super) trait Service {
    fn url(&self) -> String;
    fn pid(&self) -> u32;
    /// Pulls the plug.
    fn kill(&mut self);
    /// Starts again on what it has on disk.
    fn start(&mut self);

    fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Is there, and does nothing from now on.
    fn stop(&self) {
        signal(self.pid(), "STOP");
    }

    /// Is there, and does nothing, for so long.
    fn pause(&self, duration: Duration) {
        self.stop();
        thread::sleep(duration);
        signal(self.pid(), "CONT");
    }
}

/// A Redis with an append-only file.
pub(super) struct Redis {
    dir: TempDir,
    port: u16,
    /// The port for TLS, and the folder of its certificate.
    tls: Option<(u16, PathBuf)>,
    /// Whether it takes its time over its data when it starts.
    slow: bool,
    child: Option<Child>,
}

impl Redis {
    pub(super) fn new() -> Self {
        Self::listening(None)
    }

    /// One that listens for TLS besides.
    pub(super) fn with_tls(certificates: &Path) -> Self {
        Self::listening(Some((free_port(), certificates.to_owned())))
    }

    fn listening(tls: Option<(u16, PathBuf)>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut redis = Self { dir, port: free_port(), tls, slow: false, child: None };
        redis.start();
        redis
    }

    pub(super) fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls.as_ref().expect("it listens for TLS").0)
    }

    /// Says something to it.
    pub(super) fn say(&self, words: &[&str]) -> String {
        output(Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words))
    }

    /// Starts again, and reads its data for minutes, unless it is told to be quick.
    pub(super) fn restart_slowly(&mut self) {
        self.say(&[
            "EVAL",
            "for i = 1, 6000 do redis.call('SET', 'piece:' .. i, string.rep('x', 2048)) end",
            "0",
        ]);
        // What is read in one piece is read with an ear to whoever asks.
        self.say(&["BGREWRITEAOF"]);
        while self.say(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:1") {
            thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        self.slow = true;
        self.start();
        self.slow = false;
    }

    /// Reads the rest of its data as fast as it can.
    pub(super) fn be_quick(&self) {
        self.say(&["CONFIG", "SET", "key-load-delay", "0"]);
    }

    /// Forgets what it has on disk. For one that is stopped.
    pub(super) fn wipe(&self) {
        for entry in fs::read_dir(self.dir.path()).expect("its folder") {
            let path = entry.expect("an entry").path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("it can be removed");
        }
    }
}

impl Service for Redis {
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(self.dir.path());
        if self.slow {
            // 20 ms a key, and an ear to the clients between two.
            command.args(["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]);
        }
        if let Some((port, certificates)) = &self.tls {
            command.args(["--tls-auth-clients", "no", "--tls-port", &port.to_string()]);
            for (flag, name) in [
                ("--tls-cert-file", "cert.pem"),
                ("--tls-key-file", "key.pem"),
                ("--tls-ca-cert-file", "ca.pem"),
            ] {
                command.arg(flag).arg(certificates.join(name));
            }
        }
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed");
        self.child = Some(child);
        await_port(self.port, "Redis");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A PostgreSQL.
pub(super) struct Postgres {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// PostgreSQL does not run as root.
fn as_postgres(command: &mut Command) -> &mut Command {
    let id = |flag| output(Command::new("id").args([flag, "postgres"])).parse().expect("a number");
    if output(Command::new("id").arg("-u")) == "0" { command.uid(id("-u")).gid(id("-g")) } else { command }
}

fn postgres_bin() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut bins: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    bins.sort();
    let on_path = std::env::var("PATH").unwrap_or_default();
    bins.extend(std::env::split_paths(&on_path));
    bins.into_iter().rev().find(|bin| bin.join("initdb").exists()).expect("PostgreSQL is installed")
}

impl Postgres {
    pub(super) fn new() -> Self {
        let (dir, bin) = (tempfile::tempdir().expect("a folder"), postgres_bin());
        output(Command::new("chmod").arg("777").arg(dir.path()));
        let mut init = Command::new(bin.join("initdb"));
        init.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"])
            .arg(dir.path().join("data"));
        output(as_postgres(&mut init));
        let mut postgres = Self { dir, bin, port: free_port(), child: None };
        postgres.start();
        postgres
    }

    /// One that speaks TLS besides.
    pub(super) fn with_tls(certificates: &Path) -> Self {
        let mut postgres = Self::new();
        postgres.kill();
        let data = postgres.dir.path().join("data");
        for (from, to) in [("cert.pem", "server.crt"), ("key.pem", "server.key")] {
            // Its owner's, and nobody else's.
            let (from, to) = (certificates.join(from), data.join(to));
            output(Command::new("install").args(["-m", "600"]).args([&from, &to]));
            output(Command::new("chown").arg(format!("--reference={}", data.display())).arg(&to));
        }
        fs::write(data.join("postgresql.auto.conf"), "ssl = on\n").expect("written");
        postgres.start();
        postgres
    }
}

impl Service for Postgres {
    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its way to crash: the server ends at once, and its processes with it.
            signal(child.id(), "QUIT");
            let _ = child.wait();
        }
    }

    fn start(&mut self) {
        let mut command = Command::new(self.bin.join("postgres"));
        command.arg("-D").arg(self.dir.path().join("data")).arg("-k").arg(self.dir.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(as_postgres(&mut command).spawn().expect("PostgreSQL starts"));
        await_port(self.port, "PostgreSQL");
        // It listens before it has recovered.
        let began = Instant::now();
        while !Command::new("psql")
            .args([&self.url(), "-qc", ""])
            .output()
            .is_ok_and(|said| said.status.success())
        {
            assert!(began.elapsed() < PATIENCE, "PostgreSQL does not recover");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn pause(&self, duration: Duration) {
        // A process for each connection: all of them sleep.
        let pids = format!(
            "{}\n{}",
            self.pid(),
            output(Command::new("pgrep").args(["-P", &self.pid().to_string()]))
        );
        pids.lines().for_each(|pid| {
            let _ = Command::new("kill").args(["-s", "STOP", pid]).status();
        });
        thread::sleep(duration);
        pids.lines().for_each(|pid| {
            let _ = Command::new("kill").args(["-s", "CONT", pid]).status();
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A RabbitMQ.
pub(super) struct RabbitMq {
    dir: TempDir,
    port: u16,
    tls_port: u16,
    dist_port: u16,
    child: Option<Child>,
}

impl RabbitMq {
    pub(super) fn new() -> Self {
        Self::listening(|_| String::new())
    }

    /// One that listens for TLS besides.
    pub(super) fn with_tls(certificates: &Path) -> Self {
        let at = |name: &str| certificates.join(name).display().to_string();
        Self::listening(|port| {
            format!(
                "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
                at("ca.pem"),
                at("cert.pem"),
                at("key.pem")
            )
        })
    }

    fn listening(more: impl FnOnce(u16) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (port, tls_port, dist_port) = (free_port(), free_port(), free_port());
        let mut broker = Self { dir, port, tls_port, dist_port, child: None };
        let settings = format!("listeners.tcp.default = 127.0.0.1:{port}\n{}", more(tls_port));
        broker.write("rabbitmq.conf", &settings);
        broker.write("plugins", "[].\n");
        broker.start();
        broker
    }

    pub(super) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn command(&self, program: &str) -> Command {
        let script = Path::new("/usr/lib/rabbitmq/bin").join(program);
        let mut command = if script.exists() { Command::new(script) } else { Command::new(program) };
        let dir = self.dir.path();
        command
            .env("HOME", dir)
            .env("RABBITMQ_NODENAME", format!("fs{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_MNESIA_BASE", dir)
            .env("RABBITMQ_LOG_BASE", dir)
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_FLAGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        command
    }

    /// Writes the names of new queues down, which it does after seconds otherwise. One that is killed before forgets a
    /// queue's leader for ever.
    pub(super) fn settle(&self) {
        self.ctl(&["stop_app"]);
        self.ctl(&["start_app"]);
    }

    /// Tells it something, as its operator.
    pub(super) fn ctl(&self, words: &[&str]) -> String {
        output(self.command("rabbitmqctl").arg("-q").args(words))
    }
}

impl Service for RabbitMq {
    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    fn pid(&self) -> u32 {
        let pid = fs::read_to_string(self.dir.path().join("pid")).expect("its number");
        pid.trim().parse().expect("a number")
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(self.pid(), "KILL");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn start(&mut self) {
        let _ = fs::remove_file(self.dir.path().join("pid"));
        let mut command = self.command("rabbitmq-server");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("RabbitMQ is installed"));
        await_port(self.port, "RabbitMQ");
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
    }
}
