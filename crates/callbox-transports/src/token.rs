//! Session tokens: the client's right to one session, checked without a look-up.

use std::fmt;

use callbox_core::SessionId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Makes and checks session tokens: `<session id>.<hex HMAC-SHA256 of it>`.
///
/// Derived from the id and a secret that all replicas share, so that a repeated start gets the
/// same answer and nothing has to be kept. They are as good as the session lives.
#[derive(Clone)]
pub struct SessionTokens {
    secret: Vec<u8>,
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTokens(…)")
    }
}

impl SessionTokens {
    /// With the secret of this deployment.
    pub fn new(secret: impl Into<Vec<u8>>) -> SessionTokens {
        SessionTokens { secret: secret.into() }
    }

    /// The token of `session`.
    pub fn sign(&self, session: SessionId) -> String {
        format!("{session}.{}", hex::encode(self.mac(session).finalize().into_bytes()))
    }

    /// The session whose token this is, if it is one. Compares in constant time.
    pub fn check(&self, token: &str) -> Option<SessionId> {
        let (id, tag) = token.split_once('.')?;
        let session = SessionId::parse(id)?;
        let tag = hex::decode(tag).ok()?;
        self.mac(session).verify_slice(&tag).ok().map(|()| session)
    }

    fn mac(&self, session: SessionId) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(b"callbox session ");
        mac.update(session.to_string().as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    const OTHER: &str = "7f9619ff-8b86-4d01-b42d-00cf4fc964ff";

    #[test]
    fn only_what_was_signed_passes() {
        let tokens = SessionTokens::new("secret");
        let session = SessionId::parse(ID).expect("a uuid");
        let token = tokens.sign(session);
        assert_eq!(tokens.check(&token), Some(session));
        assert_eq!(SessionTokens::new("other").check(&token), None);
        let tag = token.split_once('.').expect("two parts").1;
        for bad in ["", ".", ID, &format!("{ID}."), &format!("{OTHER}.{tag}"), &format!("{ID}.zz")]
        {
            assert_eq!(tokens.check(bad), None, "{bad:?} must not pass");
        }
    }
}
