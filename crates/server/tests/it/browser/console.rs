//! An operator with a real browser, with a script and without.

use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::{Person, Script, browse, everybody::check};
use crate::{
    console::create,
    server::{Server, TOKEN},
};

/// What an operator does.
trait Operator {
    async fn sign_in(&self, token: &str) -> WebDriverResult<()>;
    /// Types over what a field holds.
    async fn fill(&self, field: &str, text: &str) -> WebDriverResult<()>;
    /// Sets a field of date and time, whose parts are typed in an order that is the browser's own.
    async fn set(&self, field: &str, value: &str) -> WebDriverResult<()>;
    async fn click(&self, css: &str) -> WebDriverResult<()>;
    /// Waits for the message of the last change, which may come on a page that is still to come.
    async fn told(&self, what: &str, words: &str) -> WebDriverResult<()>;
    /// The address of the page, without the server.
    async fn place(&self, server: &Server) -> WebDriverResult<String>;
    /// Moves on by the keyboard until an expression about the focused `element` is true.
    async fn tab_to(&self, expression: &str) -> WebDriverResult<()>;
}

impl Operator for WebDriver {
    async fn sign_in(&self, token: &str) -> WebDriverResult<()> {
        self.see("#token").await?.send_keys(token).await?;
        self.click("main button").await
    }

    async fn fill(&self, field: &str, text: &str) -> WebDriverResult<()> {
        let field = self.see(&format!("[name={field}]")).await?;
        field.clear().await?;
        field.send_keys(text).await
    }

    async fn set(&self, field: &str, value: &str) -> WebDriverResult<()> {
        // Works without a script of the page's own, too: this one is the driver's.
        let set = "document.getElementById(arguments[0]).value = arguments[1]";
        self.execute(set, vec![json!(field), json!(value)]).await.map(drop)
    }

    async fn click(&self, css: &str) -> WebDriverResult<()> {
        let element = self.see(css).await?;
        let leads = "window.here = true; return arguments[0].matches('a[href], form:not([data-act]) button')";
        let leads_away = self.execute(leads, vec![element.to_json()?]).await?.json() == true;
        element.click().await?;
        if leads_away {
            // What is read next must be the page that comes, and not the one that goes.
            self.until("!window.here && document.readyState === 'complete'").await?;
        }
        Ok(())
    }

