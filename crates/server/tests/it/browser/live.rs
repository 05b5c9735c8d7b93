//! A page that is open stays true: figures, states, and the start by the server's clock.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::{Person, Script, TOLD_STREAM, browse, sale_in, sale_of};
use crate::server::Server;

/// Keeps all that is read out.
const LISTENS: &str = r#"
    window.spoken = [];
    document.addEventListener("DOMContentLoaded", () => {
        const region = document.querySelector("[data-heard]");
        const listen = () => region.textContent && window.spoken.push(region.textContent);
        if (region) new MutationObserver(listen).observe(region, { childList: true, characterData: true, subtree: true });
    });
"#;

/// Notes when the button can be pressed, by the clock that this machine has in common with the server.
const WATCHES_THE_BUTTON: &str = r#"
    document.addEventListener("DOMContentLoaded", () => {
        const button = document.querySelector("[data-action=buy]");
        if (!button) return;
        new MutationObserver(() => { if (!button.disabled) window.openedAt ??= performance.timeOrigin + performance.now(); })
            .observe(button, { attributes: true, attributeFilter: ["disabled"] });
    });
"#;

/// The state that the page shows, and whether one can buy; they agree with each other.
async fn shows(browser: &WebDriver, state: &str, tag: &str) -> WebDriverResult<()> {
    browser.until(&format!("document.querySelector('article').dataset.state === '{state}'")).await?;
    assert_eq!(browser.read(".tag").await?, tag);
    let can_buy = browser.find(By::Css("[data-action=buy]")).await?.is_enabled().await?;
    assert_eq!(can_buy, ["live", "few-left"].contains(&state), "{state}");
    Ok(())
}

async fn reads(browser: &WebDriver, css: &str, text: &str) -> WebDriverResult<()> {
    browser.until(&format!("document.querySelector('{css}')?.textContent === '{text}'")).await
}

fn change(server: &Server, sale: &str, body: &Value) {
    assert_eq!(server.admin("PATCH", &format!("/api/v1/admin/sales/{sale}"), body).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_states_change_on_the_open_page() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(LISTENS).await?;
            sale_of(server, "life", 20, -1_000);
            browser.open(server, "/sales/life").await?;
            let begun = browser.ask("performance.timeOrigin").await?;
            shows(&browser, "live", "Live").await?;
            for user in 0..10 {
                server.buy("life", &format!("user{user}"));
            }
            reads(&browser, "[data-field=remaining]", "10").await?;
            reads(&browser, "dd[data-field=sold]", "10").await?;
            assert_eq!(browser.ask("document.querySelector('meter').value").await?, 10);
            server.admin("POST", "/api/v1/admin/sales/life/pause", &Value::Null);
            shows(&browser, "paused", "Paused").await?;
            server.admin("POST", "/api/v1/admin/sales/life/resume", &Value::Null);
            shows(&browser, "live", "Live").await?;
            for user in 10..18 {
                server.buy("life", &format!("user{user}"));
            }
            shows(&browser, "few-left", "Few left").await?;
            for user in 18..20 {
                server.buy("life", &format!("user{user}"));
            }
            shows(&browser, "sold-out", "Sold out").await?;
            server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "life" }));
            shows(&browser, "live", "Live").await?;
            let soon = Timestamp::now().as_millisecond() + 500;
            let soon = Timestamp::from_millisecond(soon).expect("in range").to_string();
            change(server, "life", &json!({ "endsAt": soon }));
            browser.until("document.querySelector('article').dataset.state === 'ended'").await?;
            assert!(browser.find_all(By::Css("[data-action=buy]:not([hidden])")).await?.is_empty());
            server.admin("DELETE", "/api/v1/admin/sales/life", &Value::Null);
            shows(&browser, "gone", "Taken down").await?;
            // It is still the same page.
            assert_eq!(browser.ask("performance.timeOrigin").await?, begun);
            no_chatter(&browser).await?;
            // The stream of a sale that is gone is refused, and so is the question for it.
            browser.assert_quiet_but(&["404"]).await
        }
    })
    .await;
}

