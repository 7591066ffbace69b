//! Numbers as people write them: 40k, 1.5m.

/// The largest count: whole numbers are exact in double precision up to here.
const MAX_COUNT: f64 = (1_u64 << 53) as f64;

/// A count: `1000`, `40k`, `1.5m`.
pub fn count(text: &str) -> Result<usize, String> {
    let value = amount(text)?;
    match value {
        v if v > MAX_COUNT => Err(format!("{text} is more than {MAX_COUNT}")),
        v if v.fract() != 0.0 => Err(format!("{text} is not a whole number")),
        v => Ok(v as usize),
    }
}

/// A number of bytes: `1000000`, `500M`, `4G`, also `MiB` and `GiB`; letters stand for powers of 1,024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes such as 2000000000, 500M or 4G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let value = digits.trim().parse::<f64>().map_err(|_| wrong())? * f64::from(unit).exp2();
    match (1.0..=MAX_COUNT).contains(&value) {
        true => Ok(value as u64),
        false => Err(wrong()),
    }
}

/// A non-negative number, whole or not: `2.5`, `40k`, `1.5m`.
pub fn amount(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a number such as 1000, 40k or 1.5m");
    let (digits, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let value = digits.parse::<f64>().map_err(|_| wrong())? * scale;
    // 1.1k is 1100, not 1100.0000000000002.
    let whole = value.round();
    let value = if (value - whole).abs() < 1e-9 * value.abs() { whole } else { value };
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err(wrong()),
    }
}

/// A share: `0.01`, `1%`.
pub fn share(text: &str) -> Result<f64, String> {
    let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    let share = digits.trim().parse::<f64>().map(|number| number / unit);
    let share = share.ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share from 0 to 1 or 0% to 100%"))
}

/// Seconds of `90s`, `10m`, `1.5h`.
pub fn seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 10m or 2h");
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0)];
    let unit = units.iter().find_map(|&(unit, s)| Some((text.strip_suffix(unit)?, s)));
    let (number, unit) = unit.ok_or_else(wrong)?;
    match amount(number).map_err(|_| wrong())? * unit {
        s if (1.0..=1e9).contains(&s) => Ok(s),
        _ => Err(format!("{text} is outside 1s to 277777h")),
    }
}

/// Pixels along a side: `32`, or `32x32` as EDM's data set tool takes it.
pub fn side(text: &str) -> Result<usize, String> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    match (width.parse(), height.parse::<usize>()) {
        (Ok(width), Ok(height)) if width == height => Ok(width),
        (Ok(_), Ok(_)) => Err(format!("{text}: images are square, expected one number")),
        (Err(e), _) | (_, Err(e)) => Err(e.to_string()),
    }
}

/// Words for yes and no, as EDM's command line takes them in any case.
pub const YES: [&str; 6] = ["1", "true", "t", "yes", "y", "on"];
pub const NO: [&str; 6] = ["0", "false", "f", "no", "n", "off"];

/// A switch as EDM's command line takes it.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        word if YES.contains(&word) => Ok(true),
        word if NO.contains(&word) => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count("40k"), Ok(40_000));
        assert_eq!(count("1.1k"), Ok(1100));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        for bad in ["", "k", "-1", "1.5", "nan", "inf", "1e400", "4x", "é"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert_eq!(amount("2.5"), Ok(2.5));
        assert_eq!(count("9000000000000000"), Ok(9_000_000_000_000_000));
        assert_eq!(count("9007199254740992"), Ok(1 << 53));
        for large in ["9007199254740994", "99999999999999999999", "1e300"] {
            assert!(count(large).unwrap_err().contains("is more than 9007199254740992"), "{large}");
        }
        for (text, value) in [("1", 1), ("500M", 500 << 20), ("1.5GiB", 3 << 29), ("4 g", 4 << 30)]
        {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for (text, value) in
            [("0.01", 0.01), ("1%", 0.01), ("100 %", 1.0), ("0", 0.0), ("1e-3", 1e-3)]
        {
            assert_eq!(share(text), Ok(value), "{text}");
        }
        for bad in ["", "%", "-1%", "1.01", "101%", "nan", "inf", "1k", "é"] {
            assert!(share(bad).is_err(), "{bad}");
        }
        for bad in ["", "G", "0", "-1", "nan", "inf", "4x", "1e30", "é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
