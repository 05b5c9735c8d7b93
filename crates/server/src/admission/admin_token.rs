//! The admin token: given, or made on the first start and kept where only the owner reads it.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rand::Rng;
use subtle::ConstantTimeEq;

/// The token of `serve --demo` on loopback: fixed, so that a first try needs no looking up.
pub(crate) const DEMO: &str = "demo-admin-token";
/// The file in the data folder that keeps a token which was made.
pub(crate) const FILE_NAME: &str = "admin-token";

/// The token. It never shows itself.
#[derive(Clone)]
pub(crate) struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

impl AdminToken {
    pub(crate) fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// Whether `token` is the token, in a time that does not depend on how much of it is right.
    pub(crate) fn admits(&self, token: &[u8]) -> bool {
        !self.0.is_empty() && self.0.as_bytes().ct_eq(token).into()
    }

    /// The token itself, to derive keys from.
    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The token that the data folder keeps; made, with owner-only rights, when there is none.
    pub(crate) fn kept_in(data_dir: &Path) -> io::Result<(Self, PathBuf)> {
        let file = data_dir.join(FILE_NAME);
        match fs::read_to_string(&file) {
            Ok(token) if !token.trim().is_empty() => Ok((Self::new(token.trim()), file)),
            Ok(_) => Err(io::Error::other(format!(
                "{} is empty; remove it to have a new token made",
                file.display()
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = random();
                write_for_owner(&file, &token)?;
                Ok((Self::new(token), file))
            }
            Err(error) => Err(error),
        }
    }
}

/// 256 random bits as 64 hexadecimal digits.
fn random() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_for_owner(file: &Path, token: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    writeln!(file, "{token}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let (made, file) = AdminToken::kept_in(dir.path()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.trim().len(), 64);
        assert!(made.admits(text.trim().as_bytes()));
        assert!(AdminToken::kept_in(dir.path()).unwrap().0.admits(text.trim().as_bytes()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn only_the_very_token_is_admitted() {
        let token = AdminToken::new("secret");
        assert!(token.admits(b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret"] {
            assert!(!token.admits(wrong));
        }
        assert!(!AdminToken::new("").admits(b""));
        assert_eq!(format!("{token:?}"), "AdminToken(…)");
    }
}
