//! Settings: one structure behind flags, `FLASHSALE_…` variables and the config file.
//!
//! The flags are the one definition. A config file holds the same names; each of its values is checked as
//! the flag would be, and then stands in for the flag's default. So a flag wins over a variable, a variable
//! over the file, the file over the default, and none of them can drift from the others.

use std::{
    ffi::OsString,
    fmt::Display,
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueEnum, parser::ValueSource};
use flashsale_cluster::Secret;
use http::{HeaderValue, uri::Authority};
use tracing::level_filters::LevelFilter;

/// Which parts the program stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Profile {
    /// One process, one file
    Embedded,
    /// Redis, RabbitMQ and PostgreSQL, with any number of replicas and workers
    Cluster,
}

/// When SUCCESS is said in the cluster profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Ack {
    /// When RabbitMQ has confirmed the reservation: it survives the loss of Redis
    Queued,
    /// When Redis has reserved: as durable as that Redis is
    Reserved,
}

/// How the log is written, to standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the data is, and how the program speaks: settings of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Read settings from this TOML file; its keys are the names of the flags
    #[arg(long, env = "FLASHSALE_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// The data folder; it is made when there is none, for its owner only
    #[arg(long, env = "FLASHSALE_DATA_DIR", value_name = "DIR", default_value = "./data", global = true)]
    pub(crate) data_dir: PathBuf,
    /// What to log: a level (error, warn, info, debug, trace, off), or levels by module, such as info,sqlx=debug
    #[arg(long, env = "FLASHSALE_LOG", value_name = "FILTER", default_value = "info", global = true, value_parser = log_filter)]
    pub(crate) log: String,
    /// How to write the log
    #[arg(long, env = "FLASHSALE_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
}

/// What to stand on.
#[derive(Args, Clone, Debug)]
pub(crate) struct Stand {
    /// What to stand on
    #[arg(
        long,
        env = "FLASHSALE_PROFILE",
        value_name = "PROFILE",
        default_value = "embedded",
        global = true
    )]
    pub(crate) profile: Profile,
    #[command(flatten)]
    pub(crate) services: Services,
}

/// The heading of what only the cluster profile goes by.
const CLUSTER: &str = "Cluster profile";

/// The services of the cluster profile.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = CLUSTER)]
pub(crate) struct Services {
    // The addresses are checked where they are used: what is wrong with them must be said without their passwords.
    /// PostgreSQL, such as postgres://user:password@host:5432/name?sslmode=verify-full
    #[arg(long, env = "FLASHSALE_DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub(crate) database_url: Option<Secret>,
    /// Redis or a node of a Redis Cluster, such as redis://host:6379 or rediss://user:password@host:6379
    #[arg(long, env = "FLASHSALE_REDIS_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub(crate) redis_url: Option<Secret>,
    /// RabbitMQ, such as amqp://user:password@host:5672/%2f or amqps://…
    #[arg(long, env = "FLASHSALE_AMQP_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub(crate) amqp_url: Option<Secret>,
    /// Set before the names of all keys, queues and exchanges, so that installations can share services
    #[arg(long, env = "FLASHSALE_NAMESPACE", value_name = "TEXT", default_value = "", global = true, value_parser = namespace)]
    pub(crate) namespace: String,
    /// When SUCCESS is said
    #[arg(long, env = "FLASHSALE_ACK", value_name = "WHEN", default_value = "queued", global = true)]
    pub(crate) ack: Ack,
    /// Take a Redis that keeps nothing on disk; its loss then interrupts a sale until it is rebuilt
    #[arg(long, env = "FLASHSALE_ALLOW_VOLATILE_REDIS", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, global = true)]
    pub(crate) allow_volatile_redis: bool,
    /// Reject from memory once a sale is sold out, without asking Redis
    #[arg(long, env = "FLASHSALE_SOLD_OUT_LATCH", value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, global = true)]
    pub(crate) sold_out_latch: bool,
    /// The most connections to PostgreSQL
    #[arg(long, env = "FLASHSALE_DATABASE_CONNECTIONS", value_name = "COUNT", default_value = "10", global = true, value_parser = clap::value_parser!(u32).range(3..=1_000))]
    pub(crate) database_connections: u32,
    /// How much of the audit trail may wait in the data folder while PostgreSQL is away, in MiB
    #[arg(long, env = "FLASHSALE_AUDIT_SPOOL_MIB", value_name = "MIB", default_value = "1024", global = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) audit_spool_mib: u32,
}

