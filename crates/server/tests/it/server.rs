//! The real binary, booted on a free port and a data folder of its own.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "demo-admin-token";

/// A running `flashsale serve`. Dropping it kills it.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) dir: Arc<TempDir>,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// A reply, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text header"))
    }

    /// What it complains of; it must be a problem of this status, with all the fields that a problem has.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["type"], "about:blank", "{body}");
        for code in ["status", "statusCode"] {
            assert_eq!(body[code], status, "{body}");
        }
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        assert!(!text("title").is_empty() && !text("detail").is_empty(), "{body}");
        assert_eq!((text("error"), text("message")), (text("title"), text("detail")), "{body}");
        text("detail")
    }
}

/// The binary with none of the caller's settings, to be given arguments.
pub(crate) fn flashsale() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLASHSALE_")) {
        command.env_remove(name);
    }
    command
}

/// A command that has come to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end, which must come.
pub(crate) fn run(mut command: Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let pid = child.id().to_string();
    let (end, ended) = mpsc::sync_channel(1);
    thread::spawn(move || end.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(Duration::from_secs(120)) else {
        let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        panic!("{command:?} does not end");
    };
    let output = output.expect("its output can be read");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Server {
    /// The demonstration, on an empty store.
    pub(crate) fn demo() -> Self {
        Self::start(&["--demo"])
    }

    /// A server on an empty store.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::on(Arc::new(tempfile::tempdir().expect("a temporary folder")), arguments)
    }

    /// A server on a store that may have been used before.
    pub(crate) fn on(dir: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = flashsale();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path()).args(arguments);
        Self::spawn(command, dir)
    }

    /// A server by a command of the test's own, which must end up serving `dir`.
    pub(crate) fn spawn(mut command: Command, dir: Arc<TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = mpsc::sync_channel(1);
        let (lines, stderr) = (log.clone(), child.stderr.take().expect("a pipe"));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address = rest.split_whitespace().next().unwrap_or_default();
                    let _ = found.send(address.to_owned());
                }
                lines.lock().expect("no panic").push(line);
            }
        });
        match address.recv_timeout(Duration::from_secs(60)) {
            Ok(url) => Self { url, dir, child, log },
            Err(_) => panic!("the server does not serve: {:#?}", log.lock().expect("no panic")),
        }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").join("\n")
    }

    /// Pulls the plug, and waits until the process is gone. Its data folder remains.
    pub(crate) fn kill(mut self) -> Arc<TempDir> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.dir.clone()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Arc<TempDir>) {
        self.signal("TERM");
        (self.child.wait().expect("it ends"), self.dir.clone())
    }

    /// Waits until it has ended, at most so long.
    pub(crate) fn ended_within(&mut self, bound: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("its state can be asked");
            if ended.is_some() || begun.elapsed() > bound {
                return ended;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Sends a request, with any headers and body, and reads the reply whole.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        exchange(request.body(body.to_vec()).expect("a request"))
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// As the operator.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> Reply {
        let token = format!("Bearer {TOKEN}");
        let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(method, path, &headers, body.as_bytes())
    }

    pub(crate) fn buy(&self, sale: &str, user: &str) -> Reply {
        self.post("/api/v1/sale/purchase", &serde_json::json!({ "saleId": sale, "userId": user }))
    }

    /// The state of a sale.
    pub(crate) fn status(&self, sale: &str) -> Value {
        self.get(&format!("/api/v1/sale/{sale}/status")).json()
    }

    /// All that can be known of the sales, down to the audit trail, but for the moment of asking.
    pub(crate) fn state(&self) -> (Value, Vec<String>) {
        let mut sales = self.get("/api/v1/sales").json();
        let mut trails = Vec::new();
        for sale in sales.as_array_mut().expect("an array") {
            sale.as_object_mut().expect("a sale").remove("serverTime").expect("the moment of asking");
            let id = sale["saleId"].as_str().expect("an id");
            trails.push(self.admin("GET", &format!("/api/v1/admin/sales/{id}/audit"), &Value::Null).text);
        }
        (sales, trails)
    }

    /// A connection, for what no HTTP client would send.
    pub(crate) fn connect(&self) -> TcpStream {
        let address = self.url.strip_prefix("http://").expect("a plain address");
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        stream
    }

    /// Asks until the answer is as it should be; the program's own word is waited for, not a time.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it never came: {what}\n{}", self.log());
    }
}

fn exchange(request: http::Request<Vec<u8>>) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .allow_non_standard_methods(true)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    let mut response = agent.run(request).expect("a reply");
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body of text");
    Reply { status: response.status().as_u16(), headers: response.headers().clone(), text }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
