//! All three services over TLS, with certificates that are checked.

use std::{path::Path, process::Command};

use super::{
    services::{Postgres, RabbitMq, Redis, Service, output},
    stage::{Addresses, Stage},
};

/// An authority of the test's own, and a certificate of it for 127.0.0.1 and localhost.
fn certificates(dir: &Path) {
    let at = |name: &str| dir.join(name).display().to_string();
    let openssl = |arguments: &[&str]| output(Command::new("openssl").args(arguments));
    let (ca_key, ca, key, request, certificate, names) =
        (at("ca.key"), at("ca.pem"), at("key.pem"), at("request.pem"), at("cert.pem"), at("names"));
    std::fs::write(&names, "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .expect("written");
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[&new[..], &["-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", &ca_key, "-out", &ca]]
            .concat(),
    );
    openssl(&[&new[..], &["-subj", "/CN=localhost", "-keyout", &key, "-out", &request]].concat());
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
}

#[test]
fn addresses_with_tls_work_and_an_unknown_authority_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    certificates(dir.path());
    let (redis, broker, postgres) =
        (Redis::with_tls(dir.path()), RabbitMq::with_tls(dir.path()), Postgres::with_tls(dir.path()));
    let authority = dir.path().join("ca.pem").display().to_string();
    let mut stage =
        Stage::empty(Addresses { database: postgres.url(), redis: redis.url(), amqp: broker.url() });
    let database = format!("{}?sslmode=verify-full&sslrootcert={authority}", stage.addresses.database);
    stage.addresses = Addresses { database, redis: redis.tls_url(), amqp: broker.tls_url() };

    let refused = stage.tell(&["seed"]);
    assert_eq!(refused.code, Some(1), "nobody knows the authority: {refused:?}");
    assert!(refused.err.contains("cannot use Redis at rediss://127.0.0.1"), "{refused:?}");

    stage.environment.push(("SSL_CERT_FILE".to_owned(), authority));
    let replica = stage.replica(&[]);
    stage.replicas.push(replica);
    let worker = stage.worker();
    stage.workers.push(worker);
    stage.sale("sealed", 5);
    assert_eq!(stage.replicas[0].buy("sealed", "ada").json()["status"], "SUCCESS");
    stage.drained("sealed");
    let secured = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'flashsale'";
    stage.addresses.database = stage.addresses.database.split('?').next().expect("an address").to_owned();
    assert_eq!(stage.sql(secured), "t");
    stage.addresses.redis = redis.url();
    stage.addresses.amqp = broker.url();
}
