//! Viewers: so many connections that watch one sale, for `scripts/bench`.
//!
//! `URL=127.0.0.1:3000 SALE=sale_1 VIEWERS=10000 cargo run --release --example viewers` says `all are watching` when each
//! has its first event, counts until it gets SIGINT or SIGTERM, and then prints what they have seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::sleep,
};

/// Connections that are opened at once.
const AT_ONCE: usize = 200;

/// What one viewer has seen.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    bytes: AtomicU64,
    /// The longest time between two events, in milliseconds.
    gap_ms: AtomicU64,
    ended: AtomicU64,
}

async fn watch(address: String, sale: String, opening: Arc<Semaphore>, seen: Arc<Seen>) -> Result<()> {
    let permit = opening.acquire().await?;
    let mut line = TcpStream::connect(&address).await.context("cannot connect")?;
    let request = format!("GET /api/v1/sale/{sale}/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    line.write_all(request.as_bytes()).await?;
    let mut buffer = [0; 4096];
    let read = line.read(&mut buffer).await?;
    ensure!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
    drop(permit);
    let mut last = Instant::now();
    // The head may carry the first event.
    let mut read = read;
    while read > 0 {
        let events = buffer[..read].windows(6).filter(|window| window == b"event:").count() as u64;
        if events > 0 {
            let gap = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
            if seen.events.fetch_add(events, Ordering::Relaxed) > 0 {
                seen.gap_ms.fetch_max(gap, Ordering::Relaxed);
            }
            last = Instant::now();
        }
        seen.bytes.fetch_add(read as u64, Ordering::Relaxed);
        read = line.read(&mut buffer).await?;
    }
    Ok(())
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (address, sale) = (setting("URL", "127.0.0.1:3000"), setting("SALE", "sale_1"));
    let count: usize = setting("VIEWERS", "10000").parse().context("VIEWERS is a number")?;
    ensure!((1..=20_000).contains(&count), "VIEWERS is from 1 to 20000");
    let mut stop = signal(SignalKind::terminate())?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let opening = Arc::new(Semaphore::new(AT_ONCE));
    let all: Vec<Arc<Seen>> = (0..count).map(|_| Arc::default()).collect();
    for seen in &all {
        let (address, sale, opening, seen) = (address.clone(), sale.clone(), opening.clone(), seen.clone());
        tokio::spawn(async move {
            let watched = watch(address, sale, opening, seen.clone()).await;
            seen.ended.store(1, Ordering::Relaxed);
            if let Err(error) = watched {
                eprintln!("a viewer ended: {error:#}");
            }
        });
    }
    while all
        .iter()
        .any(|seen| seen.events.load(Ordering::Relaxed) == 0 && seen.ended.load(Ordering::Relaxed) == 0)
    {
        sleep(Duration::from_millis(20)).await;
    }
    println!("all are watching");
    tokio::select! {
        _ = stop.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let mut events: Vec<u64> = all.iter().map(|seen| seen.events.load(Ordering::Relaxed)).collect();
    events.sort_unstable();
    let sum =
        |get: fn(&Seen) -> &AtomicU64| all.iter().map(|seen| get(seen).load(Ordering::Relaxed)).sum::<u64>();
    let gap = all.iter().map(|seen| seen.gap_ms.load(Ordering::Relaxed)).max().unwrap_or_default();
    println!(
        "{count} viewers, {} ended early; events each: least {}, median {}, most {}; {} bytes in all; longest gap {gap} ms",
        sum(|seen| &seen.ended),
        events[0],
        events[count / 2],
        events[count - 1],
        sum(|seen| &seen.bytes),
    );
    Ok(())
}