/// How to serve.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) http: Http,
    /// Seed three sales into an empty store; on loopback, the admin token is then demo-admin-token
    #[arg(long, env = "FLASHSALE_DEMO", value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub(crate) demo: bool,
    #[command(flatten)]
    pub(crate) stand: Stand,
}

/// How to listen, and to whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Http {
    /// The address and port to serve
    #[arg(long, env = "FLASHSALE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:3000", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// The admin token; without one, it is made on the first start and kept in the data folder
    #[arg(long, env = "FLASHSALE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = admin_token)]
    pub(crate) admin_token: Option<String>,
    /// The origins whose pages may use the API (CORS), or * for all
    #[arg(long, env = "FLASHSALE_CORS_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',', value_parser = origin)]
    pub(crate) cors_origins: Vec<HeaderValue>,
    /// A small style sheet of the shop's own, which every page gets after ours
    #[arg(long, env = "FLASHSALE_THEME", value_name = "FILE")]
    pub(crate) theme: Option<PathBuf>,
    /// The origins whose pages may show a sale in a frame, * for all, or none
    #[arg(long, env = "FLASHSALE_EMBED_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',', default_value = "*", value_parser = framing_origin)]
    pub(crate) embed_origins: Vec<HeaderValue>,
    /// The most connections at once; further ones are told 503
    #[arg(long, env = "FLASHSALE_MAX_CONNECTIONS", value_name = "COUNT", default_value = "20000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,
    /// The most people who watch sales at once; by default three quarters of the connections
    #[arg(long, env = "FLASHSALE_MAX_VIEWERS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) max_viewers: Option<u32>,
    /// How long a request's header may take to arrive, and a connection may stay idle
    #[arg(long, env = "FLASHSALE_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) header_timeout: Duration,
    /// How long a request's body may take to arrive
    #[arg(long, env = "FLASHSALE_BODY_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) body_timeout: Duration,
    /// How long a client may take to read anything of its reply
    #[arg(long, env = "FLASHSALE_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) write_timeout: Duration,
    /// How long requests under way may take to end on shutdown
    #[arg(long, env = "FLASHSALE_DRAIN_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) drain_timeout: Duration,
}

/// A span of time such as `10s`, `500ms` or `1m 30s`; more than none, and at most an hour.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write it like 10s, 500ms or 1m 30s, up to 1h".to_owned();
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = Duration::try_from(span).map_err(|_| wrong())?;
    let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
    if bounds.contains(&duration) { Ok(duration) } else { Err(wrong()) }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it like 127.0.0.1:3000, 0.0.0.0:80 or [::1]:3000".to_owned())
}

pub(crate) fn namespace(text: &str) -> Result<String, String> {
    let fits = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("it must be up to 64 of A-Z, a-z, 0-9, _ - . and :".to_owned())
    }
}

/// A level, or levels by module. Nothing else, such as patterns for the fields of spans: to compile forty characters of
/// those took minutes.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    let is_module =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte));
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    let wrong = text.split(',').find(|directive| match directive.split_once('=') {
        Some((module, level)) => module.is_empty() || !is_module(module) || !is_level(level),
        None => !is_level(directive),
    });
    match wrong {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(format!(
            "{wrong:?} is neither a level (error, warn, info, debug, trace, off) nor one of a module, such as sqlx=debug"
        )),
    }
}

