//! An operator's session: a signed cookie, and nothing kept on the server.
//!
//! So every replica behind a load balancer takes it, and a restart ends nobody's work. What signs it is derived
//! from the admin token: whoever has the token could sign in anyway, and a new token ends all sessions. What
//! that costs is in ADR 0013.

use std::{fmt::Write, time::Duration};

use flashsale_core::clock::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;

use super::AdminToken;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "flashsale_console";
/// How long a session lasts.
pub(crate) const LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Bytes of a session's id.
const ID_BYTES: usize = 16;
/// What a cookie holds before its signature: the id, and the second in which it ends.
const PAYLOAD_BYTES: usize = ID_BYTES + 8;
const TAG_BYTES: usize = 32;

/// Signs sessions, and knows its own.
pub(crate) struct Sessions {
    key: Hmac<Sha256>,
}

/// A session that is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    id: [u8; ID_BYTES],
    ends_s: i64,
}

/// What a signature is for, so that none can stand for another.
#[derive(Clone, Copy)]
enum Purpose {
    Session,
    Csrf,
    Flash,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"session\0",
            Self::Csrf => b"csrf\0",
            Self::Flash => b"flash\0",
        }
    }
}

impl Sessions {
    pub(crate) fn new(token: &AdminToken) -> Self {
        let derived = mac(token.expose()).chain_update(b"flashsale console session key 1").finalize();
        Self { key: mac(&derived.into_bytes()) }
    }

    /// A new session, which begins at `now`.
    pub(crate) fn begin(&self, now: Timestamp) -> Session {
        let mut id = [0; ID_BYTES];
        rand::rng().fill_bytes(&mut id);
        Session { id, ends_s: now.after(LIFE).as_millis() / 1_000 }
    }

    /// The value of the cookie for a session.
    pub(crate) fn seal(&self, session: &Session) -> String {
        let payload = session.payload();
        let tag = self.signature(Purpose::Session, &payload).finalize().into_bytes();
        format!("{}{}", hex(&payload), hex(&tag))
    }

    /// The session of a cookie, if it was sealed here or by another replica and has not ended at `now`.
    pub(crate) fn unseal(&self, cookie: &str, now: Timestamp) -> Option<Session> {
        let bytes: [u8; PAYLOAD_BYTES + TAG_BYTES] = unhex(cookie)?;
        let (payload, tag) = bytes.split_at(PAYLOAD_BYTES);
        // In a time that does not depend on how much of it is right.
        self.signature(Purpose::Session, payload).verify_slice(tag).ok()?;
        let (id, ends_s) = payload.split_first_chunk::<ID_BYTES>()?;
        let session = Session { id: *id, ends_s: i64::from_be_bytes(ends_s.try_into().ok()?) };
        (now.as_millis() < session.ends_s.saturating_mul(1_000)).then_some(session)
    }

    /// What each form of a session's pages carries.
    pub(crate) fn csrf(&self, session: &Session) -> String {
        hex(&self.signature(Purpose::Csrf, &session.id).finalize().into_bytes())
    }

    /// Whether `token` is what this session's forms carry.
    pub(crate) fn is_csrf(&self, session: &Session, token: &str) -> bool {
        unhex::<TAG_BYTES>(token)
            .is_some_and(|tag| self.signature(Purpose::Csrf, &session.id).verify_slice(&tag).is_ok())
    }

    /// A signature for words that the browser brings back on the next page of this session.
    pub(crate) fn sign_words(&self, session: &Session, words: &str) -> String {
        hex(&self.words(session, words).finalize().into_bytes())
    }

    /// Whether these words were signed for this session.
    pub(crate) fn signed_words(&self, session: &Session, words: &str, tag: &str) -> bool {
        unhex::<TAG_BYTES>(tag).is_some_and(|tag| self.words(session, words).verify_slice(&tag).is_ok())
    }

    fn words(&self, session: &Session, words: &str) -> Hmac<Sha256> {
        self.signature(Purpose::Flash, &session.id).chain_update(words)
    }

    fn signature(&self, purpose: Purpose, of: &[u8]) -> Hmac<Sha256> {
        self.key.clone().chain_update(purpose.label()).chain_update(of)
    }
}

impl Session {
    fn payload(&self) -> [u8; PAYLOAD_BYTES] {
        let mut payload = [0; PAYLOAD_BYTES];
        let (id, ends_s) = payload.split_at_mut(ID_BYTES);
        id.copy_from_slice(&self.id);
        ends_s.copy_from_slice(&self.ends_s.to_be_bytes());
        payload
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Exactly `N` bytes from lower-case hexadecimal digits: one cookie has one spelling.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_428_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn sessions(token: &str) -> Sessions {
        Sessions::new(&AdminToken::new(token))
    }

    #[test]
    fn every_replica_with_the_token_takes_a_session_and_no_other() {
        let session = sessions("secret").begin(at(NOW));
        let cookie = sessions("secret").seal(&session);
        assert_eq!(sessions("secret").unseal(&cookie, at(NOW)), Some(session));
        for other in ["Secret", "secret ", ""] {
            assert_eq!(sessions(other).unseal(&cookie, at(NOW)), None);
        }
    }

    #[test]
    fn a_session_lasts_twelve_hours() {
        let sessions = sessions("secret");
        let cookie = sessions.seal(&sessions.begin(at(NOW)));
        let end = NOW + 12 * 3_600_000;
        assert!(sessions.unseal(&cookie, at(end - 1)).is_some());
        assert!(sessions.unseal(&cookie, at(end)).is_none());
    }

    #[test]
    fn no_digit_of_a_cookie_can_be_changed() {
        let sessions = sessions("secret");
        let cookie = sessions.seal(&sessions.begin(at(NOW)));
        for place in 0..cookie.len() {
            let mut forged = cookie.clone().into_bytes();
            forged[place] = if forged[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(sessions.unseal(&String::from_utf8(forged).unwrap(), at(NOW)), None, "{place}");
        }
        for spelling in [cookie.to_uppercase(), format!("{cookie}0"), cookie[2..].to_owned(), String::new()] {
            assert_eq!(sessions.unseal(&spelling, at(NOW)), None, "{spelling}");
        }
    }

    #[test]
    fn no_two_sessions_share_an_id_or_what_their_forms_carry() {
        let sessions = sessions("secret");
        let (one, two) = (sessions.begin(at(NOW)), sessions.begin(at(NOW)));
        assert_ne!(one, two);
        let csrf = sessions.csrf(&one);
        assert!(sessions.is_csrf(&one, &csrf) && !sessions.is_csrf(&two, &csrf));
        assert!(!sessions.is_csrf(&one, "") && !sessions.is_csrf(&one, &csrf[2..]));
    }

    #[test]
    fn no_signature_stands_for_another() {
        let sessions = sessions("secret");
        let session = sessions.begin(at(NOW));
        let words = sessions.sign_words(&session, "done");
        assert!(sessions.signed_words(&session, "done", &words));
        assert!(!sessions.signed_words(&session, "gone", &words));
        assert!(!sessions.is_csrf(&session, &sessions.sign_words(&session, "")));
        let forged = format!("{}{}", hex(&session.payload()), sessions.csrf(&session));
        assert_eq!(sessions.unseal(&forged, at(NOW)), None);
    }
}
