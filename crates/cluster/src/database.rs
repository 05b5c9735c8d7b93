//! PostgreSQL as a whole: how it is connected to, and which form the records in it have.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, PgPool, SqlStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{cluster::OpenError, options::Secret};

const MIGRATIONS: &[(&str, &str)] = &[
    ("records", include_str!("../migrations/0001_records.sql")),
    ("products and searches", include_str!("../migrations/0002_products_and_searches.sql")),
    ("operator log", include_str!("../migrations/0003_operator_log.sql")),
];
/// The form of the records that this program writes: the number of its migrations.
pub(crate) const FORM: usize = MIGRATIONS.len();

/// How long a statement may take that nobody bounds otherwise.
const STATEMENT_MS: u32 = 120_000;
/// How long a transaction may do nothing: its process sleeps or hangs, and others wait for its locks.
const IDLE_MS: u32 = 30_000;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings the records to the form that this version needs.
///
/// # Errors
/// A database that cannot be used, or is of a newer program.
pub async fn prepare(url: &Secret) -> Result<(), OpenError> {
    let pool = connect(url, 2).await?;
    migrate(&pool, url).await?;
    pool.close().await;
    Ok(())
}

/// Connects.
pub(crate) async fn connect(url: &Secret, connections: u32) -> Result<PgPool, OpenError> {
    // Whoever of the three clients comes first would choose for all of them.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |reason: sqlx::Error| OpenError::Database { url: url.clone(), reason: reason.to_string() };
    let options: PgConnectOptions = url.expose().parse().map_err(failed)?;
    let options = options.application_name("flashsale").options([
        ("statement_timeout", STATEMENT_MS.to_string()),
        ("idle_in_transaction_session_timeout", IDLE_MS.to_string()),
        // A host that lost its power holds its locks until this is noticed.
        ("tcp_keepalives_idle", "5".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("timezone", "UTC".to_owned()),
        // What exists already is no news.
        ("client_min_messages", "warning".to_owned()),
    ]);
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
    match pool.connect_with(options.clone()).await {
        // The pool tries again while there is time, and forgets why it had to.
        Err(sqlx::Error::PoolTimedOut) => Err(failed(why_not(&options).await)),
        connected => connected.map_err(failed),
    }
}

/// Why there is no connection.
async fn why_not(options: &PgConnectOptions) -> sqlx::Error {
    match timeout(PATIENCE, PgConnection::connect_with(options)).await {
        Ok(Err(error)) => error,
        Ok(Ok(connection)) => {
            let _ = connection.close().await;
            sqlx::Error::PoolTimedOut
        }
        Err(_) => sqlx::Error::PoolTimedOut,
    }
}

/// Brings the records to the form that this version needs.
pub(crate) async fn migrate(pool: &PgPool, url: &Secret) -> Result<(), OpenError> {
    let migrations = (1..).zip(MIGRATIONS).map(|(version, (name, sql))| {
        Migration::new(version, (*name).into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    let failed = |reason: MigrateError| OpenError::Database {
        url: url.clone(),
        reason: match reason {
            MigrateError::VersionMissing(version) => too_new(version),
            other => other.to_string(),
        },
    };
    migrator.run(pool).await.map_err(failed)
}

/// What is to be said of records that a newer program has made.
pub(crate) fn too_new(form: i64) -> String {
    format!("its records have form {form}, and this program knows forms up to {FORM}: use the newer program")
}

/// The name of this installation, which its keys in Redis bear.
pub(crate) async fn installation(pool: &PgPool) -> sqlx::Result<Uuid> {
    sqlx::query_scalar("SELECT id FROM installation").fetch_one(pool).await
}
