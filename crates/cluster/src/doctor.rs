//! Looks at each service as a start would, and changes nothing.

use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::{
    broker::Broker,
    cluster::OpenError,
    database::{self, FORM, connect},
    durability::Durability,
    options::{Options, Secret},
    stock::{Stock, Trouble},
};

/// The oldest PostgreSQL, as its `server_version_num`.
const OLDEST_POSTGRES: i32 = 150_000;

const DATABASE: &str = "SELECT current_setting('server_version') AS version, \
     current_setting('server_version_num')::int AS number, \
     current_setting('transaction_read_only') = 'on' AS read_only, \
     coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
     current_user::text AS role, to_regclass('_sqlx_migrations') IS NOT NULL AS has_records";
const RECORDS: &str = "SELECT coalesce(max(version), 0) AS form, \
     bool_and(has_table_privilege(to_regclass(records), privilege)) AS may_write \
     FROM _sqlx_migrations, unnest(ARRAY['sales', 'orders', 'trail']) AS records, \
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege";

/// What was found of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The service, or what of it.
    pub part: &'static str,
    /// Whether it will do.
    pub good: bool,
    /// What there is to say.
    pub says: String,
}

fn good(part: &'static str, says: impl Into<String>) -> Finding {
    Finding { part, good: true, says: says.into() }
}

fn bad(part: &'static str, says: impl Into<String>) -> Finding {
    Finding { part, good: false, says: says.into() }
}

/// Looks at each service.
pub async fn look(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pool = match connect(&options.database_url, 2).await {
        Ok(pool) => {
            match look_at_database(&pool, &options.database_url).await {
                Ok(found) => findings.extend(found),
                Err(error) => findings.push(bad("database", error.to_string())),
            }
            Some(pool)
        }
        Err(error) => {
            findings.push(bad("database", error.to_string()));
            None
        }
    };
    findings.extend(look_at_redis(options, pool.as_ref()).await);
    findings.push(match Broker::probe(&options.amqp_url).await {
        Ok(()) => good("rabbitmq", format!("it answers at {}", options.amqp_url)),
        Err(reason) => bad("rabbitmq", format!("{}: {reason}", options.amqp_url)),
    });
    findings
}

async fn look_at_database(pool: &PgPool, url: &Secret) -> sqlx::Result<Vec<Finding>> {
    let found = sqlx::query(DATABASE).fetch_one(pool).await?;
    let version = format!("PostgreSQL {} at {url}", found.get::<&str, _>("version"));
    let server = if found.get::<i32, _>("number") < OLDEST_POSTGRES {
        bad("database", format!("{version}: 15 or later is needed"))
    } else if found.get("read_only") {
        bad("database", format!("{version}: it is read-only (a standby?), and orders could not be stored"))
    } else {
        good("database", version)
    };
    let (role, may_create) = (found.get::<&str, _>("role"), found.get::<bool, _>("may_create"));
    let (form, may_write) = if found.get("has_records") {
        let records = sqlx::query(RECORDS).fetch_one(pool).await?;
        (records.get::<i64, _>("form"), records.get::<Option<bool>, _>("may_write").unwrap_or_default())
    } else {
        (0, true)
    };
    let newest = i64::try_from(FORM).expect("few migrations");
    let records = match form {
        _ if form > newest => bad("records", database::too_new(form)),
        _ if form < newest && !may_create => bad(
            "records",
            format!("the role {role} may not make tables: let another one run flashsale migrate"),
        ),
        0 => good("records", "none yet; the first start makes their tables"),
        _ if !may_write => bad("records", format!("the role {role} may not read and write them all")),
        _ if form < newest => {
            good("records", format!("of form {form}; the next start brings them to {newest}"))
        }
        _ => good("records", format!("of form {form}, which this program writes")),
    };
    Ok(vec![server, records])
}

async fn look_at_redis(options: &Options, pool: Option<&PgPool>) -> Vec<Finding> {
    let url = &options.redis_url;
    // One that has no records yet has no keys, either.
    let installation = match pool {
        Some(pool) => database::installation(pool).await.unwrap_or_default(),
        None => Uuid::nil(),
    };
    let stock = match Stock::connect_loaded(url, &options.namespace, installation).await {
        Ok(stock) => stock,
        Err(error) => return vec![bad("redis", format!("{url}: {error}"))],
    };
    if let Err(error) = stock.libraries().await {
        return vec![bad(
            "redis",
            format!("{url}: it has no functions ({error}); Redis 7 or later is needed"),
        )];
    }
    if let Err(error) = stock.try_rights().await {
        return vec![bad("redis", format!("{url}: this account may not do all that is needed: {error}"))];
    }
    let asked = async || Ok::<_, Trouble>((Durability::read(&stock).await?, stock.is_foreign().await?));
    let (durability, foreign) = match asked().await {
        Ok(told) => told,
        Err(trouble) => return vec![bad("redis", flashsale_core::Error::from(trouble).to_string())],
    };
    let refused = durability.is_volatile() && !options.allow_volatile_redis;
    let kept = match (refused, durability.is_volatile()) {
        (true, _) => "it keeps nothing on disk, and --allow-volatile-redis is not set",
        (false, true) => "it keeps nothing on disk; its loss interrupts a sale until it is rebuilt",
        (false, false) => durability.kept(),
    };
    let mut findings = vec![
        Finding { part: "redis", good: !refused, says: format!("{url}: {kept}") },
        Finding {
            part: "eviction",
            good: !durability.evicts(),
            says: format!("maxmemory-policy {}", durability.eviction),
        },
    ];
    // Without the database nobody knows whose they are.
    if foreign && pool.is_some() {
        let keys = OpenError::Foreign { url: url.clone(), index: stock.keys.index() };
        findings.push(bad("keys", keys.to_string()));
    }
    findings.push(good("promise", durability.promise(options.ack)));
    findings
}
