//! The console on several replicas: one session, one operator log.

use super::stage::{Addresses, Stage};
use crate::{
    console::{Operator, sign_in},
    server::TOKEN,
};

#[test]
fn replicas_share_sessions_and_the_operator_log() {
    let mut stage = Stage::empty(Addresses::shared());
    stage.replicas = (0..2).map(|_| stage.replica(&[])).collect();
    stage.sale("shared", 3);
    let (here, there) = (&stage.replicas[0], &stage.replicas[1]);
    assert_eq!(sign_in(there, "wrong", &[]).status, 403);
    let operator = Operator::with(here, TOKEN);
    let elsewhere = Operator::with_cookie(there, operator.cookie.clone());
    let page = elsewhere.submit("/console/sales/shared/pause", &[]);
    assert!(page.text.contains("Sale shared is paused"), "{}", page.text);
    assert_eq!(here.status("shared")["paused"], true);

    elsewhere.post("/console/sign-out", &[]);
    let recorded = stage.sql("SELECT event || ' ' || host(address) FROM operator_log ORDER BY id");
    assert_eq!(recorded, "SIGN_IN_REFUSED 127.0.0.1\nSIGNED_IN 127.0.0.1\nSIGNED_OUT 127.0.0.1");
    let page = operator.get("/console/system");
    for word in ["data-event=\"SIGN_IN_REFUSED\"", "data-system=\"profile\">cluster", "data-part=\"redis\""] {
        assert!(page.text.contains(word), "{word} is not in {}", page.text);
    }
    // The services' addresses are settings in force, without who and by which password.
    assert!(page.text.contains("data-setting=\"database-url\""), "{}", page.text);
    let user = stage.addresses.database.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    assert!(user.is_none_or(|(user, _)| !page.text.contains(&format!("{user}@"))), "{}", page.text);
}
