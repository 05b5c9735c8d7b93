//! `flashsale doctor`: looks whether everything that a server needs is in order, and says what is not.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{
    config::{self, Common, Http, Profile, Serve},
    http::{Embed, listener},
    wire,
};

/// The settings of the server that is meant.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    serve: Serve,
}

/// What was found of one thing.
enum Finding {
    Good(String),
    /// It works, but the operator should know.
    Note(String),
    Bad(String),
}

pub(super) async fn run(common: &Common, Doctor { serve }: Doctor) -> Result<ExitCode> {
    let mut findings = vec![("data folder", folder(&common.data_dir))];
    match serve.stand.profile {
        Profile::Embedded => {
            super::say(
                "Profile: embedded. SUCCESS is said once the purchase is on the disk (SQLite, WAL, synchronous=FULL).",
            )?;
            findings.push(("ledger", ledger(&common.data_dir).await));
        }
        Profile::Cluster => {
            super::say("Profile: cluster.")?;
            for found in wire::look_at_cluster(common, &serve.stand.services).await? {
                findings.push((
                    found.part,
                    if found.good { Finding::Good(found.says) } else { Finding::Bad(found.says) },
                ));
            }
        }
    }
    findings.extend([
        ("free space", space(&common.data_dir)),
        ("open files", open_files(serve.http.max_connections)),
        ("address", address(&serve.http)),
        ("admin token", admin_token(&common.data_dir, &serve.http)),
    ]);
    findings.extend(pages(&serve.http));
    let mut healthy = true;
    for (what, finding) in findings {
        let (sign, text) = match finding {
            Finding::Good(text) => ("✓", text),
            Finding::Note(text) => ("!", text),
            Finding::Bad(text) => {
                healthy = false;
                ("✗", text)
            }
        };
        super::say(format_args!("{sign} {what}: {text}"))?;
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn folder(data_dir: &Path) -> Finding {
    let shown = data_dir.display();
    match fs::metadata(data_dir) {
        Ok(metadata) if !metadata.is_dir() => Finding::Bad(format!("{shown} is not a folder")),
        Ok(metadata) if metadata.permissions().readonly() => Finding::Bad(format!("{shown} is read-only")),
        Ok(_) => Finding::Good(shown.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::Note(format!("{shown} does not exist yet; the first start makes it"))
        }
        Err(error) => Finding::Bad(format!("{shown}: {error}")),
    }
}

async fn ledger(data_dir: &Path) -> Finding {
    let file = data_dir.join(flashsale_embedded::FILE_NAME);
    if !file.exists() {
        return Finding::Note("there is none yet; the first start makes it".to_owned());
    }
    let sales = match wire::embedded_records(data_dir) {
        Ok(store) => store.sale_ids().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let bytes = fs::metadata(&file).map(|metadata| metadata.len()).unwrap_or_default();
    match sales {
        Ok(sales) => Finding::Good(format!("{}, {} MiB, {} sales", file.display(), bytes >> 20, sales.len())),
        Err(error) => Finding::Bad(error),
    }
}

fn space(data_dir: &Path) -> Finding {
    // The nearest folder that exists is on the disk that the data will be on.
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let Some(existing) = absolute.ancestors().find(|folder| folder.exists()) else {
        return Finding::Bad(format!("there is no {}", absolute.display()));
    };
    match fs4::available_space(existing) {
        Ok(bytes) if bytes < 1 << 30 => {
            Finding::Note(format!("only {} MiB; a sale stops when the disk is full", bytes >> 20))
        }
        Ok(bytes) => Finding::Good(format!("{} GiB", bytes >> 30)),
        Err(error) => Finding::Bad(error.to_string()),
    }
}

#[cfg(unix)]
fn open_files(connections: u32) -> Finding {
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok((_, hard)) if hard < u64::from(connections) + 64 => {
            Finding::Note(format!("{hard} may be open, fewer than --max-connections {connections} needs"))
        }
        Ok((_, hard)) => Finding::Good(format!("up to {hard}")),
        Err(error) => Finding::Bad(error.to_string()),
    }
}

#[cfg(not(unix))]
fn open_files(connections: u32) -> Finding {
    Finding::Good(format!("{connections} connections"))
}

fn address(serve: &Http) -> Finding {
    let listen = serve.listen;
    match listener::bind(listen) {
        Ok(_) if listen.ip().is_loopback() => Finding::Good(format!("{listen} is free")),
        Ok(_) => {
            Finding::Note(format!("{listen} is free, and open to the network: put a proxy with TLS in front"))
        }
        Err(error) => Finding::Note(format!("{listen}: {error} (a server may be running there)")),
    }
}

/// What the pages need, where it was given or is wrong.
fn pages(serve: &Http) -> impl Iterator<Item = (&'static str, Finding)> + use<> {
    let theme = serve.theme.as_deref().map(|path| match config::theme(path) {
        Ok(theme) => Finding::Good(format!("{}, {} bytes", path.display(), theme.len())),
        Err(error) => Finding::Bad(super::in_a_line(&error)),
    });
    let frames = Embed::new(&serve.embed_origins).err().map(|error| Finding::Bad(error.to_owned()));
    let sharing = config::check_cors_origins(&serve.cors_origins).err();
    let sharing = sharing.map(|error| Finding::Bad(error.to_string()));
    [("theme", theme), ("frames", frames), ("cross-origin sharing", sharing)]
        .into_iter()
        .filter_map(|(what, finding)| Some((what, finding?)))
}

fn admin_token(data_dir: &Path, serve: &Http) -> Finding {
    match &serve.admin_token {
        Some(token) if token.len() < 16 => Finding::Note("it is given, but short".to_owned()),
        Some(_) => Finding::Good("it is given".to_owned()),
        None => {
            let file = data_dir.join(crate::admission::FILE_NAME);
            if file.exists() {
                Finding::Good(format!("it is in {}", file.display()))
            } else {
                Finding::Note(format!("the first start makes it, in {}", file.display()))
            }
        }
    }
}
