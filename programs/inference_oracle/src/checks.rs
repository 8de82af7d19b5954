//! Questions about text and bytes that several instructions ask.

/// Characters a person can read in a list: letters, digits, punctuation and the space.
pub fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (0x20..=0x7e).contains(byte))
}

/// `scheme` and at least one more character, all visible ASCII: a URI has no spaces.
pub fn is_uri(text: &str, scheme: &str) -> bool {
    text.len() > scheme.len() && text.starts_with(scheme) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    solana_sha256_hasher::hash(bytes).to_bytes()
}
