//! People with a real browser, with a script and without; a file per story.

mod buying;
mod console;
mod everybody;
mod line;
mod live;
mod widget;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel,
    prelude::*,
    session::http::{Body, HttpClient},
};

use crate::server::Server;

// ── The browser ──────────────────────────────────────────────────────────────────────────────────────────

/// The path of a program, from a variable or from `PATH`.
fn program(variable: &str, name: &str) -> PathBuf {
    let wanted = std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&folders).map(|folder| folder.join(&wanted));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{} is missing: install it, or name it in {variable}", wanted.display()))
}

/// A chromedriver of the test's own, and the profile of its browser. Dropping it kills it.
struct Driver {
    child: Child,
    url: String,
    profile: TempDir,
}

impl Driver {
    fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(program("CHROMEDRIVER", "chromedriver"))
            .arg("--port=0")
            // What the browser leaves behind goes with the folder.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // Made before the port is looked at, so that the process ends whatever it said.
        let mut driver = Self { child, url: String::new(), profile };
        driver.url = format!("http://127.0.0.1:{}", port.expect("chromedriver says its port"));
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Speaks WebDriver with the client that the other tests use.
struct Client;

#[async_trait]
impl HttpClient for Client {
    async fn send(&self, request: http::Request<Body<'_>>) -> WebDriverResult<http::Response<Bytes>> {
        let request = request.map(|body| match body {
            Body::Empty => String::new(),
            Body::Json(json) => json.to_string(),
        });
        let exchange = move || -> Result<http::Response<Bytes>, ureq::Error> {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(60)))
                .build()
                .into();
            let (parts, mut body) = agent.run(request)?.into_parts();
            Ok(http::Response::from_parts(parts, body.read_to_vec()?.into()))
        };
        let answered = tokio::task::spawn_blocking(exchange).await.expect("no panic");
        answered.map_err(|error| WebDriverError::HttpError(error.to_string()))
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Script {
    On,
    Off,
}

/// Opens a browser for a story, and closes it however the story ends.
async fn browse<F: Future<Output = WebDriverResult<()>>>(script: Script, story: impl FnOnce(WebDriver) -> F) {
    browse_in("en", script, story).await;
}

/// The same, by somebody who reads that language.
async fn browse_in<F: Future<Output = WebDriverResult<()>>>(
    language: &str,
    script: Script,
    story: impl FnOnce(WebDriver) -> F,
) {
    let driver = Driver::start();
    let capabilities = capabilities(&driver, language, script).expect("valid capabilities");
    let browser = WebDriver::builder(&driver.url, capabilities)
        .client(Client)
        .connect()
        .await
        .expect("the browser starts");
    browser.run_and_quit(story).await.expect("the story goes as told");
}

fn capabilities(
    driver: &Driver,
    language: &str,
    script: Script,
) -> WebDriverResult<thirtyfour::ChromeCapabilities> {
    let mut capabilities = DesiredCapabilities::chrome();
    let browser = program("CHROMIUM", "chromium");
    capabilities.set_binary(browser.to_str().expect("a plain path"))?;
    for argument in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-crash-reporter",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        &format!("--accept-lang={language}"),
        &format!("--user-data-dir={}", driver.profile.path().join("profile").display()),
    ] {
        capabilities.add_arg(argument)?;
    }
    capabilities.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    if script == Script::Off {
        let forbidden = json!({ "profile.managed_default_content_settings.javascript": 2 });
        capabilities.add_experimental_option("prefs", forbidden)?;
    }
    Ok(capabilities)
}

/// What a person sees and does.
trait Person {
    async fn open(&self, server: &Server, path: &str) -> WebDriverResult<()>;
    /// The element, as soon as it is there.
    async fn see(&self, css: &str) -> WebDriverResult<WebElement>;
    async fn read(&self, css: &str) -> WebDriverResult<String>;
    async fn buy_as(&self, user: &str) -> WebDriverResult<()>;
    /// Waits until an expression of the page is true.
    async fn until(&self, expression: &str) -> WebDriverResult<()>;
    /// What an expression of the page is.
    async fn ask(&self, expression: &str) -> WebDriverResult<Value>;
    /// A command of the browser's own protocol.
    async fn command(&self, name: &str, parameters: Value) -> WebDriverResult<Value>;
    /// Runs a script in every page before its own.
    async fn before_pages(&self, script: &str) -> WebDriverResult<()>;
    /// Presses a key, wherever the focus is.
    async fn press(&self, key: Key) -> WebDriverResult<()>;
    /// Nothing is wrong on the console, but what is named.
    async fn assert_quiet_but(&self, expected: &[&str]) -> WebDriverResult<()>;
}

