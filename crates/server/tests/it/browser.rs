//! People with a real browser, with a script and without.

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
pub(crate) enum Script {
    On,
    Off,
}

/// Opens a browser for a story, and closes it however the story ends.
pub(crate) async fn browse<F: Future<Output = WebDriverResult<()>>>(
    script: Script,
    story: impl FnOnce(WebDriver) -> F,
) {
    let driver = Driver::start();
    let browser = WebDriver::builder(&driver.url, capabilities(&driver, script).expect("valid capabilities"))
        .client(Client)
        .connect()
        .await
        .expect("the browser starts");
    browser.run_and_quit(story).await.expect("the story goes as told");
}

fn capabilities(driver: &Driver, script: Script) -> WebDriverResult<thirtyfour::ChromeCapabilities> {
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
pub(crate) trait Person {
    async fn open(&self, server: &Server, path: &str) -> WebDriverResult<()>;
    /// The element, as soon as it is there.
    async fn see(&self, css: &str) -> WebDriverResult<WebElement>;
    async fn read(&self, css: &str) -> WebDriverResult<String>;
    async fn buy_as(&self, user: &str) -> WebDriverResult<()>;
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
    let now = Timestamp::now().as_millisecond();
    let time = |ms| Timestamp::from_millisecond(ms).expect("in range").to_string();
    let body = json!({
        "saleId": id,
        "name": "One of a kind",
        "totalStock": 1,
        "startsAt": time(now + ms),
        "endsAt": time(now + 3_600_000),
    });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &body).status, 201);
}

// ── The stories ──────────────────────────────────────────────────────────────────────────────────────────

/// From the list of sales to a purchase, by mouse, and what the page says to each attempt.
async fn buys_by_mouse(browser: &WebDriver, server: &Server) -> WebDriverResult<()> {
    browser.open(server, "/").await?;
    assert_eq!(browser.read("[data-sale-id=sale_1] [data-field=remaining]").await?, "100");
    assert_eq!(browser.read("[data-sale-id=sale_2] .tag").await?.to_lowercase(), "upcoming");
    assert_eq!(browser.read("[data-sale-id=sale_3] .tag").await?.to_lowercase(), "ended");
    browser.see("[data-sale-id=sale_1] a").await?.click().await?;
    assert_eq!(browser.read("h1").await?, "Limited Edition Product - Flash Sale");

    browser.buy_as("user123").await?;
    let notice = browser.read("[data-notice=reserved]").await?;
    let order = order_of(server, "sale_1", "user123");
    assert!(notice.contains("Purchase reserved successfully"), "{notice}");
    assert_eq!(browser.read("[data-notice=reserved] [data-field=order-id]").await?, order);
    assert_eq!(browser.read("[data-field=remaining]").await?, "99");
    assert_eq!(browser.see("#user-id").await?.value().await?.as_deref(), Some("user123"));

    browser.buy_as("user123").await?;
    let notice = browser.read("[data-notice=already-purchased]").await?;
    assert!(notice.contains("You have already purchased") && notice.contains(&order), "{notice}");

    server.until("it is confirmed", |server| server.status("sale_1")["confirmed"] == 1);
    browser.see("[data-notice=already-purchased] a").await?.click().await?;
    let found = browser.read("[data-purchase=purchased]").await?;
    assert!(found.contains("CONFIRMED") && found.contains(&order), "{found}");
    let field = browser.see("#user-id").await?;
    field.clear().await?;
    field.send_keys("somebody & else <b>").await?;
    browser.see("button.check").await?.click().await?;
    let found = browser.read("[data-purchase=not-purchased]").await?;
    assert!(found.contains("somebody & else <b>"), "{found}");
    Ok(())
}

