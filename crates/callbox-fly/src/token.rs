//! The API token: how it is sent, and that it is never shown.

use std::fmt;

/// Beginnings of macaroons, Fly's current tokens (fly.md section 1, fly-go `tokens/tokens.go`).
const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];

/// A Fly API token. Reaches no log, no message and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token as people have it: with or without the scheme that `fly tokens create`
    /// prints before it. White space around it (the end of a key file's line) is dropped.
    pub fn new(text: impl AsRef<str>) -> Token {
        Token(text.as_ref().trim().to_owned())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the header `Authorization`.
    ///
    /// A value that brings its scheme is sent as it is; macaroons (several may be joined by
    /// commas) go as `FlyV1`, everything else as `Bearer`, as fly-go does it.
    pub fn authorization(&self) -> String {
        let token = &self.0;
        if token.starts_with("FlyV1 ") || token.starts_with("Bearer ") {
            return token.clone();
        }
        let macaroon = token
            .split(',')
            .any(|part| MACAROONS.iter().any(|start| part.trim().starts_with(start)));
        format!("{} {token}", if macaroon { "FlyV1" } else { "Bearer" })
    }

    /// The token itself, out of a header's value in any of the three forms that Fly takes:
    /// `Bearer X`, `FlyV1 X`, `Bearer FlyV1 X`. For whoever serves this API.
    pub fn from_authorization(header: &str) -> Option<Token> {
        let header = header.trim();
        let (scheme, rest) = header.split_once(' ')?;
        let rest = match scheme {
            "Bearer" | "bearer" => rest.trim().strip_prefix("FlyV1 ").unwrap_or(rest),
            "FlyV1" => rest,
            _ => return None,
        };
        Some(Token::new(rest)).filter(|token| !token.is_empty())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token_has_its_scheme() {
        for (token, header) in [
            ("opaque", "Bearer opaque"),
            ("fm2_abc", "FlyV1 fm2_abc"),
            ("fm1r_abc,fm2_def\n", "FlyV1 fm1r_abc,fm2_def"),
            ("fm1a_abc", "FlyV1 fm1a_abc"),
            ("other,fm2_def", "FlyV1 other,fm2_def"),
            ("FlyV1 fm2_abc", "FlyV1 fm2_abc"),
            ("Bearer FlyV1 fm2_abc", "Bearer FlyV1 fm2_abc"),
        ] {
            assert_eq!(Token::new(token).authorization(), header);
        }
    }

    #[test]
    fn all_three_forms_are_one_token() {
        for header in ["Bearer abc", "FlyV1 abc", "Bearer FlyV1 abc", "bearer  abc "] {
            assert_eq!(Token::from_authorization(header), Some(Token::new("abc")), "{header:?}");
        }
        for header in ["", "abc", "Bearer ", "Basic abc", "FlyV1"] {
            assert_eq!(Token::from_authorization(header), None, "{header:?}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Token::new("fm2_abc")), "Token(…)");
    }
}
