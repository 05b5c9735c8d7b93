//! A bar on stderr while the load is on, for whoever watches a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::options::Options;
use crate::tally::Tallies;

const TEMPLATE: &str = "   {bar:40} {percent:>3}%  {msg}";
const REFRESH: Duration = Duration::from_millis(200);

/// A bar that runs with the clock and counts the attempts that are over. It ends when dropped.
pub(crate) struct Progress {
    /// The bar and the task that moves it; `None` when nobody watches.
    shown: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Progress {
    /// Shows the bar if that is wanted and stderr is a terminal.
    pub(crate) fn start(options: &Options, tallies: &Arc<Tallies>) -> Self {
        if !options.progress {
            return Self { shown: None };
        }
        let duration = options.load.duration();
        let bar = ProgressBar::with_draw_target(Some(millis(duration)), ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            return Self { shown: None };
        }
        bar.set_style(ProgressStyle::with_template(TEMPLATE).expect("a test parses it"));
        let mover = tokio::spawn(move_on(bar.clone(), Arc::clone(tallies)));
        Self { shown: Some((bar, mover)) }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((bar, mover)) = &self.shown {
            mover.abort();
            bar.finish_and_clear();
        }
    }
}

async fn move_on(bar: ProgressBar, tallies: Arc<Tallies>) {
    let mut refresh = tokio::time::interval(REFRESH);
    loop {
        refresh.tick().await;
        let end = bar.length().unwrap_or_default();
        bar.set_position(millis(bar.elapsed()).min(end));
        bar.set_message(format!("{} attempts over", tallies.entered()));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_parses() {
        ProgressStyle::with_template(TEMPLATE).expect("parses");
    }
}
