//! `flashsale serve`, `api` and `worker`: start-up and shutdown, as a story.

use std::{
    pin::{Pin, pin},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Error, Result};
use clap::Args;
use tracing::{info, warn};

use crate::{
    admission::{self, AdminToken, Door},
    background::Background,
    board::Board,
    config::{self, Common, Http, Serve, Services, Setting},
    http::{
        App, Embed, Judge, Metrics, Shared, Site,
        listener::{self, Limits},
    },
    live::Hub,
    shutdown,
    web::assets::Asset,
    wire::{self, Running},
};

/// What an API replica needs.
#[derive(Args, Debug)]
pub(crate) struct Api {
    #[command(flatten)]
    http: Http,
    #[command(flatten)]
    services: Services,
}

/// What a worker needs.
#[derive(Args, Debug)]
pub(crate) struct Worker {
    #[command(flatten)]
    services: Services,
}

/// Serves everything: API, pages, and the order worker.
pub(super) async fn run(common: &Common, serve: Serve, settings: Vec<Setting>) -> Result<ExitCode> {
    let mut stop = pin!(start(&serve.http)?);
    let Some(running) = unless(stop.as_mut(), wire::everything(common, &serve.stand)).await? else {
        return goodbye();
    };
    if serve.demo {
        running.ready().await?;
        seed_if_empty(&running).await?;
    }
    listen(common, &serve.http, serve.demo, running, settings, stop).await
}

/// Serves API and pages of the cluster profile.
pub(super) async fn api(common: &Common, api: Api, settings: Vec<Setting>) -> Result<ExitCode> {
    let mut stop = pin!(start(&api.http)?);
    let Some(running) = unless(stop.as_mut(), wire::api(common, &api.services)).await? else {
        return goodbye();
    };
    listen(common, &api.http, false, running, settings, stop).await
}

/// Works on the order queue of the cluster profile.
pub(super) async fn worker(common: &Common, worker: Worker) -> Result<ExitCode> {
    let mut stop = pin!(shutdown::requested().context("cannot listen for signals")?);
    let Some(working) = unless(stop.as_mut(), wire::worker(common, &worker.services)).await? else {
        return goodbye();
    };
    working.until(stop).await?;
    goodbye()
}

/// What comes of opening a profile, unless everything is to stop before: it may wait for a service for long.
async fn unless<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    opening: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    tokio::select! {
        opened = opening => opened.map(Some),
        () = stop => Ok(None),
    }
}

fn goodbye() -> Result<ExitCode> {
    info!("goodbye");
    Ok(ExitCode::SUCCESS)
}

fn start(http: &Http) -> Result<impl Future<Output = ()> + use<>> {
    config::check_cors_origins(&http.cors_origins)?;
    let stop = shutdown::requested().context("cannot listen for signals")?;
    raise_open_files();
    Ok(stop)
}

async fn listen(
    common: &Common,
    serve: &Http,
    demo: bool,
    running: Running,
    settings: Vec<Setting>,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode> {
    let admin_token = admin_token(common, serve, demo)?;
    let theme = serve.theme.as_deref().map(config::theme).transpose()?.map(Asset::theme);
    let embed = Embed::new(&serve.embed_origins).map_err(Error::msg)?;
    let listener = listener::bind(serve.listen).with_context(|| {
        format!("cannot listen on {} (is another server there? try --listen 127.0.0.1:0)", serve.listen)
    })?;
    let address = format!("http://{}", listener.local_addr()?);
    running.announce(&address);

    let viewers = serve.max_viewers.unwrap_or(serve.max_connections / 4 * 3);
    let hub = Hub::new(running.sales.clone(), viewers);
    tokio::spawn(hub.clone().run());
    let board = Board::new(running.sales.clone(), running.vitals.clone(), hub.clone());
    tokio::spawn(board.clone().run());
    let stopping = Arc::<AtomicBool>::default();
    let app = App::new(Shared {
        sales: running.sales.clone(),
        store: running.store.clone(),
        vitals: running.vitals.clone(),
        door: Door::new(&admin_token),
        admin_token,
        operators: running.operators.clone(),
        settings,
        started: Instant::now(),
        stopping: stopping.clone(),
        metrics: Metrics::new(),
        theme,
        embed,
        hub: hub.clone(),
        board: board.clone(),
        judge: Judge::default(),
        background: Arc::new(
            Background::start().context("cannot start the threads of exports and searches")?,
        ),
        body_timeout: serve.body_timeout,
    });
    let limits = Limits {
        connections: serve.max_connections as usize,
        header: serve.header_timeout,
        write: serve.write_timeout,
        drain: serve.drain_timeout,
    };
    info!("listening on {address} (console at {address}/console, API documentation at {address}/docs)");
    // Streams do not end by themselves, and nobody is kept waiting for them.
    let stop = async {
        stop.await;
        stopping.store(true, Ordering::Release);
        hub.close();
        board.close();
    };
    listener::serve(listener, Site::new(app, &serve.cors_origins), limits, stop).await;

    running.close().await;
    goodbye()
}

async fn seed_if_empty(running: &Running) -> Result<()> {
    if running.sales.statuses().await?.is_empty() {
        let made = running.sales.seed().await?;
        let names: Vec<_> = made.iter().map(|status| status.sale.id.as_str()).collect();
        info!("the store was empty: made {}", names.join(", "));
    }
    Ok(())
}

/// The token in force, and a word on where it is; never the token itself, unless it is the well-known one.
fn admin_token(common: &Common, serve: &Http, demo: bool) -> Result<AdminToken> {
    if let Some(token) = &serve.admin_token {
        if token.len() < 16 {
            warn!("the admin token is short; 32 random characters are better");
        }
        info!("the admin token is the one that was given");
        return Ok(AdminToken::new(token));
    }
    if demo && serve.listen.ip().is_loopback() {
        info!("the admin token of this demo is {}", admission::DEMO);
        return Ok(AdminToken::new(admission::DEMO));
    }
    let (token, file) = AdminToken::kept_in(&common.data_dir).context("cannot keep the admin token")?;
    info!("the admin token is in {}", file.display());
    Ok(token)
}

/// A crowd needs as many file handles as there are connections. How many there may be now, where that is known.
pub(super) fn raise_open_files() -> Option<u64> {
    #[cfg(unix)]
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => {
            if limit < 4_096 {
                warn!(limit, "few files may be open at once, and so few connections");
            }
            return Some(limit);
        }
        Err(error) => warn!(%error, "the limit of open files cannot be raised"),
    }
    None
}
