//! Buying: what the page says to each attempt, and that nobody buys twice or is scared.

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::{Person, Script, TOLD_STREAM, browse, order_of, sale_in};
use crate::server::Server;

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
    assert!(browser.read("#buy-note").await?.contains("Opens by itself at the start"));
    browser.open(server, "/sales/sale_3").await?;
    assert!(browser.find_all(By::Css("[data-action=buy]:not([hidden])")).await?.is_empty());
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
            // These come too late because their page has not heard yet.
            browser.before_pages(TOLD_STREAM).await?;
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

/// How often a user has tried, by the audit trail.
fn attempts_of(server: &Server, sale: &str, user: &str) -> usize {
    let trail = server.admin("GET", &format!("/api/v1/admin/sales/{sale}/audit"), &Value::Null).text;
    let of_user = format!("\"userId\":\"{user}\"");
    trail.lines().filter(|line| line.contains(&of_user) && line.contains("ATTEMPTED")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_is_one_attempt() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/sale_1").await?;
            browser.see("#user-id").await?.send_keys("eager").await?;
            browser
                .action_chain()
                .double_click_element(&browser.see("[data-action=buy]").await?)
                .perform()
                .await?;
            browser.see("[data-notice=reserved]").await?;
            assert_eq!(attempts_of(server, "sale_1", "eager"), 1);
            assert_eq!(server.status("sale_1")["totalSold"], 1);
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

/// Without a script a double click may be two attempts; the second finds what the first has bought, and says so calmly.
#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_without_a_script_is_one_purchase() {
    let server = Server::demo();
    browse(Script::Off, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/sale_1").await?;
            browser.see("#user-id").await?.send_keys("eager").await?;
            browser
                .action_chain()
                .double_click_element(&browser.see("[data-action=buy]").await?)
                .perform()
                .await?;
            let answer = browser.read(".yours").await?;
            assert!(answer.contains(&order_of(server, "sale_1", "eager")), "{answer}");
            assert_eq!(server.status("sale_1")["totalSold"], 1);
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_turns_from_reserved_to_confirmed_by_itself_and_stays_over_a_reload() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/sales/sale_1").await?;
            browser.buy_as("ada & co").await?;
            browser.see("[data-notice=reserved]").await?;
            browser.until("document.querySelector('[data-order][data-status=CONFIRMED]')").await?;
            let answer = browser.read("[data-notice=reserved]").await?;
            assert!(answer.contains("CONFIRMED") && !answer.contains("RESERVED"), "{answer}");
            // Bought in place: the address has changed, the page has not been left. Loaded again it sends nothing.
            browser.refresh().await?;
            let found = browser.read("[data-purchase=purchased]").await?;
            assert!(found.contains(&order_of(server, "sale_1", "ada%20%26%20co")), "{found}");
            assert_eq!(attempts_of(server, "sale_1", "ada & co"), 1);
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

/// The purchase arrives, its answer does not.
const LOSES_THE_ANSWER: &str = r#"
    const real = window.fetch;
    window.fetch = async (url, options) => {
        const reply = await real(url, options);
        if (options?.method !== "POST" || window.lost) return reply;
        window.lost = true;
        throw new TypeError("the line is cut");
    };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_told_calmly_and_asked_for_again() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(LOSES_THE_ANSWER).await?;
            browser.open(server, "/sales/sale_1").await?;
            browser.buy_as("unlucky").await?;
            let told = browser.read("[data-lost]").await?;
            assert!(
                told.contains("The answer did not arrive") && told.contains("Trying again is safe"),
                "{told}"
            );
            browser.until("document.activeElement.matches('[data-lost]')").await?;
            browser.see("[data-action=again]").await?.click().await?;
            let answer = browser.read("[data-notice=already-purchased]").await?;
            assert!(answer.contains(&order_of(server, "sale_1", "unlucky")), "{answer}");
            assert_eq!(server.status("sale_1")["totalSold"], 1);
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_was_taken_down_under_the_page_says_so() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.before_pages(TOLD_STREAM).await?;
            sale_in(server, "short", -1_000);
            browser.open(server, "/sales/short").await?;
            assert_eq!(server.admin("DELETE", "/api/v1/admin/sales/short", &Value::Null).status, 204);
            browser.buy_as("late").await?;
            browser.until("document.querySelector('main .code')").await?;
            let page = browser.read("main").await?;
            assert!(page.contains("404") && page.contains("Not found"), "{page}");
            browser.assert_quiet_but(&["404"]).await
        }
    })
    .await;
}
