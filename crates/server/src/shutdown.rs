//! Ends when the process is asked to stop: SIGTERM, SIGINT, or Ctrl-C.

use std::io;

use tracing::info;

/// Listens for the signals from now on; the future ends with the first.
pub(crate) fn requested() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "shutting down: no new work, requests under way are answered");
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                info!("shutting down: no new work, requests under way are answered");
            }
        })
    }
}