pub(crate) fn admin_token(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("it must not be empty; leave it out to have one made".to_owned())
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
        Err("it must be of visible ASCII characters without spaces".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    match HeaderValue::from_str(text) {
        Ok(value) if text == "*" || is_origin(text) => Ok(value),
        _ => Err("write it like https://shop.example, or * for all".to_owned()),
    }
}

/// Scheme, host and perhaps a port, and nothing more, as browsers name where a page comes from.
fn is_origin(text: &str) -> bool {
    let Some(authority) = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        return false;
    };
    authority.parse::<Authority>().is_ok_and(|parsed| {
        // A port that is none reads as if there were none.
        let whole = parsed.host().len() == authority.len() || parsed.port().is_some();
        !parsed.host().is_empty() && whole && !authority.contains('@')
    })
}

pub(crate) fn framing_origin(text: &str) -> Result<HeaderValue, String> {
    // What has a meaning of its own in the header that this goes into is in no origin.
    let fits = text == "none" || !text.contains([';', ',', ' ', '\'']);
    match origin(text) {
        Ok(value) if fits => Ok(value),
        _ if text == "none" => Ok(HeaderValue::from_static("none")),
        _ => Err("write it like https://shop.example, or * for all, or none".to_owned()),
    }
}

/// The longest theme, in bytes: a page is to come in one go, with everything.
const THEME_BYTES: u64 = 16 * 1024;

/// The shop's own style sheet.
///
/// # Errors
/// A file that cannot be read, is too long, or is no text.
pub(crate) fn theme(path: &Path) -> Result<String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read the theme {shown}"))?;
    file.take(THEME_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the theme {shown}"))?;
    if bytes.len() as u64 > THEME_BYTES {
        bail!("the theme {shown} is too long; it may have {THEME_BYTES} bytes");
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("the theme {shown} is not UTF-8 text"))
}

/// Whether the origins of cross-origin sharing agree with each other.
///
/// # Errors
/// When `*` does not stand alone.
pub(crate) fn check_cors_origins(origins: &[HeaderValue]) -> Result<()> {
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        bail!("cors-origins: * is all origins, so it must stand alone");
    }
    Ok(())
}

/// The commented file that `--config` takes.
pub(crate) const EXAMPLE: &str = include_str!("../flashsale.toml");

/// `command` with the values of the config file, where `arguments` or the environment name one, as defaults.
///
/// # Errors
/// A file that cannot be read, a key that is none, a value that its flag would not take.
pub(crate) fn with_config_file(command: Command, arguments: &[OsString]) -> Result<Command> {
    let Some(path) = config_path(arguments) else { return Ok(command) };
    let shown = path.display();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read the config file {shown}"))?;
    with_values(command, &text, shown)
}

/// `command` with the values of a config file's text as defaults.
pub(crate) fn with_values(mut command: Command, text: &str, shown: impl Display) -> Result<Command> {
    let table: toml::Table =
        text.parse().map_err(|error| anyhow!("the config file {shown} is not TOML: {error}"))?;
    for (key, value) in table {
        let value = as_argument(&value).ok_or_else(|| {
            anyhow!("{shown}: {key} must be a text, a number, a boolean or a list of texts")
        })?;
        check(&command, &key, &value).with_context(|| format!("in the config file {shown}"))?;
        command = with_default(command, &key, &value);
    }
    Ok(command)
}

/// The value of `--config`, found before anything else is read.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("FLASHSALE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn as_argument(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(texts) => {
            Some(texts.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

/// Checks a key of the file as if it were given as the flag of `serve`, which has them all.
fn check(command: &Command, key: &str, value: &str) -> Result<()> {
    let serve = command.find_subcommand("serve").ok_or_else(|| anyhow!("there is no command serve"))?;
    let names = |command: &Command| -> Vec<String> {
        command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
    };
    let mut known: Vec<_> = names(serve).into_iter().chain(names(command)).collect();
    known.retain(|name| !["config", "help", "version"].contains(&name.as_str()));
    known.sort();
    known.dedup();
    if !known.iter().any(|name| name == key) {
        bail!("there is no key {key}; the keys are {}", known.join(", "));
    }
    let arguments = ["flashsale".to_owned(), "serve".to_owned(), format!("--{key}={value}")];
    match command.clone().try_get_matches_from(arguments) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{key}: {}", reason(&error)),
    }
}

