//! A sale in a frame on somebody else's page.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use serde_json::json;
use thirtyfour::prelude::*;

use super::{Person, Script, browse, order_of};
use crate::server::Server;

/// Opens somebody else's page, of another origin, with one line for the shop in it.
async fn open_host(browser: &WebDriver, server: &Server, line: &str) -> WebDriverResult<()> {
    let page = format!("<!doctype html><html lang=en><title>host</title><h1>Another shop</h1>{line}");
    let page = page.replace("SHOP", &server.url);
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n{page}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = format!("http://{}", listener.local_addr().expect("an address"));
    // It answers all that a browser asks for with the one page, and ends with the test's process.
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A browser opens connections that it may not use.
            let reply = reply.clone();
            thread::spawn(move || {
                let mut request = [0; 8_192];
                if stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(reply.as_bytes());
                }
            });
        }
    });
    browser.goto(host).await
}

async fn buys_in_the_frame(browser: &WebDriver, server: &Server, user: &str) -> WebDriverResult<()> {
    browser.see("iframe").await?.enter_frame().await?;
    assert_eq!(browser.read("h1").await?, "Limited Edition Product - Flash Sale");
    browser.buy_as(user).await?;
    let answer = browser.read("[data-notice=reserved]").await?;
    assert!(answer.contains(&order_of(server, "sale_1", user)), "{answer}");
    let left = 100 - server.status("sale_1")["totalSold"].as_u64().expect("a figure");
    assert_eq!(browser.read("[data-field=remaining]").await?, left.to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_puts_a_sale_on_somebody_elses_page() {
    let server = Server::demo();
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            let line = "<script src='SHOP/widget.js' data-sale='sale_1' async></script>";
            open_host(&browser, server, line).await?;
            let frame = browser.see("iframe").await?;
            assert_eq!(frame.attr("title").await?.as_deref(), Some("Flash sale"));
            // The frame is as high as what it shows, and grows with it.
            let fits = "frames.length === 1 && document.querySelector('iframe').offsetHeight !== 680";
            browser.until(fits).await?;
            let before = browser.ask("document.querySelector('iframe').offsetHeight").await?;
            buys_in_the_frame(&browser, server, "guest").await?;
            browser.until("document.documentElement.scrollHeight <= innerHeight").await?;
            browser.enter_default_frame().await?;
            browser.until(&format!("document.querySelector('iframe').offsetHeight > {before}")).await?;
            // Nobody but the frame is listened to.
            browser.ask("postMessage({ flashsale: 'height', height: 3999 }, '*')").await?;
            assert_ne!(browser.ask("document.querySelector('iframe').offsetHeight").await?, 3_999);
            browser.assert_quiet_but(&[]).await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_frame_does_without_any_script() {
    let server = Server::demo();
    browse(Script::Off, |browser| {
        let server = &server;
        async move {
            let line =
                "<iframe src='SHOP/widget/sale_1' title='Flash sale' width='400' height='640'></iframe>";
            open_host(&browser, server, line).await?;
            buys_in_the_frame(&browser, server, "guest").await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_shows_it_at_work() {
    let server = Server::start(&["--demo", "--embed-origins", "https://shop.example"]);
    browse(Script::On, |browser| {
        let server = &server;
        async move {
            browser.open(server, "/widget").await?;
            assert!(
                browser
                    .read("main")
                    .await?
                    .contains(&format!("<iframe src=\"{}/widget/sale_1\"", server.url))
            );
            buys_in_the_frame(&browser, server, "guest").await?;
            server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" }));
            browser.until("document.querySelector('[data-field=remaining]').textContent === '100'").await?;
            browser.assert_quiet_but(&[]).await?;

            // Whom the shop does not name gets no frame.
            let line = "<iframe src='SHOP/widget/sale_1' title='Flash sale'></iframe>";
            open_host(&browser, server, line).await?;
            browser.see("iframe").await?.enter_frame().await?;
            assert!(browser.find_all(By::Css("article")).await?.is_empty());
            browser.assert_quiet_but(&["frame-ancestors"]).await
        }
    })
    .await;
}