/// The answers to an attempt that comes too late: after the last unit, and during a pause.
async fn comes_too_late(browser: &WebDriver, server: &Server) -> WebDriverResult<()> {
    browser.open(server, "/sales/sale_1").await?;
    for user in 0..100 {
        server.buy("sale_1", &format!("faster{user}"));
    }
    browser.buy_as("slow").await?;
    let notice = browser.read("[data-notice=sold-out]").await?;
    assert!(notice.contains("Sale is sold out"), "{notice}");
    assert_eq!(browser.see("article.sale").await?.attr("data-state").await?.as_deref(), Some("sold-out"));
    assert!(!browser.see("[data-action=buy]").await?.is_enabled().await?);

    sale_in(server, "paused", -1_000);
    browser.open(server, "/sales/paused").await?;
    assert_eq!(server.admin("POST", "/api/v1/admin/sales/paused/pause", &Value::Null).status, 200);
    browser.buy_as("slow").await?;
    let notice = browser.read("[data-notice=not-active]").await?;
    assert!(notice.contains("Sale is not currently active"), "{notice}");
    assert!(!browser.see("[data-action=buy]").await?.is_enabled().await?);
    Ok(())
}

/// What is not open cannot be bought, and says why.
async fn looks_at_what_is_closed(browser: &WebDriver, server: &Server) -> WebDriverResult<()> {
    browser.open(server, "/sales/sale_2").await?;
    let sale = browser.see("[data-sale-id=sale_2]").await?;
    assert_eq!(sale.attr("data-state").await?.as_deref(), Some("upcoming"));
    assert!(!browser.see("[data-action=buy]").await?.is_enabled().await?);
    assert!(browser.read("#buy-note").await?.contains("Opens at the start"));
    browser.open(server, "/sales/sale_3").await?;
    assert!(browser.find_all(By::Css("[data-action=buy]")).await?.is_empty());
    assert_eq!(browser.see("article.sale").await?.attr("data-state").await?.as_deref(), Some("ended"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_buys_once() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            buys_by_mouse(&browser, server).await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_comes_too_late_or_too_early() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            looks_at_what_is_closed(&browser, server).await?;
            browser.assert_quiet_but(&[]).await?;
            comes_too_late(&browser, server).await?;
            // The answer during the pause has the seed's 400.
            browser.assert_quiet_but(&["/sales/paused - Failed to load resource"]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_all_works_without_a_script() {
    let server = Server::demo();
    browse(Script::Off, |browser| {
        let server = &server;
        async move {
            // Were the script on, this page would say so.
            browser.goto("data:text/html,<p>off</p><script>document.body.textContent='on'</script>").await?;
            assert_eq!(browser.read("body").await?, "off");
            looks_at_what_is_closed(&browser, server).await?;
            buys_by_mouse(&browser, server).await?;
            server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" }));
            comes_too_late(&browser, server).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/").await?;
            let mut path = Vec::new();
            for _ in 0..10 {
                browser.press(Key::Tab).await?;
                let link = browser.active_element().await?;
                path.push(link.text().await?);
                if link.attr("href").await?.as_deref() == Some("/sales/sale_1") {
                    break;
                }
            }
            assert_eq!(path.first().map(String::as_str), Some("Skip to content"), "{path:?}");
            browser.press(Key::Enter).await?;
            browser.see("#user-id").await?;

            let mut path = Vec::new();
            while path.last().is_none_or(|id| id != "user-id") {
                browser.press(Key::Tab).await?;
                path.push(browser.active_element().await?.attr("id").await?.unwrap_or_default());
                assert!(path.len() < 10, "Tab never comes to the field: {path:?}");
            }
            browser.action_chain().send_keys("by-keyboard").perform().await?;
            // On Enter in the field it is the first button of the form that counts.
            browser.press(Key::Enter).await?;
            assert!(browser.read("[data-notice=reserved]").await?.contains("Purchase reserved successfully"));
            order_of(server, "sale_1", "by-keyboard");

            // The answer has the focus, so that it is read out; the way goes on from there.
            let focused = browser.active_element().await?;
            assert_eq!(focused.attr("data-notice").await?.as_deref(), Some("reserved"));
            let mut path = Vec::new();
            while path.last().is_none_or(|action| action != "buy") {
                browser.press(Key::Tab).await?;
                let element = browser.active_element().await?;
                path.push(element.attr("data-action").await?.unwrap_or_default());
                assert!(path.len() < 5, "Tab never comes to the button: {path:?}");
            }
            browser.press(Key::Space).await?;
            browser.see("[data-notice=already-purchased]").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_id_that_is_none_is_told_at_its_field() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/sale_1").await?;
            // The browser itself asks for an id, and sends nothing.
            browser.see("[data-action=buy]").await?.click().await?;
            let field = browser.see("#user-id").await?;
            assert!(field.prop("validationMessage").await?.is_some_and(|text| !text.is_empty()));
            // 255 characters fit the field, and are too many bytes.
            browser.buy_as(&"é".repeat(255)).await?;
            let complaint = browser.read("#user-id-error").await?;
            assert!(complaint.contains("255"), "{complaint}");
            let field = browser.see("#user-id").await?;
            assert_eq!(field.attr("aria-invalid").await?.as_deref(), Some("true"));
            assert_eq!(browser.active_element().await?.attr("id").await?.as_deref(), Some("user-id"));
            assert_eq!(server.status("sale_1")["totalSold"], 0);
            browser.buy_as("user123").await?;
            browser.see("[data-notice=reserved]").await?;
            browser.assert_quiet_but(&["/sales/sale_1 - Failed to load resource"]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_waits_for_the_start_opens_by_itself() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            // Should the machine be so slow that a page comes after the start, it gets more time.
            let mut waiting = false;
            for seconds in [2, 8, 32] {
                let id = format!("soon-{seconds}");
                sale_in(server, &id, seconds * 1_000);
                browser.open(server, &format!("/sales/{id}")).await?;
                let html = browser.source().await?;
                waiting = html.contains("data-state=\"upcoming\"");
                if waiting {
                    break;
                }
            }
            assert!(waiting, "every page came after its start");
            let begun = browser.execute("return performance.timeOrigin", vec![]).await?;

            let interval = Duration::from_millis(20);
            let open = browser.query(By::Css("[data-action=buy]")).wait(Duration::from_secs(60), interval);
            open.and_enabled().first().await?;
            let sale = browser.see("article.sale").await?;
            assert_eq!(sale.attr("data-state").await?.as_deref(), Some("live"));
            assert_eq!(browser.read(".tag").await?.to_lowercase(), "live");
            assert!(browser.read("#buy-note").await?.contains("The sale is open"));
            // It is still the same page.
            let now = browser.execute("return performance.timeOrigin", vec![]).await?;
            assert_eq!(begun.json(), now.json());

            browser.buy_as("patient").await?;
            browser.see("[data-notice=reserved]").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_breaks_its_own_rules() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            for path in
                ["/", "/sales/sale_1", "/sales/sale_2", "/sales/sale_3", "/sales/sale_1?userId=nobody"]
            {
                browser.open(server, path).await?;
                browser.see("h1").await?;
                browser.assert_quiet_but(&[]).await?;
            }
            // A style sheet that the policy refused would leave the browser's own font size.
            browser.open(server, "/").await?;
            assert_ne!(browser.see("body").await?.css_value("margin-top").await?, "8px");
            for missing in ["/sales/sale_9", "/nowhere"] {
                browser.open(server, missing).await?;
                assert!(browser.read("main").await?.contains("404"));
                browser
                    .assert_quiet_but(&["Failed to load resource: the server responded with a status of 404"])
                    .await?;
            }
            browser.open(server, "/docs").await?;
            let interval = Duration::from_millis(50);
            let operation =
                browser.query(By::Css("#swagger-ui .opblock")).wait(Duration::from_secs(30), interval);
            operation.first().await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}