/// The first line of clap's complaint, without its "error: ".
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    paragraph.join(" ").trim_start_matches("error: ").to_owned()
}

fn with_default(command: Command, key: &str, value: &str) -> Command {
    let set = |command: Command| {
        let id = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(key))
            .map(|arg| (arg.get_id().clone(), arg.get_value_delimiter()));
        match id {
            Some((id, Some(delimiter))) => {
                let values: Vec<String> = value.split(delimiter).map(str::to_owned).collect();
                command.mut_arg(id, |arg| arg.default_values(values))
            }
            Some((id, None)) => command.mut_arg(id, |arg| arg.default_value(value.to_owned())),
            None => command,
        }
    };
    set(command).mut_subcommands(set)
}

/// A setting that is in force, as an operator may read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    /// Its name as a flag, without the dashes.
    pub(crate) name: String,
    /// Its value; of a secret, that there is one.
    pub(crate) value: String,
    /// Where it comes from.
    pub(crate) source: &'static str,
}

/// The settings that the command which was asked for runs with. `plain` is the command line without the config
/// file, `command` with it: what differs between their defaults was in the file.
pub(crate) fn in_force(plain: &Command, command: &Command, matches: &ArgMatches) -> Vec<Setting> {
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    let arguments = |command: &Command| -> Vec<Arg> {
        let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
        own.chain(command.get_arguments()).filter(|arg| arg.get_action().takes_values()).cloned().collect()
    };
    let plain = arguments(plain);
    let setting = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let given = matches.try_get_raw(id).ok()?.map(|values| {
            let texts: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            shown(arg, &texts.join(", "))
        });
        let default = plain.iter().find(|plain| plain.get_id() == id)?.get_default_values();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) if arg.get_default_values() != default => "config file",
            _ => "default",
        };
        let value = given.unwrap_or_else(|| "not given".to_owned());
        Some(Setting { name: arg.get_long()?.to_owned(), value, source })
    };
    let all = arguments(command);
    // What the other profile would go by is not in force.
    let clustered = name == "api" || matches!(matches.try_get_one("profile"), Ok(Some(Profile::Cluster)));
    let other = |arg: &&Arg| arg.get_help_heading().is_none_or(|heading| heading != CLUSTER || clustered);
    all.iter().filter(other).filter_map(setting).collect()
}

/// A value as it may be shown: of an address the part without user and password, of a token nothing.
fn shown(arg: &Arg, value: &str) -> String {
    match arg.is_hide_env_values_set() {
        true if arg.get_long().is_some_and(|name| name.ends_with("-url")) => {
            Secret::from(value.to_owned()).to_string()
        }
        true => "given, not shown".to_owned(),
        false => value.to_owned(),
    }
}

