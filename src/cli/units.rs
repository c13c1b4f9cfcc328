//! Numbers as people read them. Three significant digits are enough for a look; machines take JSON.

/// A count with a decimal unit: `0`, `999`, `1.23k`, `45.6M`.
pub(super) fn count(value: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (value, unit) = scale(value, 1000.0, &UNITS);
    if unit.is_empty() {
        return format!("{value:.0}");
    }
    format!("{}{unit}", three_digits(value))
}

/// Bytes with a binary unit: `512 B`, `64 MiB`, `1.5 TiB`. Whole numbers stay whole.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (value, unit) = scale(lossy(value), 1024.0, &UNITS);
    if value.fract() == 0.0 {
        return format!("{value:.0} {unit}");
    }
    format!("{} {unit}", three_digits(value))
}

/// Bytes per second in MB (10⁶), the unit of SPDK's and fio's reports: `0`, `0.05`, `123`, `4567`.
pub(super) fn megabytes(bytes_per_second: f64) -> String {
    let value = bytes_per_second / 1e6;
    match value {
        0.0 => "0".to_owned(),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A duration with its unit: `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub(super) fn nanoseconds(value: f64) -> String {
    const UNITS: [&str; 4] = ["ns", "µs", "ms", "s"];
    let (value, unit) = scale(value, 1000.0, &UNITS);
    if unit == "ns" {
        return format!("{value:.0} ns");
    }
    format!("{} {unit}", three_digits(value))
}

/// Time since a start: `42s`, `3m07s`, `5h12m`, `12d03h`.
pub(super) fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A share as a percentage: `0.0`, `12.3`, `100`.
pub(super) fn percent(part: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return "-".to_owned();
    }
    let value = (100.0 * part / whole).clamp(0.0, 100.0);
    if value >= 99.95 {
        return "100".to_owned();
    }
    format!("{value:.1}")
}

/// For ratios and rates, where 53 bits are plenty.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn lossy(value: u64) -> f64 {
    value as f64
}

/// The largest unit in which the value, rounded to three digits, is less than the next one.
fn scale<'a>(mut value: f64, step: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut units = units.iter().copied().peekable();
    let mut unit = units.next().unwrap_or_default();
    // 999.5 would be printed as 1000.
    while value >= step - 0.5
        && let Some(next) = units.next()
    {
        value /= step;
        unit = next;
    }
    (value, unit)
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A number that people write with a decimal unit: `10k`, `2.5M`; `none` and `off` are 0.
///
/// # Errors
/// What to write instead.
pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    if ["none", "off"].contains(&text) {
        return Ok(0);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err(format!("unknown unit {unit}: give k, M or G")),
    };
    let wrong = || "give a number such as 500, 10k or 1.5M, or `none`".to_owned();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = u32::try_from(fraction.len()).map_err(|_| wrong())?;
    let number = |text: &str| match text {
        "" => Ok(0),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    };
    if digits.is_empty() || digits == "." {
        return Err(wrong());
    }
    let (whole, part): (u64, u64) = (number(whole)?, number(fraction)?);
    let scaled = || {
        let part = part.checked_mul(factor)? / 10_u64.checked_pow(places)?;
        whole.checked_mul(factor)?.checked_add(part)
    };
    scaled().ok_or_else(|| format!("{text} is too large"))
}

/// A time that people write with its unit, in milliseconds: `500ms`, `2s`, `1.5s`; `none` and `off` are 0.
///
/// # Errors
/// What to write instead.
pub(super) fn parse_milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || "give a time such as 500ms or 2s, or `none`".to_owned();
    if let Some(digits) = text.strip_suffix("ms") {
        return digits.parse().map_err(|_| wrong());
    }
    match text.strip_suffix('s') {
        // A thousand times as many milliseconds.
        Some(seconds) => parse_count(&format!("{seconds}k")).map_err(|_| wrong()),
        None => match parse_count(text) {
            Ok(0) => Ok(0),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests;