    async fn told(&self, what: &str, words: &str) -> WebDriverResult<()> {
        for _ in 0..1_500 {
            // It has the focus, so that it is read out and in view.
            let told = async {
                let focused = self.active_element().await?;
                let is_message = focused.attr("data-flash").await?.as_deref() == Some(what);
                WebDriverResult::Ok(is_message && focused.text().await?.contains(words))
            };
            // The page may go away while it is read.
            if told.await.unwrap_or(false) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is never told: {words}, but {}", self.source().await?);
    }

    async fn place(&self, server: &Server) -> WebDriverResult<String> {
        Ok(self.current_url().await?.as_str().trim_start_matches(&server.url).to_owned())
    }

    async fn tab_to(&self, expression: &str) -> WebDriverResult<()> {
        for _ in 0..60 {
            self.press(Key::Tab).await?;
            let found = format!("const element = document.activeElement; return Boolean({expression})");
            if self.execute(found, vec![]).await?.json() == true {
                return Ok(());
            }
        }
        panic!("Tab never comes to {expression}");
    }
}

fn sale(server: &Server, id: &str) -> Value {
    server.status(id)
}

/// Everything that an operator does with a sale, from the sign-in to the sign-out.
async fn runs_a_sale(browser: &WebDriver, server: &Server, script: Script) -> WebDriverResult<()> {
    browser.open(server, "/console/system").await?;
    browser.sign_in("a wrong one").await?;
    assert!(browser.read("#token-error").await?.contains("not the admin token"));
    browser.sign_in(TOKEN).await?;
    assert!(browser.read("h1").await?.contains("System"));
    assert!(browser.see("[data-event=SIGN_IN_REFUSED]").await.is_ok());

    // Make.
    browser.click("a[href='/console/new-sale']").await?;
    browser.fill("name", "Night Runner").await?;
    browser.fill("saleId", "runner").await?;
    browser.fill("totalStock", "none").await?;
    browser.fill("price", "129").await?;
    browser.fill("currency", "EUR").await?;
    browser.click("main form button").await?;
    assert!(browser.read("#totalStock-error").await?.contains("whole number"));
    assert_eq!(browser.see("#name").await?.value().await?.as_deref(), Some("Night Runner"));
    assert_eq!(browser.active_element().await?.attr("data-form").await?.as_deref(), Some("wrong"));
    browser.fill("totalStock", "5").await?;
    if script == Script::On {
        browser.set("startsAt", "2026-01-01T00:00:00").await?;
        browser.set("endsAt", "2099-01-01T00:00:30").await?;
    }
    browser.click("main form button").await?;
    browser.told("done", "Sale runner is made.").await?;
    assert_eq!(browser.place(server).await?, "/console/sales/runner");
    assert_eq!(sale(server, "runner")["totalStock"], 5);
    if script == Script::On {
        assert_eq!(sale(server, "runner")["endsAt"], "2099-01-01T00:00:30.000Z");
    }

    // Edit.
    browser.click("a[href$='/runner/edit']").await?;
    browser.fill("name", "Day Runner").await?;
    browser.click("main form button").await?;
    browser.told("done", "Sale runner is changed.").await?;
    assert_eq!(browser.read("h1").await?, "Day Runner");

    // Restock, pause, resume.
    browser.click("form[action$='/pause'] button").await?;
    browser.told("done", "Sale runner is paused").await?;
    assert_eq!(browser.read("[data-live=state]").await?, "Paused");
    browser.click("form[action$='/resume'] button").await?;
    browser.told("done", "Sale runner is resumed.").await?;
    browser.click("details:has(#units) summary").await?;
    browser.fill("units", "7").await?;
    browser.click("form[action$='/restock'] button").await?;
    browser.told("done", "7 units added to sale runner: it has 12 in all.").await?;

    // Clone, and delete the copy.
    browser.click("a[href$='/runner/clone']").await?;
    assert_eq!(browser.see("#name").await?.value().await?.as_deref(), Some("Day Runner"));
    browser.fill("saleId", "copy").await?;
    browser.click("main form button").await?;
    browser.told("done", "Sale copy is made.").await?;
    assert_eq!(sale(server, "copy")["totalStock"], 12);
    browser.click("details:has(form[action$='/delete']) summary").await?;
    browser.click("form[action$='/delete'] button").await?;
    browser.told("done", "Sale copy is deleted.").await?;
    assert_eq!(browser.place(server).await?, "/console");
    server.get("/api/v1/sale/copy/status").problem(404);
    Ok(())
}

/// Orders, integrity, end and reset of a sale that has sold.
async fn settles_a_sale(browser: &WebDriver, server: &Server) -> WebDriverResult<()> {
    for user in 0..3 {
        server.buy("sale_1", &format!("user{user}"));
    }
    server.until("they are confirmed", |server| sale(server, "sale_1")["confirmed"] == 3);
    browser.open(server, "/console/sales/sale_1/orders").await?;
    browser.fill("user", "user1").await?;
    browser.click("main form button").await?;
    assert_eq!(browser.find_all(By::Css("[data-order]")).await?.len(), 1);
    assert!(browser.read("[data-order]").await?.contains("user1"));
    browser.open(server, "/console/sales/sale_1/audit?kind=RESERVED").await?;
    assert_eq!(browser.find_all(By::Css("tr[data-event=RESERVED]")).await?.len(), 3);

    browser.open(server, "/console/sales/sale_1").await?;
    browser.click("details:has(form[action$='/end']) summary").await?;
    browser.click("form[action$='/end'] button").await?;
    browser.told("done", "Sale sale_1 has ended.").await?;
    assert_eq!(sale(server, "sale_1")["status"], "ENDED");

    browser.click("a[href$='/reset']").await?;
    assert!(browser.read("[data-lost=orders]").await?.contains('3'));
    assert!(browser.read("[data-lost=epoch]").await?.contains("1 becomes 2"));
    browser.fill("confirm", "sale_2").await?;
    browser.click("main form button").await?;
    assert!(browser.read("#confirm-error").await?.contains("Nothing was reset."));
    assert_eq!(sale(server, "sale_1")["totalSold"], 3);
    browser.fill("confirm", "sale_1").await?;
    browser.click("main form button").await?;
    browser.told("done", "epoch 2 begins").await?;
    assert_eq!(sale(server, "sale_1")["totalSold"], 0);

    browser.click("form[action='/console/sign-out'] button").await?;
    browser.see("#token").await?;
    browser.open(server, "/console").await?;
    assert_eq!(browser.place(server).await?, "/console/sign-in");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_a_sale() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            runs_a_sale(&browser, server, Script::On).await?;
            settles_a_sale(&browser, server).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_no_script() {
    let server = Server::demo();
    browse(Script::Off, |browser| {
        let server = &server;
        async move {
            runs_a_sale(&browser, server, Script::Off).await?;
            browser.open(server, "/console/sales/sale_1").await?;
            assert!(browser.read("[data-live=link]").await?.contains("load it again"));
            browser.click("[data-act=check] button").await?;
            assert!(browser.read("[data-holds=true] h2").await?.contains("All promises hold"));
            settles_a_sale(&browser, server).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_no_mouse() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/console/sales/sale_1").await?;
            // The field has the focus already.
            browser.action_chain().send_keys(TOKEN).perform().await?;
            browser.press(Key::Enter).await?;
            browser.see("[data-board]").await?;
            browser.tab_to("element.textContent === 'Skip to content'").await?;
            browser.press(Key::Enter).await?;
            browser.tab_to("element.textContent === 'Restock'").await?;
            browser.press(Key::Enter).await?;
            browser.tab_to("element.id === 'units'").await?;
            browser.action_chain().send_keys("5").perform().await?;
            browser.press(Key::Enter).await?;
            browser.told("done", "it has 105 in all").await?;
            browser.tab_to("element.textContent === 'Pause'").await?;
            browser.press(Key::Space).await?;
            browser.told("done", "Sale sale_1 is paused").await?;
            browser.tab_to("element.textContent === 'Check now'").await?;
            browser.press(Key::Enter).await?;
            browser.until("document.querySelector('[data-integrity=holds]')").await?;
            // Whoever pressed it is still there.
            browser.until("document.activeElement.textContent === 'Check now'").await
        }
    })
    .await;
}

/// An event stream that says what the test says: `stream.tell(event, data)`.
const TOLD_STREAM: &str = r#"
    window.EventSource = class extends EventTarget {
        static CLOSED = 2;
        readyState = 1;
        constructor(url) { super(); this.url = url; window.stream = this; }
        close() { this.readyState = 2; }
        tell(event, data) { this.dispatchEvent(new MessageEvent(event, { data: JSON.stringify(data) })); }
    };
"#;

/// A sale's live figures, `sold` units into it.
fn live(sold: u32, samples: &Value) -> Value {
    let sale = json!({
        "saleId": "sale_1", "status": "ACTIVE", "paused": false, "epoch": 1, "totalStock": 100,
        "remainingStock": 100 - sold, "totalSold": sold, "reserved": 1, "confirmed": sold - 1,
    });
    json!({
        "at": 0, "sale": sale, "replicas": 2, "viewers": 1234, "samples": samples,
        "auditBacklogRows": 7, "auditBacklogBytes": 3 << 20,
    })
}

fn sample(second: i64, attempts: u32, available: u32) -> Value {
    let at = 1_795_428_000_000_i64 + second * 1_000;
    json!([at, attempts, 5, attempts - 5, available, 1, null, 400, 900, 1_600, 1234])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_watched_live() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            let script = json!({ "source": TOLD_STREAM });
            browser.cdp().send_raw("Page.addScriptToEvaluateOnNewDocument", script).await?;
            browser.open(server, "/console/sales/sale_1").await?;
            browser.sign_in(TOKEN).await?;
            browser.until("window.stream").await?;
            assert_eq!(browser.execute("return stream.url", vec![]).await?.json(), "/console/sales/sale_1/events");
            assert!(browser.read("[data-live=link]").await?.contains("Figures of the moment"));
            let tell = async |event: &str, data: Value| {
                let tell = "stream.tell(arguments[0], arguments[1])";
                browser.execute(tell, vec![json!(event), data]).await.map(drop)
            };
            tell("open", Value::Null).await?;
            assert_eq!(browser.read("[data-live=link]").await?, "Live.");
            let history = (0..600).map(|second| sample(second, 2_000, 50)).collect();
            tell("live", live(50, &history)).await?;
            for (name, text) in [
                ("remaining", "50"),
                ("sold", "50"),
                ("confirmed", "49"),
                ("viewers", "1,234"),
                ("replicas", "2"),
                ("backlog", "7"),
                ("spooled", "3 MiB"),
            ] {
                assert_eq!(browser.read(&format!("[data-live={name}]")).await?, text, "{name}");
            }
            assert_eq!(browser.find_all(By::Css(".plot svg")).await?.len(), 6);
            assert_eq!(browser.read("[data-last=attempts]").await?, "2,000");
            assert_eq!(browser.read("[data-last=p99]").await?, "1.6");
            // What is not known is not drawn as nothing.
            assert_eq!(browser.read("[data-last=lag]").await?, "–");
            browser.until("document.querySelector('.curve[data-line=lag]').getAttribute('d') === ''").await?;

            // The same figures for whoever does not see a chart.
            browser.click("[data-chart=rates] summary").await?;
            browser.until("document.querySelectorAll('[data-chart=rates] tbody tr').length === 60").await?;
            assert_eq!(browser.read("[data-chart=rates] tbody tr").await?, "10:09:59 2,000 5 1,995");
            tell("live", live(95, &json!([sample(600, 10, 5)]))).await?;
            assert_eq!(browser.read("[data-chart=rates] tbody tr").await?, "10:10:00 10 5 5");
            assert_eq!(browser.read("[data-live=state]").await?, "Few left");

            // Decisions come newest first, and are text whatever they hold.
            let decision = |id: i64, user: &str| {
                let at = "2026-11-23T10:00:00.000Z";
                json!({ "id": id, "at": at, "userId": user, "eventType": "RESERVED", "unit": id, "orderId": "o" })
            };
            tell("decisions", json!([decision(2, "<img src=x onerror=alert(1)>"), decision(1, "ada")])).await?;
            tell("decisions", json!([decision(3, "zoe")])).await?;
            let rows = browser.find_all(By::Css("[data-live=feed] tbody tr")).await?;
            let users = ["zoe", "<img src=x onerror=alert(1)>", "ada"];
            assert_eq!(rows.len(), users.len());
            for (row, user) in rows.iter().zip(users) {
                assert!(row.text().await?.contains(user), "{user}");
            }

            // Held still, nothing moves; afterwards all of it is there.
            browser.click("[data-act=hold]").await?;
            tell("live", live(100, &json!([sample(601, 30, 0)]))).await?;
            tell("decisions", json!([decision(4, "max")])).await?;
            assert_eq!(browser.read("[data-live=remaining]").await?, "5");
            browser.click("[data-act=hold]").await?;
            assert_eq!(browser.read("[data-live=remaining]").await?, "0");
            assert_eq!(browser.read("[data-live=state]").await?, "All held");
            assert!(browser.read("[data-live=feed] tbody tr").await?.contains("max"));

            let check = |promise, holds| json!({ "promise": promise, "what": "w", "figures": "f", "holds": holds });
            let verdict = |holds| json!({ "checkedAt": 0, "tookMs": 3, "holds": holds, "checks": [check("P1", true), check("P4", holds)] });
            tell("integrity", verdict(true)).await?;
            assert!(browser.read("[data-live=verdict]").await?.starts_with("All promises hold."));
            tell("integrity", verdict(false)).await?;
            assert!(browser.read("[data-live=verdict]").await?.starts_with("Broken: P4, w (f)."));
            assert!(browser.see("[data-integrity=broken] tr.broken").await?.text().await?.contains("P4"));
            // The button counts for real.
            browser.click("[data-act=check] button").await?;
            browser.until("document.querySelector('[data-integrity=holds]')").await?;

            tell("gone", Value::Null).await?;
            assert!(browser.read("[data-live=link]").await?.contains("deleted"));
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_keep_their_own_rules() {
    let server = Server::demo();
    create(&server, "quiet", "Quiet", 9);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            let script = json!({ "source": TOLD_STREAM });
            browser.cdp().send_raw("Page.addScriptToEvaluateOnNewDocument", script).await?;
            browser.open(server, "/console").await?;
            check(&browser, "sign-in").await?;
            browser.sign_in(TOKEN).await?;
            for path in [
                "/console",
                "/console/new-sale",
                "/console/system",
                "/console/sales/quiet",
                "/console/sales/quiet/edit",
                "/console/sales/quiet/reset",
                "/console/sales/quiet/integrity",
                "/console/sales/quiet/orders",
                "/console/sales/quiet/audit",
            ] {
                browser.open(server, path).await?;
                if path.ends_with("/quiet") {
                    let samples = json!([sample(0, 9, 9), sample(1, 20, 8)]);
                    let tell = "stream.tell('live', arguments[0])";
                    browser.execute(tell, vec![live(9, &samples)]).await?;
                    browser
                        .execute(
                            "document.querySelectorAll('details').forEach((one) => (one.open = true))",
                            vec![],
                        )
                        .await?;
                }
                check(&browser, path).await?;
                browser.assert_quiet_but(&[]).await?;
            }
            browser.open(server, "/console/new-sale").await?;
            browser.click("main form button").await?;
            browser.see("[data-form=wrong]").await?;
            check(&browser, "a form that is wrong").await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_page_shows_what_really_happens() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/console/sales/sale_1").await?;
            browser.sign_in(TOKEN).await?;
            browser.until("document.querySelector('[data-live=link]')?.textContent === 'Live.'").await?;
            for user in ["ada", "ada", "ben"] {
                server.buy("sale_1", user);
            }
            let says = |name: &str, text: &str| {
                format!("document.querySelector('[data-live={name}]').textContent.trim() === '{text}'")
            };
            browser.until(&says("remaining", "98")).await?;
            browser.until(&says("confirmed", "2")).await?;
            let feed = "[...document.querySelectorAll('[data-live=feed] tbody tr')].map((row) => row.dataset.event).join()";
            browser.until(&format!("{feed} === 'RESERVED,REJECTED_DUPLICATE,RESERVED'")).await?;
            browser.until("document.querySelectorAll('.plot svg').length === 6").await?;
            browser.until("document.querySelector('.curve[data-line=attempts]')?.getAttribute('d').includes('L')").await?;
            browser.until("document.querySelector('[data-integrity=holds]')").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}