/// Variables that look like ours and are none: most likely a slip of the pen.
pub(crate) fn unknown_variables(command: &Command) -> Vec<String> {
    let mut known: Vec<OsString> = Vec::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        known.extend(command.get_arguments().filter_map(|arg| arg.get_env()).map(OsString::from));
        commands.extend(command.get_subcommands());
    }
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("FLASHSALE_") && !known.contains(name))
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::{Action, Cli};

    fn parse(file: &str, arguments: &[&str]) -> Result<Serve> {
        let mut config = tempfile::NamedTempFile::new()?;
        config.write_all(file.as_bytes())?;
        let mut all: Vec<OsString> =
            vec!["flashsale".into(), "serve".into(), "--config".into(), config.path().into()];
        all.extend(arguments.iter().map(OsString::from));
        let mut matches = with_config_file(Cli::command(), &all)?.try_get_matches_from(all)?;
        match <Cli as clap::FromArgMatches>::from_arg_matches_mut(&mut matches)?.action {
            Action::Serve(serve) => Ok(serve),
            _ => bail!("not serve"),
        }
    }

    #[test]
    fn a_log_filter_is_a_level_or_levels_by_module() {
        for text in ["info", "OFF", "sqlx=warn", "INFO,flashsale_embedded=debug,flashsale_server::http=trace"]
        {
            assert_eq!(log_filter(text).as_deref(), Ok(text));
        }
        for (text, wrong) in [
            ("", "\"\""),
            ("inof", "\"inof\""),
            ("info,", "\"\""),
            ("info, sqlx=debug", "\" sqlx=debug\""),
            ("info,sqlx=", "\"sqlx=\""),
            ("=info,debug", "\"=info\""),
            ("sqlx=info=debug", "\"sqlx=info=debug\""),
            ("sqlx[span]=info", "\"sqlx[span]=info\""),
            // The fuzzer's: to compile its pattern took minutes.
            ("[n{x=1]......................=]bbd}", "[n{x=1]"),
        ] {
            let error = log_filter(text).expect_err(text);
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "listen = \"127.0.0.1:4000\"\nmax-connections = 7\ndemo = true\ncors-origins = [\"https://a.example\", \"https://b.example\"]\n";
        let serve = parse(file, &["--max-connections", "9"]).unwrap();
        assert_eq!(serve.http.listen.to_string(), "127.0.0.1:4000");
        assert_eq!((serve.http.max_connections, serve.demo, serve.http.cors_origins.len()), (9, true, 2));
        assert_eq!(serve.http.drain_timeout, Duration::from_secs(10));
        assert!(!parse("demo = true", &["--demo=false"]).unwrap().demo);
    }

    #[test]
    fn an_error_names_the_key_the_value_and_what_is_allowed() {
        for (file, words) in [
            ("listn = \"x\"", ["no key listn", "listen"]),
            ("listen = \"nowhere\"", ["nowhere", "127.0.0.1:3000"]),
            ("max-connections = 0", ["max-connections", "1..=1000000"]),
            ("header-timeout = \"soon\"", ["soon", "10s"]),
            ("log-format = \"xml\"", ["xml", "json"]),
            ("listen = { port = 1 }", ["listen", "must be a text"]),
            ("listen", ["not TOML", "line 1"]),
            ("cors-origins = [\"shop.example\"]", ["shop.example", "https://"]),
            ("embed-origins = [\"https://a.example; script-src *\"]", ["script-src", "none"]),
        ] {
            let error = format!("{:#}", parse(file, &[]).unwrap_err());
            for word in words {
                assert!(error.contains(word), "{file}: {error}");
            }
        }
    }

    #[test]
    fn the_example_file_holds_every_key_with_its_default() {
        let uncommented: String = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.contains(" = "))
            .map(|line| format!("{line}\n"))
            .collect();
        parse(&uncommented, &[]).unwrap();
        let table: toml::Table = uncommented.parse().unwrap();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments().chain(command.get_arguments()) {
            let Some(name) = arg.get_long().filter(|name| !["config", "help", "version"].contains(name))
            else {
                continue;
            };
            let value = table.get(name).unwrap_or_else(|| panic!("the example has no key {name}"));
            if let [default] = arg.get_default_values() {
                assert_eq!(as_argument(value).unwrap(), default.to_string_lossy(), "{name}");
            }
        }
    }

    #[test]
    fn a_theme_is_a_short_text() {
        let theme = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            super::theme(file.path()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(theme(b":root { --accent: red }").unwrap(), ":root { --accent: red }");
        assert_eq!(theme(&[b' '; 16 * 1024]).unwrap().len(), 16 * 1024);
        assert!(theme(&[b' '; 16 * 1024 + 1]).unwrap_err().contains("16384"));
        assert!(theme(b"\xff").unwrap_err().contains("UTF-8"));
        let missing = format!("{:#}", super::theme(Path::new("/nowhere.css")).unwrap_err());
        assert!(missing.contains("/nowhere.css") && missing.contains("cannot read"));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["flashsale", "serve", "--demo"]).is_ok());
    }
}
