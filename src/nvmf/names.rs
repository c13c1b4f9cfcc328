//! NQNs and other names that a guest sees.

use uuid::Uuid;

/// Longest NQN in bytes (NVM Express Base 2.0, section 4.5).
const MAX_NQN: usize = 223;

/// Checks an NQN (NVM Express Base 2.0, section 4.5: a date, a domain in reverse, a colon, a name; or a UUID).
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_nqn(nqn: &str) -> Result<(), String> {
    let hint = "give one such as nqn.2026-11.io.example:disk0";
    if nqn.len() > MAX_NQN {
        return Err(format!(
            "the NQN has {} bytes, but at most {MAX_NQN} are allowed",
            nqn.len()
        ));
    }
    if nqn == super::DISCOVERY_NQN {
        return Err("this NQN belongs to the discovery subsystem".to_owned());
    }
    if let Some(uuid) = nqn.strip_prefix("nqn.2014-08.org.nvmexpress:uuid:") {
        return parse_uuid(uuid)
            .map(drop)
            .ok_or_else(|| format!("`{uuid}` is no UUID"));
    }
    let rest = nqn
        .strip_prefix("nqn.")
        .ok_or_else(|| format!("`{nqn}` does not begin with `nqn.`: {hint}"))?;
    let (naming, name) = rest
        .split_once(':')
        .ok_or_else(|| format!("`{nqn}` has no name after a colon: {hint}"))?;
    let (date, domain) = naming.split_once('.').unwrap_or((naming, ""));
    if !is_date(date) {
        return Err(format!("`{date}` in `{nqn}` is no year and month: {hint}"));
    }
    if !domain.split('.').all(is_label) {
        return Err(format!(
            "`{domain}` in `{nqn}` is no domain in reverse: {hint}"
        ));
    }
    if name.is_empty() {
        return Err(format!("`{nqn}` has no name after the colon: {hint}"));
    }
    Ok(())
}

fn is_date(date: &str) -> bool {
    let Some((year, month)) = date.split_once('-') else {
        return false;
    };
    let digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    digits(year, 4) && digits(month, 2) && matches!(month.parse(), Ok(1..=12u8))
}

/// A part of a domain name (RFC 1034, section 3.5).
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Checks a text that Identify shows in a field of this many bytes: printable ASCII.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_text(what: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!(
            "{what} has {} characters, but at most {longest} are allowed",
            text.len()
        ));
    }
    if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(format!("{what} must be printable ASCII"));
    }
    Ok(())
}

/// A UUID in its canonical text, the only one SPDK takes.
pub(crate) fn parse_uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

/// Numbers written in hexadecimal.
pub(crate) mod hex {
    /// Exactly `N` bytes, as SPDK writes NGUIDs: digits only.
    pub(crate) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
        if text.len() != N * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; N];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(bytes)
    }

    /// Capital digits, as SPDK prints them.
    pub(crate) fn print(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

#[cfg(test)]
mod tests;