impl Person for WebDriver {
    async fn open(&self, server: &Server, path: &str) -> WebDriverResult<()> {
        self.goto(format!("{}{path}", server.url)).await
    }

    async fn see(&self, css: &str) -> WebDriverResult<WebElement> {
        let interval = Duration::from_millis(20);
        self.query(By::Css(css)).wait(Duration::from_secs(30), interval).and_displayed().first().await
    }

    async fn read(&self, css: &str) -> WebDriverResult<String> {
        self.see(css).await?.text().await
    }

    async fn buy_as(&self, user: &str) -> WebDriverResult<()> {
        let field = self.see("#user-id").await?;
        field.clear().await?;
        field.send_keys(user).await?;
        self.see("[data-action=buy]").await?.click().await
    }

    async fn until(&self, expression: &str) -> WebDriverResult<()> {
        // A bound and not a time: what is waited for comes at once, but on a machine that has much else to do.
        for _ in 0..1_500 {
            if self.ask(&format!("Boolean({expression})")).await? == true {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never came: {expression}, but {}", self.source().await?);
    }

    async fn ask(&self, expression: &str) -> WebDriverResult<Value> {
        Ok(self.execute(format!("return {expression}"), vec![]).await?.json().clone())
    }

    async fn command(&self, name: &str, parameters: Value) -> WebDriverResult<Value> {
        self.cdp().send_raw(name, parameters).await
    }

    async fn before_pages(&self, script: &str) -> WebDriverResult<()> {
        let parameters = json!({ "source": script });
        self.command("Page.addScriptToEvaluateOnNewDocument", parameters).await.map(drop)
    }

    async fn press(&self, key: Key) -> WebDriverResult<()> {
        self.action_chain().send_keys(key).perform().await
    }

    async fn assert_quiet_but(&self, expected: &[&str]) -> WebDriverResult<()> {
        for entry in self.browser_log().await? {
            let is_expected = expected.iter().any(|words| entry.message.contains(words));
            assert!(is_expected, "the console says: {} {}", entry.level, entry.message);
        }
        Ok(())
    }
}

/// The order of a user, as the API knows it.
fn order_of(server: &Server, sale: &str, user: &str) -> String {
    let held = server.get(&format!("/api/v1/sale/{sale}/user/{user}")).json();
    held["orderId"].as_str().unwrap_or_else(|| panic!("{user} holds nothing: {held}")).to_owned()
}

/// Makes a sale of one unit that starts so many milliseconds from now.
fn sale_in(server: &Server, id: &str, ms: i64) {
    sale_of(server, id, 1, ms);
}

/// Makes a sale of so many units that starts so many milliseconds from now.
fn sale_of(server: &Server, id: &str, units: u32, ms: i64) {
    let now = Timestamp::now().as_millisecond();
    let time = |ms| Timestamp::from_millisecond(ms).expect("in range").to_string();
    let body = json!({
        "saleId": id,
        "name": "One of a kind",
        "totalStock": units,
        "startsAt": time(now + ms),
        "endsAt": time(now + 3_600_000),
    });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &body).status, 201);
}

/// An event stream that says what the test says, in place of the browser's own: `streams[0].tell({…})`.
const TOLD_STREAM: &str = r#"
    window.streams = [];
    window.EventSource = class extends EventTarget {
        static CONNECTING = 0; static OPEN = 1; static CLOSED = 2;
        readyState = 1;
        constructor(url) { super(); this.url = url; window.streams.push(this); }
        close() { this.readyState = 2; }
        tell(status) { this.dispatchEvent(new MessageEvent("sale", { data: JSON.stringify(status) })); }
        fail(state) { this.readyState = state; this.dispatchEvent(new Event("error")); }
    };
"#;

/// The browser's own event streams, with an eye on each.
const SEEN_STREAM: &str = r#"
    window.streams = [];
    window.EventSource = class extends EventSource {
        constructor(url) { super(url); window.streams.push(this); }
    };
"#;
