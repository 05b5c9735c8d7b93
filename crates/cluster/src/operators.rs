//! The operator log of the cluster profile: a table of PostgreSQL, shared by all replicas.

use std::str::FromStr;

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    clock::Timestamp,
    operator::{OperatorEntry, OperatorRecord},
    ports::{OperatorLog, Page},
};
use sqlx::{PgPool, Row, postgres::PgRow};
use tokio::time::timeout;

use crate::store::{LONGEST, database, mute};

const INSERT: &str = "INSERT INTO operator_log (at, event, address) \
     VALUES ('epoch'::timestamptz + $1 * interval '1 millisecond', $2, $3::inet)";
const NEWEST: &str = "SELECT id, (extract(epoch FROM at) * 1000)::bigint AS at, event, host(address) AS address \
     FROM operator_log WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// The operator log in the records.
pub(crate) struct Operators {
    pool: PgPool,
}

impl Operators {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl OperatorLog for Operators {
    async fn record(&self, entry: &OperatorEntry) -> Result<()> {
        let insert = sqlx::query(INSERT)
            .bind(entry.at.as_millis())
            .bind(entry.event.as_str())
            .bind(entry.address.to_string())
            .execute(&self.pool);
        timeout(LONGEST, insert).await.map_err(|_| mute())?.map_err(database)?;
        Ok(())
    }

    async fn newest(&self, before: Option<i64>, limit: u32) -> Result<Page<OperatorRecord>> {
        let limit = limit.max(1);
        // One more than asked for tells whether there is more.
        let rows = sqlx::query(NEWEST)
            .bind(before.unwrap_or(i64::MAX))
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.pool);
        let rows = timeout(LONGEST, rows).await.map_err(|_| mute())?.map_err(database)?;
        let more = rows.len() > limit as usize;
        let rows: Vec<_> = rows.iter().take(limit as usize).map(record).collect::<Result<_>>()?;
        let next = rows.last().filter(|_| more).map(|last| last.id);
        Ok(Page { rows, next })
    }
}

fn record(row: &PgRow) -> Result<OperatorRecord> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(database);
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(database);
    let entry = OperatorEntry {
        at: Timestamp::from_millis(number("at")?),
        event: word(&text("event")?)?,
        address: word(&text("address")?)?,
    };
    Ok(OperatorRecord { id: number("id")?, entry })
}

fn word<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::unavailable(format!("the operator log holds what it cannot: {text}")))
}