/// What was read out is a sentence for each change of state, and no ticks or figures.
async fn no_chatter(browser: &WebDriver) -> WebDriverResult<()> {
    let spoken = browser.ask("window.spoken").await?;
    let spoken: Vec<_> = spoken.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for sentence in ["The shop has paused this sale", "Few units are left", "Sold out", "This sale is over"] {
        assert!(spoken.iter().any(|said| said.contains(sentence)), "{sentence} of {spoken:?}");
    }
    assert!(spoken.len() <= 12 && !spoken.iter().any(|said| said.contains(char::is_numeric)), "{spoken:?}");
    Ok(())
}

/// What the shop words anew is worded anew on the open page, and what the visitor typed stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_shop_rewrites_is_rewritten_on_the_open_page() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/sale_2").await?;
            browser.see("#user-id").await?.send_keys("half a na").await?;
            change(server, "sale_2", &json!({ "name": "The other one", "totalStock": 70 }));
            reads(&browser, "h1", "The other one").await?;
            assert_eq!(browser.see("#user-id").await?.value().await?.as_deref(), Some("half a na"));
            browser.until("document.querySelector('meter').max === 70").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_sales_is_live() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/").await?;
            let begun = browser.ask("performance.timeOrigin").await?;
            server.buy("sale_1", "ada");
            reads(&browser, "[data-sale-id=sale_1] [data-field=remaining]", "99").await?;
            sale_of(server, "new", 5, -1_000);
            browser.until("document.querySelector('[data-sale-id=new][data-state=live]')").await?;
            assert_eq!(server.admin("DELETE", "/api/v1/admin/sales/new", &Value::Null).status, 204);
            browser.until("!document.querySelector('[data-sale-id=new]')").await?;
            // The list is set up anew, and still live.
            server.buy("sale_1", "bob");
            reads(&browser, "[data-sale-id=sale_1] [data-field=remaining]", "98").await?;
            assert_eq!(browser.ask("performance.timeOrigin").await?, begun);
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

/// All units reserved, some of them not confirmed: one may come back, and then can be bought.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_units_are_held_the_page_says_so_until_one_comes_back() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(TOLD_STREAM).await?;
            browser.open(server, "/sales/sale_1").await?;
            let told = |remaining: u32, reserved: u32| {
                let mut status = server.status("sale_1");
                status["remainingStock"] = remaining.into();
                status["totalSold"] = (100 - remaining).into();
                status["reserved"] = reserved.into();
                format!("streams.at(-1).tell({status})")
            };
            browser.ask(&told(0, 3)).await?;
            shows(&browser, "held", "All taken right now").await?;
            assert!(browser.read("#buy-note").await?.contains("Should one come back"));
            browser.ask(&told(1, 2)).await?;
            shows(&browser, "few-left", "Few left").await?;
            browser.ask(&told(0, 0)).await?;
            shows(&browser, "sold-out", "Sold out").await?;
            browser.assert_quiet_but(&[]).await
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
            browser.before_pages(WATCHES_THE_BUTTON).await?;
            // Should the machine be so slow that a page comes after the start, it gets more time.
            let (mut waiting, mut path) = (false, String::new());
            for seconds in [2, 8, 32] {
                let id = format!("soon-{seconds}");
                sale_in(server, &id, seconds * 1_000);
                path = format!("/sales/{id}");
                browser.open(server, &path).await?;
                waiting = browser.ask("document.querySelector('article').dataset.state").await? == "soon";
                if waiting {
                    break;
                }
            }
            assert!(waiting, "every page came after its start");
            let begun = browser.ask("performance.timeOrigin").await?;

            let interval = Duration::from_millis(20);
            let open = browser.query(By::Css("[data-action=buy]")).wait(Duration::from_secs(60), interval);
            open.and_enabled().first().await?;
            shows(&browser, "live", "Live").await?;
            // It is still the same page.
            assert_eq!(browser.ask("performance.timeOrigin").await?, begun);
            // Never before the start, by the very clock; and soon after, with room for a machine that has much to do.
            let starts = browser.ask("Number(document.querySelector('article').dataset.starts)").await?;
            let opened = browser.ask("window.openedAt").await?;
            let late_ms = opened.as_f64().expect("a time") - starts.as_f64().expect("a time");
            println!("{path} opened {late_ms:.1} ms after its start");
            assert!((-2.0..5_000.0).contains(&late_ms), "{late_ms} ms after the start");

            browser.buy_as("patient").await?;
            browser.see("[data-notice=reserved]").await?;
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}
