//! The line between page and shop: cut, slow, without a stream, or with nobody looking.

use serde_json::Value;
use thirtyfour::prelude::*;

use super::{Person, SEEN_STREAM, Script, TOLD_STREAM, browse};
use crate::server::{Server, flashsale};

/// What the page says of the line: nothing, `away` or `slow`.
async fn says(browser: &WebDriver, line: &str) -> WebDriverResult<()> {
    browser.until(&format!("(document.body.dataset.line ?? '') === '{line}'")).await?;
    let shown = browser.find_all(By::Css("[data-bar] p:not([hidden])")).await?;
    let bar = browser.ask("document.querySelector('[data-bar]').hidden").await?;
    assert_eq!((bar == true, shown.len()), (line.is_empty(), usize::from(!line.is_empty())));
    Ok(())
}

async fn left(browser: &WebDriver, units: u32) -> WebDriverResult<()> {
    browser
        .until(&format!("document.querySelector('[data-field=remaining]').textContent === '{units}'"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_that_the_shop_is_away_and_heals_when_it_is_back() {
    let server = Server::demo();
    let url = server.url.clone();
    browse(Script::On, |browser| async move {
        for path in ["/sales/sale_1", "/"] {
            browser.open(&server, path).await?;
            server.buy("sale_1", path);
            let units = server.status("sale_1")["remainingStock"].as_u64();
            left(&browser, units.and_then(|units| u32::try_from(units).ok()).expect("units")).await?;
        }
        browser.open(&server, "/sales/sale_1").await?;
        left(&browser, 98).await?;
        let dir = server.kill();
        says(&browser, "away").await?;
        let told = browser.read("[data-bar]").await?;
        assert!(told.contains("cannot be reached right now") && told.ends_with("UTC."), "{told}");
        // The figures are still there, and marked.
        left(&browser, 98).await?;

        // The shop is back at its old address, and has sold one meanwhile.
        let mut command = flashsale();
        let address = url.trim_start_matches("http://");
        command.args(["serve", "--listen", address, "--data-dir"]).arg(dir.path());
        let server = Server::spawn(command, dir);
        server.buy("sale_1", "meanwhile");
        says(&browser, "").await?;
        left(&browser, 97).await?;
        // And it sells on the same page.
        browser.buy_as("patient").await?;
        browser.see("[data-notice=reserved]").await?;
        browser
            .assert_quiet_but(&[
                "ERR_CONNECTION_REFUSED",
                "ERR_INCOMPLETE_CHUNKED_ENCODING",
                "ERR_CONNECTION_RESET",
                "ERR_EMPTY_RESPONSE",
            ])
            .await
    })
    .await;
}

/// Where a proxy lets no stream through, the page asks instead.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_the_page_asks_every_few_seconds() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(TOLD_STREAM).await?;
            for path in ["/sales/sale_1", "/"] {
                browser.open(server, path).await?;
                browser.ask("streams[0].fail(2)").await?;
                for _ in 0..2 {
                    server.buy("sale_1", &format!("{path}{}", server.status("sale_1")["totalSold"]));
                    let units = server.status("sale_1")["remainingStock"].as_u64();
                    left(&browser, units.and_then(|units| u32::try_from(units).ok()).expect("units")).await?;
                }
            }
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

/// Time that the test lets pass, and a line on which nothing comes back.
const SLOW_LINE: &str = r#"
    const now = performance.now.bind(performance);
    let passed = 0;
    performance.now = () => now() + passed;
    window.pass = (ms) => { passed += ms; };
    window.fetch = () => new Promise(() => {});
"#;

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_grow_old_are_marked() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(TOLD_STREAM).await?;
            browser.before_pages(SLOW_LINE).await?;
            browser.open(server, "/sales/sale_1").await?;
            let tell = format!("streams.at(-1).tell({})", server.status("sale_1"));
            browser.ask(&tell).await?;
            says(&browser, "").await?;
            browser.ask("pass(21000)").await?;
            says(&browser, "slow").await?;
            assert!(browser.read("[data-bar]").await?.contains("These figures are from"));
            // What is late is still news.
            browser.ask(&tell).await?;
            says(&browser, "").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

/// Long waits are short for this test; a page that is hidden says so.
const HIDES: &str = r#"
    const wait = window.setTimeout;
    window.setTimeout = (then, ms, ...rest) => wait(then, ms >= 30000 ? 10 : ms, ...rest);
    window.hide = (hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_the_background_lets_go_and_catches_up() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(SEEN_STREAM).await?;
            browser.before_pages(HIDES).await?;
            browser.open(server, "/sales/sale_1").await?;
            browser.until("streams[0].readyState === 1").await?;
            browser.ask("hide(true)").await?;
            browser.until("streams[0].readyState === 2").await?;
            server.buy("sale_1", "meanwhile");
            server.admin("POST", "/api/v1/admin/sales/sale_1/pause", &Value::Null);
            assert_eq!(
                browser.ask("document.querySelector('[data-field=remaining]').textContent").await?,
                "100"
            );
            browser.ask("hide(false)").await?;
            left(&browser, 99).await?;
            assert_eq!(browser.read(".tag").await?, "Paused");
            assert_eq!(browser.ask("streams.length").await?, 2);
            says(&browser, "").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}
