//! The log: to standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{filter::Targets, fmt, prelude::*};

use crate::config::{Common, LogFormat};

/// What libraries say twice, of what the program says itself, and with names of users in it. A directive for the same
/// library in the settings wins.
const QUIET: &str = "lapin=off,sqlx=warn,sqlx_postgres::options=error";

/// Starts the log. Called once.
pub(crate) fn start(common: &Common) {
    let registry = tracing_subscriber::registry().with(filter(&common.log));
    match common.log_format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
            registry.with(layer.with_target(false)).init();
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(io::stderr)).init(),
    }
}

/// What is logged, with `log` as the settings have it.
pub(crate) fn filter(log: &str) -> Targets {
    format!("{QUIET},{log}").parse().expect("levels by module, checked where they are read, are a filter")
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_say_less_unless_they_are_asked() {
        let plain = filter("debug");
        assert!(plain.would_enable("flashsale_server::http", &Level::DEBUG));
        assert!(
            plain.would_enable("sqlx::query", &Level::WARN)
                && !plain.would_enable("sqlx::query", &Level::INFO)
        );
        assert!(!plain.would_enable("lapin", &Level::ERROR));
        let asked = filter("warn,lapin=info");
        assert!(asked.would_enable("lapin::channel", &Level::INFO));
        assert!(!asked.would_enable("flashsale_server::http", &Level::INFO));
    }
}
