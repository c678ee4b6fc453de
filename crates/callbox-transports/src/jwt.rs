//! Signing tokens as vendors check them: JSON Web Tokens with HS256.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// The token with these claims, signed with this key.
pub(crate) fn sign(claims: &Value, key: &[u8]) -> String {
    sign_text(&claims.to_string(), key)
}

fn sign_text(claims: &str, key: &[u8]) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
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
