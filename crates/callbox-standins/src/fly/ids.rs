//! Ids and names as Fly makes them, from a seed.

use std::net::Ipv6Addr;

use fastrand::Rng;
use jiff::Timestamp;

/// Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A ULID: 26 characters, sorted by time.
pub fn ulid(now: Timestamp, rng: &mut Rng) -> String {
    let millis = u128::try_from(now.as_millisecond()).unwrap_or_default() & ((1 << 48) - 1);
    let value = (millis << 80) | (rng.u128(..) >> 48);
    (0..26).rev().map(|place| char::from(DIGITS[(value >> (place * 5)) as usize & 31])).collect()
}

/// A machine's id: 14 hexadecimal digits.
pub fn machine(rng: &mut Rng) -> String {
    format!("{:014x}", rng.u64(..1 << 56))
}

/// A machine's name, where the request has none: `aged-thunder-7371`.
pub fn name(rng: &mut Rng) -> String {
    const FIRST: [&str; 8] = ["aged", "bold", "cool", "dark", "late", "long", "solitary", "wild"];
    const SECOND: [&str; 8] =
        ["thunder", "river", "field", "glade", "moon", "night", "shape", "wave"];
    let (first, second) = (FIRST[rng.usize(..8)], SECOND[rng.usize(..8)]);
    format!("{first}-{second}-{}", rng.u32(1000..10_000))
}

/// An address in the organisation's private network.
pub fn address(rng: &mut Rng) -> String {
    let mut part = || rng.u16(..);
    let (a, b, c, d) = (part(), part(), part(), part());
    Ipv6Addr::new(0xfdaa, 0, 0, 0xa7b, a, b, c, d).to_string()
}

/// A nonce, a token: what nobody guesses from a seed that is random itself.
pub fn secret(rng: &mut Rng) -> String {
    format!("{:032x}", rng.u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_flys() {
        let mut rng = Rng::with_seed(1);
        let early = ulid(Timestamp::from_second(1_700_000_000).expect("in range"), &mut rng);
        let late = ulid(Timestamp::from_second(1_700_000_001).expect("in range"), &mut rng);
        assert_eq!((early.len(), late.len()), (26, 26));
        assert!(early < late && early.starts_with("01H"), "{early} {late}");
        assert_eq!(machine(&mut rng).len(), 14);
        assert!(address(&mut rng).starts_with("fdaa:"));
    }
}
