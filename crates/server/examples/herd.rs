//! A herd: so many connections that are open before a sale begins, and all ask at the instant at which it does. For
//! `scripts/scale`.
//!
//! `URL=127.0.0.1:3000 SALE=sale_1 CONNECTIONS=100000 HOLD=20 cargo run --release --example herd` connects, says `all are
//! connected`, waits for a line on its standard input that names the moment in milliseconds since 1970, asks then, and prints
//! one line of JSON. Without `HOLD` nothing is opened before: each connects at that moment.
//!
//! Times count from the moment, whenever a request could be sent: the herd shares the processors with the server.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections from one address: a source address has about 28,000 ports for a destination.
const OF_AN_ADDRESS: usize = 20_000;
/// Connections that are opened at once.
const AT_ONCE: usize = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of one who asked.
struct Asked {
    /// From the moment, in microseconds.
    sent: u64,
    answered: u64,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Success,
    SoldOut,
    Other(u16),
    None,
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Closed without a rest: ports that wait after their close would make the next herd's search for a free one take seconds.
    socket.set_zero_linger()?;
    // To bind is a search too, so only those do who find no port left otherwise.
    let addresses = u8::try_from(number / OF_AN_ADDRESS).unwrap_or(u8::MAX - 1);
    if addresses > 0 && address.ip().is_loopback() {
        socket.bind(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, addresses + 1), 0).into())?;
    }
    let line = socket.connect(address).await?;
    line.set_nodelay(true)?;
    Ok(line)
}

/// Asks; the status and the body of the reply.
async fn ask(line: &mut TcpStream, request: &[u8], sent: &mut u64, moment: Instant) -> io::Result<Answer> {
    line.write_all(request).await?;
    *sent = micros(moment);
    let mut buffer = [0; 1024];
    let mut length = 0;
    loop {
        let read = line.read(&mut buffer[length..]).await?;
        length += read;
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.contains("\"SUCCESS\"") {
            return Ok(Answer::Success);
        }
        if text.contains("\"SOLD_OUT\"") {
            return Ok(Answer::SoldOut);
        }
        if read == 0 || length == buffer.len() || text.ends_with('}') {
            let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
            return Ok(status.map_or(Answer::None, Answer::Other));
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn one(
    number: usize,
    address: SocketAddr,
    sale: Arc<str>,
    opening: Option<Arc<Semaphore>>,
    mut moment: watch::Receiver<Option<Instant>>,
) -> Asked {
    let mut line = None;
    if let Some(opening) = opening {
        // Closed when all have been opened.
        if let Ok(permit) = opening.acquire().await {
            line =
                connect(address, number).await.inspect_err(|error| eprintln!("cannot connect: {error}")).ok();
            drop(permit);
        }
    }
    let body = format!("{{\"saleId\":\"{sale}\",\"userId\":\"herd-{number}\"}}");
    let request = format!(
        "POST /api/v1/sale/purchase HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let began = match moment.wait_for(Option::is_some).await {
        Ok(moment) => (*moment).expect("it was waited for"),
        Err(_) => Instant::now(),
    };
    tokio::time::sleep_until(began.into()).await;
    let mut sent = 0;
    let asking = async {
        if line.is_none() {
            line = connect(address, number).await.ok();
        }
        match &mut line {
            Some(line) => ask(line, request.as_bytes(), &mut sent, began).await.unwrap_or(Answer::None),
            None => Answer::None,
        }
    };
    let answer = timeout(PATIENCE, asking).await.unwrap_or(Answer::None);
    Asked { sent, answered: micros(began), answer }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address: SocketAddr = setting("URL", "127.0.0.1:3000").parse().context("URL is an address")?;
    let sale: Arc<str> = setting("SALE", "sale_1").into();
    let count: usize = setting("CONNECTIONS", "10000").parse().context("CONNECTIONS is a number")?;
    ensure!((1..=200_000).contains(&count), "CONNECTIONS is from 1 to 200000");
    let open_before = std::env::var_os("HOLD").is_some();
    rlimit::increase_nofile_limit(u64::MAX)?;

    let opening = open_before.then(|| Arc::new(Semaphore::new(AT_ONCE)));
    let (tell, told) = watch::channel(None);
    let started = Instant::now();
    let all: Vec<_> = (0..count)
        .map(|number| tokio::spawn(one(number, address, sale.clone(), opening.clone(), told.clone())))
        .collect();
    drop(told);
    if let Some(opening) = &opening {
        while opening.available_permits() < AT_ONCE || started.elapsed() < Duration::from_millis(100) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let connected_ms = started.elapsed().as_millis();
    println!("all are connected");
    io::stdout().flush()?;

    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let at: u64 = line.trim().parse().context("the moment is in milliseconds since 1970")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let moment = Instant::now() + Duration::from_millis(at).saturating_sub(now);
    tell.send(Some(moment))?;

    let mut asked = Vec::with_capacity(count);
    for one in all {
        asked.push(one.await?);
    }
    report(&asked, connected_ms);
    Ok(())
}

fn report(asked: &[Asked], connected_ms: u128) {
    let told = |wanted: Answer| asked.iter().filter(|asked| asked.answer == wanted).count();
    let other = asked.iter().filter(|asked| matches!(asked.answer, Answer::Other(_))).count();
    let mut answered: Vec<&Asked> = asked.iter().filter(|asked| asked.answer != Answer::None).collect();
    let mut waits: Vec<u64> = answered.iter().map(|asked| asked.answered).collect();
    waits.sort_unstable();
    let at = |part: f64| waits.get(((waits.len() as f64 * part) as usize).min(waits.len().saturating_sub(1)));
    let ms = |part: f64| at(part).map_or(0.0, |micros| *micros as f64 / 1e3);
    let sent = asked.iter().map(|asked| asked.sent).max().unwrap_or_default() as f64 / 1e3;

    // First come, first served: where those who got a unit stood among those who sent, from 0 (the first) to 1.
    answered.sort_by_key(|asked| asked.sent);
    let winners: Vec<usize> = answered
        .iter()
        .enumerate()
        .filter(|(_, asked)| asked.answer == Answer::Success)
        .map(|(rank, _)| rank)
        .collect();
    let last_winner = winners.last().map_or(0.0, |rank| *rank as f64 / answered.len() as f64);
    println!(
        "{{\"connections\":{},\"connectedMs\":{connected_ms},\"success\":{},\"soldOut\":{},\"other\":{other},\"unanswered\":{},\
         \"sentMs\":{sent:.1},\"p50Ms\":{:.1},\"p99Ms\":{:.1},\"maxMs\":{:.1},\"orderKept\":{:.4},\"lastWinnerAt\":{last_winner:.4}}}",
        asked.len(),
        told(Answer::Success),
        told(Answer::SoldOut),
        told(Answer::None),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        order_kept(&answered),
    );
}

/// How far answers came in the order of the sending: 1 where they did, 0 where it did not matter (Spearman's ρ).
fn order_kept(by_sent: &[&Asked]) -> f64 {
    let count = by_sent.len();
    if count < 2 {
        return 1.0;
    }
    let mut by_answer: Vec<usize> = (0..count).collect();
    by_answer.sort_by_key(|&rank| by_sent[rank].answered);
    let squares: f64 =
        by_answer.iter().enumerate().map(|(answered, &sent)| (answered as f64 - sent as f64).powi(2)).sum();
    let count = count as f64;
    1.0 - 6.0 * squares / (count * (count * count - 1.0))
}
