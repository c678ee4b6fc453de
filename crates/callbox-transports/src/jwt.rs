//! Signing tokens as vendors check them: JSON Web Tokens with HS256.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// The token with these claims, signed with this key. The same claims have the same token.
pub(crate) fn sign(claims: &impl Serialize, key: &[u8]) -> String {
    sign_text(&serde_json::to_string(claims).expect("texts, numbers and booleans"), key)
}

/// What the signature of a token's first two parts is made and checked with.
pub(crate) fn mac(signed: &str, key: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac
}

fn sign_text(claims: &str, key: &[u8]) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac(&signed, key).finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_one_that_others_make() {
        let claims = r#"{"r":"pipecat-ab12","d":"11111111-2222-3333-4444-555555555555","iat":1700000000,"exp":1700003600,"o":true,"u":"Bot"}"#;
        assert_eq!(
            sign_text(claims, b"daily-api-key"),
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyIjoicGlwZWNhdC1hYjEyIiwiZCI6IjExMTExMTExLTIyMjItMzMzMy00NDQ0LTU1NTU1NTU1NTU1NSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwLCJvIjp0cnVlLCJ1IjoiQm90In0.b-c_2v_s6px60NmxEv_TCfzlzaiT-peCHw2YVrIppHw"
        );
    }
}
