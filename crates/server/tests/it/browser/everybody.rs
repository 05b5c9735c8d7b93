//! For everybody: the keyboard, assistive technology, small screens, other languages, and the pages' own rules.

use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::{Person, Script, TOLD_STREAM, browse, browse_in, order_of, sale_of};
use crate::server::Server;

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

/// axe-core, which is the work of Deque Systems under the MPL 2.0; see `tests/it/vendor`.
const AXE: &str = include_str!("../vendor/axe.min.js");

/// Checks the page as it is now against WCAG 2.2 AA, in light and dark, and that it fits the smallest screen and a large one.
pub(super) async fn check(browser: &WebDriver, what: &str) -> WebDriverResult<()> {
    browser.execute(AXE, vec![]).await?;
    for (width, height) in [(320, 800), (1_280, 800), (3_840, 2_160)] {
        for theme in ["light", "dark"] {
            look_like(browser, width, height, theme).await?;
            let wide = browser.ask("document.documentElement.scrollWidth").await?;
            assert!(wide.as_u64() <= Some(u64::from(width)), "{what}, {width} px: {wide}");
            let violations = browser.execute_async(RUN_AXE, vec![]).await?;
            let none = violations.json().as_array().is_some_and(Vec::is_empty);
            assert!(none, "{what}, {width} px, {theme}: {:#}", violations.json());
        }
    }
    Ok(())
}

const RUN_AXE: &str = r#"
    const done = arguments[arguments.length - 1];
    const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    axe.run(document, { runOnly, resultTypes: ["violations"] }).then(
        ({ violations }) => done(violations.map(({ id, help, nodes }) =>
            ({ id, help, nodes: nodes.map(({ html, failureSummary }) => [html, failureSummary]) }))),
        (error) => done([String(error)]),
    );
"#;

async fn look_like(browser: &WebDriver, width: u32, height: u32, theme: &str) -> WebDriverResult<()> {
    let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
    browser.command("Emulation.setEmulatedMedia", scheme).await?;
    let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
    browser.command("Emulation.setDeviceMetricsOverride", size).await.map(drop)
}

/// Sales in each state that a server can be brought into.
fn set_up(server: &Server) {
    sale_of(server, "few", 20, -1_000);
    sale_of(server, "gone", 1, -1_000);
    sale_of(server, "paused", 9, -1_000);
    sale_of(server, "soon", 9, 55_000);
    for user in 0..19 {
        server.buy("few", &format!("user{user}"));
    }
    server.buy("gone", "user");
    server.admin("POST", "/api/v1/admin/sales/paused/pause", &Value::Null);
    let product = json!({
        "description": "Hand-sewn.\nAs light as air.", "imageUrl": "/assets/none.jpg", "price": "129.00", "currency": "EUR",
    });
    assert_eq!(server.admin("PATCH", "/api/v1/admin/sales/few", &product).status, 200);
    server.until("all is confirmed", |server| server.status("few")["reserved"] == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_can_be_used_by_everybody() {
    let server = Server::demo();
    set_up(&server);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            for (path, state) in [
                ("/sales/soon", "soon"),
                ("/sales/sale_1", "live"),
                ("/sales/few", "few-left"),
                ("/sales/gone", "sold-out"),
                ("/sales/paused", "paused"),
                ("/sales/sale_2", "upcoming"),
                ("/sales/sale_3", "ended"),
                ("/widget/sale_1", "live"),
                ("/", "live"),
            ] {
                browser.open(server, path).await?;
                browser.until(&format!("document.querySelector('[data-state={state}]')")).await?;
                check(&browser, path).await?;
            }
            for path in ["/sales/none", "/nowhere", "/widget"] {
                browser.open(server, path).await?;
                check(&browser, path).await?;
            }
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_can_be_used_by_everybody() {
    let server = Server::demo();
    set_up(&server);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(TOLD_STREAM).await?;
            for (path, user, answer) in [
                ("/sales/sale_1", "ada", "[data-notice=reserved]"),
                ("/sales/sale_1", "ada", "[data-notice=already-purchased]"),
                ("/sales/sale_1", &"é".repeat(255), "#user-id-error"),
            ] {
                browser.open(server, path).await?;
                browser.buy_as(user).await?;
                browser.see(answer).await?;
                check(&browser, answer).await?;
            }
            for user in ["ada", "nobody"] {
                browser.open(server, &format!("/sales/sale_1?userId={user}")).await?;
                browser.see("[data-purchase]").await?;
                check(&browser, user).await?;
            }
            // The answers of which the page has not heard yet.
            for (sale, answer) in [("few", "sold-out"), ("sale_1", "not-active")] {
                look_like(&browser, 1_280, 800, "light").await?;
                browser.open(server, &format!("/sales/{sale}")).await?;
                match sale {
                    "few" => server.buy("few", "last"),
                    _ => server.admin("POST", "/api/v1/admin/sales/sale_1/pause", &Value::Null),
                };
                browser.buy_as("late").await?;
                browser.see(&format!("[data-notice={answer}]")).await?;
                check(&browser, answer).await?;
            }
            server.admin("POST", "/api/v1/admin/sales/sale_1/resume", &Value::Null);
            browser.open(server, "/sales/sale_1").await?;
            let held = "{ remainingStock: 0, totalSold: 100, reserved: 1 }";
            let status = server.status("sale_1");
            browser.ask(&format!("streams[0].tell({{ ...{status}, ...{held} }})")).await?;
            browser.until("document.querySelector('[data-state=held]')").await?;
            check(&browser, "held").await?;
            browser.ask("streams[0].fail(0)").await?;
            browser.until("document.body.dataset.line === 'away'").await?;
            check(&browser, "away").await?;
            // An answer that is lost, on the way to a server that does not exist.
            browser.ask("window.fetch = () => Promise.reject(new TypeError('cut'))").await?;
            browser.ask(&format!("streams[0].tell({status})")).await?;
            browser.buy_as("late").await?;
            browser.see("[data-lost]").await?;
            check(&browser, "lost").await
        }
    })
    .await;
}

