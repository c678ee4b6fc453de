//! What our rooms are called at Daily: chosen by us, so that a room's address is known before
//! anybody is asked, and it can be found again whatever was lost.

use callbox_core::SessionId;

/// Lower case and digits alone: nobody says whether Daily tells cases apart.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// 26 digits of 5 bits hold the 128 of an id.
const LENGTH: usize = 26;
/// So much of a deployment's id tells its rooms from others' in the same domain.
const LABEL: usize = 8;

/// The part of a deployment's id that its rooms' names have.
pub(super) fn label(deployment: &str) -> String {
    let legal = deployment.chars().filter(char::is_ascii_alphanumeric);
    legal.map(|c| c.to_ascii_lowercase()).take(LABEL).collect()
}

/// `cb-<label>-<id>`: at most 38 characters of `[a-z0-9-]`. Daily takes 128.
pub(super) fn name(label: &str, session: SessionId) -> String {
    let bits = session.0.as_u128();
    let digit = |n: usize| char::from(DIGITS[(bits >> (5 * (LENGTH - 1 - n)) & 31) as usize]);
    format!("cb-{label}-{}", (0..LENGTH).map(digit).collect::<String>())
}

/// Label and session of a room's name; none if it is not one of [`name`].
pub(super) fn of_name(text: &str) -> Option<(&str, SessionId)> {
    let (label, id) = text.strip_prefix("cb-")?.split_once('-')?;
    let mut bits: u128 = 0;
    for c in id.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == c)?;
        bits = bits.checked_mul(32)?.checked_add(digit as u128)?;
    }
    let session = SessionId(uuid::Uuid::from_u128(bits));
    (name(label, session) == text).then_some((label, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_room_it_is() {
        for id in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
            let session = SessionId::parse(id).expect("a uuid");
            let label = label("D-1a2b3c4d5e6f");
            let name = name(&label, session);
            assert_eq!((name.len(), of_name(&name)), (38, Some(("d1a2b3c4", session))));
        }
        for other in ["", "cb-", "cb-a-b", "pipecat-1a2b3c4d", "cb-d-AAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(of_name(other), None, "{other:?}");
        }
    }
}
