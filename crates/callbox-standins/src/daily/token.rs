//! Meeting tokens: made by us, or signed by others with the API key.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// Unix seconds.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn signature(key: &str, signed: &str) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac
}

/// A token with these claims.
pub(super) fn sign(key: &str, claims: &Value) -> String {
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let tag = URL_SAFE_NO_PAD.encode(signature(key, &signed).finalize().into_bytes());
    format!("{signed}.{tag}")
}

/// The claims of a token that opens this room now; else what its holder is told.
pub(super) fn check(key: &str, domain_id: &str, room: &str, token: &str) -> Result<Value, String> {
    let wrong = |why: &str| format!("the meeting token is not valid: {why}");
    let (signed, tag) = token.rsplit_once('.').ok_or_else(|| wrong("it is none"))?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| wrong("its signature is none"))?;
    signature(key, signed).verify_slice(&tag).map_err(|_| wrong("its signature is wrong"))?;
    let claims = signed.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .ok_or_else(|| wrong("its claims are none"))?;
    if claims["d"] != domain_id || claims.get("iat").is_none() {
        return Err(wrong("it is another domain's"));
    }
    if claims.get("r").is_some_and(|named| named != room) {
        return Err(wrong("it is another room's"));
    }
    if claims["exp"].as_f64().is_some_and(|exp| exp <= now()) {
        return Err(wrong("it has expired"));
    }
    if claims["nbf"].as_f64().is_some_and(|nbf| nbf > now()) {
        return Err(wrong("it is not valid yet"));
    }
    Ok(claims)
}