/// Nothing has to be scrolled sideways, from a small phone to the largest screen, and both ways of writing work.
#[tokio::test(flavor = "multi_thread")]
async fn pages_fit_every_width_and_direction() {
    let server = Server::demo();
    set_up(&server);
    let name = "A name that is far too long, with Donaudampfschifffahrtsgesellschaftskapitän in it";
    assert_eq!(server.admin("PATCH", "/api/v1/admin/sales/soon", &json!({ "name": name })).status, 200);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            for path in ["/", "/sales/soon", "/sales/few?userId=user1", "/widget/soon", "/widget", "/nowhere"]
            {
                browser.open(server, path).await?;
                for width in [320, 390, 768, 1_280, 3_840] {
                    look_like(&browser, width, 800, "light").await?;
                    for direction in ["ltr", "rtl"] {
                        browser.ask(&format!("document.dir = '{direction}'")).await?;
                        let overflow =
                            "document.documentElement.scrollWidth - document.documentElement.clientWidth";
                        assert_eq!(browser.ask(overflow).await?, 0, "{path} at {width} px, {direction}");
                    }
                }
            }
            Ok(())
        }
    })
    .await;
}

/// How far things have moved that nobody has moved.
const SHIFT: &str = r#"
    window.shifts = "";
    new PerformanceObserver((list) => {
        const at = ({ x, y, width, height }) => `${x},${y} ${width}x${height}`;
        for (const { value, sources } of list.getEntries()) {
            const moved = sources.map((of) => `${of.node?.outerHTML ?? of.node?.data} ${at(of.previousRect)} -> ${at(of.currentRect)}`);
            window.shifts += `${value}: ${moved.join("; ")}\n`;
        }
    }).observe({ type: "layout-shift", buffered: true });
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_while_a_page_loads_or_a_sale_starts() {
    let server = Server::demo();
    set_up(&server);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(SHIFT).await?;
            browser.before_pages(TOLD_STREAM).await?;
            for width in [390, 1_280] {
                look_like(&browser, width, 800, "light").await?;
                for path in ["/", "/sales/sale_1", "/sales/few", "/widget/sale_1", "/widget"] {
                    browser.open(server, path).await?;
                    browser.until("document.readyState === 'complete'").await?;
                    assert_eq!(browser.ask("window.shifts").await?, "", "{path} at {width} px");
                }
                // From upcoming over live to sold out, figures and buttons stay where they are.
                browser.open(server, "/sales/sale_2").await?;
                let top = "document.querySelector('.check').getBoundingClientRect().top + scrollY";
                let before = browser.ask(top).await?;
                let mut status = server.status("sale_2");
                status["startsAt"] = "2020-01-01T00:00:00.000Z".into();
                browser.ask(&format!("streams[0].tell({status})")).await?;
                browser.until("document.querySelector('[data-state=live]')").await?;
                assert_eq!(browser.ask(top).await?, before, "live at {width} px");
                status["remainingStock"] = 0.into();
                browser.ask(&format!("streams[0].tell({status})")).await?;
                browser.until("document.querySelector('[data-state=sold-out]')").await?;
                assert_eq!(browser.ask(top).await?, before, "sold out at {width} px");
            }
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_german_reads_german_and_the_script_writes_as_the_server_does() {
    let server = Server::demo();
    sale_of(&server, "many", 10_000, -1_000);
    browse_in("de-AT,de", Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/many").await?;
            assert_eq!(browser.ask("document.documentElement.lang").await?, "de");
            assert_eq!(browser.read("[data-field=remaining]").await?, "10.000");
            let written = browser.read(".state [data-until=ends]").await?;
            assert!(
                written.contains("Min.") || written.contains("Sek.") || written.contains("Std."),
                "{written}"
            );
            for user in 0..3 {
                server.buy("many", &format!("user{user}"));
            }
            browser.until("document.querySelector('[data-field=remaining]').textContent === '9.997'").await?;
            browser.buy_as("ada").await?;
            let answer = browser.read("[data-notice=reserved]").await?;
            assert!(answer.contains("Kauf erfolgreich reserviert"), "{answer}");
            check(&browser, "German").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}
