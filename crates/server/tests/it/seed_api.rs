//! The seed's own examples, word for word.

use serde_json::json;

use crate::server::Server;

#[test]
fn the_list_shows_the_three_sales_of_the_seed() {
    let server = Server::demo();
    let sales = server.get("/api/v1/sales");
    assert_eq!((sales.status, sales.header("content-type")), (200, "application/json"));
    let sales = sales.json();
    let stock: Vec<_> = sales
        .as_array()
        .expect("an array")
        .iter()
        .map(|sale| (sale["saleId"].as_str(), sale["remainingStock"].as_u64(), sale["status"].as_str()))
        .collect();
    assert_eq!(
        stock,
        [
            (Some("sale_1"), Some(100), Some("ACTIVE")),
            (Some("sale_2"), Some(50), Some("UPCOMING")),
            (Some("sale_3"), Some(200), Some("ENDED")),
        ]
    );
    let sale = &sales[0];
    assert_eq!(sale["name"], "Limited Edition Product - Flash Sale");
    assert_eq!((&sale["totalSold"], &sale["saleActive"]), (&json!(0), &json!(true)));
    for time in ["startsAt", "endsAt"] {
        let text = sale[time].as_str().expect("a time");
        assert!(text.len() == "2026-02-23T03:00:00.000Z".len() && text.ends_with('Z'), "{text}");
    }
}

#[test]
fn a_purchase_gets_the_seeds_four_answers() {
    let server = Server::demo();
    let first = server.buy("sale_1", "user123");
    let body = first.json();
    assert_eq!(first.status, 200);
    assert_eq!(
        (&body["success"], &body["status"], &body["message"]),
        (&json!(true), &json!("SUCCESS"), &json!("Purchase reserved successfully"))
    );
    assert!(first.header("server-timing").starts_with("purchase;dur="));

    let again = server.buy("sale_1", "user123");
    assert_eq!(again.status, 200);
    assert_eq!(
        again.json(),
        json!({
            "success": false,
            "status": "ALREADY_PURCHASED",
            "message": "You have already purchased from this sale",
            "orderId": body["orderId"],
        })
    );

    for user in 1..100 {
        assert_eq!(server.buy("sale_1", &format!("user{user}")).json()["status"], "SUCCESS");
    }
    let late = server.buy("sale_1", "late");
    assert_eq!(late.status, 200);
    assert_eq!(late.json(), json!({ "success": false, "status": "SOLD_OUT", "message": "Sale is sold out" }));

    for closed in ["sale_2", "sale_3"] {
        let inactive = server.buy(closed, "user123");
        assert_eq!((inactive.status, inactive.header("content-type")), (400, "application/problem+json"));
        let body = inactive.json();
        assert_eq!(
            (&body["statusCode"], &body["message"], &body["error"]),
            (&json!(400), &json!("Sale is not currently active"), &json!("Bad Request"))
        );
    }
}

#[test]
fn the_status_counts_what_is_sold() {
    let server = Server::demo();
    for user in 0..5 {
        server.buy("sale_1", &format!("user{user}"));
    }
    let status = server.status("sale_1");
    assert_eq!((&status["remainingStock"], &status["totalSold"]), (&json!(95), &json!(5)));
    assert_eq!((&status["saleActive"], &status["status"]), (&json!(true), &json!("ACTIVE")));
}

#[test]
fn a_users_purchase_is_known_at_once_and_confirmed_soon() {
    let server = Server::demo();
    let none = json!({ "purchased": false, "orderId": null, "status": "NOT_PURCHASED" });
    for path in ["/api/v1/sale/sale_1/user/user123/purchase", "/api/v1/sale/sale_1/user/user123"] {
        assert_eq!(server.get(path).json(), none);
    }
    let order = server.buy("sale_1", "user123").json()["orderId"].clone();
    let known = server.get("/api/v1/sale/sale_1/user/user123/purchase").json();
    assert_eq!((&known["purchased"], &known["orderId"]), (&json!(true), &order));
    server.until("the order is confirmed", |server| {
        server.get("/api/v1/sale/sale_1/user/user123").json()["status"] == "CONFIRMED"
    });
}

#[test]
fn a_reset_gives_everything_back() {
    let server = Server::demo();
    server.buy("sale_1", "user123");
    let reset = server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" }));
    assert_eq!(reset.status, 200);
    assert_eq!(reset.json(), json!({ "success": true, "message": "Sale sale_1 has been reset" }));
    let status = server.status("sale_1");
    assert_eq!((&status["remainingStock"], &status["totalSold"]), (&json!(100), &json!(0)));
    assert_eq!(server.get("/api/v1/sale/sale_1/user/user123").json()["purchased"], false);
    assert_eq!(server.buy("sale_1", "user123").json()["status"], "SUCCESS");
}
